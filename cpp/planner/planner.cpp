#include "planner.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace edge_wm::planner {
namespace {

inline std::uint32_t bits_of(float value) noexcept {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline bool is_finite(float value) noexcept {  // bits: not to depend on a compiler flag
    return (bits_of(value) & 0x7f800000u) != 0x7f800000u;
}

// Sorts by cost, and equals by index: one number that grows with both. -0 counts as 0.
inline std::uint64_t sort_key(float cost, std::uint32_t index) noexcept {
    const std::uint32_t bits = bits_of(cost + 0.0f);
    const std::uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (std::uint64_t{ascending} << 32) | index;
}

inline float clip(float value, float lowest, float highest) noexcept {  // NaN stays NaN
    const float raised = value < lowest ? lowest : value;
    return raised > highest ? highest : raised;
}

}  // namespace

Search::Search(Settings settings, std::vector<float> quantiles, std::vector<float> color)
    : settings_(std::move(settings)),
      noise_(std::move(quantiles), std::move(color), settings_.horizon, settings_.axes),
      size_(settings_.horizon * settings_.axes),
      lane_noise_(size_ * kLanes),
      policy_noise_(settings_.policy_candidates * size_),
      mean_(size_),
      spread_(size_),
      actions_(settings_.candidates * size_),
      cost_(settings_.candidates),
      infeasible_(settings_.candidates),
      kept_actions_(settings_.kept * size_),
      next_kept_(settings_.kept * size_),
      kept_cost_(settings_.kept),
      next_kept_cost_(settings_.kept),
      order_(settings_.kept + settings_.candidates),
      weight_(settings_.elites),
      center_(size_),
      variance_(size_),
      answers_(settings_.iterations) {}

bool Search::run(Imagination &imagination, Overseer &overseer, const Start &start, Found *found) {
    const std::size_t count = settings_.candidates, terms = imagination.term_count();
    const std::uint64_t seed = rollout_seed(start.seed, start.plan);
    terms_.resize(std::max(terms_.size(), terms * count));
    best_terms_.resize(std::max(best_terms_.size(), terms));
    std::copy_n(start.mean, size_, mean_.begin());
    for (std::size_t i = 0; i < size_; ++i) {
        spread_[i] = settings_.full_spread[i % settings_.axes];
    }
    kept_ = 0;
    *found = Found{};
    found->terms = best_terms_.data();
    found->answers = answers_.data();

    for (std::size_t iteration = 0; iteration < settings_.iterations; ++iteration) {
        if (iteration > 0) {
            bool more = false;
            if (!overseer.more(&more)) {
                return false;
            }
            answers_[found->answer_count++] = more;
            if (!more) {
                break;
            }
        }
        sample(start, static_cast<std::uint32_t>(iteration));
        if (iteration == 0) {
            place_known(start);
        }
        if (!imagination.imagine(actions_.data(), count, seed, cost_.data(), infeasible_.data(),
                                 terms_.data()) ||
            !overseer.forbid(actions_.data(), count, infeasible_.data())) {
            return false;
        }
        found->iterations += 1;
        const std::size_t elites = choose(&found->infeasible);
        if (elites == 0) {
            continue;
        }
        const auto best = static_cast<std::uint32_t>(order_[0]);
        if (best >= kept_) {
            found->iteration = iteration;
            found->candidate = best - kept_;
            found->cost = cost_[found->candidate];
            for (std::size_t t = 0; t < terms; ++t) {
                best_terms_[t] = terms_[t * count + found->candidate];
            }
        }
        lean(elites);
        keep(elites);
        found->actions = kept_actions_.data();
    }
    return true;
}

// Candidates about the mean, the mean itself first.
void Search::sample(const Start &start, std::uint32_t iteration) noexcept {
    const std::size_t count = settings_.candidates, axes = settings_.axes;
    const NoisePlace place{start.seed, start.plan, iteration};
    for (std::size_t first = 0; first < count; first += kLanes) {
        const std::size_t lanes = std::min(kLanes, count - first);
        noise_.fill(place, static_cast<std::uint32_t>(first), lane_noise_.data());
        for (std::size_t i = 0; i < size_; ++i) {
            const float *noise = lane_noise_.data() + i * kLanes;
            const float mean = mean_[i], spread = spread_[i];
            const float lowest = settings_.lowest[i % axes], highest = settings_.highest[i % axes];
            float values[kLanes];
            for (std::size_t lane = 0; lane < kLanes; ++lane) {
                values[lane] = clip(mean + spread * noise[lane], lowest, highest);
            }
            float *column = actions_.data() + first * size_ + i;
            for (std::size_t lane = 0; lane < lanes; ++lane) {
                column[lane * size_] = values[lane];
            }
        }
        if (iteration > 0) {
            continue;
        }
        for (std::size_t lane = 0; lane < lanes; ++lane) {  // the policy has its own spread
            const std::size_t k = first + lane;
            if (k < 2 || k >= 2 + settings_.policy_candidates) {
                continue;
            }
            for (std::size_t i = 0; i < size_; ++i) {
                policy_noise_[(k - 2) * size_ + i] = lane_noise_[i * kLanes + lane];
            }
        }
    }
    for (std::size_t i = 0; i < size_; ++i) {
        const std::size_t a = i % axes;
        actions_[i] = clip(mean_[i], settings_.lowest[a], settings_.highest[a]);
    }
}

// Standing still, and the policy's mean and samples, in the places after the mean.
void Search::place_known(const Start &start) noexcept {
    const std::size_t axes = settings_.axes;
    for (std::size_t i = 0; i < size_; ++i) {
        actions_[size_ + i] = start.rest[i % axes];
    }
    if (start.policy_mean == nullptr) {
        return;
    }
    for (std::size_t p = 0; p < settings_.policy_candidates; ++p) {
        float *actions = actions_.data() + (2 + p) * size_;
        for (std::size_t i = 0; i < size_; ++i) {
            const float noise = policy_noise_[p * size_ + i];
            const float value = p == 0 ? start.policy_mean[i]
                                       : start.policy_mean[i] + start.policy_std[i] * noise;
            actions[i] = clip(value, settings_.lowest[i % axes], settings_.highest[i % axes]);
        }
    }
}

// Writes the elites into the first places of order_, the best first, and gives their number.
std::size_t Search::choose(std::size_t *infeasible) noexcept {
    std::size_t feasible = 0;
    for (std::size_t k = 0; k < kept_; ++k) {
        order_[feasible++] = sort_key(kept_cost_[k], static_cast<std::uint32_t>(k));
    }
    for (std::size_t k = 0; k < settings_.candidates; ++k) {
        if (infeasible_[k] || !is_finite(cost_[k])) {
            *infeasible += 1;
        } else {
            order_[feasible++] = sort_key(cost_[k], static_cast<std::uint32_t>(kept_ + k));
        }
    }
    const std::size_t elites = std::min(settings_.elites, feasible);
    const auto begin = order_.begin();
    const auto middle = begin + static_cast<std::ptrdiff_t>(elites);
    const auto end = begin + static_cast<std::ptrdiff_t>(feasible);
    if (elites < feasible) {
        std::nth_element(begin, middle, end);
    }
    std::sort(begin, middle);
    return elites;
}

// The first of the elites live on into the next iteration.
void Search::keep(std::size_t elites) noexcept {
    const std::size_t kept = std::min(settings_.kept, elites);
    for (std::size_t e = 0; e < kept; ++e) {
        const auto index = static_cast<std::uint32_t>(order_[e]);
        std::copy_n(row(index), size_, next_kept_.begin() + static_cast<std::ptrdiff_t>(e * size_));
        next_kept_cost_[e] = pool_cost(index);
    }
    std::swap(kept_actions_, next_kept_);
    std::swap(kept_cost_, next_kept_cost_);
    kept_ = kept;
}

// The next mean and spread from the elites.
void Search::lean(std::size_t elites) noexcept {
    const double best = pool_cost(static_cast<std::uint32_t>(order_[0]));
    double total = 0.0;
    for (std::size_t e = 0; e < elites; ++e) {
        const double worse = best - pool_cost(static_cast<std::uint32_t>(order_[e]));
        // float: what the last bit of a double is, machines' libraries do not agree on.
        weight_[e] = settings_.equal_weights
                         ? 1.0
                         : static_cast<float>(std::exp(worse / settings_.temperature));
        total += weight_[e];
    }
    std::fill(center_.begin(), center_.end(), 0.0);
    std::fill(variance_.begin(), variance_.end(), 0.0);
    for (std::size_t e = 0; e < elites; ++e) {
        const float *actions = row(static_cast<std::uint32_t>(order_[e]));
        const double weight = weight_[e] /= total;
        for (std::size_t i = 0; i < size_; ++i) {
            center_[i] += weight * actions[i];
        }
    }
    for (std::size_t e = 0; e < elites; ++e) {
        const float *actions = row(static_cast<std::uint32_t>(order_[e]));
        const double weight = weight_[e];
        for (std::size_t i = 0; i < size_; ++i) {
            const double off = actions[i] - center_[i];
            variance_[i] += weight * (off * off);
        }
    }
    const double old = settings_.momentum;
    for (std::size_t i = 0; i < size_; ++i) {
        const double width = old * spread_[i] + (1.0 - old) * std::sqrt(variance_[i]);
        const double least = settings_.least_spread[i % settings_.axes];
        spread_[i] = static_cast<float>(width < least ? least : width);
        mean_[i] = static_cast<float>(old * mean_[i] + (1.0 - old) * center_[i]);
    }
}

const float *Search::row(std::uint32_t index) const noexcept {
    return index < kept_ ? kept_actions_.data() + index * size_
                         : actions_.data() + (index - kept_) * size_;
}

float Search::pool_cost(std::uint32_t index) const noexcept {
    return index < kept_ ? kept_cost_[index] : cost_[index - kept_];
}

}  // namespace edge_wm::planner
