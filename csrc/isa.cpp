#include "isa.h"

namespace asycmst {

extern const KernelSet kernels_baseline;
#if defined(ASYCMST_AVX2)
extern const KernelSet kernels_avx2;
#endif
#if defined(ASYCMST_AVX512)
extern const KernelSet kernels_avx512;
#endif

#if defined(ASYCMST_AVX512BF16)
extern const AxialKernel axial_pairs_forward_kernel;
extern const AxialKernel axial_pairs_backward_kernel;

namespace {

const KernelSet& kernels_avx512bf16() {
    static const KernelSet set = [] {
        KernelSet set = kernels_avx512;
        set.name = "avx512bf16";
        set.axial_forward[kBFloat16] = axial_pairs_forward_kernel;
        set.axial_backward[kBFloat16] = axial_pairs_backward_kernel;
        return set;
    }();
    return set;
}

}  // namespace
#endif

int available_kernel_sets(const KernelSet** sets) {
    int count = 0;
#if defined(ASYCMST_AVX512)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("fma")) {
#if defined(ASYCMST_AVX512BF16)
        if (__builtin_cpu_supports("avx512bf16")) {
            sets[count++] = &kernels_avx512bf16();
        }
#endif
        sets[count++] = &kernels_avx512;
    }
#endif
#if defined(ASYCMST_AVX2)
    // F16C has no name here in older compilers; every processor with AVX2 has it.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        sets[count++] = &kernels_avx2;
    }
#endif
    sets[count++] = &kernels_baseline;
    return count;
}

}  // namespace asycmst
