// Every kernel of the table on seeded numbers: one hash a group, the same on every instruction set.
//
//     kernels_test GOLDEN SETS...          compare with the golden file; SETS must be what is there
//     kernels_test --write GOLDEN          what `plain` gives becomes the golden file
//
// Without Python, so that it runs in a second under an emulator. Numbers come from a generator of
// whole numbers; all NaN count as one (processors differ in a NaN's sign and payload). `pow` is left
// out: it is the C library's powf, which is not the same on all systems. Exits 1 where a hash is
// another than plain's or the golden file's, or where other instruction sets are there than named.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/nonfinite.h"
#include "rollout/rollout.h"

using namespace edge_wm;
using kernels::Fold;
using kernels::Function;
using kernels::kLanes;
using kernels::Kernels;
using kernels::padded;
using kernels::Pair;

#ifdef EDGE_WM_SIMDE
namespace edge_wm::kernels {
extern const Kernels kAvx512Simde;  // kernels_avx512vnni.cpp, on SIMDe's intrinsics
}
#endif

namespace {

// ---- numbers and hashes ------------------------------------------------------------------------
class Random {  // splitmix64
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t bits() {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    // About normal: the sum of four uniform numbers, in steps of 2^-22, times `scale`.
    float number(float scale = 1.0f) {
        const std::uint64_t b = bits();
        std::int32_t sum = -131070;
        for (int i = 0; i < 4; ++i) sum += static_cast<std::int32_t>((b >> (16 * i)) & 0xffffu);
        return static_cast<float>(sum) * (1.0f / 65536.0f) * scale;
    }
    std::int8_t byte() { return static_cast<std::int8_t>(static_cast<int>(bits() % 255) - 127); }

  private:
    std::uint64_t state_;
};

// With kSlack numbers behind, which kernels may read: NaN, so that using one shows.
using Floats = std::vector<float>;
Floats slack(Floats values) {
    values.insert(values.end(), kSlack, NAN);
    return values;
}
Floats numbers(Random &random, std::size_t count, float scale = 1.0f) {
    Floats made(count);
    for (float &x : made) x = random.number(scale);
    return slack(made);
}

class Hash {  // FNV-1a, 64 bits
  public:
    void add(const float *values, std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) {
            std::uint32_t bits;
            std::memcpy(&bits, values + i, 4);
            if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0x7fc00000u;
            for (int byte = 0; byte < 4; ++byte) mix((bits >> (8 * byte)) & 0xffu);
        }
    }
    void add(const Floats &values) { add(values.data(), values.size() - kSlack); }
    void add(float value) { add(&value, 1); }
    void mix(std::uint64_t byte) { state_ = (state_ ^ byte) * 0x100000001b3u; }
    std::uint64_t value() const { return state_; }

