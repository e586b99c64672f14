// The planner's loop for Python: edge_wm/planner.py checks what comes in and says what is wrong.
//
// The loop runs without the GIL. Whoever is Python behind it (a callable to imagine with, the
// mask, the budget) takes it for the length of a call; an exception there ends the plan and is
// raised again by `Search.run`.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../planner/planner.h"
#include "bind.h"

namespace py = pybind11;
using namespace edge_wm::planner;

namespace {

using Floats = py::array_t<float, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;
using Bools = py::array_t<bool, py::array::c_style>;
static_assert(sizeof(bool) == sizeof(std::uint8_t), "numpy's bool is one byte");

template <typename T>
const T *checked(const py::array_t<T, py::array::c_style> &values, std::size_t size,
                 const char *what) {
    if (static_cast<std::size_t>(values.size()) != size) {
        throw std::invalid_argument(std::string("planner: ") + what + " must have " +
                                    std::to_string(size) + " numbers, got " +
                                    std::to_string(values.size()));
    }
    return values.data();
}

template <typename T>
std::vector<T> copied(const py::array_t<T, py::array::c_style> &values, std::size_t size,
                      const char *what) {
    const T *first = checked(values, size, what);
    return std::vector<T>(first, first + size);
}

// A copy that Python may keep: the planner's own memory is written over by the next iteration.
Floats candidates(const float *actions, std::size_t count, std::size_t horizon, std::size_t axes) {
    Floats copy({count, horizon, axes});
    std::memcpy(copy.mutable_data(), actions, count * horizon * axes * sizeof(float));
    return copy;
}

// Raises where an imagination reads more or fewer numbers a candidate than there are.
void check_size(const Imagination &imagination, std::size_t size) {
    if (imagination.action_size() != size) {
        throw std::invalid_argument("planner: the imagination reads " +
                                    std::to_string(imagination.action_size()) +
                                    " numbers a candidate (H * A), but candidates have " +
                                    std::to_string(size) + "; plan with the model's own horizon");
    }
}

// Runs `call` with the GIL; keeps what it throws in `failure`, and is then false.
template <typename Call>
bool guarded(std::exception_ptr *failure, const Call &call) {
    py::gil_scoped_acquire gil;
    try {
        call();
        return true;
    } catch (...) {
        *failure = std::current_exception();
        return false;
    }
}

// A rollout written in Python: callable(actions (K, H, A), seed) -> (cost (K,) float32,
// infeasible (K,) bool). It keeps its terms to itself.
class CallableImagination : public Imagination {
   public:
    CallableImagination(py::function callable, std::size_t horizon, std::size_t axes)
        : callable_(std::move(callable)), horizon_(horizon), axes_(axes) {}

    bool imagine(const float *actions, std::size_t count, std::uint64_t seed, float *cost,
                 std::uint8_t *infeasible, float *) override {
        return guarded(&failure_, [&] {
            const auto outcome =
                callable_(candidates(actions, count, horizon_, axes_), seed).cast<py::tuple>();
            const auto costs = outcome[0].cast<Floats>();
            const auto refused = outcome[1].cast<Bools>();
            if (static_cast<std::size_t>(costs.size()) != count ||
                static_cast<std::size_t>(refused.size()) != count) {
                throw std::invalid_argument(
                    "planner: the rollout must give a cost and an infeasible for each of " +
                    std::to_string(count) + " candidates, got " + std::to_string(costs.size()) +
                    " and " + std::to_string(refused.size()));
            }
            std::memcpy(cost, costs.data(), count * sizeof(float));
            std::memcpy(infeasible, refused.data(), count);
        });
    }

    std::size_t term_count() const override { return 0; }
    std::size_t action_size() const override { return horizon_ * axes_; }

    // What the callable threw; nullptr if nothing. Asking forgets it.
    std::exception_ptr failure() { return std::exchange(failure_, nullptr); }

   private:
    py::function callable_;
    std::size_t horizon_, axes_;
    std::exception_ptr failure_;
};

// For tests and benchmarks: the cost is the squared distance to a target, which is also its only
// term; a candidate whose first action is above `wall` is infeasible.
class DistanceImagination : public Imagination {
   public:
    DistanceImagination(const Floats &target, float wall)
        : target_(target.data(), target.data() + target.size()), wall_(wall) {}

