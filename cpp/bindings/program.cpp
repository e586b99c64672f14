// Step programs and rollouts for Python. edge_wm/backends/native.py checks and explains; what
// arrives here is right, but for shapes of arrays, which are checked once more because a wrong
// one would read foreign memory.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <time.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "../kernels/cpu.h"
#include "../planner/imagination.h"
#include "../program/program.h"
#include "../rollout/rollout.h"
#include "bind.h"

namespace py = pybind11;

namespace edge_wm {
namespace {

using Floats = py::array_t<float, py::array::c_style>;
using Bytes = py::array_t<std::int8_t, py::array::c_style>;
using Sizes = std::vector<std::size_t>;
using Triple = std::array<std::size_t, 3>;

RowsAt rows_at(const Triple &at) { return {at[0], at[1], at[2]}; }

ViewAt view_at(const Sizes &at) {
    ViewAt view{at.at(0), at.at(1), {}};
    for (std::size_t i = 2; i < at.size(); ++i) view.strides.at(i - 2) = at[i];
    return view;
}

// One operation as native.py writes it down; fields that a kind does not have are left out.
Op op_of(const py::dict &from) {
    const auto get = [&](const char *name) { return from[name]; };
    const auto has = [&](const char *name) { return from.contains(name); };
    Op op;
    op.kind = static_cast<OpKind>(get("kind").cast<int>());
    if (has("function")) op.function = get("function").cast<std::uint8_t>();
    if (has("after")) op.after = get("after").cast<std::uint8_t>();
    if (has("tokens")) op.tokens = get("tokens").cast<std::size_t>();
    if (has("size")) op.size = get("size").cast<std::size_t>();
    if (has("shape")) op.shape = get("shape").cast<Sizes>();
    if (has("out")) op.out = rows_at(get("out").cast<Triple>());
    if (has("out2")) op.out2 = rows_at(get("out2").cast<Triple>());
    if (has("x")) op.x = rows_at(get("x").cast<Triple>());
    if (has("x2")) op.x2 = rows_at(get("x2").cast<Triple>());
    if (has("x3")) op.x3 = rows_at(get("x3").cast<Triple>());
    if (has("out_view")) op.out_view = view_at(get("out_view").cast<Sizes>());
    if (has("a")) op.a = view_at(get("a").cast<Sizes>());
    if (has("b")) op.b = view_at(get("b").cast<Sizes>());
    if (has("c")) op.c = view_at(get("c").cast<Sizes>());
    if (has("weight")) op.weight = get("weight").cast<std::ptrdiff_t>();
    if (has("bias")) op.bias = get("bias").cast<std::ptrdiff_t>();
    if (has("number")) op.number = get("number").cast<float>();
    if (has("numbers")) op.numbers = get("numbers").cast<Sizes>();
    if (has("segments")) {
        for (const py::handle &item : get("segments").cast<py::list>()) {
            const auto [x, size, weight, scale] =
                item.cast<std::tuple<Triple, std::size_t, std::size_t, std::ptrdiff_t>>();
            SegmentAt segment;
            segment.x = rows_at(x);
            segment.size = size;
            segment.weight = weight;
            segment.scale = scale;
            op.segments.push_back(segment);
        }
    }
    return op;
}

ConstantData constant_of(const py::array &from) {
    ConstantData made;
    for (py::ssize_t i = 0; i < from.ndim(); ++i) {
        made.shape.push_back(static_cast<std::size_t>(from.shape(i)));
    }
    if (py::isinstance<Bytes>(from)) {
        const auto bytes = from.cast<Bytes>();
        made.bytes.assign(bytes.data(), bytes.data() + bytes.size());
    } else {
        const auto floats = from.cast<Floats>();
        made.floats.assign(floats.data(), floats.data() + floats.size());
    }
    return made;
}

const kernels::Kernels &kernels_named(const std::string &name) {
    const kernels::Kernels *found = kernels::find(name.c_str());
    if (!found) throw std::invalid_argument("no kernels named " + name + " on this machine");
    return *found;
}

std::shared_ptr<Program> program_of(const std::string &kernels_name,
                                    const std::vector<std::pair<std::size_t, std::ptrdiff_t>> &registers,
                                    const std::vector<py::array> &constants,
                                    const std::vector<std::pair<std::size_t, bool>> &inputs,
                                    const std::vector<std::pair<std::size_t, bool>> &outputs,
                                    const std::vector<py::dict> &operations) {
    std::vector<RegisterSpec> specs;
    for (const auto &[width, constant] : registers) specs.push_back({width, constant});
    std::vector<ConstantData> data;
    for (const py::array &constant : constants) data.push_back(constant_of(constant));
    const auto ports = [](const std::vector<std::pair<std::size_t, bool>> &from) {
        std::vector<PortSpec> made;
        for (const auto &[reg, batched] : from) made.push_back({reg, batched});
        return made;
    };
    std::vector<Op> ops;
    for (const py::dict &operation : operations) ops.push_back(op_of(operation));
    return std::make_shared<Program>(kernels_named(kernels_name), std::move(specs),
                                     std::move(data), ports(inputs), ports(outputs),
                                     std::move(ops));
}

// Rows of `width` numbers, spaced as a register's rows are, with slack after the last.
struct Spaced {
    Aligned memory;
    std::size_t width = 0, row = 0;