  private:
    std::uint64_t state_ = 0xcbf29ce484222325u;
};

const float kSpecial[] = {0.0f,   -0.0f,  1.0f,   -1.0f,  0.5f,   -0.5f, 1e-3f,    20.0f,
                          20.001f, -20.0f, 88.0f, 88.3f,  89.0f,  1e4f,  -87.0f,   -88.0f,
                          -104.0f, 1e-30f, 1e-39f, 3e38f, -3e38f, INFINITY, -INFINITY, NAN,
                          0.625f, -0.625f, 2.5f,  -3.5f,  1e9f,   2e9f,  0.999999f, -1e-39f};
constexpr std::size_t kSpecials = sizeof kSpecial / sizeof *kSpecial;

// Ordinary and special numbers; where a kernel fails, it often fails in the last block only.
Floats mixed(Random &random, std::size_t count) {
    Floats made = numbers(random, count, 4.0f);
    for (std::size_t i = 0; i < count; i += 3) made[i] = kSpecial[random.bits() % kSpecials];
    return made;
}

// ---- dense layers ------------------------------------------------------------------------------
const std::size_t kInputs[] = {1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 64, 70, 129};
const std::size_t kOutputs[] = {1, 15, 16, 17, 33, 48, 64, 65, 80};
constexpr std::size_t kMostRows = 13;
constexpr Function kAfter[] = {Function::none, Function::relu, Function::mish, Function::sigmoid};

// All panels of outputs, in one call or in two.
template <typename Call>
void for_panels(std::size_t outputs, Random &random, const Call &call) {
    const std::size_t panels = padded(outputs) / kLanes, first = random.bits() % panels;
    if (first) call(0, first);
    call(first, panels - first);
}

void quantize_and_dense_i8(const Kernels &k, Hash &hash, std::size_t rows, std::size_t inputs,
                           std::size_t outputs, Random &random, int special) {
    const std::size_t x_stride = inputs + random.bits() % 3, out_stride = outputs + random.bits() % 5;
    Floats x = numbers(random, rows * x_stride);
    if (special) {
        static const float kRows[] = {NAN, INFINITY, -INFINITY, 0.0f, 1e-38f, 1e-31f, 3e38f};
        for (std::size_t r = 0; r < rows; r += 2) {
            float *row = x.data() + r * x_stride;
            if (special > 3) std::fill(row, row + inputs, 0.0f);
            row[random.bits() % inputs] = kRows[(special + r / 2) % 7];
        }
    }
    std::vector<std::int8_t> weight(outputs * inputs);
    for (std::int8_t &w : weight) w = random.byte();
    const Floats scale = numbers(random, padded(outputs)), bias = numbers(random, padded(outputs));
    Floats out = numbers(random, rows * out_stride);

    Aligned packed(k.packed_i8_bytes(outputs, inputs));
    k.pack_i8(weight.data(), outputs, inputs, packed.data());
    const std::size_t row_bytes = padded(inputs, k.quantized_block) * k.quantized_bytes;
    Aligned q(rows * row_bytes + 64);
    std::memset(q.data(), 0x5a, q.size());  // padding must be written, not found
    Floats x_scale(rows + kSlack);
    k.quantize(x.data(), x_stride, rows, inputs, q.data(), row_bytes, x_scale.data());
    const bool more = random.bits() % 2, biased = random.bits() % 2;
    const Function after = kAfter[random.bits() % 4];
    for_panels(outputs, random, [&](std::size_t panel, std::size_t panels) {
        k.dense_i8({q.data(), row_bytes, x_scale.data(), rows, inputs, outputs, packed.data(),
                    scale.data(), out.data(), out_stride, more, biased ? bias.data() : nullptr,
                    after, panel, panels});
    });
    hash.add(x_scale);
    hash.add(out);
}

void dense_i8(const Kernels &k, Hash &hash) {
    Random random(1);
    for (const std::size_t inputs : kInputs) {
        for (const std::size_t outputs : kOutputs) {
            const std::size_t rows = 1 + random.bits() % kMostRows;
            quantize_and_dense_i8(k, hash, rows, inputs, outputs, random, 0);
        }
    }
    for (std::size_t rows = 1; rows <= kMostRows; ++rows) {
        quantize_and_dense_i8(k, hash, rows, 61, 96, random, 0);
        for (int special = 1; special <= 7; ++special) {
            quantize_and_dense_i8(k, hash, rows, 37, 35, random, special);
        }
    }
    // about the blocks of 512 inputs and 96 rows that AVX2 has
    for (const std::size_t inputs : {511, 512, 513, 1025}) {
        quantize_and_dense_i8(k, hash, 12, inputs, 35, random, 0);
    }
    for (const std::size_t rows : {95, 96, 97, 103}) {
        quantize_and_dense_i8(k, hash, rows, 520, 17, random, 0);
    }
}

// All products at once as large as they can be, and as small.
void dense_i8_extremes(const Kernels &k, Hash &hash) {
    const std::size_t rows = 7, inputs = 515, outputs = 33;
    for (const int sign : {-1, 1}) {
        std::vector<std::int8_t> weight(outputs * inputs, static_cast<std::int8_t>(127 * sign));
        Aligned packed(k.packed_i8_bytes(outputs, inputs));
        k.pack_i8(weight.data(), outputs, inputs, packed.data());
        const Floats x = slack(Floats(rows * inputs, 3.5f));
        const Floats scale = slack(Floats(padded(outputs), 1.0f));
        Floats out = slack(Floats(rows * outputs, 0.0f)), x_scale(rows + kSlack);
        const std::size_t row_bytes = padded(inputs, k.quantized_block) * k.quantized_bytes;
        Aligned q(rows * row_bytes + 64);
        k.quantize(x.data(), inputs, rows, inputs, q.data(), row_bytes, x_scale.data());
        k.dense_i8({q.data(), row_bytes, x_scale.data(), rows, inputs, outputs, packed.data(),
                    scale.data(), out.data(), outputs, false, nullptr, Function::none, 0,
                    padded(outputs) / kLanes});
        hash.add(out);
    }
}

void dense_f32_of(const Kernels &k, Hash &hash, std::size_t rows, std::size_t inputs,
                  std::size_t outputs, Random &random, bool special) {
    const std::size_t x_stride = inputs + random.bits() % 3, out_stride = outputs + random.bits() % 5;
    Floats x = numbers(random, rows * x_stride);
    if (special) x[(rows / 2) * x_stride + random.bits() % inputs] = kSpecial[21 + random.bits() % 3];
    const Floats weight = numbers(random, outputs * inputs), bias = numbers(random, padded(outputs));
    Floats out = numbers(random, rows * out_stride);
    Floats packed(kernels::packed_f32_floats(outputs, inputs));
    kernels::pack_f32(weight.data(), outputs, inputs, packed.data());
    const bool more = random.bits() % 2, biased = random.bits() % 2;
    const Function after = kAfter[random.bits() % 4];
    for_panels(outputs, random, [&](std::size_t panel, std::size_t panels) {
        k.dense_f32({x.data(), x_stride, rows, inputs, outputs, packed.data(), out.data(),
                     out_stride, more, biased ? bias.data() : nullptr, after, panel, panels});
    });
    hash.add(out);
}

void dense_f32(const Kernels &k, Hash &hash) {
    Random random(2);
    for (const std::size_t inputs : kInputs) {
        for (const std::size_t outputs : kOutputs) {
            dense_f32_of(k, hash, 1 + random.bits() % kMostRows, inputs, outputs, random, false);
        }
    }
    for (std::size_t rows = 1; rows <= kMostRows; ++rows) {
        dense_f32_of(k, hash, rows, 37, 35, random, false);
        dense_f32_of(k, hash, rows, 37, 35, random, true);
    }
}

void add_row(const Kernels &k, Hash &hash) {
    Random random(3);
    for (const std::size_t n : {1, 8, 15, 16, 17, 40}) {
        for (const Function function : kAfter) {
            Floats y = mixed(random, 3 * (n + 2));
            const Floats row = mixed(random, n);
            k.add_row(y.data(), n + 2, 3, n, row.data(), false, function);
            k.add_row(y.data() + n + 2, n + 2, 1, n, nullptr, false, function);
            k.add_row(y.data(), n + 2, 1, n, row.data(), true, function);
            hash.add(y);
        }
    }
}

// ---- rows --------------------------------------------------------------------------------------
void norm(const Kernels &k, Hash &hash) {
    Random random(4);
    for (const std::size_t n : {1, 2, 5, 8, 15, 16, 17, 31, 32, 33, 48, 64, 100, 129}) {
        for (int variant = 0; variant < 4; ++variant) {
            const std::size_t rows = 1 + random.bits() % 4, stride = n + random.bits() % 3;
            Floats x = numbers(random, rows * stride, 3.0f);
            if (variant == 3) x[random.bits() % n] = kSpecial[21 + random.bits() % 3];
            const Floats weight = numbers(random, n), bias = numbers(random, n);
            Floats out = slack(Floats(rows * stride, 0.0f));
            k.norm({x.data(), stride, out.data(), stride, rows, n, variant != 1, 1e-5f,
                    variant ? weight.data() : nullptr, variant > 1 ? bias.data() : nullptr,
                    kAfter[random.bits() % 4]});
            hash.add(out);
            k.norm({x.data(), stride, x.data(), stride, rows, n, false, 1e-6f, weight.data(),
                    bias.data(), Function::none});  // in place
            hash.add(x);
        }
    }
}

void softmax(const Kernels &k, Hash &hash) {
    Random random(5);
    for (const std::size_t n : {1, 2, 3, 7, 8, 9, 15, 16, 17, 32, 33, 101}) {
        for (int variant = 0; variant < 5; ++variant) {
            const std::size_t rows = 1 + random.bits() % 6;
            const std::size_t stride = variant == 1 ? n + 3 : n;
            Floats x = numbers(random, rows * stride, 5.0f);
            if (variant > 1) x[random.bits() % n] = kSpecial[19 + variant];  // -3e38, inf, -inf
            if (variant == 4) x[random.bits() % n] = NAN;
            Floats out = slack(Floats(rows * stride, 0.0f));
            k.softmax(x.data(), stride, out.data(), stride, rows, n);
            hash.add(out);
        }
    }
}

void attention(const Kernels &k, Hash &hash) {
    Random random(6);
    const std::size_t sizes[][3] = {{3, 3, 20}, {1, 4, 16}, {17, 17, 8}, {5, 18, 33}, {1, 1, 1}};
    for (const auto &[queries, keys, size] : sizes) {
        for (const bool causal : {false, true}) {
            const std::size_t heads = 3, width = heads * size, stride = width + 2;
            const Floats q = numbers(random, queries * stride), key = numbers(random, keys * stride);
            Floats v = numbers(random, keys * stride);
            if (causal) v[0] = NAN;
            Floats out = slack(Floats(queries * stride, 0.0f)), scores(padded(keys) + kSlack);
            k.attention({q.data(), key.data(), v.data(), out.data(), stride, stride, stride, stride,
                         queries, keys, heads, size, 0.25f, causal, scores.data()});
            hash.add(out);
        }
    }
}

void lstm(const Kernels &k, Hash &hash) {
    Random random(7);
    for (const std::size_t n : {1, 15, 16, 17, 21, 64}) {
        const Floats gates = mixed(random, 4 * n), c = numbers(random, n);
        const float *const gate[4] = {gates.data() + 2 * n, gates.data(), gates.data() + 3 * n,
                                      gates.data() + n};
        Floats h = slack(Floats(n, 0.0f)), next = h;
        k.lstm(gate, c.data(), h.data(), next.data(), n);
        hash.add(h);
        hash.add(next);
    }
}

void gru(const Kernels &k, Hash &hash) {
    Random random(8);
    for (const std::size_t n : {1, 15, 16, 17, 24, 64}) {
        const Floats x = mixed(random, 3 * n), h = numbers(random, 3 * n), before = numbers(random, n);
        const float *const x_gates[3] = {x.data(), x.data() + n, x.data() + 2 * n};
        const float *const h_gates[3] = {h.data() + n, h.data(), h.data() + 2 * n};
        Floats out = slack(Floats(n, 0.0f));
        k.gru(x_gates, h_gates, before.data(), out.data(), n);
        hash.add(out);
    }
}

void fold(const Kernels &k, Hash &hash) {
    Random random(9);
    for (const std::size_t n : {1, 2, 15, 16, 17, 31, 32, 33, 64, 100}) {
        for (int kind = 0; kind < 4; ++kind) {
            hash.add(k.fold(static_cast<Fold>(kind), numbers(random, n).data(), n));
            hash.add(k.fold(static_cast<Fold>(kind), mixed(random, n).data(), n));
        }
    }
}

// ---- numbers -----------------------------------------------------------------------------------
void unary(const Kernels &k, Hash &hash, Function function) {
    Random random(10);
    for (const std::size_t n : {1, 2, 3, 5, 7, 13, 14, 15, 16, 17, 31, 33, 256}) {
        for (const float scale : {0.3f, 3.0f, 30.0f}) {
            const Floats plain = numbers(random, n, scale), special = mixed(random, n);
            Floats out = slack(Floats(n, 0.0f));
            k.unary(function, {{plain.data()}, {1}, {}, out.data(), 0, 1, n});
            hash.add(out);
            k.unary(function, {{special.data()}, {1}, {}, out.data(), 0, 1, n});
            hash.add(out);
        }
    }
}

void binary(const Kernels &k, Hash &hash, Pair pair) {
    Random random(11);
    for (const std::size_t n : {1, 4, 15, 16, 17, 33, 200}) {
        const Floats a = mixed(random, n), b = mixed(random, n);
        for (int strides = 0; strides < 4; ++strides) {
            Floats out = slack(Floats(n, 0.0f));
            k.binary(pair, {{a.data(), b.data()},
                            {strides & 1u, static_cast<std::size_t>(strides) >> 1u},
                            {}, out.data(), 0, 1, n});
            hash.add(out);
        }
    }
}

// Three rows that lie apart, of numbers that are each row's own, or one for all; held against a
// plain loop too, because the golden hashes come from the same body.
void rows_of_lines(const Kernels &k, Hash &hash) {
    Random random(13);
    constexpr std::size_t kRows = 3, kApart = 40;
    for (const std::size_t n : {1, 5, 15, 16, 17, 33}) {
        const Floats a = mixed(random, kRows * kApart), b = mixed(random, kRows * kApart);
        Floats c = numbers(random, kRows * kApart);
        for (std::size_t i = 0; i < c.size(); i += 3) c[i] = 0.0f;
        for (std::size_t steps = 0; steps < 8; ++steps) {
            const std::size_t step[3] = {steps & 1, steps >> 1 & 1, steps >> 2};
            Floats chosen = slack(Floats(kRows * kApart, 0.0f)), sum = chosen;
            const edge_wm::kernels::Elementwise e{{a.data(), b.data(), c.data()}, {step[0], step[1], step[2]},
                                  {kApart, kApart, kApart}, chosen.data(), kApart, kRows, n};
            edge_wm::kernels::Elementwise added = e;
            added.out = sum.data();
            k.select(e);
            k.binary(Pair::add, added);
            for (std::size_t r = 0; r < kRows; ++r) {
                for (std::size_t i = 0; i < n; ++i) {
                    const float x = a[r * kApart + i * step[0]], y = b[r * kApart + i * step[1]];
                    const float expected[2] = {c[r * kApart + i * step[2]] != 0.0f ? x : y, x + y};
                    const float found[2] = {chosen[r * kApart + i], sum[r * kApart + i]};
                    const bool nan = expected[1] != expected[1] && found[1] != found[1];
                    if (std::memcmp(expected, found, nan ? 4 : 8) != 0) {
                        std::fprintf(stderr, "rows_of_lines: row %zu, number %zu of %zu\n", r, i, n);
                        std::abort();
                    }
                }
            }
            hash.add(chosen);
            hash.add(sum);
        }
    }
}

void nonfinite(const Kernels &, Hash &hash) {
    Random random(12);
    for (const std::size_t columns : {0, 1, 7, 16, 33}) {
        const Floats values = columns % 2 ? mixed(random, 9 * columns) : numbers(random, 9 * columns);
        std::uint8_t marks[9];
        kernels::nonfinite(values.data(), 9, columns, marks);
        for (const std::uint8_t mark : marks) hash.mix(mark);
    }
}

// ---- programs ----------------------------------------------------------------------------------
ConstantData constant(Random &random, std::vector<std::size_t> shape, float scale = 1.0f) {
    ConstantData made;
    std::size_t count = 1;
    for (const std::size_t n : shape) count *= n;
    made.shape = std::move(shape);
    for (std::size_t i = 0; i < count; ++i) made.floats.push_back(random.number(scale));
    return made;
}

ConstantData bytes(Random &random, std::size_t rows, std::size_t columns) {
    ConstantData made;
    made.shape = {rows, columns};
    for (std::size_t i = 0; i < rows * columns; ++i) made.bytes.push_back(random.byte());
    return made;
}

// Registers, constants and operations of a program, gathered one by one.
struct Builder {
    Random random;
    std::vector<RegisterSpec> registers;
    std::vector<ConstantData> constants;
    std::vector<PortSpec> inputs, outputs;
    std::vector<Op> operations;

