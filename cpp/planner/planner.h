// The planner's inner loop: `Planner._search_plain` of edge_wm/planner.py in C++, bit for bit.
//
//     mean, spread ─► sample K candidates ─► imagine ─► choose elites ─► lean ─► again
//
// No Python in here, and no allocation after the first plan. Sums run from the first to the last
// and nothing is fused (-ffp-contract=off), because the Python lines are the definition.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "imagination.h"
#include "noise.h"

namespace edge_wm::planner {

struct Settings {
    std::size_t horizon, axes;      // H, A
    std::size_t candidates;         // K, at least 2
    std::size_t iterations;         // at least 1
    std::size_t elites;             // 1 .. K
    std::size_t kept;               // of the elites, those that live on; 1 .. elites
    std::size_t policy_candidates;  // 0 .. K - 2
    bool equal_weights;             // CEM; else MPPI's
    double temperature, momentum;
    std::vector<float> full_spread;     // (A,) the spread at the start
    std::vector<double> least_spread;   // (A,) it never falls below
    std::vector<float> lowest, highest;  // (A,) bounds of an action
};

// Where a plan starts. All (H, A) but `rest`; not kept beyond the call.
struct Start {
    const float *mean;         // the last answer, moved on
    const float *rest;         // (A,) the action that stands still
    const float *policy_mean;  // nullptr: no policy
    const float *policy_std;   // as policy_mean
    std::uint64_t seed;        // of the run
    std::uint32_t plan;        // counts up
};

// What a plan found. The pointers are valid until the next plan.
struct Found {
    const float *actions;              // (H, A); nullptr: no candidate was finite and feasible
    float cost;                        // of `actions`
    const float *terms;                // (term_count,) of `actions`
    std::size_t iteration, candidate;  // where `actions` was rolled out
    std::size_t iterations;            // done
    std::size_t infeasible;            // candidates, over all iterations
    const std::uint8_t *answers;       // (answer_count,) what `more` said
    std::size_t answer_count;
};

// Who is asked between the steps. Each returns false if asking failed: the plan then ends.
class Overseer {
   public:
    virtual ~Overseer() = default;
    // Whether there is time for another iteration.
    virtual bool more(bool *answer) = 0;
    // Sets infeasible[k] = 1 for candidates that may not be; leaves the others as they are.
    //   actions: (count, H, A)    infeasible: (count,)
    virtual bool forbid(const float *actions, std::size_t count, std::uint8_t *infeasible) = 0;
};

class Search {
   public:
    // Caller guarantees the ranges above; quantiles and color as Noise wants them.
    Search(Settings settings, std::vector<float> quantiles, std::vector<float> color);

    // One plan. Returns false if `imagination` or `overseer` failed. Not for two threads at once.
    bool run(Imagination &imagination, Overseer &overseer, const Start &start, Found *found);

    std::size_t size() const noexcept { return size_; }
    const Settings &settings() const noexcept { return settings_; }
    // (H, A): what the last plan's next iteration would have sampled from.
    const float *mean() const noexcept { return mean_.data(); }
    const float *spread() const noexcept { return spread_.data(); }

   private:
    void sample(const Start &start, std::uint32_t iteration) noexcept;
    void place_known(const Start &start) noexcept;
    std::size_t choose(std::size_t *infeasible) noexcept;
    void keep(std::size_t elites) noexcept;
    void lean(std::size_t elites) noexcept;
    // The actions of the pool's row: those kept come before the candidates.
    const float *row(std::uint32_t index) const noexcept;
    float pool_cost(std::uint32_t index) const noexcept;

    Settings settings_;
    Noise noise_;
    std::size_t size_;                   // H * A, the length of a row
    std::vector<float> lane_noise_;      // (H, A, kLanes)
    std::vector<float> policy_noise_;    // (policy_candidates, H, A)
    std::vector<float> mean_, spread_;   // (H, A)
    std::vector<float> actions_;         // (K, H, A)
    std::vector<float> cost_;            // (K,)
    std::vector<std::uint8_t> infeasible_;            // (K,)
    std::vector<float> terms_;                        // (term_count, K), sized by the first plan
    std::vector<float> kept_actions_, next_kept_;     // (kept, H, A)
    std::vector<float> kept_cost_, next_kept_cost_;   // (kept,)
    std::size_t kept_ = 0;                            // rows of kept_actions_ in use
    std::vector<std::uint64_t> order_;                // (kept + K,) sort key: cost, then index
    std::vector<double> weight_;                      // (elites,)
    std::vector<double> center_, variance_;           // (H, A)
    std::vector<float> best_terms_;                   // (term_count,)
    std::vector<std::uint8_t> answers_;               // (iterations,)
};

}  // namespace edge_wm::planner
