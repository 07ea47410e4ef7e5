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

// The forward fills `out`; the backward reads `grad` and fills `dq`, `dk`, `dv`. `mask` holds one
// byte per key (0 = left out) and no data means that every key takes part.
struct AxialProblem {
    std::int64_t batches, groups, heads, channels, queries, keys;
    Operand q, k, v, mask;
    Operand out;
    Operand grad, dq, dk, dv;
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
