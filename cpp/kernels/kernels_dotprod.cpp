// Kernels for ARMv8.2 with SDOT (Cortex-A76, A78AE: Raspberry Pi 5, Jetson Orin).
//
// sdot multiplies four signed bytes of each of four outputs by the same four of a row, and adds them
// in int32. Weights are packed as
//
//     [n / 16][k / 4][16 outputs][4] int8
//
// and a quantized row is int8, padded with zeros to 16.
#include "kernels.h"

#include "lanes_neon.h"

namespace {

constexpr size_t kRowsI8 = 6, kPanelsI8 = 1, kRowsF32 = 6;

size_t packed_i8_bytes(size_t n, size_t k) {
    return edge_wm::kernels::padded(n) * edge_wm::kernels::padded(k, 4);
}

void pack_i8(const int8_t *weight, size_t n, size_t k, void *packed) {
    int8_t *out = (int8_t *)packed;
    for (size_t p = 0; p < edge_wm::kernels::padded(n); p += 16) {
        for (size_t c = 0; c < k; c += 4) {
            for (size_t i = p; i < p + 16; ++i) {
                for (size_t j = c; j < c + 4; ++j) {
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

// Four of the sixteen outputs with four numbers of each row.
#define ROW_I8(r, sum, lane) \
    if constexpr (Rows > r) {                                       \
        sum##r = vdotq_laneq_s32(sum##r, weight, x##r, lane);       \
        KEEP(sum##r);                                               \
    }
#define OUTPUTS_I8(sum, lane, offset)                                              \
    {                                                                              \
        const int8x16_t weight = vld1q_s8(w + offset);                             \
        ROW_I8(0, sum, lane) ROW_I8(1, sum, lane) ROW_I8(2, sum, lane)             \
        ROW_I8(3, sum, lane) ROW_I8(4, sum, lane) ROW_I8(5, sum, lane)             \
    }
#define GROUP_I8(lane)                                                             \
    OUTPUTS_I8(a, lane, 0) OUTPUTS_I8(b, lane, 16) OUTPUTS_I8(c, lane, 32)         \
    OUTPUTS_I8(e, lane, 48)                                                        \
    w += 64;
#define LOADS_I8                                                                            \
    const int8x16_t x0 = vld1q_s8(r0 + at), x1 = vld1q_s8(r1 + at), x2 = vld1q_s8(r2 + at); \
    const int8x16_t x3 = vld1q_s8(r3 + at), x4 = vld1q_s8(r4 + at), x5 = vld1q_s8(r5 + at); \
    (void)x1, (void)x2, (void)x3, (void)x4, (void)x5;
#define SUM_I8(r)                                                                               \
    if constexpr (Rows > r) {                                                                   \
        store(sums + r * kLanes, scaled(a##r, b##r, c##r, e##r, d.x_scale[row + r], scale));    \
    }

template <int Rows, typename Dense>
void tile_i8(const Dense &d, size_t row, size_t panel, size_t) {
    const size_t k = edge_wm::kernels::padded(d.k, 4);
    const int8_t *r0 = (const int8_t *)d.x + row * d.x_bytes;
    const int8_t *r1 = Rows > 1 ? r0 + d.x_bytes : r0, *r2 = Rows > 2 ? r1 + d.x_bytes : r0;
    const int8_t *r3 = Rows > 3 ? r2 + d.x_bytes : r0, *r4 = Rows > 4 ? r3 + d.x_bytes : r0;
    const int8_t *r5 = Rows > 5 ? r4 + d.x_bytes : r0;
    const int8_t *w = (const int8_t *)d.weight + panel * k * 16;
    const int32x4_t zero = vdupq_n_s32(0);
    int32x4_t a0 = zero, a1 = zero, a2 = zero, a3 = zero, a4 = zero, a5 = zero;
    int32x4_t b0 = zero, b1 = zero, b2 = zero, b3 = zero, b4 = zero, b5 = zero;
    int32x4_t c0 = zero, c1 = zero, c2 = zero, c3 = zero, c4 = zero, c5 = zero;
    int32x4_t e0 = zero, e1 = zero, e2 = zero, e3 = zero, e4 = zero, e5 = zero;
    size_t at = 0;
    for (; at + 16 <= k; at += 16) {
        LOADS_I8
        GROUP_I8(0) GROUP_I8(1) GROUP_I8(2) GROUP_I8(3)
    }
    if (at < k) {
        LOADS_I8
        GROUP_I8(0)
        if (at + 4 < k) { GROUP_I8(1) }
        if (at + 8 < k) { GROUP_I8(2) }
    }
    const float *scale = d.scale + panel * kLanes;
    float sums[Rows * kLanes];
    SUM_I8(0) SUM_I8(1) SUM_I8(2) SUM_I8(3) SUM_I8(4) SUM_I8(5)
    finish(d, sums, Rows, row, panel);
}

double peak_i8(size_t rounds) {
    int8x16_t x = vdupq_n_s8(1), w = vdupq_n_s8(2);
#define STEP(r) int32x4_t s##r = vdupq_n_s32(0);
    EACH_OF_24(STEP)
#undef STEP
#define STEP(r) s##r = vdotq_s32(s##r, x, w); __asm__ volatile("" : "+w"(s##r), "+w"(x), "+w"(w));
    for (size_t i = 0; i < rounds; ++i) { EACH_OF_24(STEP) }
#undef STEP
    return (double)rounds * 24 * 16;
}

}  // namespace

namespace edge_wm::kernels {

extern const Kernels kDotprod;
const Kernels kDotprod = {
    "dotprod", 1,    16,      6,      packed_i8_bytes, pack_i8, quantize, dense_i8, dense_f32,
    add_row,   norm, softmax, attention,       lstm,    gru,      fold,     unary,
    binary, select,    peak_i8,
};

}  // namespace edge_wm::kernels
