// Sixteen float32 lanes in four NEON registers; lanes_plain.h says what each operation means.
//
// vminq and vmaxq give NaN where either is NaN, so `smaller`, `larger` and the maxima compare and
// select instead.
#pragma once

#include <arm_neon.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace {

struct F16 {
    float32x4_t a, b, c, d;  // lanes 0 to 3, 4 to 7, 8 to 11, 12 to 15
};
struct M16 {
    uint32x4_t a, b, c, d;
};

#define EACH_1(f, x) {f((x).a), f((x).b), f((x).c), f((x).d)}
#define EACH_2(f, x, y) {f((x).a, (y).a), f((x).b, (y).b), f((x).c, (y).c), f((x).d, (y).d)}
#define EACH_3(f, x, y, z)                                                               \
    {f((x).a, (y).a, (z).a), f((x).b, (y).b, (z).b), f((x).c, (y).c, (z).c),             \
     f((x).d, (y).d, (z).d)}

inline float from_bits(uint32_t b) { float x; memcpy(&x, &b, 4); return x; }
inline uint32x4_t bits_of(float32x4_t x) { return vreinterpretq_u32_f32(x); }
inline float32x4_t of_bits(uint32x4_t x) { return vreinterpretq_f32_u32(x); }

inline M16 first(size_t n) {
    const uint32_t lanes[4] = {0, 1, 2, 3};
    const uint32x4_t lane = vld1q_u32(lanes), count = vdupq_n_u32(n < 16 ? (uint32_t)n : 16u);
    return {vcltq_u32(lane, count), vcltq_u32(vaddq_u32(lane, vdupq_n_u32(4)), count),
            vcltq_u32(vaddq_u32(lane, vdupq_n_u32(8)), count),
            vcltq_u32(vaddq_u32(lane, vdupq_n_u32(12)), count)};
}
inline F16 load(const float *p) {
    return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
inline void store(float *p, F16 x) {
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
    vst1q_f32(p + 8, x.c);
    vst1q_f32(p + 12, x.d);
}
inline void store_n(float *p, F16 x, size_t n) {
    const float32x4_t quarter[4] = {x.a, x.b, x.c, x.d};
    size_t at = 0;
    for (; at + 4 <= n && at < 16; at += 4) vst1q_f32(p + at, quarter[at / 4]);
    if (at >= n || at >= 16) return;
    const float32x4_t last = quarter[at / 4];
    vst1q_lane_f32(p + at, last, 0);
    if (n - at > 1) vst1q_lane_f32(p + at + 1, last, 1);
    if (n - at > 2) vst1q_lane_f32(p + at + 2, last, 2);
}
inline F16 splat(float x) { const float32x4_t v = vdupq_n_f32(x); return {v, v, v, v}; }
inline F16 add(F16 x, F16 y) { return EACH_2(vaddq_f32, x, y); }
inline F16 sub(F16 x, F16 y) { return EACH_2(vsubq_f32, x, y); }
inline F16 mul(F16 x, F16 y) { return EACH_2(vmulq_f32, x, y); }
inline F16 div(F16 x, F16 y) { return EACH_2(vdivq_f32, x, y); }
inline F16 fma(F16 x, F16 y, F16 z) { return EACH_3(vfmaq_f32, z, x, y); }
inline F16 sqrt(F16 x) { return EACH_1(vsqrtq_f32, x); }
inline F16 round_even(F16 x) { return EACH_1(vrndnq_f32, x); }
inline F16 round_down(F16 x) { return EACH_1(vrndmq_f32, x); }
inline F16 absolute(F16 x) { return EACH_1(vabsq_f32, x); }
inline F16 negate(F16 x) { return EACH_1(vnegq_f32, x); }
inline M16 less(F16 x, F16 y) { return EACH_2(vcltq_f32, x, y); }
inline M16 equal(F16 x, F16 y) { return EACH_2(vceqq_f32, x, y); }
inline F16 select(M16 m, F16 x, F16 y) { return EACH_3(vbslq_f32, m, x, y); }
inline F16 smaller(F16 x, F16 y) { return select(less(x, y), x, y); }
inline F16 larger(F16 x, F16 y) { return select(less(y, x), x, y); }

inline float32x4_t power_of_two_4(float32x4_t n) {
    return vreinterpretq_f32_s32(
        vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
}
inline F16 power_of_two(F16 n) { return EACH_1(power_of_two_4, n); }
inline float32x4_t exponent_4(float32x4_t x) {
    const int32x4_t e = vreinterpretq_s32_u32(vshrq_n_u32(bits_of(x), 23));
    return vcvtq_f32_s32(vsubq_s32(e, vdupq_n_s32(126)));
}
inline F16 exponent(F16 x) { return EACH_1(exponent_4, x); }
inline float32x4_t mantissa_4(float32x4_t x) {
    return of_bits(vorrq_u32(vandq_u32(bits_of(x), vdupq_n_u32(0x007fffffu)),
                             vdupq_n_u32(0x3f000000u)));
}
inline F16 mantissa(F16 x) { return EACH_1(mantissa_4, x); }

inline float32x4_t absmax_4(float32x4_t m, float32x4_t x) {
    return of_bits(vmaxq_u32(bits_of(m), bits_of(vabsq_f32(x))));
}
inline F16 absmax(F16 m, F16 x) { return EACH_2(absmax_4, m, x); }
inline float reduce_absmax(F16 x) {
    return from_bits(vmaxvq_u32(vmaxq_u32(vmaxq_u32(bits_of(x.a), bits_of(x.b)),
                                          vmaxq_u32(bits_of(x.c), bits_of(x.d)))));
}

// a < b ? b : a, which is a where either is NaN
inline float32x4_t above(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), b, a); }
inline float max_4(float32x4_t x) {
    const float32x2_t low = vget_low_f32(x), high = vget_high_f32(x);
    const float32x2_t m = vbsl_f32(vclt_f32(low, high), high, low);
    const float a = vget_lane_f32(m, 0), b = vget_lane_f32(m, 1);
    return a < b ? b : a;
}
inline float reduce_max(F16 x) { return max_4(above(above(x.a, x.c), above(x.b, x.d))); }
inline F16 max_of_8(F16 x) {
    const float32x4_t low = vdupq_n_f32(max_4(above(x.a, x.b)));
    const float32x4_t high = vdupq_n_f32(max_4(above(x.c, x.d)));
    return {low, low, high, high};
}
// Lane i with i + 2, then 1, given to all four.
inline float32x4_t sum_4(float32x4_t x) {
    const float32x4_t s = vaddq_f32(x, vextq_f32(x, x, 2));
    return vaddq_f32(s, vrev64q_f32(s));
}
inline float reduce_add(F16 x) {
    return vgetq_lane_f32(sum_4(vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d))), 0);
}
inline F16 sum_of_8(F16 x) {
    const float32x4_t low = sum_4(vaddq_f32(x.a, x.b)), high = sum_4(vaddq_f32(x.c, x.d));
    return {low, low, high, high};
}

#undef EACH_1
#undef EACH_2
#undef EACH_3

}  // namespace
