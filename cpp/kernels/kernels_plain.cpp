// The plain kernels: always built, and the definition of what all others give, bit for bit.
#include "kernels.h"

#include "lanes_plain.h"

namespace {

constexpr size_t kRowsI8 = 1, kPanelsI8 = 1, kRowsF32 = 1;

size_t packed_i8_bytes(size_t n, size_t k) { return n * k; }
void pack_i8(const int8_t *weight, size_t n, size_t k, void *out) { memcpy(out, weight, n * k); }

void write_quantized(const float *x, size_t count, float scale, bool zero, char *q) {
    for (size_t i = 0; i < count; ++i) q[i] = (char)(zero ? 0 : (int)rintf(x[i] * scale));
}

template <int Rows, typename Dense>
void tile_i8(const Dense &d, size_t row, size_t panel, size_t together);
template <int Rows, typename Dense>
void tile_f32(const Dense &d, size_t row, size_t panel);

}  // namespace

#include "kernels_body.h"

namespace {

template <int Rows, typename Dense>
void tile_i8(const Dense &d, size_t row, size_t panel, size_t) {
    static_assert(Rows <= 4, "one row after another");
    for (size_t r = row; r < row + Rows; ++r) {
        const int8_t *x = (const int8_t *)d.x + r * d.x_bytes;
        F16 y = splat(0.0f);
        for (size_t i = 0; i < kLanes && panel * kLanes + i < d.n; ++i) {
            const size_t n = panel * kLanes + i;
            const int8_t *w = (const int8_t *)d.weight + n * d.k;
            int32_t sum = 0;
            for (size_t c = 0; c < d.k; ++c) sum += (int32_t)x[c] * (int32_t)w[c];
            y.v[i] = (float)sum * (d.x_scale[r] * d.scale[n]);
        }
        finish(d, y.v, 1, r, panel);
    }
}

template <int Rows, typename Dense>
void tile_f32(const Dense &d, size_t row, size_t panel) {
    const float *weight = d.weight + panel * kLanes * d.k;
    for (size_t r = row; r < row + Rows; ++r) {
        F16 y = splat(0.0f);
        for (size_t c = 0; c < d.k; ++c) {
            y = fma(splat(d.x[r * d.x_stride + c]), load(weight + c * kLanes), y);
        }
        finish(d, y.v, 1, r, panel);
    }
}

double peak_i8(size_t rounds) {
    int32_t sum[16] = {};
    for (size_t i = 0; i < rounds; ++i) {
        for (int j = 0; j < 16; ++j) sum[j] += (int32_t)(int8_t)i * (int32_t)(int8_t)(i + j);
    }
    int32_t total = 0;
    for (int32_t part : sum) total += part;
    return (double)rounds * 16 + (total == 1 ? 1e-9 : 0.0);
}

}  // namespace

namespace edge_wm::kernels {

std::size_t packed_f32_floats(std::size_t n, std::size_t k) noexcept { return padded(n) * k; }

void pack_f32(const float *weight, std::size_t n, std::size_t k, float *out) noexcept {
    for (std::size_t p = 0; p < padded(n); p += kLanes) {
        for (std::size_t c = 0; c < k; ++c) {
            for (std::size_t i = 0; i < kLanes; ++i) {
                *out++ = p + i < n ? weight[(p + i) * k + c] : 0.0f;
            }
        }
    }
}

extern const Kernels kPlain;
const Kernels kPlain = {
    "plain",  1,        1,         6,         packed_i8_bytes, pack_i8, quantize, dense_i8, dense_f32,
    add_row,  norm,     softmax,   attention,       lstm,    gru,      fold,     unary,
    binary, select,   peak_i8,
};

}  // namespace edge_wm::kernels
