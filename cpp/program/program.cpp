#include "program.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace edge_wm {

using kernels::kLanes;
using kernels::padded;

Aligned::Aligned(std::size_t bytes) : memory_(new char[bytes + 64]()), size_(bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.get());
    at_ = memory_.get() + (64 - address % 64) % 64;
}

Program::Program(const kernels::Kernels &kernels_, std::vector<RegisterSpec> registers_,
                 std::vector<ConstantData> constants_, std::vector<PortSpec> inputs_,
                 std::vector<PortSpec> outputs_, std::vector<Op> operations_)
    : kernels(kernels_),
      registers(std::move(registers_)),
      constants(std::move(constants_)),
      inputs(std::move(inputs_)),
      outputs(std::move(outputs_)),
      operations(std::move(operations_)) {
    for (ConstantData &constant : constants) {  // kernels read whole blocks
        if (!constant.floats.empty()) constant.floats.resize(constant.floats.size() + kSlack);
    }
    pack();
    assign_slots();
}

// Weights as the kernels of this processor read them.
void Program::pack() {
    for (Op &op : operations) {
        for (SegmentAt &segment : op.segments) {
            ConstantData &weight = constants[segment.weight];
            segment.packed = packed.size();
            if (segment.scale >= 0) {
                packed.emplace_back(kernels.packed_i8_bytes(op.size, segment.size));
                kernels.pack_i8(weight.bytes.data(), op.size, segment.size, packed.back().data());
            } else {
                packed.emplace_back(kernels::packed_f32_floats(op.size, segment.size) *
                                    sizeof(float));
                kernels::pack_f32(weight.floats.data(), op.size, segment.size,
                                  reinterpret_cast<float *>(packed.back().data()));
            }
        }
    }
    // Packed weights need no other copy, but where a register holds them or a lookup reads them.
    std::vector<bool> needed(constants.size(), false);
    for (const RegisterSpec &reg : registers) {
        if (reg.constant >= 0) needed[static_cast<std::size_t>(reg.constant)] = true;
    }
    for (const Op &op : operations) {
        if (op.weight >= 0) needed[static_cast<std::size_t>(op.weight)] = true;
    }
    for (const Op &op : operations) {
        for (const SegmentAt &segment : op.segments) {
            ConstantData &weight = constants[segment.weight];
            std::vector<std::int8_t>().swap(weight.bytes);
            if (!needed[segment.weight]) std::vector<float>().swap(weight.floats);
        }
    }
}

namespace {

bool same(const RowsAt &a, const RowsAt &b) {
    return a.reg == b.reg && a.offset == b.offset && a.stride == b.stride;
}

// The register of an operation's output (an LSTM has a second one, `out2`).
std::size_t output_register(const Op &op) {
    const bool by_view = op.kind == OpKind::binary || op.kind == OpKind::select ||
                         op.kind == OpKind::copy || op.kind == OpKind::reduce;
    return by_view ? op.out_view.reg : op.out.reg;
}

bool writes(const Op &op, std::size_t reg) {
    return output_register(op) == reg || (op.kind == OpKind::lstm && op.out2.reg == reg);
}

}  // namespace

// Rows that several int8 segments read are quantized once, until somebody writes them again.
void Program::assign_slots() {
    struct Key {
        RowsAt x;
        std::size_t tokens, size, slot;
    };
    std::vector<Key> known;
    for (std::size_t i = 0; i < operations.size(); ++i) {
        Op &op = operations[i];
        for (SegmentAt &segment : op.segments) {
            if (segment.scale < 0) continue;
            bool found = false;
            for (const Key &key : known) {
                if (same(key.x, segment.x) && key.tokens == op.tokens && key.size == segment.size) {
                    segment.slot = key.slot;
                    slots[key.slot].last = i;
                    found = true;
                }
            }
            if (!found) {
                segment.slot = slots.size();
                segment.quantizes = true;
                slots.push_back({op.tokens, segment.size, i, i});
                known.push_back({segment.x, op.tokens, segment.size, segment.slot});
            }
        }
        std::vector<Key> still;
        for (const Key &key : known) {
            if (!writes(op, key.x.reg)) still.push_back(key);
        }
        known.swap(still);
    }
}

