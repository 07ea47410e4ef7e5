// The channel gate and the patch-wise spatial gate of feature maps, as the kernels see them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace asycmst {

// Maps (batches, channels, height, width) with strides in elements. Either `pixel` is 1 in every
// operand of a problem, or `channel` is (channels last).
struct Maps {
    char* data;
    std::int64_t batch, channel, row, pixel;
};

// The first `channel_only` channels stand under the channel gate alone, the others under the
// spatial gate alone; where there are no such channels, all stand under both.
struct GatesProblem {
    Maps out, grad, x;  // `out` is the gradient by x in the backward, which alone has a `grad`
    std::int64_t batches, channels, height, width;
    std::int64_t patch, channel_only;
    bool channels_last;
};

struct GatesKernel {
    std::int64_t (*tasks)(const GatesProblem&);
    std::size_t (*scratch_bytes)(const GatesProblem&);
    void (*forward)(const GatesProblem&, std::int64_t task, void* scratch);
    void (*backward)(const GatesProblem&, std::int64_t task, void* scratch);
};

// One task holds whole maps, so the result does not depend on the thread count. Returns false
// when the scratch memory could not be allocated.
bool run_gates(const GatesKernel& kernel, const GatesProblem& problem, bool backward, int threads);

}  // namespace asycmst
