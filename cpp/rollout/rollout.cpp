#include "rollout.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "../kernels/nonfinite.h"

namespace edge_wm {
namespace {

constexpr std::size_t kLargestTile = 96, kSmallestTile = 24;
// Half of a small second-level cache: the other half is for weights. Measured in docs/native.md.
constexpr std::size_t kTileBytes = 256 * 1024;

// Which inputs are one row for all candidates: goals and dt, and the first belief.
std::vector<bool> uniform(const Wired &function, bool first_step) {
    std::vector<bool> found;
    for (const Wire &wire : function.inputs) {
        found.push_back(wire.source == Wire::Source::dt || wire.source == Wire::Source::goal ||
                        (first_step && wire.source == Wire::Source::belief));
    }
    return found;
}

std::size_t chosen_tile(const RolloutSpec &spec) {
    if (spec.tile) return spec.tile;
    const std::size_t step = spec.dynamics.program->kernels.rows_together;
    const std::size_t smallest = kernels::padded(kSmallestTile, step);
    const Machine one(*spec.dynamics.program, smallest, uniform(spec.dynamics, false),
                      uniform(spec.dynamics, true));
    const std::size_t bytes = std::max<std::size_t>(one.scratch_bytes(), 1);
    const std::size_t fits = kTileBytes * smallest / bytes;
    return std::min(std::max(fits, smallest), kLargestTile) / step * step;
}

}  // namespace

// What one thread works with.
struct Rollout::Worker {
    std::unique_ptr<Machine> dynamics, cost, constraint, value;
    std::vector<Aligned> before, after;  // beliefs: rows of each tensor
    Aligned action, noise, out, risk;
    float dt[1 + kSlack] = {};
    std::vector<float *> terms;          // where the cost's outputs go
    std::size_t constraint_width = 0;

    Worker(const RolloutSpec &spec, std::size_t tile) {
        const auto rows_of = [&](std::size_t width) {
            return Aligned((tile * Program::row_floats(width) + kSlack) * sizeof(float));
        };
        for (const std::size_t width : spec.belief) {
            before.push_back(rows_of(width));
            after.push_back(rows_of(width));
        }
        action = rows_of(spec.action);
        noise = rows_of(std::max<std::size_t>(spec.noise, 1));
        const auto made = [&](const Wired &function) -> std::unique_ptr<Machine> {
            if (!function.program) return nullptr;
            return std::make_unique<Machine>(*function.program, tile, uniform(function, false),
                                             uniform(function, true));
        };
        dynamics = made(spec.dynamics);
        cost = made(spec.cost);
        constraint = made(spec.constraint);
        value = made(spec.value);
        const std::size_t stride = tile + kSlack;
        out = Aligned((spec.terms + 1) * stride * sizeof(float));
        for (std::size_t t = 0; t <= spec.terms; ++t) {
            terms.push_back(reinterpret_cast<float *>(out.data()) + t * stride);
        }
        if (constraint) {
            const Program &program = *spec.constraint.program;
            constraint_width = program.registers[program.outputs[0].reg].width;
            risk = rows_of(constraint_width);
        }
    }