// ---- a machine -------------------------------------------------------------------------------
namespace {

struct At {  // rows of one operand: where, and from one candidate and token to the next
    float *p;
    std::size_t row, token;
};

// Loops over an elementwise operation's index space; axis 0 is the candidates where `rows` is set.
struct Loops {
    std::size_t axes = 0;
    bool rows = false;
    std::size_t count[5] = {};
    std::size_t stride[4][5] = {};  // operand, axis; operand 0 is the output
};

// Drops axes of one number and joins axes that lie behind each other in all operands.
Loops joined(const Loops &from, std::size_t operands) {
    Loops to;
    to.rows = from.rows;
    for (std::size_t axis = 0; axis < from.axes; ++axis) {
        const bool is_rows = axis == 0 && from.rows;
        if (from.count[axis] == 1 && !is_rows) continue;
        bool joins = to.axes > 0;
        for (std::size_t o = 0; o < operands && joins; ++o) {
            joins = to.stride[o][to.axes - 1] == from.count[axis] * from.stride[o][axis];
        }
        if (joins) {
            to.count[to.axes - 1] *= from.count[axis];
        } else {
            to.count[to.axes++] = from.count[axis];
        }
        for (std::size_t o = 0; o < operands; ++o) to.stride[o][to.axes - 1] = from.stride[o][axis];
    }
    if (to.axes == 0) to.count[to.axes++] = 1;
    return to;
}

// Some outputs of one segment of a dense layer.
struct Slice {
    std::size_t panel, panels;
    bool first, last;  // whether the segment is the layer's first, and its last
};

constexpr std::size_t kTogether = 8;  // panels: 90 rows of 128 sums take 46 KB
constexpr std::size_t kChunk = 256;  // numbers gathered at a time where they do not lie together

}  // namespace

struct Machine::Parts {
    const Program &program;
    std::size_t max_rows;
    std::vector<bool> uniform[2];         // by Sharing
    std::vector<std::size_t> stride[2];   // floats between rows, 0 where uniform
    std::vector<float *> base;            // of each register
    std::vector<char *> quantized;        // of each slot
    std::vector<float *> scales;
    std::vector<Loops> loops[2];          // of each operation
    Aligned arena, scratch;
    float *product = nullptr;             // a uniform segment's products
    float *gathered[4] = {};              // kChunk numbers each
    float *line = nullptr;                // the longest reduced axis, or an attention's scratch
    struct Copy {
        std::size_t reg;
        float *to;
    };
    std::vector<Copy> outputs;            // of each output; `to` null where it stays in the arena
    std::vector<float *> own;             // each register's place in the arena

    Parts(const Program &program_, std::size_t rows, const std::vector<bool> &plain,
          const std::vector<bool> &shared)
        : program(program_), max_rows(rows) {
        find_uniform(plain, 0);
        find_uniform(shared, 1);
        place();
        for (int s = 0; s < 2; ++s) {
            for (const Op &op : program.operations) loops[s].push_back(loops_of(op, s));
        }
        for (const PortSpec &port : program.outputs) outputs.push_back({port.reg, nullptr});
    }

    void find_uniform(const std::vector<bool> &inputs, int s);
    void place();
    Loops loops_of(const Op &op, int s) const;

    std::size_t rows_of(std::size_t reg, std::size_t rows, int s) const {
        return uniform[s][reg] ? 1 : rows;
    }
    At at(const RowsAt &rows, int s) const {
        return {base[rows.reg] + rows.offset, stride[s][rows.reg], rows.stride};
    }

    void run(std::size_t rows, int s) noexcept;
    void execute(const Op &op, const Loops &l, std::size_t rows, int s) noexcept;
    void dense(const Op &op, std::size_t rows, int s) noexcept;
    void dense_panels(const Op &op, std::size_t rows, int s, std::size_t panel,
                      std::size_t panels) noexcept;
    void segment(const Op &op, const SegmentAt &part, std::size_t rows, int s,
                 const Slice &slice) noexcept;
    void shared_segment(const Op &op, const SegmentAt &part, std::size_t rows, int s,
                        const Slice &slice) noexcept;
    const float *bias_of(const Op &op) const {
        return op.bias < 0 ? nullptr
                           : program.constants[static_cast<std::size_t>(op.bias)].floats.data();
    }
    void elementwise(const Op &op, const Loops &l, std::size_t rows) noexcept;
    void line_of(const Op &op, const Loops &l, std::size_t axis, std::size_t n,
                 float *const p[4]) noexcept;
    void reduce(const Op &op, const Loops &l, std::size_t rows, int s) noexcept;
    void patches(const Op &op, const float *x, At out) noexcept;
};

namespace {

// Every register that an operation reads.
template <typename Visit>
void reads(const Op &op, Visit visit) {
    for (const SegmentAt &segment : op.segments) visit(segment.x.reg);
    switch (op.kind) {
        case OpKind::dense: break;
        case OpKind::binary: visit(op.a.reg); visit(op.b.reg); break;
        case OpKind::select: visit(op.a.reg); visit(op.b.reg); visit(op.c.reg); break;
        case OpKind::copy:
        case OpKind::reduce: visit(op.a.reg); break;
        case OpKind::lstm: visit(op.x.reg); visit(op.x2.reg); break;
        case OpKind::gru:
        case OpKind::attention: visit(op.x.reg); visit(op.x2.reg); visit(op.x3.reg); break;
        default: visit(op.x.reg);
    }
}

template <typename Visit>
void written(const Op &op, Visit visit) {
    visit(output_register(op));
    if (op.kind == OpKind::lstm) visit(op.out2.reg);
}

}  // namespace

