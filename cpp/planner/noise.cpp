#include "noise.h"

#include <utility>

namespace edge_wm::planner {
namespace {

// Philox4x32-10: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", table 2.
constexpr int kRounds = 10;
constexpr std::uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
constexpr std::uint32_t kKeyStep0 = 0x9E3779B9u, kKeyStep1 = 0xBB67AE85u;
constexpr std::size_t kWords = 4;  // to a block

constexpr std::uint32_t kNoIteration = 0xFFFFFFFFu;  // the block that rollouts are seeded from

constexpr std::size_t kNumbers = 2 * kWords;  // to a block: one for each half of a word

constexpr unsigned kRestBits = 4;  // of 16: where in its cell; the 12 above say which cell

// The same block for each lane. x: (4, Lanes), the counters, becomes the random words.
//
// Lanes outside, rounds inside: gcc unrolls the rounds and makes the lanes one vector loop; the
// other way around it did not. Noise for 6144 candidates of 18 numbers, with one number to a word:
// 191 us instead of 318; now, with two to a word, 129 (AMD EPYC, SSE2, gcc 12, 2026-11-25).
// -mavx2 did not help: gcc then reads the table by vgatherdps.
template <std::size_t Lanes>
inline void philox(std::uint64_t key, std::uint32_t (&x)[kWords][Lanes]) noexcept {
    for (std::size_t i = 0; i < Lanes; ++i) {
        auto key0 = static_cast<std::uint32_t>(key), key1 = static_cast<std::uint32_t>(key >> 32);
        std::uint32_t x0 = x[0][i], x1 = x[1][i], x2 = x[2][i], x3 = x[3][i];
        for (int round = 0; round < kRounds; ++round) {
            const std::uint64_t left = std::uint64_t{kMultiplier0} * x0;
            const std::uint64_t right = std::uint64_t{kMultiplier1} * x2;
            x0 = static_cast<std::uint32_t>(right >> 32) ^ x1 ^ key0;
            x1 = static_cast<std::uint32_t>(right);
            x2 = static_cast<std::uint32_t>(left >> 32) ^ x3 ^ key1;
            x3 = static_cast<std::uint32_t>(left);
            key0 += kKeyStep0;
            key1 += kKeyStep1;
        }
        x[0][i] = x0;
        x[1][i] = x1;
        x[2][i] = x2;
        x[3][i] = x3;
    }
}

// A standard normal number for each lane's 16 random bits: a straight line between its cell's two
// quantiles. Looking up apart from computing, so that the second half is one vector loop.
inline void normal(const float *quantiles, const std::uint32_t *bits, float *out) noexcept {
    float below[kLanes], above[kLanes];
    for (std::size_t i = 0; i < kLanes; ++i) {
        const float *cell = quantiles + (bits[i] >> kRestBits);
        below[i] = cell[0];
        above[i] = cell[1];
    }
    for (std::size_t i = 0; i < kLanes; ++i) {
        const auto rest = static_cast<std::int32_t>(bits[i] & ((1u << kRestBits) - 1u));
        const float share = (static_cast<float>(rest) + 0.5f) * (1.0f / (1u << kRestBits));
        out[i] = below[i] + share * (above[i] - below[i]);
    }
}

}  // namespace

std::uint64_t rollout_seed(std::uint64_t seed, std::uint32_t plan) noexcept {
    std::uint32_t x[kWords][1] = {{0}, {0}, {kNoIteration}, {plan}};
    philox(seed, x);
    return ((std::uint64_t{x[1][0]} << 32) | x[0][0]) >> 1;
}

Noise::Noise(std::vector<float> quantiles, std::vector<float> color, std::size_t horizon,
             std::size_t axes)
    : quantiles_(std::move(quantiles)),
      color_(std::move(color)),
      horizon_(horizon),
      axes_(axes),
      white_((horizon * axes + kNumbers - 1) / kNumbers * kNumbers * kLanes) {}

void Noise::fill(const NoisePlace &place, std::uint32_t first, float *noise) noexcept {
    const std::size_t blocks = white_.size() / (kNumbers * kLanes);
    for (std::size_t b = 0; b < blocks; ++b) {
        std::uint32_t x[kWords][kLanes];
        for (std::size_t i = 0; i < kLanes; ++i) {
            x[0][i] = static_cast<std::uint32_t>(b);
            x[1][i] = first + static_cast<std::uint32_t>(i);
            x[2][i] = place.iteration;
            x[3][i] = place.plan;
        }
        philox(place.seed, x);
        float *white = white_.data() + b * kNumbers * kLanes;
        for (std::size_t n = 0; n < kWords && b * kNumbers + 2 * n < horizon_ * axes_; ++n) {
            std::uint32_t low[kLanes], high[kLanes];
            for (std::size_t i = 0; i < kLanes; ++i) {
                low[i] = x[n][i] & 0xFFFFu;
                high[i] = x[n][i] >> 16;
            }
            normal(quantiles_.data(), low, white + 2 * n * kLanes);
            normal(quantiles_.data(), high, white + (2 * n + 1) * kLanes);
        }
    }
    const std::size_t row = axes_ * kLanes;
    for (std::size_t h = 0; h < horizon_; ++h) {
        for (std::size_t a = 0; a < axes_; ++a) {
            float sum[kLanes] = {};
            for (std::size_t j = 0; j <= h; ++j) {  // in this order, to 0
                const float factor = color_[h * horizon_ + j];
                const float *white = white_.data() + j * row + a * kLanes;
                for (std::size_t i = 0; i < kLanes; ++i) {
                    sum[i] += factor * white[i];
                }
            }
            for (std::size_t i = 0; i < kLanes; ++i) {
                noise[h * row + a * kLanes + i] = sum[i];
            }
        }
    }
}

}  // namespace edge_wm::planner
