// Attention along one axis of a token grid, as the kernels see it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace asycmst {

// One token grid seen from the attended axis: a row is one step along it, a group one step along
// the other axis. Strides count elements, may be 0, and the channels of a row are contiguous.
struct Operand {
    char* data;
    std::int64_t batch, group, row, head;
};

// A softmax over the keys of two axes is computed along one after the other (union.h): kFirst along
// the first axis, kOthers along the second without the key of the query itself, which the first
// axis has, and in a backward kAgain along the first with what is then known.
enum class Part { kWhole, kFirst, kOthers, kAgain };

// What the parts leave for each other, all of the compute type. Of each query: the largest score,
// the sum of the exponentials (in the end its reciprocal), the sum of their products with the
// derivatives (in the end divided by the former). And results that lack the other axis.
struct Exchange {
    Operand top, sum, delta;
    Operand out, dq, dk, dv;
};

// The forward fills `out`; the backward reads `grad` and fills `dq`, `dk`, `dv`. `mask` holds one
// byte per key (0 = left out) and no data means that every key takes part.
struct AxialProblem {
    std::int64_t batches, groups, heads, channels, queries, keys;
    Operand q, k, v, mask;
    Operand out;
    Operand grad, dq, dk, dv;
    Part part;
    Exchange exchange;
};

// One task: the heads [head_begin, head_end) of one group of one sample.
struct AxialTask {
    std::int64_t batch, group, head_begin, head_end;
};

struct AxialKernel {
    std::size_t (*scratch_bytes)(const AxialProblem&);
    void (*run)(const AxialProblem&, const AxialTask&, double scale, void* scratch);
};

// Runs every problem inside one parallel region. Each task is computed by one thread and shares
// nothing with the others, so the result does not depend on the thread count. Returns false when
// the scratch memory could not be allocated; the outputs are then unspecified.
bool run_axial(const AxialKernel& kernel, const AxialProblem* problems, int count, double scale,
               int threads);

}  // namespace asycmst
