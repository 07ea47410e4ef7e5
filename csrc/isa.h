// The instruction sets this build holds and the kernels compiled for each.
#pragma once

#include "axial.h"
#include "gates.h"
#include "ranking.h"
#include "saliency_losses.h"

namespace asycmst {

// Order of the kernel tables below; the Python launcher passes these numbers.
enum DType : int { kFloat32 = 0, kFloat64 = 1, kFloat16 = 2, kBFloat16 = 3, kDTypes = 4 };

struct KernelSet {
    const char* name;
    AxialKernel axial_forward[kDTypes];
    AxialKernel axial_backward[kDTypes];
    RankingKernel ranking[kDTypes];
    GatesKernel gates[kDTypes];
    SaliencyKernel saliency_losses[kDTypes];
};

// Kernel sets this processor can run, the fastest first.
int available_kernel_sets(const KernelSet** sets);

constexpr int kMaxKernelSets = 4;

}  // namespace asycmst