    Spaced() = default;
    Spaced(std::size_t width_, std::size_t rows)
        : memory((rows * Program::row_floats(width_) + kSlack) * sizeof(float)),
          width(width_),
          row(Program::row_floats(width_)) {}
    float *data() const { return reinterpret_cast<float *>(memory.data()); }
    void put(const float *from, std::size_t rows) const {
        for (std::size_t r = 0; r < rows; ++r) {
            std::memcpy(data() + r * row, from + r * width, width * sizeof(float));
        }
    }
    void take(float *to, std::size_t rows) const {
        for (std::size_t r = 0; r < rows; ++r) {
            std::memcpy(to + r * width, data() + r * row, width * sizeof(float));
        }
    }
};

void require(bool good, const char *what) {
    if (!good) throw std::invalid_argument(what);
}

std::size_t rows_in(const Floats &array, std::size_t width, const char *what) {
    require(array.ndim() == 2 && static_cast<std::size_t>(array.shape(1)) == width, what);
    return static_cast<std::size_t>(array.shape(0));
}

// One function on its own: (rows, width) arrays in the order of its inputs, and of its outputs.
class Graph {
  public:
    Graph(std::shared_ptr<const Program> program, std::size_t tile)
        : program_(std::move(program)),
          tile_(tile),
          machine_(*program_, tile, uniform(*program_), uniform(*program_)) {
        for (const PortSpec &port : program_->inputs) {
            inputs_.emplace_back(program_->registers[port.reg].width, port.batched ? tile : 1);
        }
        for (const PortSpec &port : program_->outputs) {
            outputs_.emplace_back(program_->registers[port.reg].width, tile);
        }
        for (std::size_t i = 0; i < inputs_.size(); ++i) machine_.bind_input(i, inputs_[i].data());
        for (std::size_t i = 0; i < outputs_.size(); ++i) {
            machine_.bind_output(i, outputs_[i].data());
        }
    }

    std::vector<Floats> run(const std::vector<Floats> &arrays) {
        require(arrays.size() == inputs_.size(), "one array for each input");
        std::size_t rows = 1;
        for (std::size_t i = 0; i < arrays.size(); ++i) {
            const std::size_t found = rows_in(arrays[i], inputs_[i].width, "inputs are (rows, width)");
            if (program_->inputs[i].batched) {
                require(rows == 1 || rows == found, "inputs have the same rows");
                rows = found;
            } else {
                require(found == 1, "an input without a batch axis has one row");
            }
        }
        for (std::size_t i = 0; i < arrays.size(); ++i) {
            require(!program_->inputs[i].batched ||
                        static_cast<std::size_t>(arrays[i].shape(0)) == rows,
                    "inputs have the same rows");
        }
        std::vector<Floats> results;
        std::vector<float *> to;
        for (std::size_t i = 0; i < outputs_.size(); ++i) {
            const std::size_t count = program_->outputs[i].batched ? rows : 1;
            results.emplace_back(std::vector<std::size_t>{count, outputs_[i].width});
            to.push_back(results.back().mutable_data());
        }
        std::vector<const float *> from;
        for (const Floats &array : arrays) from.push_back(array.data());
        {
            const py::gil_scoped_release release;
            for (std::size_t begin = 0; begin < rows; begin += tile_) {
                const std::size_t some = rows - begin < tile_ ? rows - begin : tile_;
                run_tile(from, to, begin, some);
            }
        }
        return results;
    }

    std::size_t scratch_bytes() const { return machine_.scratch_bytes(); }

  private:
    static std::vector<bool> uniform(const Program &program) {
        std::vector<bool> found;
        for (const PortSpec &port : program.inputs) found.push_back(!port.batched);
        return found;
    }

    void run_tile(const std::vector<const float *> &from, const std::vector<float *> &to,
                  std::size_t begin, std::size_t rows) {
        for (std::size_t i = 0; i < from.size(); ++i) {
            const bool batched = program_->inputs[i].batched;
            inputs_[i].put(from[i] + (batched ? begin * inputs_[i].width : 0), batched ? rows : 1);
        }
        machine_.run(rows, Sharing::plain);
        for (std::size_t i = 0; i < to.size(); ++i) {
            const bool batched = program_->outputs[i].batched;
            outputs_[i].take(to[i] + (batched ? begin * outputs_[i].width : 0), batched ? rows : 1);
        }
    }

