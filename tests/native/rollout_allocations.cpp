// Counts what a rollout allocates and which pages it touches for the first time: after two rounds,
// nothing and none. Built and run by test_rollout.py; exits 0 if all is well.
#include <sys/resource.h>

#include <atomic>
#include <cstdio>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "../../cpp/rollout/rollout.h"

static std::atomic<std::size_t> allocations{0};

// malloc and its relatives, through which operator new goes too; glibc keeps its own under these
// names.
extern "C" {
void *__libc_malloc(std::size_t);
void *__libc_calloc(std::size_t, std::size_t);
void *__libc_realloc(void *, std::size_t);
void *__libc_memalign(std::size_t, std::size_t);
void *malloc(std::size_t size) { return ++allocations, __libc_malloc(size); }
void *calloc(std::size_t n, std::size_t size) { return ++allocations, __libc_calloc(n, size); }
void *realloc(void *at, std::size_t size) { return ++allocations, __libc_realloc(at, size); }
void *aligned_alloc(std::size_t to, std::size_t size) {
    return ++allocations, __libc_memalign(to, size);
}
}

namespace edge_wm::kernels {
extern const Kernels kPlain;
}

using namespace edge_wm;

namespace {

constexpr std::size_t kMemory = 43, kAction = 3, kHidden = 70, kSteps = 3, kMost = 211;

ConstantData matrix(std::size_t rows, std::size_t columns, bool int8) {
    ConstantData made;
    made.shape = {rows, columns};
    for (std::size_t i = 0; i < rows * columns; ++i) {
        const int value = static_cast<int>((i * 2654435761u >> 7) % 255) - 127;
        if (int8) made.bytes.push_back(static_cast<std::int8_t>(value));
        else made.floats.push_back(static_cast<float>(value) * 0.001f);
    }
    return made;
}

ConstantData vector(std::size_t size, float value) {
    return {{size}, std::vector<float>(size, value), {}};
}

Op dense(std::size_t size, std::size_t out, kernels::Function after) {
    Op op;
    op.kind = OpKind::dense;
    op.size = size;
    op.out = {out, 0, size};
    op.after = static_cast<std::uint8_t>(after);
    return op;
}

SegmentAt segment(std::size_t reg, std::size_t size, std::size_t weight, std::ptrdiff_t scale) {
    SegmentAt made;
    made.x = {reg, 0, size};
    made.size = size;
    made.weight = weight;
    made.scale = scale;
    return made;
}

// belief (0), action (1) -> hidden (2), normed (3) -> belief (4)
Wired dynamics(bool int8) {
    std::vector<ConstantData> constants;
    constants.push_back(matrix(kHidden, kMemory, int8));
    constants.push_back(matrix(kHidden, kAction, int8));
    constants.push_back(matrix(kMemory, kHidden, int8));
    constants.push_back(vector(kHidden, 0.001f));
    constants.push_back(vector(kMemory, 0.001f));
    std::vector<Op> ops;
    ops.push_back(dense(kHidden, 2, kernels::Function::none));
    ops.back().segments = {segment(0, kMemory, 0, int8 ? 3 : -1),
                           segment(1, kAction, 1, int8 ? 3 : -1)};
    ops.back().bias = 3;
    Op norm;
    norm.kind = OpKind::norm;
    norm.function = 1;
    norm.size = kHidden;
    norm.out = {3, 0, kHidden};
    norm.x = {2, 0, kHidden};
    norm.number = 1e-5f;
    ops.push_back(norm);
    ops.push_back(dense(kMemory, 4, kernels::Function::tanh));
    ops.back().segments = {segment(3, kHidden, 2, int8 ? 4 : -1)};
    Wired made;
    made.program = std::make_shared<Program>(
        kernels::kPlain,
        std::vector<RegisterSpec>{{kMemory}, {kAction}, {kHidden}, {kHidden}, {kMemory}},
        std::move(constants), std::vector<PortSpec>{{0, true}, {1, true}},
        std::vector<PortSpec>{{4, true}}, std::move(ops));
    made.inputs = {{Wire::Source::belief, 0}, {Wire::Source::action, 0}};
    made.outputs = {0};
    return made;
}

// belief (0) -> one number (1)
Wired judge() {
    std::vector<ConstantData> constants;
    constants.push_back(matrix(1, kMemory, false));
    std::vector<Op> ops;
    ops.push_back(dense(1, 1, kernels::Function::none));
    ops.back().segments = {segment(0, kMemory, 0, -1)};
    Wired made;
    made.program = std::make_shared<Program>(
        kernels::kPlain, std::vector<RegisterSpec>{{kMemory}, {1}},
        std::move(constants), std::vector<PortSpec>{{0, true}}, std::vector<PortSpec>{{1, true}},
        std::move(ops));
    made.inputs = {{Wire::Source::belief, 0}};
    made.outputs = {0};
    return made;
}

int tried(bool int8, std::size_t threads) {
    RolloutSpec spec;
    spec.dynamics = dynamics(int8);
    spec.cost = spec.constraint = spec.value = judge();
    spec.belief = {kMemory};
    spec.terms = 1;
    spec.action = kAction;
    spec.axes = kAction;
    spec.scale.assign(kAction, 0.5f);
    spec.offset.assign(kAction, 0.1f);
    spec.threads = threads;
    Rollout rollout(std::move(spec));

    std::vector<float> belief(kMemory + kSlack, 0.2f), actions(kMost * kSteps * kAction, 0.3f);
    std::vector<float> weights(2, 1.0f), cost(kMost), terms(2 * kMost);
    std::vector<float> kept(kMost * (kSteps + 1) * kMemory);
    std::vector<std::uint8_t> infeasible(kMost);
    const float *belief_at = belief.data();
    float *kept_at = kept.data();
    const auto round = [&] {
        for (const std::size_t candidates : {kMost, std::size_t{1}, std::size_t{97}}) {
            RolloutCall call{};
            call.belief = &belief_at;
            call.actions = actions.data();
            call.candidates = candidates;
            call.steps = kSteps;
            call.weights = weights.data();
            call.cost = cost.data();
            call.infeasible = infeasible.data();
            call.terms = terms.data();
            call.beliefs = &kept_at;
            rollout.run(call);
        }
    };
    // Which worker takes which tile is left to chance: enough rounds that each had one.
    for (int i = 0; i < 10; ++i) round();
    rusage before{}, after{};
    const std::size_t allocated = allocations;
    getrusage(RUSAGE_SELF, &before);
    for (int i = 0; i < 10; ++i) round();
    getrusage(RUSAGE_SELF, &after);
    const std::size_t more = allocations - allocated;
    const long faults = after.ru_minflt - before.ru_minflt + after.ru_majflt - before.ru_majflt;
    if (more == 0 && faults == 0) return 0;
    std::printf("int8 %d, %zu threads: %zu allocations, %ld page faults\n", int8, threads, more,
                faults);
    return 1;
}

}  // namespace

int main() {
    int bad = 0;
    for (const bool int8 : {false, true}) {
        for (const std::size_t threads : {1, 2, 3}) bad += tried(int8, threads);
    }
    return bad;
}