    // Points a function's inputs at what they are fed from.
    void feed(Machine &machine, const Wired &function, const RolloutCall &call,
              const std::vector<Aligned> &belief, bool one_belief) {
        for (std::size_t i = 0; i < function.inputs.size(); ++i) {
            const Wire &wire = function.inputs[i];
            const float *from = nullptr;
            switch (wire.source) {
                case Wire::Source::belief:
                    from = one_belief ? call.belief[wire.index]
                                      : reinterpret_cast<float *>(belief[wire.index].data());
                    break;
                case Wire::Source::action: from = reinterpret_cast<float *>(action.data()); break;
                case Wire::Source::noise: from = reinterpret_cast<float *>(noise.data()); break;
                case Wire::Source::dt: from = dt; break;
                case Wire::Source::goal: from = call.goals[wire.index]; break;
            }
            machine.bind_input(i, from);
        }
    }
};

Rollout::Rollout(RolloutSpec spec)
    : spec_(std::move(spec)), tile_(chosen_tile(spec_)), pool_(spec_.threads) {
    for (std::size_t i = 0; i < pool_.workers(); ++i) {
        workers_.push_back(std::make_unique<Worker>(spec_, tile_));
    }
}

Rollout::~Rollout() = default;

std::size_t Rollout::scratch_bytes() const {
    std::size_t total = 0;
    for (const std::unique_ptr<Worker> &worker : workers_) {
        for (const Machine *machine : {worker->dynamics.get(), worker->cost.get(),
                                       worker->constraint.get(), worker->value.get()}) {
            if (machine) total += machine->scratch_bytes();
        }
        for (const Aligned &rows : worker->before) total += 2 * rows.size();
        total += worker->action.size() + worker->noise.size() + worker->out.size() +
                 worker->risk.size();
    }
    return total;
}

void Rollout::run(const RolloutCall &call) noexcept {
    if (call.candidates == 0) return;
    // Tiles of the same size, up to whole steps of the kernels' rows.
    const std::size_t tiles = (call.candidates + tile_ - 1) / tile_;
    const std::size_t even = (call.candidates + tiles - 1) / tiles;
    even_ = std::min(kernels::padded(even, spec_.dynamics.program->kernels.rows_together), tile_);
    const std::size_t count = (call.candidates + even_ - 1) / even_;
    struct Context {
        Rollout *rollout;
        const RolloutCall *call;
    } context{this, &call};
    pool_.run(
        [](void *at, std::size_t item, std::size_t worker) noexcept {
            const auto *c = static_cast<Context *>(at);
            c->rollout->run_tile(*c->call, item, *c->rollout->workers_[worker]);
        },
        &context, count);
}

namespace {

bool finite(float value) noexcept { return value - value == 0.0f; }

// Marks candidates whose rows hold a NaN or an infinity.
void mark_nonfinite(const float *rows, std::size_t count, std::size_t width,
                    std::uint8_t *marks) noexcept {
    const std::size_t stride = Program::row_floats(width);
    for (std::size_t r = 0; r < count; ++r) {
        std::uint8_t found = 0;
        kernels::nonfinite(rows + r * stride, 1, width, &found);
        marks[r] |= found;
    }
}

}  // namespace

void Rollout::run_tile(const RolloutCall &call, std::size_t tile, Worker &worker) noexcept {
    const std::size_t begin = tile * even_;
    const std::size_t rows = std::min(even_, call.candidates - begin);
    const std::size_t action_row = Program::row_floats(spec_.action);
    const std::size_t noise_row = Program::row_floats(std::max<std::size_t>(spec_.noise, 1));
    std::uint8_t *infeasible = call.infeasible + begin;
    auto *action = reinterpret_cast<float *>(worker.action.data());
    auto *noise = reinterpret_cast<float *>(worker.noise.data());
    worker.dt[0] = call.dt;

    std::memset(infeasible, 0, rows);
    for (std::size_t t = 0; t <= spec_.terms; ++t) {
        if (t < spec_.terms || worker.value) {
            std::memset(call.terms + t * call.candidates + begin, 0, rows * sizeof(float));
        }
    }
    for (std::size_t b = 0; b < spec_.belief.size(); ++b) {
        std::uint8_t found = 0;
        kernels::nonfinite(call.belief[b], 1, spec_.belief[b], &found);
        for (std::size_t r = 0; found && r < rows; ++r) infeasible[r] = 1;
        for (std::size_t r = 0; call.beliefs && r < rows; ++r) {
            std::memcpy(call.beliefs[b] + (begin + r) * (call.steps + 1) * spec_.belief[b],
                        call.belief[b], spec_.belief[b] * sizeof(float));
        }
    }

    for (std::size_t h = 0; h < call.steps; ++h) {
        for (std::size_t r = 0; r < rows; ++r) {
            const float *from = call.actions + ((begin + r) * call.steps + h) * spec_.action;
            std::uint8_t found = 0;
            kernels::nonfinite(from, 1, spec_.action, &found);
            infeasible[r] |= found;
            for (std::size_t a = 0; a < spec_.action; ++a) {
                const std::size_t axis = a % spec_.axes;
                action[r * action_row + a] = (from[a] - spec_.offset[axis]) / spec_.scale[axis];
            }
            if (call.noise) {
                std::memcpy(noise + r * noise_row,
                            call.noise + (h * call.candidates + begin + r) * spec_.noise,
                            spec_.noise * sizeof(float));
            }
        }
        worker.feed(*worker.dynamics, spec_.dynamics, call, worker.before, h == 0);
        for (std::size_t o = 0; o < spec_.dynamics.outputs.size(); ++o) {
            worker.dynamics->bind_output(
                o, reinterpret_cast<float *>(worker.after[spec_.dynamics.outputs[o]].data()));
        }
        worker.dynamics->run(rows, h == 0 ? Sharing::shared : Sharing::plain);
        for (std::size_t b = 0; b < spec_.belief.size(); ++b) {
            const auto *after = reinterpret_cast<float *>(worker.after[b].data());
            mark_nonfinite(after, rows, spec_.belief[b], infeasible);
            const std::size_t width = spec_.belief[b], row = Program::row_floats(width);
            for (std::size_t r = 0; call.beliefs && r < rows; ++r) {
                std::memcpy(
                    call.beliefs[b] + ((begin + r) * (call.steps + 1) + h + 1) * width,
                    after + r * row, width * sizeof(float));
            }
        }
        if (worker.cost) {
            worker.feed(*worker.cost, spec_.cost, call, worker.after, false);
            for (std::size_t o = 0; o < spec_.cost.outputs.size(); ++o) {
                worker.cost->bind_output(o, worker.terms[spec_.cost.outputs[o]]);
            }
            worker.cost->run(rows, Sharing::plain);
            for (std::size_t t = 0; t < spec_.terms; ++t) {
                float *sum = call.terms + t * call.candidates + begin;
                for (std::size_t r = 0; r < rows; ++r) sum[r] += worker.terms[t][r];
            }
        }
        if (worker.constraint) {
            worker.feed(*worker.constraint, spec_.constraint, call, worker.after, false);
            auto *risk = reinterpret_cast<float *>(worker.risk.data());
            worker.constraint->bind_output(0, risk);
            worker.constraint->run(rows, Sharing::plain);
            const std::size_t row = Program::row_floats(worker.constraint_width);
            for (std::size_t r = 0; r < rows; ++r) {
                for (std::size_t c = 0; c < worker.constraint_width; ++c) {
                    if (!(risk[r * row + c] <= 0.0f)) infeasible[r] = 1;  // NaN is not <= 0
                }
            }
        }
        std::swap(worker.before, worker.after);
    }
    if (worker.value) {
        worker.feed(*worker.value, spec_.value, call, worker.before, false);
        worker.value->bind_output(0, worker.terms[spec_.terms]);
        worker.value->run(rows, Sharing::plain);
        std::memcpy(call.terms + spec_.terms * call.candidates + begin, worker.terms[spec_.terms],
                    rows * sizeof(float));
    }
    const std::size_t terms = spec_.terms + (worker.value ? 1 : 0);
    for (std::size_t r = 0; r < rows; ++r) {
        float cost = 0.0f;
        for (std::size_t t = 0; t < terms; ++t) {
            cost += call.weights[t] * call.terms[t * call.candidates + begin + r];
        }
        if (!finite(cost)) infeasible[r] = 1;
        call.cost[begin + r] = infeasible[r] ? INFINITY : cost;
    }
}

}  // namespace edge_wm
