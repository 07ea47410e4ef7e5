#include "saliency_losses.h"

#include "parallel.h"

namespace asycmst {
namespace {

// Below this many pixels waking a second thread costs more than it saves.
constexpr double kSerialPixels = 2e4;

class SaliencyTasks final : public TaskRunner {
  public:
    SaliencyTasks(void (*kernel)(const SaliencyProblem&, std::int64_t, void*),
                  const SaliencyProblem& problem)
        : kernel_(kernel), problem_(problem) {}

    void run(std::int64_t task, void* scratch) const override {
        kernel_(problem_, task, scratch);
    }

  private:
    void (*kernel_)(const SaliencyProblem&, std::int64_t, void*);
    const SaliencyProblem& problem_;
};

}  // namespace

bool run_saliency_losses(const SaliencyKernel& kernel, const SaliencyProblem& p, bool backward,
                         int threads) {
    const double pixels = static_cast<double>(p.images) * static_cast<double>(p.height) *
                          static_cast<double>(p.width);
    return run_tasks(SaliencyTasks(backward ? kernel.backward : kernel.forward, p), p.images,
                     pixels < kSerialPixels ? 1 : threads, kernel.scratch_bytes(p));
}

}  // namespace asycmst
