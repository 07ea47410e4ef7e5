// Attention of each token over the union of its column and its frame, in one softmax: attention
// along one axis, then along the other, by the kernels of axial.h.
#pragma once

#include "axial.h"

namespace asycmst {

// Sizes of an element as it is stored and as it is computed with.
struct ElementBytes {
    std::int64_t stored, computed;
};

// Each problem is seen along one of its axes, with as many keys as queries, and all have the same
// sizes. A forward visits each axis once. A backward first finds the softmax's statistics along
// the shorter axis, then computes its share of the gradients along the longer one and at last that
// along the shorter. The result does not depend on the thread count. Returns false when memory
// could not be allocated; the outputs are then unspecified.
bool run_union_forward(const AxialKernel& kernel, const AxialProblem* problems, int count,
                       ElementBytes bytes, double scale, int threads);
bool run_union_backward(const AxialKernel& kernel, const AxialProblem* problems, int count,
                        ElementBytes bytes, double scale, int threads);

}  // namespace asycmst
