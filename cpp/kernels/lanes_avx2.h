// Sixteen float32 lanes in two AVX2 registers; lanes_plain.h says what each operation means.
#pragma once

#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace {

struct F16 {
    __m256 a, b;  // lanes 0 to 7, 8 to 15
};
struct M16 {
    __m256 a, b;
};

#define BOTH(f, x, y) {f((x).a, (y).a), f((x).b, (y).b)}

inline uint32_t bits(float x) { uint32_t b; memcpy(&b, &x, 4); return b; }
inline float from_bits(uint32_t b) { float x; memcpy(&x, &b, 4); return x; }

inline M16 first(size_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i count = _mm256_set1_epi32((int)n);
    return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(count, lane)),
            _mm256_castsi256_ps(
                _mm256_cmpgt_epi32(count, _mm256_add_epi32(lane, _mm256_set1_epi32(8))))};
}
inline F16 load(const float *p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float *p, F16 x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
inline void store_n(float *p, F16 x, size_t n) {
    const M16 m = first(n);
    _mm256_maskstore_ps(p, _mm256_castps_si256(m.a), x.a);
    _mm256_maskstore_ps(p + 8, _mm256_castps_si256(m.b), x.b);
}
inline F16 splat(float x) { const __m256 v = _mm256_set1_ps(x); return {v, v}; }
inline F16 add(F16 x, F16 y) { return BOTH(_mm256_add_ps, x, y); }
inline F16 sub(F16 x, F16 y) { return BOTH(_mm256_sub_ps, x, y); }
inline F16 mul(F16 x, F16 y) { return BOTH(_mm256_mul_ps, x, y); }
inline F16 div(F16 x, F16 y) { return BOTH(_mm256_div_ps, x, y); }
inline F16 fma(F16 x, F16 y, F16 z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline F16 sqrt(F16 x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
inline F16 round_even(F16 x) {
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, mode), _mm256_round_ps(x.b, mode)};
}
inline F16 round_down(F16 x) {
    constexpr int mode = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, mode), _mm256_round_ps(x.b, mode)};
}
inline F16 absolute(F16 x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline F16 negate(F16 x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_xor_ps(sign, x.a), _mm256_xor_ps(sign, x.b)};
}
inline F16 smaller(F16 x, F16 y) { return BOTH(_mm256_min_ps, x, y); }
inline F16 larger(F16 x, F16 y) { return BOTH(_mm256_max_ps, x, y); }
inline M16 less(F16 x, F16 y) {
    return {_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)};
}
inline M16 equal(F16 x, F16 y) {
    return {_mm256_cmp_ps(x.a, y.a, _CMP_EQ_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_EQ_OQ)};
}
inline F16 select(M16 m, F16 x, F16 y) {
    return {_mm256_blendv_ps(y.a, x.a, m.a), _mm256_blendv_ps(y.b, x.b, m.b)};
}

inline __m256 power_of_two_8(__m256 n) {
    const __m256i e = _mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}
inline F16 power_of_two(F16 n) { return {power_of_two_8(n.a), power_of_two_8(n.b)}; }
inline __m256 exponent_8(__m256 x) {
    const __m256i e = _mm256_srli_epi32(_mm256_castps_si256(x), 23);
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(e, _mm256_set1_epi32(126)));
}
inline F16 exponent(F16 x) { return {exponent_8(x.a), exponent_8(x.b)}; }
inline __m256 mantissa_8(__m256 x) {
    const __m256i m = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x007fffff));
    return _mm256_castsi256_ps(_mm256_or_si256(m, _mm256_set1_epi32(0x3f000000)));
}
inline F16 mantissa(F16 x) { return {mantissa_8(x.a), mantissa_8(x.b)}; }

inline __m256 absmax_8(__m256 m, __m256 x) {
    const __m256i b = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(m), b));
}
inline F16 absmax(F16 m, F16 x) { return {absmax_8(m.a, x.a), absmax_8(m.b, x.b)}; }
inline float reduce_absmax(F16 x) {
    __m256i m = _mm256_max_epi32(_mm256_castps_si256(x.a), _mm256_castps_si256(x.b));
    __m128i h = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0x4e));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0xb1));
    return from_bits((uint32_t)_mm_cvtsi128_si32(h));
}
// _mm_max_ps(b, a) is b > a ? b : a, which is a where either is NaN: the plain a < b ? b : a.
inline float reduce_max(F16 x) {
    const __m256 m = _mm256_max_ps(x.b, x.a);
    __m128 h = _mm_max_ps(_mm256_extractf128_ps(m, 1), _mm256_castps256_ps128(m));
    h = _mm_max_ps(_mm_movehl_ps(h, h), h);
    h = _mm_max_ps(_mm_shuffle_ps(h, h, 1), h);
    return _mm_cvtss_f32(h);
}
inline float reduce_add(F16 x) {
    const __m256 s = _mm256_add_ps(x.a, x.b);
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    h = _mm_add_ss(h, _mm_shuffle_ps(h, h, 1));
    return _mm_cvtss_f32(h);
}
inline __m256 sum_8(__m256 x) {
    __m256 s = _mm256_add_ps(x, _mm256_permute2f128_ps(x, x, 1));
    s = _mm256_add_ps(s, _mm256_permute_ps(s, 0x4e));
    return _mm256_add_ps(s, _mm256_permute_ps(s, 0xb1));
}
inline F16 sum_of_8(F16 x) { return {sum_8(x.a), sum_8(x.b)}; }
inline __m256 max_8(__m256 x) {
    __m256 m = _mm256_max_ps(_mm256_permute2f128_ps(x, x, 1), x);
    m = _mm256_max_ps(_mm256_permute_ps(m, 0x4e), m);
    return _mm256_max_ps(_mm256_permute_ps(m, 0xb1), m);
}
inline F16 max_of_8(F16 x) { return {max_8(x.a), max_8(x.b)}; }

#undef BOTH

}  // namespace
