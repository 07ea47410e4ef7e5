// The losses of saliency maps against their targets, as the kernels see them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace asycmst {

// Images (images, height, width) with strides in elements; the pixels of a row are neighbours.
struct Images {
    char* data;
    std::int64_t image, row;
};

// `losses` (images, 3) is contiguous and of the compute type: reconstruction, boundary, affinity.
// The backward reads their gradients there and fills `slope`, the gradient by the saliency.
struct SaliencyProblem {
    Images slope, target, saliency;
    char* losses;
    std::int64_t images, height, width;
    double floor;
};

struct SaliencyKernel {
    std::size_t (*scratch_bytes)(const SaliencyProblem&);
    void (*forward)(const SaliencyProblem&, std::int64_t image, void* scratch);
    void (*backward)(const SaliencyProblem&, std::int64_t image, void* scratch);
};

// One task per image, so the result does not depend on the thread count. Returns false when the
// scratch memory could not be allocated.
bool run_saliency_losses(const SaliencyKernel& kernel, const SaliencyProblem& problem,
                         bool backward, int threads);

}  // namespace asycmst
