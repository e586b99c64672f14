#include "pool.h"

namespace edge_wm {

Pool::Pool(std::size_t workers) {
    for (std::size_t i = 1; i < workers; ++i) threads_.emplace_back([this, i] { serve(i); });
}

Pool::~Pool() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        ending_ = true;
    }
    wake_.notify_all();
    for (std::thread &thread : threads_) thread.join();
}

void Pool::take(std::size_t worker) noexcept {
    for (;;) {
        const std::size_t item = next_.fetch_add(1, std::memory_order_relaxed);
        if (item >= count_) return;
        work_(context_, item, worker);
    }
}

void Pool::serve(std::size_t worker) noexcept {
    std::size_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
        wake_.wait(lock, [&] { return ending_ || round_ != seen; });
        if (ending_) return;
        seen = round_;
        lock.unlock();
        take(worker);
        lock.lock();
        if (--busy_ == 0) done_.notify_one();
    }
}

void Pool::run(Work work, void *context, std::size_t count) noexcept {
    if (threads_.empty() || count == 1) {
        for (std::size_t item = 0; item < count; ++item) work(context, item, 0);
        return;
    }
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        work_ = work;
        context_ = context;
        count_ = count;
        next_.store(0, std::memory_order_relaxed);
        busy_ = threads_.size();
        ++round_;
    }
    wake_.notify_all();
    take(0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return busy_ == 0; });
}

}  // namespace edge_wm