    explicit Builder(std::uint64_t seed) : random(seed) {}
    std::size_t reg(std::size_t width) {
        registers.push_back({width, -1});
        return registers.size() - 1;
    }
    std::size_t input(std::size_t width, bool batched = true) {
        inputs.push_back({reg(width), batched});
        return inputs.back().reg;
    }
    std::size_t keep(ConstantData data) {
        constants.push_back(std::move(data));
        return constants.size() - 1;
    }
    // A dense layer over whole registers.
    std::size_t dense(const std::vector<std::size_t> &from, std::size_t size, bool int8,
                      Function after) {
        Op op;
        op.kind = OpKind::dense;
        op.size = size;
        op.after = static_cast<std::uint8_t>(after);
        for (const std::size_t x : from) {
            SegmentAt segment;
            const std::size_t width = registers[x].width;
            segment.x = {x, 0, width};
            segment.size = width;
            if (int8) {
                segment.scale = static_cast<std::ptrdiff_t>(
                    keep(constant(random, {size}, 0.005f / static_cast<float>(from.size()))));
                segment.weight = keep(bytes(random, size, width));
            } else {
                segment.weight = keep(constant(random, {size, width}, 0.2f));
            }
            op.segments.push_back(segment);
        }
        op.bias = static_cast<std::ptrdiff_t>(keep(constant(random, {size}, 0.1f)));
        op.out = {reg(size), 0, size};
        operations.push_back(op);
        return op.out.reg;
    }
    Op rows(OpKind kind, std::size_t x, std::size_t tokens, std::size_t size, std::size_t out) {
        Op op;
        op.kind = kind;
        op.tokens = tokens;
        op.size = size;
        op.x = {x, 0, size};
        op.out = {out, 0, size};
        return op;
    }
    std::size_t norm(std::size_t x, Function after) {
        const std::size_t size = registers[x].width;
        Op op = rows(OpKind::norm, x, 1, size, reg(size));
        op.function = 1;
        op.after = static_cast<std::uint8_t>(after);
        op.number = 1e-5f;
        op.weight = static_cast<std::ptrdiff_t>(keep(constant(random, {size})));
        op.bias = static_cast<std::ptrdiff_t>(keep(constant(random, {size}, 0.1f)));
        operations.push_back(op);
        return op.out.reg;
    }
    std::size_t softmax(std::size_t x, std::size_t groups) {
        const std::size_t width = registers[x].width;
        operations.push_back(rows(OpKind::softmax, x, groups, width / groups, reg(width)));
        return operations.back().out.reg;
    }
    std::size_t unary(std::size_t x, Function function) {
        const std::size_t width = registers[x].width;
        Op op = rows(OpKind::unary, x, 1, width, reg(width));
        op.function = static_cast<std::uint8_t>(function);
        operations.push_back(op);
        return op.out.reg;
    }
    std::size_t by_view(OpKind kind, int function, std::vector<std::size_t> shape, ViewAt out,
                        ViewAt a, ViewAt b = {}, ViewAt c = {}) {
        Op op;
        op.kind = kind;
        op.function = static_cast<std::uint8_t>(function);
        op.shape = std::move(shape);
        op.out_view = out;
        op.a = a;
        op.b = b;
        op.c = c;
        operations.push_back(op);
        return out.reg;
    }
    std::shared_ptr<const Program> made(const Kernels &k, const std::vector<std::size_t> &from) {
        for (const std::size_t x : from) outputs.push_back({x, true});
        return std::make_shared<const Program>(k, registers, constants, inputs, outputs, operations);
    }
};

// Rows as a machine takes them.
Floats spaced(const Floats &values, std::size_t rows, std::size_t width) {
    const std::size_t row = Program::row_floats(width);
    Floats made(rows * row + kSlack, 0.0f);
    for (std::size_t r = 0; r < rows; ++r) {
        std::memcpy(made.data() + r * row, values.data() + r * width, width * sizeof(float));
    }
    return made;
}

// One program with every kind of operation but for attention and the cells, which follow alone.
std::shared_ptr<const Program> everything(const Kernels &k) {
    Builder b(20);
    const std::size_t x = b.input(40), goal = b.input(9, false), image = b.input(6 * 5 * 2);
    const std::size_t hidden = b.norm(b.dense({x, goal}, 72, true, Function::none), Function::mish);
    const std::size_t wave = b.unary(b.dense({hidden}, 33, false, Function::tanh), Function::sin);
    const std::size_t groups = b.softmax(b.dense({hidden, x}, 64, true, Function::none), 8);
    const std::size_t table = b.reg(12);
    b.by_view(OpKind::binary, static_cast<int>(Pair::sub), {3, 4}, {table, 0, {1, 3}},
              {hidden, 5, {7, 2}}, {goal, 1, {2, 0}});
    const std::size_t most = b.reg(3);
    b.by_view(OpKind::reduce, static_cast<int>(Fold::max), {3, 4}, {most, 0, {1}}, {table, 0, {4, 1}});
    const std::size_t sum = b.reg(4);
    b.by_view(OpKind::reduce, static_cast<int>(Fold::mean), {4, 3}, {sum, 0, {1}}, {table, 0, {1, 4}});
    const std::size_t mask = b.reg(12), chosen = b.reg(12);
    b.by_view(OpKind::binary, static_cast<int>(Pair::greater), {12}, {mask, 0, {1}}, {table, 0, {1}},
              {most, 1, {0}});
    b.by_view(OpKind::select, 0, {12}, {chosen, 0, {1}}, {table, 0, {1}}, {wave, 3, {1}},
              {mask, 0, {1}});
    const std::size_t turned = b.reg(12);
    b.by_view(OpKind::copy, 0, {3, 4}, {turned, 0, {1, 3}}, {chosen, 0, {4, 1}});

    Op hot = b.rows(OpKind::one_hot, groups, 8, 8, b.reg(64));
    b.operations.push_back(hot);
    Op look = b.rows(OpKind::lookup, turned, 12, 5, b.reg(60));
    look.x.stride = 1;
    look.weight = static_cast<std::ptrdiff_t>(b.keep(constant(b.random, {3, 5})));
    b.operations.push_back(look);
    // 3 x 3 patches of a 6 x 5 picture, stride 2 and 1, padded by 1: 3 x 5 of 18 numbers
    Op patches = b.rows(OpKind::patches, image, 15, 18, b.reg(15 * 18));
    patches.numbers = {6, 5, 2, 3, 3, 2, 1, 1, 1, 1, 1};
    b.operations.push_back(patches);
    Op convolution;
    convolution.kind = OpKind::dense;
    convolution.tokens = 15;
    convolution.size = 20;
    convolution.after = static_cast<std::uint8_t>(Function::relu);
    SegmentAt part;
    part.x = {patches.out.reg, 0, 18};
    part.size = 18;
    part.scale = static_cast<std::ptrdiff_t>(b.keep(constant(b.random, {20}, 0.01f)));
    part.weight = b.keep(bytes(b.random, 20, 18));
    convolution.segments.push_back(part);
    convolution.bias = static_cast<std::ptrdiff_t>(b.keep(constant(b.random, {20})));
    convolution.out = {b.reg(300), 0, 20};
    b.operations.push_back(convolution);
    return b.made(k, {hidden, wave, hot.out.reg, turned, sum, look.out.reg, convolution.out.reg});
}

void run_program(Hash &hash, const std::shared_ptr<const Program> &program, std::uint64_t seed) {
    std::vector<bool> plain, shared;
    for (const PortSpec &port : program->inputs) {
        plain.push_back(!port.batched);
        shared.push_back(!port.batched || &port == &program->inputs[0]);
    }
    Machine machine(*program, 13, plain, shared);
    for (const std::size_t rows : {1, 2, 5, 6, 7, 13}) {
        for (const Sharing sharing : {Sharing::plain, Sharing::shared}) {
            Random random(seed + rows);
            std::vector<Floats> from, to;
            for (std::size_t i = 0; i < program->inputs.size(); ++i) {
                const std::size_t width = program->registers[program->inputs[i].reg].width;
                const bool one = (sharing == Sharing::shared ? shared : plain)[i];
                from.push_back(spaced(numbers(random, rows * width), one ? 1 : rows, width));
            }
            for (const PortSpec &port : program->outputs) {
                const std::size_t row = Program::row_floats(program->registers[port.reg].width);
                to.emplace_back(13 * row + kSlack, 0.0f);
            }
            for (std::size_t i = 0; i < from.size(); ++i) machine.bind_input(i, from[i].data());
            for (std::size_t i = 0; i < to.size(); ++i) machine.bind_output(i, to[i].data());
            machine.run(rows, sharing);
            for (std::size_t i = 0; i < to.size(); ++i) {
                const std::size_t width = program->registers[program->outputs[i].reg].width;
                for (std::size_t r = 0; r < rows; ++r) {
                    hash.add(to[i].data() + r * Program::row_floats(width), width);
                }
            }
        }
    }
}

void program(const Kernels &k, Hash &hash) { run_program(hash, everything(k), 21); }

// A recurrent model: an LSTM, a GRU and an attention over five tokens.
void cells(const Kernels &k, Hash &hash) {
    Builder b(30);
    const std::size_t x = b.input(20), c = b.input(21), h = b.input(24);
    Op lstm = b.rows(OpKind::lstm, b.dense({x, c}, 84, true, Function::none), 1, 21, b.reg(21));
    lstm.x2 = {c, 0, 21};
    lstm.out2 = {b.reg(21), 0, 21};
    lstm.numbers = {0, 2, 1, 3};
    b.operations.push_back(lstm);
    Op gru = b.rows(OpKind::gru, b.dense({x}, 72, true, Function::none), 1, 24, b.reg(24));
    gru.x2 = {b.dense({h}, 72, true, Function::none), 0, 72};
    gru.x3 = {h, 0, 24};
    gru.numbers = {1, 0, 2};
    b.operations.push_back(gru);
    const std::size_t q = b.dense({x, lstm.out.reg}, 60, false, Function::none);
    const std::size_t key = b.dense({x, h}, 60, true, Function::none);
    const std::size_t v = b.dense({gru.out.reg}, 60, true, Function::none);
    Op attention = b.rows(OpKind::attention, q, 5, 4, b.reg(60));
    attention.x = {q, 0, 12};
    attention.x2 = {key, 0, 12};
    attention.x3 = {v, 0, 12};
    attention.out.stride = 12;
    attention.number = 0.5f;
    attention.numbers = {5, 5, 3, 1};
    b.operations.push_back(attention);
    run_program(hash, b.made(k, {lstm.out.reg, lstm.out2.reg, gru.out.reg, attention.out.reg}), 31);
}

// ---- rollouts ----------------------------------------------------------------------------------
void rollout(const Kernels &k, Hash &hash) {
    Builder d(40);
    const std::size_t z = d.input(48), action = d.input(6), noise = d.input(5), dt = d.input(1, false);
    const std::size_t hidden =
        d.norm(d.dense({z, action, noise, dt}, 96, true, Function::none), Function::mish);
    const std::size_t next = d.softmax(d.dense({hidden}, 48, true, Function::none), 6);
    Builder c(41);
    const std::size_t belief = c.input(48), aim = c.input(7, false);
    const std::size_t reward = c.dense({c.dense({belief, aim}, 32, true, Function::elu)}, 1, false,
                                       Function::none);
    Builder s(42);
    const std::size_t risk = s.dense({s.input(48)}, 2, false, Function::tanh);
    Builder v(43);
    const std::size_t value = v.dense({v.input(48)}, 1, true, Function::none);

    RolloutSpec spec;
    using Source = Wire::Source;
    spec.dynamics = {d.made(k, {next}),
                     {{Source::belief, 0}, {Source::action, 0}, {Source::noise, 0}, {Source::dt, 0}},
                     {0}};
    spec.cost = {c.made(k, {reward}), {{Source::belief, 0}, {Source::goal, 0}}, {0}};
    spec.constraint = {s.made(k, {risk}), {{Source::belief, 0}}, {0}};
    spec.value = {v.made(k, {value}), {{Source::belief, 0}}, {0}};
    spec.belief = {48};
    spec.terms = 1;
    spec.action = 6;
    spec.axes = 3;
    spec.scale = {0.5f, 2.0f, 1.0f};
    spec.offset = {0.0f, 0.25f, -0.5f};
    spec.noise = 5;
    spec.goals = 1;
    const std::size_t variants[][3] = {{1, 1, 0}, {7, 1, 0}, {100, 1, 0}, {100, 2, 24}};
    for (const auto &[candidates, threads, tile] : variants) {
        spec.threads = threads;
        spec.tile = tile;
        Rollout engine(spec);
        Random random(44);
        const std::size_t steps = 5;
        const Floats start = numbers(random, 48), goal = numbers(random, 7);
        Floats actions = numbers(random, candidates * steps * 6);
        if (candidates > 3) actions[3 * steps * 6 + 8] = NAN;
        const Floats noises = numbers(random, steps * candidates * 5, 0.1f);
        const float *const belief_at[] = {start.data()}, *const goal_at[] = {goal.data()};
        const float weights[] = {1.0f, 0.9f};
        Floats cost = slack(Floats(candidates, 0.0f)), terms = slack(Floats(2 * candidates, 0.0f));
        Floats kept = slack(Floats(candidates * (steps + 1) * 48, 0.0f));
        std::vector<std::uint8_t> infeasible(candidates);
        float *const kept_at[] = {kept.data()};
        engine.run({belief_at, goal_at, actions.data(), noises.data(), candidates, steps, 0.05f,
                    weights, cost.data(), infeasible.data(), terms.data(), kept_at});
        hash.add(cost);
        hash.add(terms);
        hash.add(kept);
        for (const std::uint8_t mark : infeasible) hash.mix(mark);
    }
}

// ---- groups ------------------------------------------------------------------------------------
struct Group {
    std::string name;
    std::function<void(const Kernels &, Hash &)> run;
};

std::vector<Group> groups() {
    static const char *const kFunctions[] = {
        "none", "relu", "elu",  "silu", "gelu", "gelu_tanh", "mish",       "tanh",
        "sigmoid", "softplus", "exp", "log", "sqrt", "sin", "cos", "erf", "abs", "neg", "sign",
        "square", "reciprocal", "floor", "round", "logical_not"};
    static const char *const kPairs[] = {"add", "sub",     "mul",   "div",         "min", "max", "pow",
                                         "less", "greater", "equal", "logical_and", "logical_or"};
    std::vector<Group> all = {
        {"dense_i8", dense_i8}, {"dense_i8_extremes", dense_i8_extremes}, {"dense_f32", dense_f32},
        {"add_row", add_row},   {"norm", norm},       {"softmax", softmax}, {"attention", attention},
        {"lstm", lstm},         {"gru", gru},         {"fold", fold}};
    for (std::size_t i = 0; i < sizeof kFunctions / sizeof *kFunctions; ++i) {
        all.push_back({std::string("unary_") + kFunctions[i], [i](const Kernels &k, Hash &hash) {
                           unary(k, hash, static_cast<Function>(i));
                       }});
    }
    for (std::size_t i = 0; i < sizeof kPairs / sizeof *kPairs; ++i) {
        if (static_cast<Pair>(i) == Pair::pow) continue;
        all.push_back({std::string("binary_") + kPairs[i], [i](const Kernels &k, Hash &hash) {
                           binary(k, hash, static_cast<Pair>(i));
                       }});
    }
    all.push_back({"rows_of_lines", rows_of_lines});
    all.push_back({"nonfinite", nonfinite});
    all.push_back({"program", program});
    all.push_back({"cells", cells});
    all.push_back({"rollout", rollout});
    return all;
}

std::string hash_of(const Group &group, const Kernels &kernels) {
    Hash hash;
    group.run(kernels, hash);
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash.value()));
    return text;
}