void Machine::Parts::find_uniform(const std::vector<bool> &inputs, int s) {
    const std::size_t count = program.registers.size();
    std::vector<bool> &known = uniform[s];
    known.assign(count, true);
    for (std::size_t i = 0; i < program.inputs.size(); ++i) {
        if (!inputs[i]) known[program.inputs[i].reg] = false;
    }
    // A register that one operation fills row by row is filled so by all: until nothing changes.
    for (bool changed = true; changed;) {
        changed = false;
        for (const Op &op : program.operations) {
            bool each = false;
            reads(op, [&](std::size_t reg) { each = each || !known[reg]; });
            written(op, [&](std::size_t reg) { each = each || !known[reg]; });
            written(op, [&](std::size_t reg) {
                changed = changed || (each && known[reg]);
                if (each) known[reg] = false;
            });
        }
    }
    stride[s].resize(count);
    for (std::size_t r = 0; r < count; ++r) {
        stride[s][r] = known[r] ? 0 : Program::row_floats(program.registers[r].width);
    }
}

// Places registers and quantized rows so that what is not needed at the same time shares memory.
void Machine::Parts::place() {
    struct Block {
        std::size_t bytes, first, last, offset;
    };
    const std::size_t count = program.registers.size(), operations = program.operations.size();
    std::vector<Block> blocks(count, Block{0, operations, 0, 0});
    for (std::size_t i = 0; i < operations; ++i) {
        const Op &op = program.operations[i];
        const auto touch = [&](std::size_t reg) {
            blocks[reg].first = std::min(blocks[reg].first, i);
            blocks[reg].last = std::max(blocks[reg].last, i);
        };
        reads(op, touch);
        written(op, touch);
    }
    for (const PortSpec &port : program.outputs) blocks[port.reg].last = operations;
    for (std::size_t r = 0; r < count; ++r) {
        const std::size_t rows = uniform[0][r] ? 1 : max_rows;
        const bool given = program.registers[r].constant >= 0;
        blocks[r].bytes = (rows * Program::row_floats(program.registers[r].width) + kSlack) * 4;
        if (given || blocks[r].first > blocks[r].last) blocks[r].bytes = 0;
    }
    for (const PortSpec &port : program.inputs) blocks[port.reg].bytes = 0;  // bound from outside
    for (const Program::Slot &slot : program.slots) {
        const std::size_t rows = max_rows * slot.tokens;
        const std::size_t row = padded(slot.size, program.kernels.quantized_block) *
                                program.kernels.quantized_bytes;
        blocks.push_back({padded(rows * row + 64, 64) + (rows + kSlack) * 4, slot.first, slot.last,
                          0});
    }
    std::size_t total = 0;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
        // First fit among the blocks placed so far that live at the same time.
        std::size_t offset = 0;
        for (bool moved = true; moved;) {
            moved = false;
            for (std::size_t o = 0; o < b; ++o) {
                const Block &other = blocks[o], &block = blocks[b];
                const bool meet = other.first <= block.last && block.first <= other.last;
                if (meet && other.bytes && block.bytes && offset < other.offset + other.bytes &&
                    other.offset < offset + block.bytes) {
                    offset = padded(other.offset + other.bytes, 64);
                    moved = true;
                }
            }
        }
        blocks[b].offset = offset;
        total = std::max(total, offset + blocks[b].bytes);
    }
    arena = Aligned(total);
    base.resize(count);
    for (std::size_t r = 0; r < count; ++r) {
        const std::ptrdiff_t constant = program.registers[r].constant;
        base[r] = reinterpret_cast<float *>(arena.data() + blocks[r].offset);
        if (constant >= 0) {
            base[r] = const_cast<float *>(
                program.constants[static_cast<std::size_t>(constant)].floats.data());
        }
    }
    own = base;
    for (std::size_t i = 0; i < program.slots.size(); ++i) {
        const Block &block = blocks[count + i];
        const std::size_t rows = max_rows * program.slots[i].tokens;
        quantized.push_back(arena.data() + block.offset);
        scales.push_back(reinterpret_cast<float *>(arena.data() + block.offset + block.bytes -
                                                   (rows + kSlack) * 4));
    }
    std::size_t products = 0, longest = kLanes;
    for (const Op &op : program.operations) {
        if (op.kind == OpKind::dense) products = std::max(products, op.tokens * padded(op.size));
        if (op.kind == OpKind::reduce) longest = std::max(longest, op.shape.back());
        if (op.kind == OpKind::attention) {
            longest = std::max(longest, kernels::attention_floats(op.numbers[0], op.numbers[1],
                                                                  op.size));
        }
    }
    const std::size_t floats = products + 4 * kChunk + padded(longest) + 6 * kSlack;
    scratch = Aligned(floats * sizeof(float));
    product = reinterpret_cast<float *>(scratch.data());
    for (int i = 0; i < 4; ++i) gathered[i] = product + products + kSlack + i * (kChunk + kSlack);
    line = gathered[3] + kChunk + kSlack;
}

