// Kernels for x86 with AVX-512 and VNNI.
#include "kernels.h"

namespace {
// Whole lanes.
constexpr std::size_t packed_inputs(std::size_t k) { return edge_wm::kernels::padded(k, 4); }
}  // namespace

#include "dense_avx512.h"

namespace {

double peak_i8(size_t rounds) {
    __m512i a[12];
    for (__m512i &x : a) x = _mm512_setzero_si512();
    __m512i x = _mm512_set1_epi8(1), w = _mm512_set1_epi8(2);
    for (size_t i = 0; i < rounds; ++i) {
        __asm__ volatile("" : "+v"(x), "+v"(w));
        for (__m512i &y : a) y = _mm512_dpbusd_epi32(y, x, w);
    }
    __m512i sum = a[0];
    for (int i = 1; i < 12; ++i) sum = _mm512_add_epi32(sum, a[i]);
    __asm__ volatile("" : : "v"(sum));
    return (double)rounds * 12 * 64;
}

}  // namespace

namespace edge_wm::kernels {

extern const Kernels kAvx512Vnni;
const Kernels kAvx512Vnni = {
    "avx512vnni", 1,    16,      6,      packed_i8_bytes, pack_i8, quantize, dense_i8, dense_f32,
    add_row,      norm, softmax, attention,       lstm,    gru,      fold,     unary,
    binary, select,       peak_i8,
};

}  // namespace edge_wm::kernels
