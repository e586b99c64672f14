// Imagines K action sequences from one belief, a tile of candidates at a time: the whole horizon of
// a tile runs before the next one is begun, so that its beliefs stay in the cache.
//
//     for each tile of up to `tile` candidates, on any thread:
//         the belief, one row for all ─► dynamics ─► a row each ─► dynamics ─► ... H
//                                          └─► cost, constraint        └─► ...     └─► value
//
// The invariant: what a candidate costs depends on its own actions and noise alone, not on the
// tile, the number of candidates or the thread. Nothing is allocated after construction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "../program/program.h"
#include "pool.h"

namespace edge_wm {

// What an input of a function is fed from.
struct Wire {
    enum class Source : std::uint8_t { belief, action, dt, noise, goal };
    Source source{};
    std::size_t index = 0;  // of the belief tensor or goal tensor
};

// One function of the model: its program, where its inputs come from and what its outputs are.
struct Wired {
    std::shared_ptr<const Program> program;  // null where the bundle has none
    std::vector<Wire> inputs;
    std::vector<std::size_t> outputs;  // dynamics: belief tensors; cost: terms
};

struct RolloutSpec {
    Wired dynamics, cost, constraint, value;
    std::vector<std::size_t> belief;      // numbers of each tensor
    std::size_t terms = 0;                // of cost; a value follows them
    std::size_t action = 0;               // block * A: numbers of one model action
    std::size_t axes = 0;                 // A
    std::vector<float> scale, offset;     // (A,): model action = (SI - offset) / scale
    std::size_t noise = 0;                // numbers of one step's noise
    std::size_t goals = 0;                // goal tensors
    std::size_t threads = 1;
    std::size_t tile = 0;                 // candidates; 0: chosen for the second-level cache
};

// One call's arguments: caller guarantees their shapes, and kSlack readable floats after each row.
struct RolloutCall {
    const float *const *belief;   // one row each
    const float *const *goals;    // one row each
    const float *actions;         // (K, steps, block * A) SI
    const float *noise;           // (steps, K, noise), or null
    std::size_t candidates, steps;
    float dt;
    const float *weights;         // (terms and value,)
    float *cost;                  // (K,): +inf where infeasible
    std::uint8_t *infeasible;     // (K,)
    float *terms;                 // (terms and value, K): sums over the steps
    float *const *beliefs;        // (K, steps + 1, width) each, or null: not kept
};

class Rollout {
  public:
    explicit Rollout(RolloutSpec spec);
    ~Rollout();

    void run(const RolloutCall &call) noexcept;
    const RolloutSpec &spec() const { return spec_; }
    std::size_t tile() const { return tile_; }
    std::size_t scratch_bytes() const;

  private:
    struct Worker;
    void run_tile(const RolloutCall &call, std::size_t tile, Worker &worker) noexcept;

    RolloutSpec spec_;
    std::size_t tile_;
    std::size_t even_ = 0;  // candidates of a tile in the present call
    std::vector<std::unique_ptr<Worker>> workers_;
    Pool pool_;
};

}  // namespace edge_wm
