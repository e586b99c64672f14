// Sixteen float32 lanes in one AVX-512 register; lanes_plain.h says what each operation means.
#pragma once

#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace {

using F16 = __m512;
using M16 = __mmask16;

inline float from_bits(uint32_t b) { float x; memcpy(&x, &b, 4); return x; }

inline M16 first(size_t n) { return n >= 16 ? (M16)0xffff : (M16)((1u << n) - 1u); }
inline F16 load(const float *p) { return _mm512_loadu_ps(p); }
inline void store(float *p, F16 x) { _mm512_storeu_ps(p, x); }
inline void store_n(float *p, F16 x, size_t n) { _mm512_mask_storeu_ps(p, first(n), x); }
inline F16 splat(float x) { return _mm512_set1_ps(x); }
inline F16 add(F16 x, F16 y) { return _mm512_add_ps(x, y); }
inline F16 sub(F16 x, F16 y) { return _mm512_sub_ps(x, y); }
inline F16 mul(F16 x, F16 y) { return _mm512_mul_ps(x, y); }
inline F16 div(F16 x, F16 y) { return _mm512_div_ps(x, y); }
inline F16 fma(F16 x, F16 y, F16 z) { return _mm512_fmadd_ps(x, y, z); }
inline F16 sqrt(F16 x) { return _mm512_sqrt_ps(x); }
inline F16 round_even(F16 x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline F16 round_down(F16 x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
inline F16 absolute(F16 x) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x); }
inline F16 negate(F16 x) { return _mm512_xor_ps(_mm512_set1_ps(-0.0f), x); }
inline F16 smaller(F16 x, F16 y) { return _mm512_min_ps(x, y); }
inline F16 larger(F16 x, F16 y) { return _mm512_max_ps(x, y); }
inline M16 less(F16 x, F16 y) { return _mm512_cmp_ps_mask(x, y, _CMP_LT_OQ); }
inline M16 equal(F16 x, F16 y) { return _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ); }
inline F16 select(M16 m, F16 x, F16 y) { return _mm512_mask_blend_ps(m, y, x); }

inline F16 power_of_two(F16 n) {
    const __m512i e = _mm512_add_epi32(_mm512_cvttps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}
inline F16 exponent(F16 x) {
    const __m512i e = _mm512_srli_epi32(_mm512_castps_si512(x), 23);
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(e, _mm512_set1_epi32(126)));
}
inline F16 mantissa(F16 x) {
    const __m512i m = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x007fffff));
    return _mm512_castsi512_ps(_mm512_or_si512(m, _mm512_set1_epi32(0x3f000000)));
}
inline F16 absmax(F16 m, F16 x) {
    const __m512i b = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(m), b));
}

inline __m256 low_half(F16 x) { return _mm512_castps512_ps256(x); }
inline __m256 high_half(F16 x) { return _mm512_extractf32x8_ps(x, 1); }

inline float reduce_absmax(F16 x) {
    const __m256i m = _mm256_max_epi32(_mm256_castps_si256(low_half(x)),
                                       _mm256_castps_si256(high_half(x)));
    __m128i h = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0x4e));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0xb1));
    return from_bits((uint32_t)_mm_cvtsi128_si32(h));
}
// max(b, a) is b > a ? b : a, which is a where either is NaN: the plain a < b ? b : a.
inline float reduce_max(F16 x) {
    const __m256 m = _mm256_max_ps(high_half(x), low_half(x));
    __m128 h = _mm_max_ps(_mm256_extractf128_ps(m, 1), _mm256_castps256_ps128(m));
    h = _mm_max_ps(_mm_movehl_ps(h, h), h);
    h = _mm_max_ps(_mm_shuffle_ps(h, h, 1), h);
    return _mm_cvtss_f32(h);
}
inline float reduce_add(F16 x) {
    const __m256 s = _mm256_add_ps(low_half(x), high_half(x));
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    h = _mm_add_ss(h, _mm_shuffle_ps(h, h, 1));
    return _mm_cvtss_f32(h);
}
inline F16 sum_of_8(F16 x) {
    F16 s = _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, 0xb1));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x4e));
    return _mm512_add_ps(s, _mm512_permute_ps(s, 0xb1));
}
inline F16 max_of_8(F16 x) {
    F16 m = _mm512_max_ps(_mm512_shuffle_f32x4(x, x, 0xb1), x);
    m = _mm512_max_ps(_mm512_permute_ps(m, 0x4e), m);
    return _mm512_max_ps(_mm512_permute_ps(m, 0xb1), m);
}

}  // namespace
