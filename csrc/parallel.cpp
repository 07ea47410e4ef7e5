#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include <pthread.h>

namespace asycmst {
namespace {

std::atomic<bool> forked_child{false};
constexpr std::int64_t kChunksPerThread = 8;
constexpr std::int64_t kLargestChunk = 8;

// Memory of one thread, kept between calls: fresh pages would cost more than a small call. What a
// long axis needed beyond the limit goes back at once.
class ThreadScratch {
  public:
    ThreadScratch() = default;
    ThreadScratch(const ThreadScratch&) = delete;
    ThreadScratch& operator=(const ThreadScratch&) = delete;
    ~ThreadScratch() { std::free(memory_); }

    void* reserve(std::size_t bytes) {
        if (bytes > size_) {
            release();
            if (posix_memalign(&memory_, 64, bytes) != 0) {
                memory_ = nullptr;
                return nullptr;
            }
            size_ = bytes;
        }
        return memory_;
    }

    void trim() {
        if (size_ > kKeptBytes) {
            release();
        }
    }

  private:
    static constexpr std::size_t kKeptBytes = std::size_t{4} << 20;

    void release() {
        std::free(memory_);
        memory_ = nullptr;
        size_ = 0;
    }

    void* memory_ = nullptr;
    std::size_t size_ = 0;
};

thread_local ThreadScratch thread_scratch;

}  // namespace

bool run_tasks(const TaskRunner& runner, std::int64_t count, int threads,
               std::size_t scratch_bytes) {
    if (threads < 2 || count < 2 || forked_child.load(std::memory_order_relaxed)) {
        void* scratch = thread_scratch.reserve(scratch_bytes);
        if (scratch == nullptr) {
            return false;
        }
        for (std::int64_t task = 0; task < count; ++task) {
            runner.run(task, scratch);
        }
        thread_scratch.trim();
        return true;
    }
    // Always the same team, even for fewer tasks: a smaller one would end threads that the next
    // loop of torch would have to start again.
    std::atomic<bool> complete{true};
    // Neighbouring tasks on one thread find what the task before has fetched for them; enough
    // chunks for every thread keep the end even.
    const std::int64_t chunk =
        std::clamp<std::int64_t>(count / (kChunksPerThread * threads), 1, kLargestChunk);
#pragma omp parallel num_threads(threads)
    {
        void* scratch = thread_scratch.reserve(scratch_bytes);
        if (scratch == nullptr) {
            complete.store(false, std::memory_order_relaxed);
        }
#pragma omp for schedule(dynamic, chunk)
        for (std::int64_t task = 0; task < count; ++task) {
            if (scratch != nullptr) {
                runner.run(task, scratch);
            }
        }
        thread_scratch.trim();
    }
    return complete.load(std::memory_order_relaxed);
}

void watch_for_fork() {
    pthread_atfork(nullptr, nullptr, [] { forked_child.store(true, std::memory_order_relaxed); });
}

bool has_openmp() {
#if defined(_OPENMP)
    return true;
#else
    return false;
#endif
}

}  // namespace asycmst
