// A step program, loaded: operations with addresses, weights packed for this processor.
//
//     edge_wm/bundle/program.py   the format, and every check that this code relies on
//     Program                     what all threads share: operations, constants, packed weights
//     Machine                     one thread's memory to run it with; no allocation after it is made
//
// A register has one row for each candidate, or one for all (it is uniform). Which registers are
// uniform follows from which inputs are, so a machine knows two ways of running: `plain`, and
// `shared`, in which the belief is still the same for all candidates (the first step of a
// rollout): what depends on it alone is computed once. Both give the same bits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "../kernels/kernels.h"

namespace edge_wm {

constexpr std::size_t kSlack = 16;  // floats that kernels may read past the end of a buffer

enum class OpKind : std::uint8_t {
    dense, norm, softmax, unary, binary, select, copy, reduce, lstm, gru, attention, patches,
    one_hot, lookup,
};

struct RowsAt {
    std::size_t reg = 0, offset = 0, stride = 0;
};

struct ViewAt {
    std::size_t reg = 0, offset = 0;
    std::array<std::size_t, 4> strides{};
};

struct SegmentAt {
    RowsAt x;
    std::size_t size = 0;        // K
    std::size_t weight = 0;      // constant
    std::ptrdiff_t scale = -1;   // constant, -1 with float32 weights
    std::size_t packed = 0;      // index of the packed weights
    std::size_t slot = 0;        // int8: which quantized buffer
    bool quantizes = false;      // int8: this segment fills it
};

struct Op {
    OpKind kind{};
    std::uint8_t function = 0;   // kernels::Function, Pair or Fold; norm: 1 centers
    std::uint8_t after = 0;      // kernels::Function applied last
    std::size_t tokens = 1, size = 0;
    std::vector<std::size_t> shape;
    RowsAt out, out2, x, x2, x3;
    ViewAt out_view, a, b, c;
    std::vector<SegmentAt> segments;
    std::ptrdiff_t weight = -1, bias = -1;  // constants
    float number = 0.0f;                    // epsilon, scale
    std::vector<std::size_t> numbers;       // what a kind has besides; see program.cpp
};

struct RegisterSpec {
    std::size_t width = 0;
    std::ptrdiff_t constant = -1;
};

struct ConstantData {
    std::vector<std::size_t> shape;
    std::vector<float> floats;        // one of these two
    std::vector<std::int8_t> bytes;
};

struct PortSpec {
    std::size_t reg = 0;
    bool batched = false;
};

// Memory for packed weights and scratch, at the start of a cache line.
class Aligned {
  public:
    Aligned() = default;
    explicit Aligned(std::size_t bytes);  // zeros
    char *data() const { return at_; }
    std::size_t size() const { return size_; }

  private:
    std::unique_ptr<char[]> memory_;
    char *at_ = nullptr;
    std::size_t size_ = 0;
};

class Program {
  public:
    Program(const kernels::Kernels &kernels, std::vector<RegisterSpec> registers,
            std::vector<ConstantData> constants, std::vector<PortSpec> inputs,
            std::vector<PortSpec> outputs, std::vector<Op> operations);

    const kernels::Kernels &kernels;
    const std::vector<RegisterSpec> registers;
    std::vector<ConstantData> constants;   // int8 weights are emptied once they are packed
    const std::vector<PortSpec> inputs, outputs;
    std::vector<Op> operations;
    std::vector<Aligned> packed;           // weights of the dense segments

    struct Slot {                          // a quantized copy of rows
        std::size_t tokens, size;
        std::size_t first, last;           // operations that fill and last read it
    };
    std::vector<Slot> slots;

    // Floats from one row of a register to the next: narrow rows lie close together, so that
    // elementwise operations run over many of them at once; wide ones begin at cache lines, and
    // not at multiples of 512 bytes, which compete for a few sets of the first-level cache
    // (TD-MPC2's plan: 106 ms instead of 117 on Zen 4, November 2026).
    static std::size_t row_floats(std::size_t width) {
        if (width < kernels::kLanes) return width;
        const std::size_t lines = kernels::padded(width) / kernels::kLanes;
        return (lines >= 16 && lines % 8 == 0 ? lines + 1 : lines) * kernels::kLanes;
    }

  private:
    void pack();
    void assign_slots();
};

enum class Sharing { plain, shared };

class Machine {
  public:
    // For each input, whether it is one row for all: in `plain` runs and in `shared` runs.
    Machine(const Program &program, std::size_t max_rows, const std::vector<bool> &plain,
            const std::vector<bool> &shared);
    ~Machine();
    Machine(Machine &&) noexcept;

    // Rows as `Program::row_floats` says, one row where the input is uniform, kSlack readable after.
    void bind_input(std::size_t index, const float *rows);
    // Where the rows of an output go, likewise.
    void bind_output(std::size_t index, float *rows);
    void run(std::size_t rows, Sharing sharing) noexcept;

    std::size_t scratch_bytes() const;
    const Program &program() const;

  private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

}  // namespace edge_wm