    std::shared_ptr<const Program> program_;
    std::size_t tile_;
    std::vector<Spaced> inputs_, outputs_;
    Machine machine_;
};

// ---- rollouts ----------------------------------------------------------------------------------
Wired wired_of(const py::object &from) {
    Wired made;
    if (from.is_none()) return made;
    const auto parts = from.cast<py::tuple>();
    made.program = parts[0].cast<std::shared_ptr<Program>>();
    for (const auto &[source, index] :
         parts[1].cast<std::vector<std::pair<int, std::size_t>>>()) {
        made.inputs.push_back({static_cast<Wire::Source>(source), index});
    }
    made.outputs = parts[2].cast<Sizes>();
    return made;
}

class PyRollout final : public planner::Imagination {
  public:
    PyRollout(RolloutSpec spec, const Sizes &goal_widths, std::size_t horizon)
        : rollout_(std::move(spec)),
          weights_(rollout_.spec().terms + 1, 1.0f),
          horizon_(horizon) {
        for (const std::size_t width : rollout_.spec().belief) belief_.emplace_back(width, 1);
        for (const std::size_t width : goal_widths) goals_.emplace_back(width, 1);
        for (const Spaced &one : belief_) belief_at_.push_back(one.data());
        for (const Spaced &one : goals_) goals_at_.push_back(one.data());
    }

    // What the next rollouts start from and aim at.
    void prepare(const std::vector<Floats> &belief, const std::vector<Floats> &goals, float dt,
                 const std::vector<float> &weights) {
        require(belief.size() == belief_.size() && goals.size() == goals_.size() &&
                    weights.size() == terms(),
                "one array for each belief and goal tensor, one weight for each term");
        for (std::size_t i = 0; i < belief.size(); ++i) {
            require(static_cast<std::size_t>(belief[i].size()) == belief_[i].width, "belief width");
            belief_[i].put(belief[i].data(), 1);
        }
        for (std::size_t i = 0; i < goals.size(); ++i) {
            require(static_cast<std::size_t>(goals[i].size()) == goals_[i].width, "goal width");
            goals_[i].put(goals[i].data(), 1);
        }
        dt_ = dt;
        std::copy(weights.begin(), weights.end(), weights_.begin());
    }

    // actions (K, steps, block * A) SI; noise (steps, K, n) or None.
    py::tuple run(const Floats &actions, const py::object &noise, bool keep) {
        const RolloutSpec &spec = rollout_.spec();
        require(actions.ndim() == 3 && static_cast<std::size_t>(actions.shape(2)) == spec.action,
                "actions are (K, steps, block * A)");
        require(actions.shape(0) > 0 && actions.shape(1) > 0, "K and steps are at least 1");
        RolloutCall call = prepared();
        call.actions = actions.data();
        call.candidates = static_cast<std::size_t>(actions.shape(0));
        call.steps = static_cast<std::size_t>(actions.shape(1));
        Floats given;
        if (spec.noise) {
            given = noise.cast<Floats>();
            require(static_cast<std::size_t>(given.size()) ==
                        call.steps * call.candidates * spec.noise,
                    "noise is (steps, K, n)");
            call.noise = given.data();
        }
        Floats cost(static_cast<py::ssize_t>(call.candidates));
        py::array_t<bool> infeasible(static_cast<py::ssize_t>(call.candidates));
        Floats sums(std::vector<std::size_t>{terms(), call.candidates});
        std::vector<Floats> kept;
        std::vector<float *> kept_at;
        for (std::size_t b = 0; keep && b < spec.belief.size(); ++b) {
            kept.emplace_back(
                std::vector<std::size_t>{call.candidates, call.steps + 1, spec.belief[b]});
            kept_at.push_back(kept.back().mutable_data());
        }
        call.cost = cost.mutable_data();
        call.infeasible = reinterpret_cast<std::uint8_t *>(infeasible.mutable_data());
        call.terms = sums.mutable_data();
        call.beliefs = keep ? kept_at.data() : nullptr;
        {
            const py::gil_scoped_release release;
            rollout_.run(call);
        }
        return py::make_tuple(cost, infeasible, sums, kept);
    }

