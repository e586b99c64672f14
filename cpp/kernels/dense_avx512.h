// What the two AVX-512 sets have in common. Included by kernels_avx512vnni.cpp and kernels_amx.cpp,
// which say to how many bytes an output's inputs are padded: `packed_inputs`.
//
// vpdpbusd multiplies unsigned by signed bytes, four a lane, and adds them in int32. A quantized row
// is q + 128, and each output's sum is put right by 128 times the sum of its weights, which are
// packed as
//
//     [n / 16][k / 4][16 outputs][4] int8, then [n padded to 16] int32: 128 * sum of weights
//
// Six rows meet 64 outputs (four panels) in 24 registers.
#pragma once

#include "kernels.h"

#include "lanes_avx512.h"

namespace {

constexpr size_t kRowsI8 = 6, kPanelsI8 = 4, kRowsF32 = 12;

size_t packed_i8_bytes(size_t n, size_t k) {
    return edge_wm::kernels::padded(n) * (packed_inputs(k) + 4);
}

void pack_i8(const int8_t *weight, size_t n, size_t k, void *packed) {
    int8_t *out = (int8_t *)packed;
    const size_t outputs = edge_wm::kernels::padded(n);
    int32_t *sums = (int32_t *)(out + outputs * packed_inputs(k));
    for (size_t p = 0; p < outputs; p += 16) {
        for (size_t c = 0; c < packed_inputs(k); c += 4) {
            for (size_t i = p; i < p + 16; ++i) {
                for (size_t j = c; j < c + 4; ++j) {
                    *out++ = i < n && j < k ? weight[i * k + j] : (int8_t)0;
                }
            }
        }
    }
    for (size_t i = 0; i < outputs; ++i) {
        int32_t sum = 0;
        for (size_t j = 0; i < n && j < k; ++j) sum += weight[i * k + j];
        sums[i] = 128 * sum;
    }
}

// Sixteen numbers at a time, as q + 128; past `count` the weights are 0.
void write_quantized(const float *x, size_t count, float scale, bool zero, char *q) {
    const __m512 factor = _mm512_set1_ps(scale);
    const __m512i offset = _mm512_set1_epi32(128);
    for (size_t at = 0; at < count; at += 16) {
        const M16 valid = first(zero ? 0 : count - at);
        const __m512i value =
            _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(valid, x + at), factor));
        _mm_storeu_si128((__m128i *)(q + at),
                         _mm512_cvtepi32_epi8(_mm512_add_epi32(value, offset)));
    }
}

template <int Rows, typename Dense>
void tile_i8(const Dense &d, size_t row, size_t panel, size_t together);
template <int Rows, typename Dense>
void tile_f32(const Dense &d, size_t row, size_t panel);

}  // namespace

#include "kernels_body.h"

namespace {

// acc += four products a lane. Not by the intrinsic, around which gcc 12 copies the accumulators
// and stores each of them in every round: TD-MPC2's plan took 188 ms instead of 117 (Zen 4 at
// 232 GMAC/s, November 2026).
inline void dot4(__m512i &acc, __m512i x, __m512i w) {
#ifdef __AVX512VNNI__
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w));
#else
    acc = _mm512_dpbusd_epi32(acc, x, w);
#endif
}

inline __m512i four_at(const char *x, size_t c) {
    int32_t four;
    memcpy(&four, x + c, 4);
    return _mm512_set1_epi32(four);
}