    bool imagine(const float *actions, std::size_t count, std::uint64_t, float *cost,
                 std::uint8_t *infeasible, float *terms) override {
        const std::size_t size = target_.size();
        for (std::size_t k = 0; k < count; ++k) {
            float sum = 0.0f;
            for (std::size_t i = 0; i < size; ++i) {
                const float off = actions[k * size + i] - target_[i];
                sum += off * off;
            }
            cost[k] = terms[k] = sum;
            infeasible[k] = actions[k * size] > wall_;
        }
        return true;
    }

    std::size_t term_count() const override { return 1; }
    std::size_t action_size() const override { return target_.size(); }

   private:
    std::vector<float> target_;
    float wall_;
};

// The budget and the mask, which are Python's.
class PythonOverseer : public Overseer {
   public:
    PythonOverseer(py::object more, py::object passes, std::size_t horizon, std::size_t axes)
        : more_(std::move(more)), passes_(std::move(passes)), horizon_(horizon), axes_(axes) {}

    bool more(bool *answer) override {
        return guarded(&failure_, [&] { *answer = py::bool_(more_()); });
    }

    bool forbid(const float *actions, std::size_t count, std::uint8_t *infeasible) override {
        if (passes_.is_none()) {
            return true;
        }
        return guarded(&failure_, [&] {
            const auto passes =
                passes_(candidates(actions, count, horizon_, axes_)).cast<Bools>();
            if (static_cast<std::size_t>(passes.size()) != count) {
                throw std::invalid_argument("planner: passes must answer for each of " +
                                            std::to_string(count) + " candidates, got " +
                                            std::to_string(passes.size()));
            }
            const bool *pass = passes.data();
            for (std::size_t k = 0; k < count; ++k) {
                infeasible[k] |= static_cast<std::uint8_t>(!pass[k]);
            }
        });
    }

    std::exception_ptr failure() { return std::exchange(failure_, nullptr); }

