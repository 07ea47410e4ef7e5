// On top of the AVX-512 set: bfloat16 attention by products of pairs.
#include "axial_pairs.h"
#include "isa.h"

namespace asycmst {

extern const AxialKernel axial_pairs_forward_kernel;
extern const AxialKernel axial_pairs_backward_kernel;
const AxialKernel axial_pairs_forward_kernel = {axial_pairs_forward_scratch, axial_pairs_forward};
const AxialKernel axial_pairs_backward_kernel = {axial_pairs_backward_scratch,
                                                 axial_pairs_backward};

}  // namespace asycmst
