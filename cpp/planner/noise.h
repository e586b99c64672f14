// The planner's random numbers: edge_wm/noise.py in C++, bit for bit, many candidates at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edge_wm::planner {

// Candidates that are sampled together, one to a lane: whole vector registers of any width.
constexpr std::size_t kLanes = 16;

// Where in the sequence of random numbers one iteration stands.
struct NoisePlace {
    std::uint64_t seed;       // of the run
    std::uint32_t plan;       // counts up
    std::uint32_t iteration;  // within the plan
};

// The seed of a plan's rollouts, below 2^63.
std::uint64_t rollout_seed(std::uint64_t seed, std::uint32_t plan) noexcept;

// Colored noise for H steps of A axes. Sized once; `fill` allocates nothing.
class Noise {
   public:
    // quantiles: 4097, the normal distribution's, see noise.py
    // color: (H, H), lower triangle, what white noise is multiplied with
    Noise(std::vector<float> quantiles, std::vector<float> color, std::size_t horizon,
          std::size_t axes);

    // The noise of candidates first .. first + kLanes - 1. noise: (H, A, kLanes).
    void fill(const NoisePlace &place, std::uint32_t first, float *noise) noexcept;

   private:
    std::vector<float> quantiles_;
    std::vector<float> color_;
    std::size_t horizon_, axes_;
    std::vector<float> white_;  // (H * A rounded up to whole blocks of 8, kLanes)
};

}  // namespace edge_wm::planner