    // For the planner's loop: the prepared belief and goal, without Python. A model that reads noise
    // is not asked so (edge_wm/backends/native.py).
    bool imagine(const float *actions, std::size_t count, std::uint64_t, float *cost,
                 std::uint8_t *infeasible, float *sums) override {
        RolloutCall call = prepared();
        call.actions = actions;
        call.candidates = count;
        call.steps = horizon_;
        call.cost = cost;
        call.infeasible = infeasible;
        call.terms = sums;
        rollout_.run(call);
        return rollout_.spec().noise == 0;
    }
    std::size_t term_count() const override { return terms(); }
    std::size_t action_size() const override { return horizon_ * rollout_.spec().action; }

    RolloutCall prepared() const {
        RolloutCall call{};
        call.belief = belief_at_.data();
        call.goals = goals_at_.data();
        call.dt = dt_;
        call.weights = weights_.data();
        return call;
    }
    std::size_t terms() const {
        return rollout_.spec().terms + (rollout_.spec().value.program ? 1 : 0);
    }
    Rollout &rollout() { return rollout_; }

  private:
    Rollout rollout_;
    std::vector<Spaced> belief_, goals_;
    std::vector<const float *> belief_at_, goals_at_;
    float dt_ = 0.0f;
    std::vector<float> weights_;
    std::size_t horizon_;  // steps of what the planner asks for
};

double thread_seconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The int8 multiply-adds a second that one core can do at most, in 10^9: the best of ten slices of
// processor time.
double int8_peak(const std::string &name, double milliseconds) {
    const kernels::Kernels &kernels = kernels_named(name);
    const py::gil_scoped_release release;
    double best = 0.0;
    for (int slice = 0; slice < 10; ++slice) {
        const double begin = thread_seconds();
        double work = 0.0, seconds = 0.0;
        do {
            work += kernels.peak_i8(20000);
            seconds = thread_seconds() - begin;
        } while (seconds < milliseconds * 1e-4);
        best = std::max(best, work / seconds * 1e-9);
    }
    return best;
}

}  // namespace
}  // namespace edge_wm

using namespace edge_wm;

void bind_program(py::module_ &module) {
    module.def("kernels", [] {
        std::vector<std::string> names;
        for (const kernels::Kernels *kernels : kernels::available()) names.push_back(kernels->name);
        return names;
    });
    module.def("int8_peak", &int8_peak, py::arg("kernels") = "", py::arg("milliseconds") = 100.0);
    py::class_<Program, std::shared_ptr<Program>>(module, "Program")
        .def(py::init(&program_of), py::arg("kernels"), py::arg("registers"),
             py::arg("constants"), py::arg("inputs"), py::arg("outputs"), py::arg("operations"))
        .def_property_readonly("kernels", [](const Program &p) { return p.kernels.name; });
    py::class_<Graph>(module, "Graph")
        .def(py::init<std::shared_ptr<const Program>, std::size_t>(), py::arg("program"),
             py::arg("tile"))
        .def("run", &Graph::run, py::arg("arrays"))
        .def_property_readonly("scratch_bytes", &Graph::scratch_bytes);
    py::class_<PyRollout, planner::Imagination>(module, "Rollout")
        .def(py::init([](const py::object &dynamics, const py::object &cost,
                         const py::object &constraint, const py::object &value, Sizes belief,
                         std::size_t terms, std::size_t action, std::vector<float> scale,
                         std::vector<float> offset, std::size_t noise, Sizes goals,
                         std::size_t horizon, std::size_t threads, std::size_t tile) {
                 RolloutSpec spec;
                 spec.dynamics = wired_of(dynamics);
                 spec.cost = wired_of(cost);
                 spec.constraint = wired_of(constraint);
                 spec.value = wired_of(value);
                 spec.belief = std::move(belief);
                 spec.terms = terms;
                 spec.action = action;
                 spec.axes = scale.size();
                 spec.scale = std::move(scale);
                 spec.offset = std::move(offset);
                 spec.noise = noise;
                 spec.goals = goals.size();
                 spec.threads = threads;
                 spec.tile = tile;
                 return std::make_unique<PyRollout>(std::move(spec), goals, horizon);
             }),
             py::arg("dynamics"), py::arg("cost"), py::arg("constraint"), py::arg("value"),
             py::arg("belief"), py::arg("terms"), py::arg("action"), py::arg("scale"),
             py::arg("offset"), py::arg("noise"), py::arg("goals"), py::arg("horizon"), py::arg("threads") = 1,
             py::arg("tile") = 0)
        .def("prepare", &PyRollout::prepare, py::arg("belief"), py::arg("goals"), py::arg("dt"),
             py::arg("weights"))
        .def("run", &PyRollout::run, py::arg("actions"), py::arg("noise"), py::arg("keep") = false)
        .def_property_readonly("tile", [](PyRollout &r) { return r.rollout().tile(); })
        .def_property_readonly("scratch_bytes",
                               [](PyRollout &r) { return r.rollout().scratch_bytes(); });
}