#define ROW_I8(r)                                         \
    if constexpr (Rows > r) {                             \
        const __m512i x = four_at(x0 + r * d.x_bytes, c); \
        dot4(a##r, x, w0);                                \
        if constexpr (Panels > 1) dot4(b##r, x, w1);      \
        if constexpr (Panels > 2) dot4(c##r, x, w2);      \
        if constexpr (Panels > 3) dot4(e##r, x, w3);      \
    }
// `to`: what takes the sixteen sums as float32.
#define SCALED_I8(r, acc, p, to)                                                              \
    if constexpr (Rows > r && Panels > p) {                                                   \
        const __m512i sum = _mm512_sub_epi32(acc##r, _mm512_loadu_si512(offsets + p * 16));   \
        const F16 factor = mul(splat(d.x_scale[row + r]), load(scale + p * 16));              \
        to(r, p, mul(_mm512_cvtepi32_ps(sum), factor));                                       \
    }
#define KEEP(r, p, y) store(sums + (p * Rows + r) * kLanes, y)
#define WRITE(r, p, y) direct(d, y, row + r, panel + p)
#define SUM_I8(r, acc, p) SCALED_I8(r, acc, p, KEEP)
#define DIRECT_I8(r, acc, p) SCALED_I8(r, acc, p, WRITE)
#define DIRECTS_I8(r) DIRECT_I8(r, a, 0) DIRECT_I8(r, b, 1) DIRECT_I8(r, c, 2) DIRECT_I8(r, e, 3)
#define SUMS_I8(r) SUM_I8(r, a, 0) SUM_I8(r, b, 1) SUM_I8(r, c, 2) SUM_I8(r, e, 3)

template <int Rows, int Panels, typename Dense>
void block_i8(const Dense &d, size_t row, size_t panel) {
    const size_t k = packed_inputs(d.k);
    const char *x0 = (const char *)d.x + row * d.x_bytes;
    const char *w = (const char *)d.weight + panel * k * 16;
    const int32_t *offsets =
        (const int32_t *)((const char *)d.weight + edge_wm::kernels::padded(d.n) * k) + panel * 16;
    const float *scale = d.scale + panel * 16;
    const __m512i zero = _mm512_setzero_si512();
    __m512i a0 = zero, a1 = zero, a2 = zero, a3 = zero, a4 = zero, a5 = zero;
    __m512i b0 = zero, b1 = zero, b2 = zero, b3 = zero, b4 = zero, b5 = zero;
    __m512i c0 = zero, c1 = zero, c2 = zero, c3 = zero, c4 = zero, c5 = zero;
    __m512i e0 = zero, e1 = zero, e2 = zero, e3 = zero, e4 = zero, e5 = zero;
    for (size_t c = 0; c < k; c += 4, w += 64) {
        const __m512i w0 = _mm512_loadu_si512(w);
        const __m512i w1 = Panels > 1 ? _mm512_loadu_si512(w + k * 16) : zero;
        const __m512i w2 = Panels > 2 ? _mm512_loadu_si512(w + 2 * k * 16) : zero;
        const __m512i w3 = Panels > 3 ? _mm512_loadu_si512(w + 3 * k * 16) : zero;
        ROW_I8(0) ROW_I8(1) ROW_I8(2) ROW_I8(3) ROW_I8(4) ROW_I8(5)
        (void)w1, (void)w2, (void)w3;
    }
    if (is_direct(d, panel + Panels - 1)) {
        DIRECTS_I8(0) DIRECTS_I8(1) DIRECTS_I8(2) DIRECTS_I8(3) DIRECTS_I8(4) DIRECTS_I8(5)
        return;
    }
    float sums[Rows * Panels * kLanes];
    SUMS_I8(0) SUMS_I8(1) SUMS_I8(2) SUMS_I8(3) SUMS_I8(4) SUMS_I8(5)
    for (size_t p = 0; p < Panels; ++p) finish(d, sums + p * Rows * kLanes, Rows, row, panel + p);
}

template <int Rows, typename Dense>
void tile_i8(const Dense &d, size_t row, size_t panel, size_t together) {
    switch (together) {
        case 4: block_i8<Rows, 4>(d, row, panel); return;
        case 3: block_i8<Rows, 3>(d, row, panel); return;
        case 2: block_i8<Rows, 2>(d, row, panel); return;
        default: block_i8<Rows, 1>(d, row, panel);
    }
}

#define ROW_F32(r) \
    if constexpr (Rows > r) y##r = _mm512_fmadd_ps(splat(x0[r * d.x_stride + c]), w0, y##r);
#define SUM_F32(r) \
    if constexpr (Rows > r) store(sums + r * kLanes, y##r);
#define DIRECT_F32(r) \
    if constexpr (Rows > r) direct(d, y##r, row + r, panel);

template <int Rows, typename Dense>
void tile_f32(const Dense &d, size_t row, size_t panel) {
    const float *x0 = d.x + row * d.x_stride;
    const float *w = d.weight + panel * kLanes * d.k;
    const __m512 zero = _mm512_setzero_ps();
    __m512 y0 = zero, y1 = zero, y2 = zero, y3 = zero, y4 = zero, y5 = zero;
    __m512 y6 = zero, y7 = zero, y8 = zero, y9 = zero, y10 = zero, y11 = zero;
    for (size_t c = 0; c < d.k; ++c, w += kLanes) {
        const __m512 w0 = _mm512_loadu_ps(w);
        ROW_F32(0) ROW_F32(1) ROW_F32(2) ROW_F32(3) ROW_F32(4) ROW_F32(5)
        ROW_F32(6) ROW_F32(7) ROW_F32(8) ROW_F32(9) ROW_F32(10) ROW_F32(11)
    }
    if (is_direct(d, panel)) {
        DIRECT_F32(0) DIRECT_F32(1) DIRECT_F32(2) DIRECT_F32(3) DIRECT_F32(4) DIRECT_F32(5)
        DIRECT_F32(6) DIRECT_F32(7) DIRECT_F32(8) DIRECT_F32(9) DIRECT_F32(10) DIRECT_F32(11)
        return;
    }
    float sums[Rows * kLanes];
    SUM_F32(0) SUM_F32(1) SUM_F32(2) SUM_F32(3) SUM_F32(4) SUM_F32(5)
    SUM_F32(6) SUM_F32(7) SUM_F32(8) SUM_F32(9) SUM_F32(10) SUM_F32(11)
    finish(d, sums, Rows, row, panel);
}

}  // namespace
