// What a planner imagines with: the door between the planner's loop and a model's rollout.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edge_wm::planner {

// Made for one belief and one goal. Caller guarantees shapes; no exception leaves it.
class Imagination {
   public:
    virtual ~Imagination() = default;

    // Rolls out `count` action sequences. Gives each one's cost, whether it is infeasible (0 or 1),
    // and the unweighted sum of each cost term.
    //   actions: (count, H, A), SI units, rows follow each other    seed: of the model's noise
    //   cost: (count,)    infeasible: (count,)    terms: (term_count, count)
    // Returns false if it failed; what it wrote is then ignored and the plan ends with an error.
    virtual bool imagine(const float *actions, std::size_t count, std::uint64_t seed, float *cost,
                         std::uint8_t *infeasible, float *terms) = 0;

    virtual std::size_t term_count() const = 0;

    // H * A: how many numbers `imagine` reads for each candidate. The binding holds it against the
    // planner's, once a plan: a model with another horizon must not read past the end.
    virtual std::size_t action_size() const = 0;
};

}  // namespace edge_wm::planner
