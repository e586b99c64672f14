// A fixed pool of threads that work through numbered items together.
//
// The caller is one of the workers, so a pool of one has no thread of its own. Which worker takes
// which item is left to chance; results must not depend on it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

namespace edge_wm {

class Pool {
  public:
    explicit Pool(std::size_t workers);
    ~Pool();
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;

    std::size_t workers() const { return threads_.size() + 1; }

    // Calls work(context, item, worker) for items 0 to count - 1 and returns when all are done.
    using Work = void (*)(void *context, std::size_t item, std::size_t worker) noexcept;
    void run(Work work, void *context, std::size_t count) noexcept;

  private:
    void serve(std::size_t worker) noexcept;
    void take(std::size_t worker) noexcept;

    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::size_t round_ = 0, busy_ = 0;
    bool ending_ = false;
    Work work_ = nullptr;
    void *context_ = nullptr;
    std::size_t count_ = 0;
    std::atomic<std::size_t> next_{0};
};

}  // namespace edge_wm
