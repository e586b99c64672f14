// Kernels for ARMv8.6 with SMMLA (Neoverse V1, N2, V3AE: server cores and Jetson Thor).
//
// smmla multiplies eight signed bytes of two rows by eight of two outputs: 2 x 2 sums in int32.
// Weights are packed as
//
//     [n / 16][k / 8][16 outputs][8] int8
//
// and a quantized row is int8, padded with zeros to 16. Rows are taken in pairs; the last of an odd
// number is paired with itself.
#include "kernels.h"

#include "lanes_neon.h"

namespace {

constexpr size_t kRowsI8 = 6, kPanelsI8 = 1, kRowsF32 = 6;

size_t packed_i8_bytes(size_t n, size_t k) {
    return edge_wm::kernels::padded(n) * edge_wm::kernels::padded(k, 8);
}

void pack_i8(const int8_t *weight, size_t n, size_t k, void *packed) {
    int8_t *out = (int8_t *)packed;
    for (size_t p = 0; p < edge_wm::kernels::padded(n); p += 16) {
        for (size_t c = 0; c < k; c += 8) {
            for (size_t i = p; i < p + 16; ++i) {
                for (size_t j = c; j < c + 8; ++j) {
                    *out++ = i < n && j < k ? weight[i * k + j] : (int8_t)0;
                }
            }
        }
    }
}

void write_quantized(const float *x, size_t count, float scale, bool zero, char *q);
template <int Rows, typename Dense>
void tile_i8(const Dense &d, size_t row, size_t panel, size_t together);
template <int Rows, typename Dense>
void tile_f32(const Dense &d, size_t row, size_t panel);

}  // namespace

#include "kernels_body.h"

#include "dense_neon.h"

namespace {

inline int8x16_t pair_at(const int8_t *x, const int8_t *y, size_t at) {
    return vcombine_s8(vld1_s8(x + at), vld1_s8(y + at));
}

// One pair of outputs of the panel, for up to three pairs of rows: 0 to 2.
#define OUTPUTS_I8(o)                                                       \
    {                                                                       \
        const int8x16_t w_o = vld1q_s8(w + 16 * o);                         \
        s0_##o = vmmlaq_s32(s0_##o, x0, w_o);                               \
        if constexpr (Pairs > 1) s1_##o = vmmlaq_s32(s1_##o, x1, w_o);      \
        if constexpr (Pairs > 2) s2_##o = vmmlaq_s32(s2_##o, x2, w_o);      \
        __asm__ volatile("" : "+w"(s0_##o), "+w"(s1_##o), "+w"(s2_##o));    \
    }
#define LOW(x, y) \
    vreinterpretq_s32_s64(vtrn1q_s64(vreinterpretq_s64_s32(x), vreinterpretq_s64_s32(y)))
#define HIGH(x, y) \
    vreinterpretq_s32_s64(vtrn2q_s64(vreinterpretq_s64_s32(x), vreinterpretq_s64_s32(y)))
#define SUM_I8(p)                                                                              \
    if constexpr (Pairs > p) {                                                                 \
        store(sums + 2 * p * kLanes,                                                           \
              scaled(LOW(s##p##_0, s##p##_1), LOW(s##p##_2, s##p##_3),                         \
                     LOW(s##p##_4, s##p##_5), LOW(s##p##_6, s##p##_7),                         \
                     d.x_scale[row + 2 * p], scale));                                          \
        if constexpr (Rows > 2 * p + 1) {                                                      \
            store(sums + (2 * p + 1) * kLanes,                                                 \
                  scaled(HIGH(s##p##_0, s##p##_1), HIGH(s##p##_2, s##p##_3),                   \
                         HIGH(s##p##_4, s##p##_5), HIGH(s##p##_6, s##p##_7),                   \
                         d.x_scale[row + 2 * p + 1], scale));                                  \
        }                                                                                      \
    }

template <int Rows, typename Dense>
void tile_i8(const Dense &d, size_t row, size_t panel, size_t) {
    constexpr int Pairs = (Rows + 1) / 2;
    const size_t k = edge_wm::kernels::padded(d.k, 8);
    const int8_t *r0 = (const int8_t *)d.x + row * d.x_bytes;
    const int8_t *r1 = Rows > 1 ? r0 + d.x_bytes : r0;
    const int8_t *r2 = Rows > 2 ? r1 + d.x_bytes : r0, *r3 = Rows > 3 ? r2 + d.x_bytes : r2;
    const int8_t *r4 = Rows > 4 ? r3 + d.x_bytes : r0, *r5 = Rows > 5 ? r4 + d.x_bytes : r4;
    const int8_t *w = (const int8_t *)d.weight + panel * k * 16;
    const int32x4_t zero = vdupq_n_s32(0);
    int32x4_t s0_0 = zero, s0_1 = zero, s0_2 = zero, s0_3 = zero;
    int32x4_t s0_4 = zero, s0_5 = zero, s0_6 = zero, s0_7 = zero;
    int32x4_t s1_0 = zero, s1_1 = zero, s1_2 = zero, s1_3 = zero;
    int32x4_t s1_4 = zero, s1_5 = zero, s1_6 = zero, s1_7 = zero;
    int32x4_t s2_0 = zero, s2_1 = zero, s2_2 = zero, s2_3 = zero;
    int32x4_t s2_4 = zero, s2_5 = zero, s2_6 = zero, s2_7 = zero;
    for (size_t at = 0; at < k; at += 8, w += 128) {
        const int8x16_t x0 = pair_at(r0, r1, at);
        const int8x16_t x1 = Pairs > 1 ? pair_at(r2, r3, at) : x0;
        const int8x16_t x2 = Pairs > 2 ? pair_at(r4, r5, at) : x0;
        OUTPUTS_I8(0) OUTPUTS_I8(1) OUTPUTS_I8(2) OUTPUTS_I8(3)
        OUTPUTS_I8(4) OUTPUTS_I8(5) OUTPUTS_I8(6) OUTPUTS_I8(7)
        (void)x1, (void)x2;
    }
    const float *scale = d.scale + panel * kLanes;
    float sums[Rows * kLanes];
    SUM_I8(0) SUM_I8(1) SUM_I8(2)
    finish(d, sums, Rows, row, panel);
}

double peak_i8(size_t rounds) {
    int8x16_t x = vdupq_n_s8(1), w = vdupq_n_s8(2);
#define STEP(r) int32x4_t s##r = vdupq_n_s32(0);
    EACH_OF_24(STEP)
#undef STEP
#define STEP(r) s##r = vmmlaq_s32(s##r, x, w); __asm__ volatile("" : "+w"(s##r), "+w"(x), "+w"(w));
    for (size_t i = 0; i < rounds; ++i) { EACH_OF_24(STEP) }
#undef STEP
    return (double)rounds * 24 * 32;
}

}  // namespace

namespace edge_wm::kernels {

extern const Kernels kI8mm;
const Kernels kI8mm = {
    "i8mm",  1,    16,      6,      packed_i8_bytes, pack_i8, quantize, dense_i8, dense_f32,
    add_row, norm, softmax, attention,       lstm,    gru,      fold,     unary,
    binary, select,  peak_i8,
};

}  // namespace edge_wm::kernels
