#include "cpu.h"

#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace edge_wm::kernels {

extern const Kernels kPlain;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512Vnni;
#ifdef EDGE_WM_AMX
extern const Kernels kAmx;
#endif
#elif defined(__aarch64__)
extern const Kernels kDotprod;
extern const Kernels kI8mm;
#endif

namespace {

#if defined(__x86_64__)
struct Leaf {
    unsigned a = 0, b = 0, c = 0, d = 0;
};

Leaf leaf(unsigned number) {
    Leaf found;
    if (!__get_cpuid_count(number, 0, &found.a, &found.b, &found.c, &found.d)) return {};
    return found;
}

// Which registers the operating system saves: XCR0 (Intel SDM vol. 1, 13.3).
unsigned saved_state() {
    unsigned low = 0, high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

constexpr bool all(unsigned value, unsigned mask) { return (value & mask) == mask; }

#ifdef EDGE_WM_AMX
// AMX's tiles are off until a process asks for them (Linux 5.16, Documentation/arch/x86/xstate.rst).
bool tiles_allowed() {
    constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM
    return ::syscall(SYS_arch_prctl, request, tile_data) == 0;
}
#endif

void add_available(std::vector<const Kernels *> &found) {
    const Leaf one = leaf(1), seven = leaf(7);
    const unsigned osxsave = 1u << 27, fma = 1u << 12, f16c = 1u << 29;
    if (!all(one.c, osxsave)) return;
    const unsigned state = saved_state();
    const bool avx2 = all(state, 0x6) && all(one.c, fma | f16c) && all(seven.b, 1u << 5);
    // AVX-512 F, DQ, BW, VL; VNNI; and the state of opmask and the upper registers.
    const bool vnni = avx2 && all(state, 0xe6) &&
                      all(seven.b, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) &&
                      all(seven.c, 1u << 11);
#ifdef EDGE_WM_AMX
    // Tiles, their int8 products, and the state of both.
    static const bool amx = vnni && all(state, 3u << 17) && all(seven.d, 3u << 24) &&
                            tiles_allowed();
    if (amx) found.push_back(&kAmx);
#endif
    if (vnni) found.push_back(&kAvx512Vnni);
    if (avx2) found.push_back(&kAvx2);
}
#elif defined(__aarch64__)
void add_available(std::vector<const Kernels *> &found) {
    const unsigned long dotprod = 1ul << 20;  // HWCAP_ASIMDDP
    const unsigned long i8mm = 1ul << 13;     // HWCAP2_I8MM
    if (!(getauxval(AT_HWCAP) & dotprod)) return;
    if (getauxval(AT_HWCAP2) & i8mm) found.push_back(&kI8mm);
    found.push_back(&kDotprod);
}
#else
void add_available(std::vector<const Kernels *> &) {}
#endif

}  // namespace

std::vector<const Kernels *> available() {
    std::vector<const Kernels *> found;
    add_available(found);
    found.push_back(&kPlain);
    return found;
}

const Kernels *find(const char *name) {
    for (const Kernels *kernels : available()) {
        if (name == nullptr || *name == '\0' || std::strcmp(name, kernels->name) == 0) {
            return kernels;
        }
    }
    return nullptr;
}

}  // namespace edge_wm::kernels