Loops Machine::Parts::loops_of(const Op &op, int s) const {
    std::vector<std::pair<std::size_t, std::array<std::size_t, 4>>> operands;
    std::vector<std::size_t> shape = op.shape;
    if (op.kind == OpKind::unary) {
        shape = {op.tokens, op.size};
        operands = {{op.out.reg, {op.out.stride, 1}}, {op.x.reg, {op.x.stride, 1}}};
    } else if (op.kind == OpKind::binary) {
        operands = {{op.out_view.reg, op.out_view.strides}, {op.a.reg, op.a.strides},
                    {op.b.reg, op.b.strides}};
    } else if (op.kind == OpKind::select) {
        operands = {{op.out_view.reg, op.out_view.strides}, {op.a.reg, op.a.strides},
                    {op.b.reg, op.b.strides}, {op.c.reg, op.c.strides}};
    } else if (op.kind == OpKind::copy) {
        operands = {{op.out_view.reg, op.out_view.strides}, {op.a.reg, op.a.strides}};
    } else {
        return {};
    }
    Loops l;
    l.rows = !uniform[s][operands[0].first];
    l.axes = shape.size() + (l.rows ? 1 : 0);
    if (l.rows) l.count[0] = 1;
    for (std::size_t o = 0; o < operands.size(); ++o) {
        std::size_t axis = 0;
        if (l.rows) l.stride[o][axis++] = stride[s][operands[o].first];
        for (std::size_t i = 0; i < shape.size(); ++i, ++axis) {
            l.count[axis] = shape[i];
            l.stride[o][axis] = operands[o].second[i];
        }
    }
    return joined(l, operands.size());
}

// ---- running ---------------------------------------------------------------------------------
void Machine::Parts::run(std::size_t rows, int s) noexcept {
    for (std::size_t i = 0; i < program.operations.size(); ++i) {
        execute(program.operations[i], loops[s][i], rows, s);
    }
    for (const Copy &output : outputs) {
        if (!output.to) continue;
        const std::size_t width = program.registers[output.reg].width;
        const std::size_t to_row = Program::row_floats(width);
        const float *from = base[output.reg];
        const bool one = uniform[s][output.reg];
        if (from == output.to && !one) continue;
        for (std::size_t r = 0; r < rows; ++r) {
            float *to = output.to + r * to_row;
            const float *row = from + (one ? 0 : r * to_row);
            if (to != row) std::memcpy(to, row, width * sizeof(float));
        }
    }
}

namespace {

// Calls f(first row's pointers..., rows) over runs of rows that lie one stride apart.
// Operands are given as At; a run is either all candidates of one token, all tokens of one
// candidate, or everything where tokens of successive candidates follow each other.
struct Run {
    std::size_t outer, inner;
    bool tokens_outside;  // the outer loop is over tokens
};

bool gapless(const At &at, std::size_t rows, std::size_t tokens) {
    return tokens == 1 || rows == 1 || at.row == tokens * at.token;
}

Run run_of(std::size_t rows, std::size_t tokens, bool all_gapless) {
    if (all_gapless) return {1, rows * tokens, false};
    if (rows > tokens) return {tokens, rows, true};
    return {rows, tokens, false};
}

float *outer_at(const At &at, const Run &run, std::size_t i) {
    return at.p + i * (run.tokens_outside ? at.token : at.row);
}

std::size_t inner_stride(const At &at, const Run &run, std::size_t rows, std::size_t tokens) {
    if (run.outer == 1 && run.inner == rows * tokens) return tokens == 1 ? at.row : at.token;
    return run.tokens_outside ? at.row : at.token;
}

}  // namespace

// A layer of several segments goes through its outputs by kTogether panels, so that the sums that
// one segment leaves are still in the first-level cache when the next one adds to them.
void Machine::Parts::dense(const Op &op, std::size_t rows, int s) noexcept {
    const std::size_t out_rows = rows_of(op.out.reg, rows, s);
    const std::size_t panels = padded(op.size) / kLanes;
    const std::size_t step = op.segments.size() > 1 ? kTogether : panels;
    for (std::size_t panel = 0; panel < panels; panel += step) {
        dense_panels(op, out_rows, s, panel, std::min(step, panels - panel));
    }
}

