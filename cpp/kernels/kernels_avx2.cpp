// Kernels for x86 with AVX2 and FMA.
//
// int8 products go through int16: _mm256_madd_epi16 multiplies pairs and adds them in int32, which
// is exact. (The int8 instruction _mm256_maddubs_epi16 takes as many slots on the multiplying ports
// once its saturation is worked around.) A quantized row is int16, weights are packed as int8
//
//     [n / 16][k / 2][16 outputs][2]
//
// so that one 32-bit broadcast of a row meets 8 outputs a register. Many rows read a panel that was
// made int16 once, in the first-level cache; a few rows widen it as they go, which reads half the
// memory.
#include "kernels.h"

#include "lanes_avx2.h"

namespace {

constexpr size_t kRowsF32 = 6;

size_t packed_i8_bytes(size_t n, size_t k) {
    return edge_wm::kernels::padded(n) * edge_wm::kernels::padded(k, 2);
}

void pack_i8(const int8_t *weight, size_t n, size_t k, void *packed) {
    int8_t *out = (int8_t *)packed;
    for (size_t p = 0; p < edge_wm::kernels::padded(n); p += 16) {
        for (size_t c = 0; c < k; c += 2) {
            for (size_t i = p; i < p + 16; ++i) {
                for (size_t j = c; j < c + 2; ++j) {
                    *out++ = i < n && j < k ? weight[i * k + j] : (int8_t)0;
                }
            }
        }
    }
}

// Sixteen numbers at a time into int16; what lies past `count` in the last block of the row (rows
// are padded to kLanes) is set to 0.
void write_quantized(const float *x, size_t count, float scale, bool zero, char *q) {
    const __m256 factor = _mm256_set1_ps(scale);
    for (size_t at = 0; at < count; at += 16) {
        const M16 valid = first(zero ? 0 : count - at);
        const __m256i low = _mm256_cvtps_epi32(
            _mm256_mul_ps(_mm256_and_ps(_mm256_loadu_ps(x + at), valid.a), factor));
        const __m256i high = _mm256_cvtps_epi32(
            _mm256_mul_ps(_mm256_and_ps(_mm256_loadu_ps(x + at + 8), valid.b), factor));
        const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
        _mm256_storeu_si256((__m256i *)(q + 2 * at), both);
    }
}

template <int Rows, typename Dense>
void tile_f32(const Dense &d, size_t row, size_t panel);

}  // namespace

#define EDGE_WM_OWN_DENSE_I8  // blocked_i8 below
#include "kernels_body.h"

namespace {

inline __m256i pair_at(const char *x, size_t c) {
    int32_t two;
    memcpy(&two, x + 2 * c, 4);
    return _mm256_set1_epi32(two);
}

inline F16 scaled(__m256i low, __m256i high, float x_scale, const float *scale) {
    const F16 factor = mul(splat(x_scale), load(scale));
    return mul(F16{_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)}, factor);
}

// Rows x 16 outputs in 2 Rows registers. The accumulators have names because gcc 12 keeps an array
// of them in memory; KEEP holds the rows apart, because it would load all of them first and then
// have no register left for the sums: 46 GMAC/s without it, 70 with it, of a peak of 80
// (AMD Zen 3, 2.5 GHz, November 2026).
#define KEEP(r) __asm__ volatile("" : "+x"(low##r), "+x"(high##r))
#define ROW_I8(r)                                                      \
    if constexpr (Rows > r) {                                          \
        const __m256i x = pair_at(x0 + r * d.x_bytes, c);              \
        low##r = _mm256_add_epi32(low##r, _mm256_madd_epi16(x, w0));   \
        high##r = _mm256_add_epi32(high##r, _mm256_madd_epi16(x, w1)); \
        KEEP(r);                                                       \
    }
// Some of the inputs of a panel: sums of those before are in `sums` (Rows x 16 int32, null at the
// beginning), and go there again unless these are the last.
struct Inputs {
    size_t from, end;
    const void *weight;  // of these inputs: int16 where they were widened, else int8
    int32_t *sums;
    bool last;
};

inline __m256i widened(const __m256i *w, size_t i) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w + i));
}

#define TAKE_I8(r)                                                                       \
    if constexpr (Rows > r) {                                                            \
        low##r = _mm256_loadu_si256((const __m256i *)(inputs.sums + r * kLanes));        \
        high##r = _mm256_loadu_si256((const __m256i *)(inputs.sums + r * kLanes + 8));   \
    }
