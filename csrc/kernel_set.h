// Defines the kernel set of one instruction set; each isa_*.cpp includes this once.
//
// Everything the kernels are made of has internal linkage and calls nothing inline from the
// standard library: otherwise the linker could keep the AVX-512 copy of a function that the
// baseline set also uses.
#pragma once

#include "axial_backward.h"
#include "axial_forward.h"
#include "gates_kernel.h"
#include "isa.h"
#include "ranking_kernel.h"
#include "saliency_losses_kernel.h"

namespace asycmst {
namespace {

template <class IO>
constexpr AxialKernel axial_forward_kernel() {
    return {axial_forward_scratch<IO>, axial_forward<IO>};
}

template <class IO>
constexpr AxialKernel axial_backward_kernel() {
    return {axial_backward_scratch<IO>, axial_backward<IO>};
}

template <class IO>
constexpr RankingKernel ranking_kernel() {
    return {ranking_scratch<IO>, ranking_row<IO>};
}

template <class IO>
constexpr GatesKernel gates_kernel() {
    return {gates_tasks<IO>, gates_scratch<IO>, gates_task<false, IO>, gates_task<true, IO>};
}

template <class IO>
constexpr SaliencyKernel saliency_losses_kernel() {
    return {saliency_losses_scratch<IO>, saliency_losses_forward<IO>, saliency_losses_backward<IO>};
}

}  // namespace
}  // namespace asycmst

#define ASYCMST_KERNEL_SET(isa)                                                               \
    namespace asycmst {                                                                       \
    extern const KernelSet kernels_##isa;                                                     \
    const KernelSet kernels_##isa = {                                                         \
        #isa,                                                                                 \
        {axial_forward_kernel<float>(), axial_forward_kernel<double>(),                       \
         axial_forward_kernel<Half>(), axial_forward_kernel<BFloat>()},                       \
        {axial_backward_kernel<float>(), axial_backward_kernel<double>(),                     \
         axial_backward_kernel<Half>(), axial_backward_kernel<BFloat>()},                     \
        {ranking_kernel<float>(), ranking_kernel<double>(), ranking_kernel<Half>(),           \
         ranking_kernel<BFloat>()},                                                           \
        {gates_kernel<float>(), gates_kernel<double>(), gates_kernel<Half>(),                 \
         gates_kernel<BFloat>()},                                                             \
        {saliency_losses_kernel<float>(), saliency_losses_kernel<double>(),                   \
         saliency_losses_kernel<Half>(), saliency_losses_kernel<BFloat>()},                   \
    };                                                                                        \
    }