   private:
    py::object more_, passes_;
    std::size_t horizon_, axes_;
    std::exception_ptr failure_;
};

Search make_search(bool equal_weights, std::size_t horizon, std::size_t candidates,
                   std::size_t iterations, std::size_t elites, std::size_t kept,
                   std::size_t policy_candidates, double temperature, double momentum,
                   const Floats &full_spread, const Doubles &least_spread, const Floats &lowest,
                   const Floats &highest, const Floats &quantiles, const Floats &color) {
    const auto axes = static_cast<std::size_t>(full_spread.size());
    Settings s{};
    s.equal_weights = equal_weights;
    s.horizon = horizon;
    s.axes = axes;
    s.candidates = candidates;
    s.iterations = iterations;
    s.elites = elites;
    s.kept = kept;
    s.policy_candidates = policy_candidates;
    s.temperature = temperature;
    s.momentum = momentum;
    s.full_spread = copied(full_spread, axes, "full_spread");
    s.least_spread = copied(least_spread, axes, "least_spread");
    s.lowest = copied(lowest, axes, "lowest");
    s.highest = copied(highest, axes, "highest");
    return Search(std::move(s), copied(quantiles, 4097, "quantiles"),
                  copied(color, horizon * horizon, "color"));
}

// (actions (H, A) or None, cost, terms, iteration, candidate, iterations, infeasible, answers)
py::tuple run(Search &search, Imagination &imagination, const py::object &more,
              const py::object &passes, const Floats &mean, const Floats &rest,
              const std::optional<Floats> &policy_mean, const std::optional<Floats> &policy_std,
              std::uint64_t seed, std::uint32_t plan) {
    const std::size_t horizon = search.settings().horizon, axes = search.settings().axes;
    Start start{};
    start.mean = checked(mean, search.size(), "mean");
    start.rest = checked(rest, axes, "rest");
    if (policy_mean && policy_std) {
        start.policy_mean = checked(*policy_mean, search.size(), "policy_mean");
        start.policy_std = checked(*policy_std, search.size(), "policy_std");
    }
    start.seed = seed;
    start.plan = plan;
    check_size(imagination, search.size());
    PythonOverseer overseer(more, passes, horizon, axes);
    Found found{};
    bool done = false;
    {
        py::gil_scoped_release release;
        done = search.run(imagination, overseer, start, &found);
    }
    if (!done) {
        std::exception_ptr failure = overseer.failure();
        if (auto *callable = dynamic_cast<CallableImagination *>(&imagination); callable) {
            failure = failure ? failure : callable->failure();
        }
        if (failure) {
            std::rethrow_exception(failure);
        }
        throw std::runtime_error("planner: the imagination failed");
    }
    py::list terms;
    for (std::size_t t = 0; found.actions != nullptr && t < imagination.term_count(); ++t) {
        terms.append(static_cast<double>(found.terms[t]));
    }
    py::tuple answers(found.answer_count);
    for (std::size_t i = 0; i < found.answer_count; ++i) {
        answers[i] = py::bool_(found.answers[i] != 0);
    }
    py::object actions = py::none();
    if (found.actions != nullptr) {
        Floats copy({horizon, axes});
        std::memcpy(copy.mutable_data(), found.actions, search.size() * sizeof(float));
        actions = std::move(copy);
    }
    return py::make_tuple(actions, static_cast<double>(found.cost), terms, found.iteration,
                          found.candidate, found.iterations, found.infeasible, answers);
}

// (mean (H, A), spread (H, A)) that the last plan's next iteration would have sampled from.
py::tuple distribution(const Search &search) {
    const std::size_t horizon = search.settings().horizon, axes = search.settings().axes;
    Floats mean({horizon, axes}), spread({horizon, axes});
    std::memcpy(mean.mutable_data(), search.mean(), search.size() * sizeof(float));
    std::memcpy(spread.mutable_data(), search.spread(), search.size() * sizeof(float));
    return py::make_tuple(mean, spread);
}

// Imagines `actions` (K, H, A) and gives (cost (K,), infeasible (K,), terms (T, K)).
py::tuple imagine(Imagination &imagination, const Floats &actions, std::uint64_t seed) {
    if (actions.ndim() != 3) {
        throw std::invalid_argument("planner: actions to imagine must have 3 axes");
    }
    check_size(imagination, static_cast<std::size_t>(actions.shape(1) * actions.shape(2)));
    const auto count = static_cast<std::size_t>(actions.shape(0));
    Floats cost(actions.shape(0)), terms({imagination.term_count(), count});
    Bools infeasible(actions.shape(0));
    float *costs = cost.mutable_data(), *sums = terms.mutable_data();
    auto *refused = reinterpret_cast<std::uint8_t *>(infeasible.mutable_data());
    bool done = false;
    {
        py::gil_scoped_release release;
        done = imagination.imagine(actions.data(), count, seed, costs, refused, sums);
    }
    if (!done) {
        if (auto *callable = dynamic_cast<CallableImagination *>(&imagination); callable) {
            std::rethrow_exception(callable->failure());
        }
        throw std::runtime_error("planner: the imagination failed");
    }
    return py::make_tuple(cost, infeasible, terms);
}

}  // namespace

void bind_planner(py::module_ &module) {
    py::class_<Imagination>(module, "Imagination")
        .def("imagine", &imagine, py::arg("actions").noconvert(), py::arg("seed"))
        .def_property_readonly("term_count", &Imagination::term_count)
        .def_property_readonly("action_size", &Imagination::action_size);
    py::class_<CallableImagination, Imagination>(module, "CallableImagination")
        .def(py::init<py::function, std::size_t, std::size_t>(), py::arg("callable"),
             py::arg("horizon"), py::arg("axes"));
    py::class_<DistanceImagination, Imagination>(module, "DistanceImagination")
        .def(py::init<const Floats &, float>(), py::arg("target").noconvert(), py::arg("wall"));
    py::class_<Search>(module, "Search")
        .def(py::init(&make_search), py::kw_only(), py::arg("equal_weights"), py::arg("horizon"),
             py::arg("candidates"), py::arg("iterations"), py::arg("elites"), py::arg("kept"),
             py::arg("policy_candidates"), py::arg("temperature"), py::arg("momentum"),
             py::arg("full_spread").noconvert(), py::arg("least_spread").noconvert(),
             py::arg("lowest").noconvert(), py::arg("highest").noconvert(),
             py::arg("quantiles").noconvert(), py::arg("color").noconvert())
        .def("distribution", &distribution)
        .def("run", &run, py::arg("imagination"), py::arg("more"), py::arg("passes"),
             py::arg("mean").noconvert(), py::arg("rest").noconvert(),
             py::arg("policy_mean").noconvert(), py::arg("policy_std").noconvert(),
             py::arg("seed"), py::arg("plan"));
}
