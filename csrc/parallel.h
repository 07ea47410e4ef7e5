// Independent tasks on several threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace asycmst {

struct TaskRunner {
    virtual void run(std::int64_t task, void* scratch) const = 0;

  protected:
    ~TaskRunner() = default;
};

// Runs tasks 0 .. count - 1, each on one of at most `threads` threads, with `scratch_bytes` of
// memory aligned to 64 bytes for each thread. Returns false when that memory was not to be had.
bool run_tasks(const TaskRunner& runner, std::int64_t count, int threads,
               std::size_t scratch_bytes);

// Makes every later call in a forked child serial: the child has no copy of the thread pool and
// would wait for its workers for ever.
void watch_for_fork();

bool has_openmp();

}  // namespace asycmst
