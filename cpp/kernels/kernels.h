// The arithmetic of step programs: one table of functions per instruction set, all with one meaning.
//
//   kernels_plain.cpp        always built, and the definition of every result
//   kernels_avx2.cpp         x86 with AVX2, FMA and F16C
//   kernels_avx512vnni.cpp   x86 with AVX-512 F/BW/VL/DQ and VNNI
//   kernels_amx.cpp          the same, with AMX int8
//   kernels_dotprod.cpp      ARMv8.2 with SDOT
//   kernels_i8mm.cpp         ARMv8.6 with SMMLA
//
// The invariant: every table gives the same bits. Products of int8 are summed in int32, which has
// no order; float32 sums have a fixed one (16 lanes, then halves), fused multiply-adds are written
// as such and nowhere else (-ffp-contract=off), and exponentials are our own polynomials. So a
// recording made on one machine can be held against another, and one golden hash serves all.
//
// Nothing here allocates, locks, logs, throws or asks a clock. Caller guarantees: pointers and
// sizes are right, float arrays may be *read* up to 15 numbers past their end (never written), and
// outputs do not alias inputs unless a comment allows it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edge_wm::kernels {

constexpr std::size_t kLanes = 16;  // of every float32 sum's fixed order, and outputs of a panel

// y = f(x). The order is that of edge_wm/bundle/program.py's UnaryKind after `none`.
enum class Function : std::uint8_t {
    none, relu, elu, silu, gelu, gelu_tanh, mish, tanh, sigmoid, softplus,
    exp, log, sqrt, sin, cos, erf, abs, neg, sign, square, reciprocal, floor, round, logical_not,
};

// y = f(a, b), in the order of BinaryKind.
enum class Pair : std::uint8_t {
    add, sub, mul, div, min, max, pow, less, greater, equal, logical_and, logical_or,
};

enum class Fold : std::uint8_t { sum, mean, max, min };

// One segment of a dense layer on rows that lie `stride` apart.
struct DenseI8 {
    const void *x;             // rows of quantized numbers, as `quantize` wrote them
    std::size_t x_bytes;       // from one row to the next
    const float *x_scale;      // (rows,)
    std::size_t rows;
    std::size_t k, n;          // inputs and outputs, not padded
    const void *weight;        // as `pack_i8` wrote it
    const float *scale;        // (n padded to kLanes,)
    float *out;
    std::size_t out_stride;    // floats from one row to the next
    bool add;                  // out += instead of out =
    const float *bias;         // (n padded to kLanes,) or null; added last
    Function function;         // applied after the bias
    std::size_t panel, panels; // which outputs: kLanes each, from `panel` on
};

struct DenseF32 {
    const float *x;
    std::size_t x_stride;
    std::size_t rows;
    std::size_t k, n;
    const float *weight;       // as `pack_f32` wrote it
    float *out;
    std::size_t out_stride;
    bool add;
    const float *bias;
    Function function;
    std::size_t panel, panels;
};

struct Norm {
    const float *x;
    std::size_t x_stride;
    float *out;                // may be x
    std::size_t out_stride;
    std::size_t rows, n;
    bool center;               // layer norm; else root mean square
    float epsilon;
    const float *weight;       // (n,) or null
    const float *bias;         // (n,) or null
    Function function;
};

struct Attention {
    const float *q, *k, *v;
    float *out;
    std::size_t q_stride, k_stride, v_stride, out_stride;  // from one token to the next
    std::size_t queries, keys, heads, size;
    float scale;
    bool causal;
    float *scratch;            // attention_floats(queries, keys, size) numbers
};

// Rows of an elementwise operation; `out` may be one of the operands.
struct Elementwise {
    const float *x[3];         // unary reads the first, binary two, select three
    std::size_t step[3];       // from one number to the next: 1, or 0 for one number
    std::size_t row[3];        // from one row to the next
    float *out;
    std::size_t out_row;
    std::size_t rows, n;
};

// Up to this many keys scores are dot products; above, products with packed keys and values.
constexpr std::size_t kFewKeys = 24;

constexpr std::size_t padded(std::size_t n, std::size_t to = kLanes) noexcept {
    return (n + to - 1) / to * to;
}

constexpr std::size_t attention_floats(std::size_t queries, std::size_t keys,
                                       std::size_t size) noexcept {
    return keys <= kFewKeys ? padded(keys)
                            : padded(keys) * (size + queries) + padded(size) * keys + 2 * kLanes;
}

struct Kernels {
    const char *name;
    std::size_t quantized_bytes;   // of one number in a quantized row
    std::size_t quantized_block;   // a quantized row is padded with zeros to a multiple of it
    std::size_t rows_together;     // dense layers are best at a multiple of so many rows

    // ---- dense ------------------------------------------------------------------------------
    std::size_t (*packed_i8_bytes)(std::size_t n, std::size_t k);
    void (*pack_i8)(const std::int8_t *weight, std::size_t n, std::size_t k, void *out);
    // Row by row: m = max |x|, scale = m / 127, q = round-half-even(x * (127 / m)). A row below
    // 1e-30 is zero with scale 0; one with NaN or infinity is zero with scale NaN.
    void (*quantize)(const float *x, std::size_t x_stride, std::size_t rows, std::size_t k,
                     void *q, std::size_t q_bytes, float *scale);
    // out = float(sum of q w) * (x_scale * scale), + out, + bias, function.
    void (*dense_i8)(const DenseI8 &dense);
    void (*dense_f32)(const DenseF32 &dense);
    // y = function(y + row) for each row; `row` or `y` (first) may be left out.
    void (*add_row)(float *y, std::size_t stride, std::size_t rows, std::size_t n,
                    const float *row, bool first, Function function);

    // ---- rows -------------------------------------------------------------------------------
    void (*norm)(const Norm &norm);
    void (*softmax)(const float *x, std::size_t x_stride, float *out, std::size_t out_stride,
                    std::size_t rows, std::size_t n);
    void (*attention)(const Attention &attention);
    // gates (4, n) in the order that `gate` gives: positions of i, f, g, o.
    void (*lstm)(const float *const gate[4], const float *c, float *out_h, float *out_c,
                 std::size_t n);
    // x and h: sums of z, r, n.
    void (*gru)(const float *const x[3], const float *const h_gates[3], const float *h, float *out,
                std::size_t n);
    float (*fold)(Fold kind, const float *x, std::size_t n);

    // ---- numbers ----------------------------------------------------------------------------
    void (*unary)(Function kind, const Elementwise &e);
    void (*binary)(Pair kind, const Elementwise &e);
    void (*select)(const Elementwise &e);  // x[2] != 0 ? x[0] : x[1]

    // ---- measuring --------------------------------------------------------------------------
    // The int8 instruction of this set alone, in registers; gives the multiply-adds that it did.
    double (*peak_i8)(std::size_t rounds);
};

std::size_t packed_f32_floats(std::size_t n, std::size_t k) noexcept;  // [n / 16][k][16]
void pack_f32(const float *weight, std::size_t n, std::size_t k, float *out) noexcept;

}  // namespace edge_wm::kernels
