#include "ranking.h"

#include "parallel.h"

namespace asycmst {
namespace {

// Below this many pairs waking a second thread costs more than it saves.
constexpr double kSerialPairs = 2e4;

class RankingTasks final : public TaskRunner {
  public:
    RankingTasks(const RankingKernel& kernel, const RankingProblem& problem)
        : kernel_(kernel), problem_(problem) {}

    void run(std::int64_t task, void* scratch) const override {
        kernel_.run(problem_, task, scratch);
    }

  private:
    const RankingKernel& kernel_;
    const RankingProblem& problem_;
};

}  // namespace

bool run_ranking(const RankingKernel& kernel, const RankingProblem& problem, int threads) {
    const double frames = static_cast<double>(problem.frames);
    const bool small = static_cast<double>(problem.batches) * frames * frames < 2 * kSerialPairs;
    return run_tasks(RankingTasks(kernel, problem), problem.batches, small ? 1 : threads,
                     kernel.scratch_bytes(problem));
}

}  // namespace asycmst
