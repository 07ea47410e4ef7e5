#include "gates.h"

#include "parallel.h"

namespace asycmst {
namespace {

// Below this many values waking a second thread costs more than it saves.
constexpr double kSerialValues = 3e4;

class GatesTasks final : public TaskRunner {
  public:
    GatesTasks(void (*kernel)(const GatesProblem&, std::int64_t, void*),
               const GatesProblem& problem)
        : kernel_(kernel), problem_(problem) {}

    void run(std::int64_t task, void* scratch) const override {
        kernel_(problem_, task, scratch);
    }

  private:
    void (*kernel_)(const GatesProblem&, std::int64_t, void*);
    const GatesProblem& problem_;
};

}  // namespace

bool run_gates(const GatesKernel& kernel, const GatesProblem& p, bool backward, int threads) {
    const double values = static_cast<double>(p.batches) * static_cast<double>(p.channels) *
                          static_cast<double>(p.height) * static_cast<double>(p.width);
    return run_tasks(GatesTasks(backward ? kernel.backward : kernel.forward, p),
                     p.batches * kernel.tasks(p), values < kSerialValues ? 1 : threads,
                     kernel.scratch_bytes(p));
}

}  // namespace asycmst
