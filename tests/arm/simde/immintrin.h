// AVX-512 intrinsics for a processor without them: SIMDe's (Debian's libsimde-dev), and those that
// its 0.7.4 lacks. kernels_avx512vnni.cpp is compiled against this file so that its arithmetic is
// checked on any x86 with AVX2 and FMA; it proves nothing about speed or about a real AVX-512 unit.
//
// SIMDe includes the compiler's own <immintrin.h> for the AVX2 halves: the second time round.
#ifndef EDGE_WM_SIMDE_IMMINTRIN
#define EDGE_WM_SIMDE_IMMINTRIN

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>

namespace {

struct Halves {
    __m256 low, high;
};
struct WholeHalves {
    __m256i low, high;
};
template <typename To, typename From>
inline To as(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits only");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}

inline simde__m512 edge_wm_cvtepi32_ps(simde__m512i v) {
    const auto h = as<WholeHalves>(v);
    return as<simde__m512>(Halves{_mm256_cvtepi32_ps(h.low), _mm256_cvtepi32_ps(h.high)});
}
inline simde__m512i edge_wm_cvtps_epi32(simde__m512 v) {
    const auto h = as<Halves>(v);
    return as<simde__m512i>(WholeHalves{_mm256_cvtps_epi32(h.low), _mm256_cvtps_epi32(h.high)});
}
inline simde__m512i edge_wm_cvttps_epi32(simde__m512 v) {
    const auto h = as<Halves>(v);
    return as<simde__m512i>(WholeHalves{_mm256_cvttps_epi32(h.low), _mm256_cvttps_epi32(h.high)});
}
inline __m128i edge_wm_cvtepi32_epi8(simde__m512i v) {
    struct Lanes { int x[16]; };
    struct Bytes { signed char x[16]; };
    const auto from = as<Lanes>(v);
    Bytes to;
    for (int i = 0; i < 16; ++i) to.x[i] = (signed char)from.x[i];
    return as<__m128i>(to);
}
inline __m256 edge_wm_extractf32x8_ps(simde__m512 v, int half) {
    const auto h = as<Halves>(v);
    return half ? h.high : h.low;
}
inline void edge_wm_mask_storeu_ps(void *p, simde__mmask16 m, simde__m512 v) {
    struct Lanes { float x[16]; };
    const auto from = as<Lanes>(v);
    for (int i = 0; i < 16; ++i) {
        if (m >> i & 1) ((float *)p)[i] = from.x[i];
    }
}
inline simde__m512 edge_wm_maskz_loadu_ps(simde__mmask16 m, const void *p) {
    struct Lanes { float x[16]; };
    Lanes to = {};
    for (int i = 0; i < 16; ++i) {
        if (m >> i & 1) to.x[i] = ((const float *)p)[i];
    }
    return as<simde__m512>(to);
}
// SIMDe has this one, but shifts its second argument without brackets: `A | B` comes out as
// `A | B >> 4`. Multiples of one only, as the kernels use it.
#define edge_wm_roundscale_ps(v, mode)                                              \
    as<simde__m512>(Halves{_mm256_round_ps(as<Halves>(v).low, (mode)),              \
                           _mm256_round_ps(as<Halves>(v).high, (mode))})
// Within each four lanes, by two bits of `control` each (Intel SDM, VPERMILPS).
inline simde__m512 edge_wm_permute_ps(simde__m512 v, int control) {
    struct Lanes { float x[16]; };
    const auto from = as<Lanes>(v);
    Lanes to;
    for (int i = 0; i < 16; ++i) to.x[i] = from.x[i / 4 * 4 + (control >> (i % 4 * 2) & 3)];
    return as<simde__m512>(to);
}
// Whole quarters: two of the first, two of the second (Intel SDM, VSHUFF32X4).
inline simde__m512 edge_wm_shuffle_f32x4(simde__m512 v, simde__m512 w, int control) {
    struct Lanes { float x[16]; };
    const auto a = as<Lanes>(v), b = as<Lanes>(w);
    Lanes to;
    for (int q = 0; q < 4; ++q) {
        for (int i = 0; i < 4; ++i) {
            to.x[4 * q + i] = (q < 2 ? a : b).x[(control >> (2 * q) & 3) * 4 + i];
        }
    }
    return as<simde__m512>(to);
}

}  // namespace

#define _mm512_cvtepi32_ps edge_wm_cvtepi32_ps
#define _mm512_cvtps_epi32 edge_wm_cvtps_epi32
#define _mm512_cvttps_epi32 edge_wm_cvttps_epi32
#define _mm512_cvtepi32_epi8 edge_wm_cvtepi32_epi8
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps edge_wm_extractf32x8_ps
#define _mm512_mask_storeu_ps edge_wm_mask_storeu_ps
#define _mm512_maskz_loadu_ps edge_wm_maskz_loadu_ps
#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps edge_wm_roundscale_ps
#undef _mm512_permute_ps
#define _mm512_permute_ps edge_wm_permute_ps
#undef _mm512_shuffle_f32x4
#define _mm512_shuffle_f32x4 edge_wm_shuffle_f32x4

#else
#include_next <immintrin.h>
#endif