void Machine::Parts::dense_panels(const Op &op, std::size_t rows, int s, std::size_t panel,
                                  std::size_t panels) noexcept {
    const std::size_t count = op.segments.size();
    for (std::size_t i = 0; i < count; ++i) {
        const SegmentAt &part = op.segments[i];
        const Slice slice{panel, panels, i == 0, i + 1 == count};
        if (uniform[s][part.x.reg] && rows > 1) {
            shared_segment(op, part, rows, s, slice);
        } else {
            segment(op, part, rows, s, slice);
        }
    }
}

// out (+)= x w for each candidate; the last segment also adds the bias and applies the function.
void Machine::Parts::segment(const Op &op, const SegmentAt &part, std::size_t rows, int s,
                             const Slice &slice) noexcept {
    const kernels::Kernels &k = program.kernels;
    const At x = at(part.x, s), out = at(op.out, s);
    const auto function = static_cast<kernels::Function>(slice.last ? op.after : 0);
    const float *bias = slice.last ? bias_of(op) : nullptr;
    const char *weight = program.packed[part.packed].data();
    const bool out_gapless = gapless(out, rows, op.tokens);
    if (part.scale < 0) {
        const Run run = run_of(rows, op.tokens, out_gapless && gapless(x, rows, op.tokens));
        for (std::size_t o = 0; o < run.outer; ++o) {
            k.dense_f32({outer_at(x, run, o), inner_stride(x, run, rows, op.tokens), run.inner,
                         part.size, op.size, reinterpret_cast<const float *>(weight),
                         outer_at(out, run, o), inner_stride(out, run, rows, op.tokens),
                         !slice.first, bias, function, slice.panel, slice.panels});
        }
        return;
    }
    const std::size_t row_bytes = padded(part.size, k.quantized_block) * k.quantized_bytes;
    char *q = quantized[part.slot];
    float *x_scale = scales[part.slot];
    if (part.quantizes && slice.panel == 0) {
        const bool together = gapless(x, rows, op.tokens);
        const std::size_t outer = together ? 1 : rows, inner = rows * op.tokens / outer;
        const std::size_t step = op.tokens == 1 ? x.row : x.token;
        for (std::size_t o = 0; o < outer; ++o) {
            k.quantize(x.p + o * x.row, step, inner, part.size, q + o * inner * row_bytes,
                       row_bytes, x_scale + o * inner);
        }
    }
    const float *scale = program.constants[static_cast<std::size_t>(part.scale)].floats.data();
    const std::size_t outer = out_gapless ? 1 : rows, inner = rows * op.tokens / outer;
    const std::size_t step = op.tokens == 1 ? out.row : out.token;
    for (std::size_t o = 0; o < outer; ++o) {
        k.dense_i8({q + o * inner * row_bytes, row_bytes, x_scale + o * inner, inner, part.size,
                    op.size, weight, scale, out.p + o * out.row, step, !slice.first, bias, function,
                    slice.panel, slice.panels});
    }
}

// The same where x is one for all candidates: its products once, then added to every row.
void Machine::Parts::shared_segment(const Op &op, const SegmentAt &part, std::size_t rows, int s,
                                    const Slice &slice) noexcept {
    const kernels::Kernels &k = program.kernels;
    const At x = at(part.x, s), out = at(op.out, s);
    const char *weight = program.packed[part.packed].data();
    const std::size_t width = padded(op.size), column = slice.panel * kLanes;
    const std::size_t columns = std::min(slice.panels * kLanes, op.size - column);
    if (part.scale < 0) {
        k.dense_f32({x.p, x.token, op.tokens, part.size, op.size,
                     reinterpret_cast<const float *>(weight), product, width, false, nullptr,
                     kernels::Function::none, slice.panel, slice.panels});
    } else {
        const std::size_t row_bytes = padded(part.size, k.quantized_block) * k.quantized_bytes;
        if (part.quantizes && slice.panel == 0) {
            k.quantize(x.p, x.token, op.tokens, part.size, quantized[part.slot], row_bytes,
                       scales[part.slot]);
        }
        k.dense_i8({quantized[part.slot], row_bytes, scales[part.slot], op.tokens, part.size,
                    op.size, weight,
                    program.constants[static_cast<std::size_t>(part.scale)].floats.data(), product,
                    width, false, nullptr, kernels::Function::none, slice.panel, slice.panels});
    }
    for (std::size_t t = 0; t < op.tokens; ++t) {
        float *to = out.p + t * out.token + column;
        k.add_row(to, out.row, rows, columns, product + t * width + column, slice.first,
                  kernels::Function::none);
        if (slice.last) {
            const float *bias = bias_of(op);
            const auto function = static_cast<kernels::Function>(op.after);
            if (bias || function != kernels::Function::none) {
                k.add_row(to, out.row, rows, columns, bias ? bias + column : nullptr, false,
                          function);
            }
        }
    }
}

