// Counts what a plan allocates: the first one may, for the terms of what it imagines with; the
// others may not. Built and run by tests/test_planner.py; exits 0 if all is well.
#include <cstdio>
#include <cstdlib>
#include <new>

#include "../cpp/planner/planner.h"

static std::size_t allocations = 0;

void *operator new(std::size_t size) {
    ++allocations;
    if (void *memory = std::malloc(size)) {
        return memory;
    }
    throw std::bad_alloc();
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }

using namespace edge_wm::planner;

namespace {

constexpr std::size_t kSteps = 12, kAxes = 2, kSize = kSteps * kAxes;

struct Flat : Imagination {
    bool imagine(const float *actions, std::size_t count, std::uint64_t, float *cost,
                 std::uint8_t *infeasible, float *terms) override {
        for (std::size_t k = 0; k < count; ++k) {
            cost[k] = terms[k] = actions[k * kSize] * actions[k * kSize];
            terms[count + k] = 0.0f;
            infeasible[k] = actions[k * kSize + 1] > 0.5f;
        }
        return true;
    }
    std::size_t term_count() const override { return 2; }
    std::size_t action_size() const override { return kSize; }
};

struct Generous : Overseer {
    bool more(bool *answer) override { return *answer = true; }
    bool forbid(const float *, std::size_t, std::uint8_t *) override { return true; }
};

}  // namespace

int main() {
    Settings settings{};
    settings.horizon = kSteps;
    settings.axes = kAxes;
    settings.candidates = 100;
    settings.iterations = 4;
    settings.elites = 20;
    settings.kept = 6;
    settings.policy_candidates = 30;
    settings.temperature = 0.1;
    settings.full_spread.assign(kAxes, 0.3f);
    settings.least_spread.assign(kAxes, 0.03);
    settings.lowest.assign(kAxes, -1.0f);
    settings.highest.assign(kAxes, 1.0f);
    Search search(settings, std::vector<float>(4097, 0.5f),
                  std::vector<float>(kSteps * kSteps, 0.1f));
    Flat imagination;
    Generous overseer;
    Found found{};
    const std::vector<float> rows(kSize, 0.1f), rest(kAxes, 0.0f);
    for (std::uint32_t plan = 0; plan < 5; ++plan) {
        allocations = 0;
        const Start start{rows.data(), rest.data(), rows.data(), rows.data(), 1, plan};
        if (!search.run(imagination, overseer, start, &found) || found.actions == nullptr) {
            std::printf("plan %u found nothing\n", plan);
            return 1;
        }
        if (allocations > (plan == 0 ? 2u : 0u)) {
            std::printf("plan %u allocated %zu times\n", plan, allocations);
            return 1;
        }
    }
    return 0;
}
