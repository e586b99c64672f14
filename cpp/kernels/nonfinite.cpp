#include "nonfinite.h"

#include <cstring>

namespace edge_wm::kernels {
namespace {

constexpr std::uint32_t kExponent = 0x7f800000u;  // IEEE 754 binary32: all ones = NaN or infinity

// 1 if the value is NaN or infinite. Bits, not std::isfinite: the answer may not depend on a
// compiler flag (under -ffast-math, isfinite(NaN) is true).
inline std::uint32_t is_nonfinite(const float *value) noexcept {
    std::uint32_t bits;
    std::memcpy(&bits, value, sizeof bits);
    return (bits & kExponent) == kExponent ? 1u : 0u;
}

}  // namespace

void nonfinite(const float *values, std::size_t rows, std::size_t columns,
               std::uint8_t *rows_out) noexcept {
    for (std::size_t r = 0; r < rows; ++r) {
        const float *row = values + r * columns;
        std::uint32_t found = 0;
        for (std::size_t c = 0; c < columns; ++c) {
            found |= is_nonfinite(row + c);
        }
        rows_out[r] = static_cast<std::uint8_t>(found);
    }
}

}  // namespace edge_wm::kernels