namespace {

void call(const kernels::Kernels &k, const Op &op, const kernels::Elementwise &e) {
    switch (op.kind) {
        case OpKind::unary: k.unary(static_cast<kernels::Function>(op.function), e); return;
        case OpKind::binary: k.binary(static_cast<kernels::Pair>(op.function), e); return;
        default: k.select(e);
    }
}

}  // namespace

void Machine::Parts::elementwise(const Op &op, const Loops &l, std::size_t rows) noexcept {
    const std::size_t operands = op.kind == OpKind::select ? 4 : op.kind == OpKind::binary ? 3 : 2;
    float *start[4] = {};
    if (op.kind == OpKind::unary) {
        start[0] = base[op.out.reg] + op.out.offset;
        start[1] = base[op.x.reg] + op.x.offset;
    } else {
        start[0] = base[op.out_view.reg] + op.out_view.offset;
        start[1] = base[op.a.reg] + op.a.offset;
        if (operands > 2) start[2] = base[op.b.reg] + op.b.offset;
        if (operands > 3) start[3] = base[op.c.reg] + op.c.offset;
    }
    std::size_t count[5] = {};
    for (std::size_t axis = 0; axis < l.axes; ++axis) count[axis] = l.count[axis];
    if (l.rows) count[0] *= rows;
    // The innermost loop is the last axis, or the longest one where the last is short.
    std::size_t inner = l.axes - 1;
    if (count[inner] < kLanes) {
        for (std::size_t axis = 0; axis < l.axes; ++axis) {
            if (count[axis] > count[inner]) inner = axis;
        }
    }
    // The kernels take one more axis where the innermost numbers lie as they need them.
    bool direct = op.kind != OpKind::copy && l.stride[0][inner] == 1;
    for (std::size_t o = 1; o < operands; ++o) direct = direct && l.stride[o][inner] <= 1;
    std::size_t second = inner;
    for (std::size_t axis = 0; direct && axis < l.axes; ++axis) {
        if (axis != inner && (second == inner || count[axis] > count[second])) second = axis;
    }
    std::size_t index[5] = {};
    for (;;) {
        float *p[4] = {};
        for (std::size_t o = 0; o < operands; ++o) {
            p[o] = start[o];
            for (std::size_t axis = 0; axis < l.axes; ++axis) {
                p[o] += index[axis] * l.stride[o][axis];
            }
        }
        if (direct) {
            kernels::Elementwise e{};
            for (std::size_t o = 1; o < operands; ++o) {
                e.x[o - 1] = p[o];
                e.step[o - 1] = l.stride[o][inner];
                e.row[o - 1] = l.stride[o][second];
            }
            e.out = p[0];
            e.out_row = l.stride[0][second];
            e.rows = second == inner ? 1 : count[second];
            e.n = count[inner];
            call(program.kernels, op, e);
        } else {
            line_of(op, l, inner, count[inner], p);
        }
        std::size_t axis = l.axes;
        for (;;) {
            if (axis == 0) return;
            --axis;
            if (axis == inner || axis == second) continue;
            if (++index[axis] < count[axis]) break;
            index[axis] = 0;
        }
    }
}

namespace {

const float *together(const float *p, std::size_t stride, std::size_t n, float *into) {
    if (stride == 1) return p;
    for (std::size_t i = 0; i < n; ++i) into[i] = p[i * stride];
    return into;
}

}  // namespace

// One line of an elementwise operation, `n` numbers along `axis`.
void Machine::Parts::line_of(const Op &op, const Loops &l, std::size_t axis, std::size_t n,
                             float *const p[4]) noexcept {
    const std::size_t to = l.stride[0][axis], a = l.stride[1][axis];
    if (op.kind == OpKind::copy) {
        if (to == 1 && a == 1) {
            std::memmove(p[0], p[1], n * sizeof(float));
        } else {
            for (std::size_t i = 0; i < n; ++i) p[0][i * to] = p[1][i * a];
        }
        return;
    }
    const std::size_t operands = op.kind == OpKind::select ? 3 : op.kind == OpKind::binary ? 2 : 1;
    for (std::size_t i = 0; i < n; i += kChunk) {
        const std::size_t some = n - i < kChunk ? n - i : kChunk;
        kernels::Elementwise e{};
        for (std::size_t o = 1; o <= operands; ++o) {
            const std::size_t step = l.stride[o][axis];
            e.x[o - 1] = step == 0 ? p[o] : together(p[o] + i * step, step, some, gathered[o]);
            e.step[o - 1] = step != 0;
        }
        e.out = gathered[0];
        e.rows = 1;
        e.n = some;
        call(program.kernels, op, e);
        for (std::size_t j = 0; j < some; ++j) p[0][(i + j) * to] = gathered[0][j];
    }
}

