// What the two ARM sets have in common: rows quantized to int8, and float32 products. Included by
// kernels_dotprod.cpp and kernels_i8mm.cpp, after kernels_body.h's needs are declared.
//
// Six rows meet sixteen outputs in 24 of the 32 registers: six for the rows, two for weights. The
// accumulators have names because gcc 12 keeps an array of them in memory, and KEEP holds the
// weights apart, because it would load all of them first and then have no register left.
#pragma once

namespace {

// Sixteen numbers at a time into int8; what lies past `count` in the last block of the row (rows
// are padded to kLanes) is set to 0.
void write_quantized(const float *x, size_t count, float scale, bool zero, char *q) {
    const F16 factor = splat(scale), none = splat(0.0f);
    for (size_t at = 0; at < count; at += 16) {
        const F16 value = mul(select(first(zero ? 0 : count - at), load(x + at), none), factor);
        const int16x8_t low = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(value.a)),
                                           vqmovn_s32(vcvtnq_s32_f32(value.b)));
        const int16x8_t high = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(value.c)),
                                            vqmovn_s32(vcvtnq_s32_f32(value.d)));
        vst1q_s8((int8_t *)q + at, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
    }
}

#define KEEP(sum) __asm__ volatile("" : "+w"(sum))

// One number of a row with sixteen outputs.
#define ROW_F32(r)                             \
    if constexpr (Rows > r) {                  \
        const float x = x##r[at];              \
        a##r = vfmaq_n_f32(a##r, w0, x);       \
        b##r = vfmaq_n_f32(b##r, w1, x);       \
        c##r = vfmaq_n_f32(c##r, w2, x);       \
        e##r = vfmaq_n_f32(e##r, w3, x);       \
        KEEP(a##r); KEEP(b##r); KEEP(c##r); KEEP(e##r); \
    }
#define SUM_F32(r) \
    if constexpr (Rows > r) store(sums + r * kLanes, F16{a##r, b##r, c##r, e##r});

template <int Rows, typename Dense>
void tile_f32(const Dense &d, size_t row, size_t panel) {
    const float *x0 = d.x + row * d.x_stride;
    const float *x1 = Rows > 1 ? x0 + d.x_stride : x0, *x2 = Rows > 2 ? x1 + d.x_stride : x0;
    const float *x3 = Rows > 3 ? x2 + d.x_stride : x0, *x4 = Rows > 4 ? x3 + d.x_stride : x0;
    const float *x5 = Rows > 5 ? x4 + d.x_stride : x0;
    const float *w = d.weight + panel * kLanes * d.k;
    const float32x4_t zero = vdupq_n_f32(0.0f);
    float32x4_t a0 = zero, a1 = zero, a2 = zero, a3 = zero, a4 = zero, a5 = zero;
    float32x4_t b0 = zero, b1 = zero, b2 = zero, b3 = zero, b4 = zero, b5 = zero;
    float32x4_t c0 = zero, c1 = zero, c2 = zero, c3 = zero, c4 = zero, c5 = zero;
    float32x4_t e0 = zero, e1 = zero, e2 = zero, e3 = zero, e4 = zero, e5 = zero;
    for (size_t at = 0; at < d.k; ++at, w += kLanes) {
        const float32x4_t w0 = vld1q_f32(w), w1 = vld1q_f32(w + 4);
        const float32x4_t w2 = vld1q_f32(w + 8), w3 = vld1q_f32(w + 12);
        ROW_F32(0) ROW_F32(1) ROW_F32(2) ROW_F32(3) ROW_F32(4) ROW_F32(5)
    }
    (void)x1, (void)x2, (void)x3, (void)x4, (void)x5;
    float sums[Rows * kLanes];
    SUM_F32(0) SUM_F32(1) SUM_F32(2) SUM_F32(3) SUM_F32(4) SUM_F32(5)
    finish(d, sums, Rows, row, panel);
}

// Sixteen sums of products as float32, times both scales.
inline F16 scaled(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t e, float x_scale,
                  const float *scale) {
    const F16 sum = {vcvtq_f32_s32(a), vcvtq_f32_s32(b), vcvtq_f32_s32(c), vcvtq_f32_s32(e)};
    return mul(sum, mul(splat(x_scale), load(scale)));
}

// The 24 accumulators of a peak measurement: STEP(r) for each, with x and w opaque to the compiler.
#define EACH_OF_24(STEP)                                                                       \
    STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) STEP(8) STEP(9) STEP(10)   \
    STEP(11) STEP(12) STEP(13) STEP(14) STEP(15) STEP(16) STEP(17) STEP(18) STEP(19) STEP(20)  \
    STEP(21) STEP(22) STEP(23)

}  // namespace
