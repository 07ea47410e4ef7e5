// Pairwise ranking loss over the frames of each sample, with its gradient, as the kernels see it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace asycmst {

// loss (batches,) and grad (batches, frames) are contiguous and of the compute type. `lengths`
// may be null; its values are clamped to [0, frames]. `floor` is the least pair term, -log clamp.
struct RankingProblem {
    const char* scores;
    std::int64_t batch_stride, frame_stride;
    const std::int64_t* lengths;
    char* loss;
    char* grad;
    std::int64_t batches, frames;
    double floor;
};

struct RankingKernel {
    std::size_t (*scratch_bytes)(const RankingProblem&);
    void (*run)(const RankingProblem&, std::int64_t batch, void* scratch);
};

// One task per sample; the result does not depend on the thread count. Returns false when the
// scratch memory could not be allocated.
bool run_ranking(const RankingKernel& kernel, const RankingProblem& problem, int threads);

}  // namespace asycmst
