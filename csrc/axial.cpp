#include "axial.h"

#include <algorithm>
#include <array>

#include "parallel.h"

namespace asycmst {
namespace {

constexpr int kMaxProblems = 8;
// Below this many multiply-adds waking a second thread costs more than it saves.
constexpr double kSerialWork = 2e5;

class AxialTasks final : public TaskRunner {
  public:
    AxialTasks(const AxialKernel& kernel, const AxialProblem* problems, int count, double scale,
               int threads)
        : kernel_(kernel), problems_(problems), count_(count), scale_(scale) {
        for (int i = 0; i < count; ++i) {
            order_[static_cast<std::size_t>(i)] = i;
        }
        // Long tasks first, so that the short ones fill the gaps at the end.
        std::stable_sort(order_.begin(), order_.begin() + count, [&](int a, int b) {
            return pairs(problems[a]) > pairs(problems[b]);
        });
        std::int64_t groups = 0;
        for (int i = 0; i < count; ++i) {
            groups += problems[i].batches * problems[i].groups;
        }
        // All heads of a group in one task, because their rows are neighbours in memory; one head
        // per task only where groups alone would leave threads idle.
        const bool split = threads > 1 && groups < 4 * threads;
        for (int i = 0; i < count; ++i) {
            const AxialProblem& p = problems[i];
            heads_[static_cast<std::size_t>(i)] = split ? 1 : p.heads;
            tasks_ += p.batches * p.groups * (split ? p.heads : 1);
            scratch_bytes_ = std::max(scratch_bytes_, kernel.scratch_bytes(p));
            work_ += static_cast<double>(pairs(p) * p.channels) *
                     static_cast<double>(p.batches * p.groups * p.heads);
        }
    }

    void run(std::int64_t task, void* scratch) const override {
        for (int i = 0; i < count_; ++i) {
            const int problem = order_[static_cast<std::size_t>(i)];
            const AxialProblem& p = problems_[problem];
            const std::int64_t heads = heads_[static_cast<std::size_t>(problem)];
            const std::int64_t parts = p.heads / heads;
            const std::int64_t tasks = p.batches * p.groups * parts;
            if (task < tasks) {
                const std::int64_t head = task % parts * heads;
                const std::int64_t group = task / parts;
                kernel_.run(p, {group / p.groups, group % p.groups, head, head + heads}, scale_,
                            scratch);
                return;
            }
            task -= tasks;
        }
    }

    std::int64_t tasks() const { return tasks_; }
    std::size_t scratch_bytes() const { return scratch_bytes_; }
    bool small() const { return work_ < kSerialWork; }

  private:
    static std::int64_t pairs(const AxialProblem& p) { return p.queries * p.keys; }

    const AxialKernel& kernel_;
    const AxialProblem* problems_;
    int count_;
    double scale_;
    std::array<int, kMaxProblems> order_{};
    std::array<std::int64_t, kMaxProblems> heads_{};
    std::int64_t tasks_ = 0;
    std::size_t scratch_bytes_ = 0;
    double work_ = 0;
};

}  // namespace

bool run_axial(const AxialKernel& kernel, const AxialProblem* problems, int count, double scale,
               int threads) {
    for (int i = 0; i < count; i += kMaxProblems) {
        const AxialTasks tasks(kernel, problems + i, std::min(count - i, kMaxProblems), scale,
                               threads);
        if (!run_tasks(tasks, tasks.tasks(), tasks.small() ? 1 : threads,
                       tasks.scratch_bytes())) {
            return false;
        }
    }
    return true;
}

}  // namespace asycmst
