#include "kernel_set.h"

ASYCMST_KERNEL_SET(avx2)