void Machine::Parts::reduce(const Op &op, const Loops &, std::size_t rows, int s) noexcept {
    const std::size_t outer_axes = op.shape.size() - 1, n = op.shape.back();
    const std::size_t each = op.a.strides[outer_axes];
    std::size_t total = 1;
    for (std::size_t axis = 0; axis < outer_axes; ++axis) total *= op.shape[axis];
    for (std::size_t r = 0; r < rows; ++r) {
        const float *x = base[op.a.reg] + r * stride[s][op.a.reg] + op.a.offset;
        float *out = base[op.out_view.reg] + r * stride[s][op.out_view.reg] + op.out_view.offset;
        for (std::size_t i = 0; i < total; ++i) {
            std::size_t rest = i, from = 0, to = 0;
            for (std::size_t axis = outer_axes; axis-- > 0;) {
                const std::size_t at_axis = rest % op.shape[axis];
                rest /= op.shape[axis];
                from += at_axis * op.a.strides[axis];
                to += at_axis * op.out_view.strides[axis];
            }
            out[to] = program.kernels.fold(static_cast<kernels::Fold>(op.function),
                                           together(x + from, each, n, line), n);
        }
    }
}

namespace {

// A few numbers, for which a call of memcpy takes longer than the copying.
void copy_short(float *to, const float *from, std::size_t n) {
    for (; n >= 4; n -= 4, to += 4, from += 4) std::memcpy(to, from, 16);
    for (; n > 0; --n) *to++ = *from++;
}

}  // namespace

// numbers: height, width, channels, kernel rows, columns, stride down, across, pads top, left,
// bottom, right
void Machine::Parts::patches(const Op &op, const float *x, At out) noexcept {
    const std::size_t height = op.numbers[0], width = op.numbers[1], channels = op.numbers[2];
    const std::size_t tall = op.numbers[3], wide = op.numbers[4];
    const std::size_t down = (height + op.numbers[7] + op.numbers[9] - tall) / op.numbers[5] + 1;
    const std::size_t across = (width + op.numbers[8] + op.numbers[10] - wide) / op.numbers[6] + 1;
    float *to = out.p;
    for (std::size_t i = 0; i < down; ++i) {
        for (std::size_t j = 0; j < across; ++j, to += out.token) {
            float *run = to;
            for (std::size_t y = 0; y < tall; ++y, run += wide * channels) {
                const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(i * op.numbers[5] + y) -
                                           static_cast<std::ptrdiff_t>(op.numbers[7]);
                const std::ptrdiff_t column = static_cast<std::ptrdiff_t>(j * op.numbers[6]) -
                                              static_cast<std::ptrdiff_t>(op.numbers[8]);
                const bool inside = row >= 0 && row < static_cast<std::ptrdiff_t>(height);
                const std::ptrdiff_t begin = column < 0 ? -column : 0;
                const std::ptrdiff_t room = static_cast<std::ptrdiff_t>(width) - column;
                std::ptrdiff_t end = static_cast<std::ptrdiff_t>(wide);
                if (room < end) end = room;
                if (!inside || end <= begin) {
                    std::memset(run, 0, wide * channels * sizeof(float));
                    continue;
                }
                const auto from = static_cast<std::size_t>(begin);
                const auto until = static_cast<std::size_t>(end);
                const float *pixels = x + (static_cast<std::size_t>(row) * width +
                                           static_cast<std::size_t>(column + begin)) * channels;
                for (std::size_t c = 0; c < from * channels; ++c) run[c] = 0.0f;
                copy_short(run + from * channels, pixels, (until - from) * channels);
                for (std::size_t c = until * channels; c < wide * channels; ++c) run[c] = 0.0f;
            }
        }
    }
}

