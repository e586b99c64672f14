// Sixteen float32 lanes in plain C++: what the operations on lanes mean. Each instruction set's
// file has the same names in the same manner; kernels_body.h is written in them alone.
//
// No header of the C++ library in the files that instruction sets include: an inline function of
// it, compiled with AVX, may be the copy that the linker keeps for everybody.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace {

struct F16 {
    float v[16];
};
struct M16 {
    uint32_t v[16];  // all ones or zero
};

#define EACH for (int i = 0; i < 16; ++i)

inline uint32_t bits(float x) { uint32_t b; memcpy(&b, &x, 4); return b; }
inline float from_bits(uint32_t b) { float x; memcpy(&x, &b, 4); return x; }

inline F16 load(const float *p) { F16 r; memcpy(r.v, p, sizeof r.v); return r; }
inline void store(float *p, F16 a) { memcpy(p, a.v, sizeof a.v); }
inline void store_n(float *p, F16 a, size_t n) { for (size_t i = 0; i < n; ++i) p[i] = a.v[i]; }
inline F16 splat(float x) { F16 r; EACH r.v[i] = x; return r; }
inline F16 add(F16 a, F16 b) { EACH a.v[i] += b.v[i]; return a; }
inline F16 sub(F16 a, F16 b) { EACH a.v[i] -= b.v[i]; return a; }
inline F16 mul(F16 a, F16 b) { EACH a.v[i] *= b.v[i]; return a; }
inline F16 div(F16 a, F16 b) { EACH a.v[i] /= b.v[i]; return a; }
inline F16 fma(F16 a, F16 b, F16 c) { EACH a.v[i] = fmaf(a.v[i], b.v[i], c.v[i]); return a; }
inline F16 sqrt(F16 a) { EACH a.v[i] = sqrtf(a.v[i]); return a; }
inline F16 round_even(F16 a) { EACH a.v[i] = rintf(a.v[i]); return a; }
inline F16 round_down(F16 a) { EACH a.v[i] = floorf(a.v[i]); return a; }
inline F16 absolute(F16 a) { EACH a.v[i] = fabsf(a.v[i]); return a; }
inline F16 negate(F16 a) { EACH a.v[i] = -a.v[i]; return a; }

// a < b ? a : b and a > b ? a : b: the second where either is NaN.
inline F16 smaller(F16 a, F16 b) { EACH a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return a; }
inline F16 larger(F16 a, F16 b) { EACH a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }

inline M16 less(F16 a, F16 b) { M16 m; EACH m.v[i] = a.v[i] < b.v[i] ? ~0u : 0u; return m; }
inline M16 equal(F16 a, F16 b) { M16 m; EACH m.v[i] = a.v[i] == b.v[i] ? ~0u : 0u; return m; }
inline M16 first(size_t n) { M16 m; EACH m.v[i] = (size_t)i < n ? ~0u : 0u; return m; }
// a where the mask is set, else b
inline F16 select(M16 m, F16 a, F16 b) { EACH a.v[i] = m.v[i] ? a.v[i] : b.v[i]; return a; }

// 2^n for whole numbers n from -126 to 127
inline F16 power_of_two(F16 n) {
    EACH n.v[i] = from_bits((uint32_t)((int32_t)n.v[i] + 127) << 23);
    return n;
}
// x = mantissa * 2^exponent with the mantissa in [0.5, 1), for normal positive x
inline F16 exponent(F16 x) {
    EACH x.v[i] = (float)((int32_t)(bits(x.v[i]) >> 23) - 126);
    return x;
}
inline F16 mantissa(F16 x) {
    EACH x.v[i] = from_bits((bits(x.v[i]) & 0x007fffffu) | 0x3f000000u);
    return x;
}

// The larger of m and |x| as bit patterns: infinity is above all numbers and NaN above that.
inline F16 absmax(F16 m, F16 x) {
    EACH {
        const uint32_t a = bits(m.v[i]), b = bits(x.v[i]) & 0x7fffffffu;
        m.v[i] = from_bits(a > b ? a : b);
    }
    return m;
}
inline float reduce_absmax(F16 a) {
    uint32_t m = 0;
    EACH { const uint32_t b = bits(a.v[i]); m = b > m ? b : m; }
    return from_bits(m);
}
inline float reduce_max(F16 a) {
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; ++i) a.v[i] = a.v[i] < a.v[i + half] ? a.v[i + half] : a.v[i];
    return a.v[0];
}
// The order of every sum: lane i with lane i + 8, then 4, 2, 1.
inline float reduce_add(F16 a) {
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; ++i) a.v[i] += a.v[i + half];
    return a.v[0];
}
// The same within the lower and the upper eight lanes, given to each of the eight.
inline F16 sum_of_8(F16 a) {
    for (int g = 0; g < 16; g += 8) {
        for (int half = 4; half; half /= 2)
            for (int i = 0; i < half; ++i) a.v[g + i] += a.v[g + i + half];
        for (int i = 1; i < 8; ++i) a.v[g + i] = a.v[g];
    }
    return a;
}
inline F16 max_of_8(F16 a) {
    for (int g = 0; g < 16; g += 8) {
        for (int half = 4; half; half /= 2)
            for (int i = 0; i < half; ++i)
                a.v[g + i] = a.v[g + i] < a.v[g + i + half] ? a.v[g + i + half] : a.v[g + i];
        for (int i = 1; i < 8; ++i) a.v[g + i] = a.v[g];
    }
    return a;
}

#undef EACH

}  // namespace
