// Which rows of a matrix hold a NaN or an infinity.
//
// A world model's arithmetic can leave the finite numbers, and NaN passes argmin, clamps and
// weighted means unseen. So every step of a rollout asks this kernel, and a candidate whose row
// is marked never wins.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edge_wm::kernels {

// rows_out[r] = 1 if values[r * columns .. (r + 1) * columns) holds a NaN or an infinity, else 0.
// Caller guarantees: values is rows * columns floats, row-major without gaps; rows_out is `rows`
// bytes; no aliasing. Zero rows and zero columns are allowed (an empty row is finite).
void nonfinite(const float *values, std::size_t rows, std::size_t columns,
               std::uint8_t *rows_out) noexcept;

}  // namespace edge_wm::kernels