std::map<std::string, std::string> golden(const char *path) {
    std::map<std::string, std::string> found;
    std::FILE *file = std::fopen(path, "r");
    if (file == nullptr) return found;
    char name[64], hash[32];
    while (std::fscanf(file, "%63s %31s", name, hash) == 2) found[name] = hash;
    std::fclose(file);
    return found;
}

int write(const char *path) {
    std::FILE *file = std::fopen(path, "w");
    if (file == nullptr) return 2;
    for (const Group &group : groups()) {
        std::fprintf(file, "%s %s\n", group.name.c_str(),
                     hash_of(group, *kernels::find("plain")).c_str());
    }
    return std::fclose(file) == 0 ? 0 : 2;
}

}  // namespace

int main(int count, char **arguments) {
    if (count == 3 && std::strcmp(arguments[1], "--write") == 0) return write(arguments[2]);
    if (count < 3) {
        std::fprintf(stderr, "usage: kernels_test GOLDEN SETS... | --write GOLDEN\n");
        return 2;
    }
    std::vector<const Kernels *> sets = kernels::available();
#ifdef EDGE_WM_SIMDE
    Kernels simde = kernels::kAvx512Simde;
    simde.name = "avx512vnni_on_simde";
    if (kernels::find("avx2")) sets.push_back(&simde);  // its 256-bit halves are AVX2
#endif
    bool passed = true;
    std::string found, wanted;
    for (const Kernels *set : sets) found += std::string(" ") + set->name;
    for (int i = 2; i < count; ++i) wanted += std::string(" ") + arguments[i];
    std::printf("sets:%s\n", found.c_str());
    if (wanted != " any" && wanted != found) {
        std::printf("DIFFERENT sets: wanted%s\n", wanted.c_str());
        passed = false;
    }
    const std::map<std::string, std::string> right = golden(arguments[1]);
    const std::vector<Group> all = groups();
    if (right.size() != all.size()) {
        std::printf("DIFFERENT groups: %zu in %s, %zu here\n", right.size(), arguments[1], all.size());
        passed = false;
    }
    for (const Group &group : all) {
        const auto at = right.find(group.name);
        const std::string first = at == right.end() ? "(none)" : at->second;
        for (const Kernels *set : sets) {
            const std::string hash = hash_of(group, *set);
            if (hash == first) continue;
            std::printf("DIFFERENT %s: golden %s, %s %s\n", group.name.c_str(), first.c_str(),
                        set->name, hash.c_str());
            passed = false;
        }
    }
    std::printf("%s: %zu groups, %zu sets\n", passed ? "same" : "NOT the same", all.size(),
                sets.size());
    return passed ? 0 : 1;
}
