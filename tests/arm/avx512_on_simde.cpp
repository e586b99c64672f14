// cpp/kernels/kernels_avx512vnni.cpp on SIMDe's intrinsics (simde/immintrin.h), named apart.
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../../cpp/kernels/kernels.h"

// Its `peak_i8` names AVX-512 registers in empty assembler statements: left out.
#define __asm__
#define volatile(...)
#define kAvx512Vnni kAvx512Simde
#include "../../cpp/kernels/kernels_avx512vnni.cpp"