void Machine::Parts::execute(const Op &op, const Loops &l, std::size_t all, int s) noexcept {
    const kernels::Kernels &k = program.kernels;
    const std::size_t rows = rows_of(output_register(op), all, s);
    const auto constant = [&](std::ptrdiff_t index) {
        return index < 0 ? nullptr
                         : program.constants[static_cast<std::size_t>(index)].floats.data();
    };
    switch (op.kind) {
        case OpKind::dense: dense(op, all, s); return;
        case OpKind::unary:
        case OpKind::binary:
        case OpKind::select:
        case OpKind::copy: elementwise(op, l, rows); return;
        case OpKind::reduce: reduce(op, l, rows, s); return;
        case OpKind::norm:
        case OpKind::softmax: {
            const At x = at(op.x, s), out = at(op.out, s);
            const Run run = run_of(rows, op.tokens,
                                   gapless(x, rows, op.tokens) && gapless(out, rows, op.tokens));
            const std::size_t x_step = inner_stride(x, run, rows, op.tokens);
            const std::size_t out_step = inner_stride(out, run, rows, op.tokens);
            for (std::size_t o = 0; o < run.outer; ++o) {
                if (op.kind == OpKind::softmax) {
                    k.softmax(outer_at(x, run, o), x_step, outer_at(out, run, o), out_step,
                              run.inner, op.size);
                } else {
                    k.norm({outer_at(x, run, o), x_step, outer_at(out, run, o), out_step, run.inner,
                            op.size, op.function != 0, op.number, constant(op.weight),
                            constant(op.bias), static_cast<kernels::Function>(op.after)});
                }
            }
            return;
        }
        default: break;
    }
    for (std::size_t r = 0; r < rows; ++r) {
        const auto row = [&](const RowsAt &rows_at) {
            return base[rows_at.reg] + r * stride[s][rows_at.reg] + rows_at.offset;
        };
        switch (op.kind) {
            case OpKind::lstm: {  // numbers: places of i, f, g, o
                const float *gates = row(op.x);
                const float *const gate[4] = {
                    gates + op.numbers[0] * op.size, gates + op.numbers[1] * op.size,
                    gates + op.numbers[2] * op.size, gates + op.numbers[3] * op.size};
                k.lstm(gate, row(op.x2), row(op.out), row(op.out2), op.size);
                break;
            }
            case OpKind::gru: {  // numbers: places of z, r, n
                const float *x = row(op.x), *h = row(op.x2);
                const float *const x_gates[3] = {x + op.numbers[0] * op.size,
                                                 x + op.numbers[1] * op.size,
                                                 x + op.numbers[2] * op.size};
                const float *const h_gates[3] = {h + op.numbers[0] * op.size,
                                                 h + op.numbers[1] * op.size,
                                                 h + op.numbers[2] * op.size};
                k.gru(x_gates, h_gates, row(op.x3), row(op.out), op.size);
                break;
            }
            case OpKind::attention:  // numbers: queries, keys, heads, causal
                k.attention({row(op.x), row(op.x2), row(op.x3), row(op.out), op.x.stride,
                             op.x2.stride, op.x3.stride, op.out.stride, op.numbers[0],
                             op.numbers[1], op.numbers[2], op.size, op.number, op.numbers[3] != 0,
                             line});
                break;
            case OpKind::patches:
                patches(op, row(op.x), {row(op.out), 0, op.out.stride});
                break;
            case OpKind::one_hot:
                for (std::size_t t = 0; t < op.tokens; ++t) {
                    const float *x = row(op.x) + t * op.x.stride;
                    float *out = row(op.out) + t * op.out.stride;
                    const float most = k.fold(kernels::Fold::max, x, op.size);  // NaN if any is
                    std::size_t best = 0;
                    while (most == most ? x[best] != most : x[best] == x[best]) ++best;
                    std::memset(out, 0, op.size * sizeof(float));
                    out[best] = most == most ? 1.0f : most;
                }
                break;
            case OpKind::lookup:
                for (std::size_t t = 0; t < op.tokens; ++t) {
                    const std::size_t table_rows =
                        program.constants[static_cast<std::size_t>(op.weight)].shape[0];
                    const float index = std::rint(row(op.x)[t * op.x.stride]);
                    float *out = row(op.out) + t * op.out.stride;
                    const bool inside = index >= 0.0f && index < static_cast<float>(table_rows);
                    const float *found =
                        constant(op.weight) + (inside ? static_cast<std::size_t>(index) : 0) * op.size;
                    for (std::size_t i = 0; i < op.size; ++i) out[i] = inside ? found[i] : NAN;
                }
                break;
            default: break;
        }
    }
}

// ---- the door ----------------------------------------------------------------------------------
Machine::Machine(const Program &program, std::size_t max_rows, const std::vector<bool> &plain,
                 const std::vector<bool> &shared)
    : parts_(new Parts(program, max_rows, plain, shared)) {}
Machine::~Machine() = default;
Machine::Machine(Machine &&) noexcept = default;

void Machine::bind_input(std::size_t index, const float *rows) {
    parts_->base[parts_->program.inputs[index].reg] = const_cast<float *>(rows);
}

void Machine::bind_output(std::size_t index, float *rows) {
    Parts &p = *parts_;
    const std::size_t reg = p.program.outputs[index].reg;
    p.outputs[index].to = rows;
    // Written straight to where it goes, if it is not an input or a constant and goes to one place.
    bool fixed = p.program.registers[reg].constant >= 0;
    for (const PortSpec &input : p.program.inputs) fixed = fixed || input.reg == reg;
    for (std::size_t i = 0; i < p.outputs.size(); ++i) {
        if (p.outputs[i].reg == reg) {
            if (!fixed) p.base[reg] = p.outputs[i].to ? p.outputs[i].to : p.own[reg];
            break;
        }
    }
}

void Machine::run(std::size_t rows, Sharing sharing) noexcept {
    parts_->run(rows, static_cast<int>(sharing));
}

std::size_t Machine::scratch_bytes() const {
    return parts_->arena.size() + parts_->scratch.size();
}

const Program &Machine::program() const { return parts_->program; }

}  // namespace edge_wm