#define LEAVE_I8(r)                                                                      \
    if constexpr (Rows > r) {                                                            \
        _mm256_storeu_si256((__m256i *)(inputs.sums + r * kLanes), low##r);              \
        _mm256_storeu_si256((__m256i *)(inputs.sums + r * kLanes + 8), high##r);         \
    }
#define SCALED_I8(r) scaled(low##r, high##r, d.x_scale[row + r], scale)
#define DIRECT_I8(r) \
    if constexpr (Rows > r) direct(d, SCALED_I8(r), row + r, panel);
#define SUM_I8(r) \
    if constexpr (Rows > r) store(sums + r * kLanes, SCALED_I8(r));

template <int Rows, bool Wide>
void rows_i8(const k::DenseI8 &d, size_t row, size_t panel, const Inputs &inputs) {
    const char *x0 = (const char *)d.x + row * d.x_bytes;
    const __m256i *w = (const __m256i *)inputs.weight;
    const __m256i zero = _mm256_setzero_si256();
    __m256i low0 = zero, low1 = zero, low2 = zero, low3 = zero, low4 = zero, low5 = zero;
    __m256i high0 = zero, high1 = zero, high2 = zero, high3 = zero, high4 = zero, high5 = zero;
    if (inputs.from) {
        TAKE_I8(0) TAKE_I8(1) TAKE_I8(2) TAKE_I8(3) TAKE_I8(4) TAKE_I8(5)
    }
    for (size_t c = inputs.from; c < inputs.end; c += 2, w += Wide ? 2 : 1) {
        const __m256i w0 = Wide ? _mm256_loadu_si256(w) : widened(w, 0);
        const __m256i w1 = Wide ? _mm256_loadu_si256(w + 1) : widened(w, 1);
        ROW_I8(0) ROW_I8(1) ROW_I8(2) ROW_I8(3) ROW_I8(4) ROW_I8(5)
    }
    if (!inputs.last) {
        LEAVE_I8(0) LEAVE_I8(1) LEAVE_I8(2) LEAVE_I8(3) LEAVE_I8(4) LEAVE_I8(5)
        return;
    }
    const float *scale = d.scale + panel * kLanes;
    if (is_direct(d, panel)) {
        DIRECT_I8(0) DIRECT_I8(1) DIRECT_I8(2) DIRECT_I8(3) DIRECT_I8(4) DIRECT_I8(5)
        return;
    }
    float sums[Rows * kLanes];
    SUM_I8(0) SUM_I8(1) SUM_I8(2) SUM_I8(3) SUM_I8(4) SUM_I8(5)
    finish(d, sums, Rows, row, panel);
}

// A panel's weights of kInputs inputs (16 KiB as int16) and six rows of as many stay in a first-level
// cache of 32 KiB, and kSomeRows rows of 1024 inputs in the second level's 512. From kManyRows on
// widening a panel once costs less than doing it for every six.
constexpr size_t kInputs = 512, kSomeRows = 96, kManyRows = 12;

template <bool Wide>
void panel_i8(const k::DenseI8 &d, size_t begin, size_t end, size_t panel, Inputs inputs) {
    size_t r = begin;
    const auto next = [&](size_t rows) {
        r += rows;
        inputs.sums += rows * kLanes;
    };
    for (; r + 6 <= end; next(6)) rows_i8<6, Wide>(d, r, panel, inputs);
    if (r + 4 <= end) rows_i8<4, Wide>(d, r, panel, inputs), next(4);
    if (r + 2 <= end) rows_i8<2, Wide>(d, r, panel, inputs), next(2);
    if (r < end) rows_i8<1, Wide>(d, r, panel, inputs);
}

void blocked_i8(const k::DenseI8 &d) {
    const size_t k = k::padded(d.k, 2);
    __m256i wide[kInputs];
    int32_t sums[kSomeRows * kLanes];
    for (size_t begin = 0; begin < d.rows; begin += kSomeRows) {
        const size_t end = d.rows - begin < kSomeRows ? d.rows : begin + kSomeRows;
        for (size_t p = d.panel; p < d.panel + d.panels; ++p) {
            for (size_t from = 0; from < k; from += kInputs) {
                const bool last = k - from <= kInputs;
                const size_t until = last ? k : from + kInputs;
                const __m256i *w = (const __m256i *)((const char *)d.weight + (p * k + from) * 16);
                if (end - begin < kManyRows) {
                    panel_i8<false>(d, begin, end, p, {from, until, w, sums, last});
                    continue;
                }
                for (size_t i = 0; i < until - from; ++i) wide[i] = widened(w, i);
                panel_i8<true>(d, begin, end, p, {from, until, wide, sums, last});
            }
        }
    }
}

#define ROW_F32(r)                                                     \
    if constexpr (Rows > r) {                                          \
        const __m256 x = _mm256_broadcast_ss(x0 + r * d.x_stride + c); \
        low##r = _mm256_fmadd_ps(x, w0, low##r);                       \
        high##r = _mm256_fmadd_ps(x, w1, high##r);                     \
        KEEP(r);                                                       \
    }
#define DIRECT_F32(r) \
    if constexpr (Rows > r) direct(d, F16{low##r, high##r}, row + r, panel);
#define SUM_F32(r) \
    if constexpr (Rows > r) store(sums + r * kLanes, F16{low##r, high##r});

template <int Rows, typename Dense>
void tile_f32(const Dense &d, size_t row, size_t panel) {
    const float *x0 = d.x + row * d.x_stride;
    const float *w = d.weight + panel * kLanes * d.k;
    const __m256 zero = _mm256_setzero_ps();
    __m256 low0 = zero, low1 = zero, low2 = zero, low3 = zero, low4 = zero, low5 = zero;
    __m256 high0 = zero, high1 = zero, high2 = zero, high3 = zero, high4 = zero, high5 = zero;
    for (size_t c = 0; c < d.k; ++c, w += kLanes) {
        const __m256 w0 = _mm256_loadu_ps(w), w1 = _mm256_loadu_ps(w + 8);
        ROW_F32(0) ROW_F32(1) ROW_F32(2) ROW_F32(3) ROW_F32(4) ROW_F32(5)
    }
    if (is_direct(d, panel)) {
        DIRECT_F32(0) DIRECT_F32(1) DIRECT_F32(2) DIRECT_F32(3) DIRECT_F32(4) DIRECT_F32(5)
        return;
    }
    float sums[Rows * kLanes];
    SUM_F32(0) SUM_F32(1) SUM_F32(2) SUM_F32(3) SUM_F32(4) SUM_F32(5)
    finish(d, sums, Rows, row, panel);
}

double peak_i8(size_t rounds) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i a0 = zero, a1 = zero, a2 = zero, a3 = zero, a4 = zero, a5 = zero, a6 = zero, a7 = zero;
    __m256i x = _mm256_set1_epi16(1), w = _mm256_set1_epi16(2);
#define STEP(r) a##r = _mm256_add_epi32(a##r, _mm256_madd_epi16(x, w));
    for (size_t i = 0; i < rounds; ++i) {
        STEP(0) __asm__ volatile("" : "+x"(x), "+x"(w));
        STEP(1) __asm__ volatile("" : "+x"(x), "+x"(w));
        STEP(2) __asm__ volatile("" : "+x"(x), "+x"(w));
        STEP(3) __asm__ volatile("" : "+x"(x), "+x"(w));
        STEP(4) __asm__ volatile("" : "+x"(x), "+x"(w));
        STEP(5) __asm__ volatile("" : "+x"(x), "+x"(w));
        STEP(6) __asm__ volatile("" : "+x"(x), "+x"(w));
        STEP(7) __asm__ volatile("" : "+x"(x), "+x"(w));
    }
#undef STEP
    __asm__ volatile("" : : "x"(a0), "x"(a1), "x"(a2), "x"(a3), "x"(a4), "x"(a5), "x"(a6), "x"(a7));
    return (double)rounds * 8 * 16;
}

}  // namespace

namespace edge_wm::kernels {

extern const Kernels kAvx2;
const Kernels kAvx2 = {
    "avx2",   2,        16,        6,        packed_i8_bytes, pack_i8, quantize, blocked_i8, dense_f32,
    add_row,  norm,     softmax,   attention,       lstm,    gru,      fold,     unary,
    binary, select,   peak_i8,
};

}  // namespace edge_wm::kernels
