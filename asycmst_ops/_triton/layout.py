"""How a launch sees its tensors: strides, the unit they are counted in, device, precision."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes of the widest access


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Launch where the tensor lives, not on whatever device happens to be current."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def matmul_precision(dtype: torch.dtype) -> str:
    """How products of `dtype` operands are computed: "tf32" or "ieee", as PyTorch is set up."""
    if dtype != torch.float32:
        return "ieee"
    # The newer setting first: asking for the older one raises an error when the two disagree.
    chosen = str(torch.backends.cuda.matmul.fp32_precision)
    if chosen == "none":
        chosen = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    return chosen


def block(size: int) -> int:
    """The smallest power of two that holds `size` and that a matrix product accepts."""
    return max(16, 1 << (size - 1).bit_length())


def unit_and_strides(grids: Sequence[Tensor], dim: int) -> tuple[int, list[int]]:
    """The unit of all strides, and the strides over batch, group, row and head of each grid.

    Where every row of every grid starts at a multiple of 16 bytes, strides are given in 16 bytes
    and multiplied in the kernel, which is how the compiler learns that it may use 128-bit
    accesses. Any other layout is read by the same kernel with single elements as the unit.
    """
    strides = [stride for grid in grids for stride in row_strides(grid, dim)]
    elements = ALIGNMENT // grids[0].element_size()
    if any(stride % elements for stride in strides):
        return 1, strides
    if any(grid.data_ptr() % ALIGNMENT for grid in grids):
        return 1, strides
    return elements, [stride // elements for stride in strides]


def row_strides(grid: Tensor, dim: int) -> list[int]:
    """Strides over batch, group, row and (if it has one) head; 0 where there is one element."""
    order = (0, 3 - dim, dim, 3) if grid.ndim > 3 else (0, 3 - dim, dim)
    return [0 if grid.shape[each] == 1 else grid.stride(each) for each in order]


def mask_strides(key_mask: Tensor | None, dim: int) -> list[int]:
    """Strides of a key mask over batch, group and row; zeros without one."""
    return [0, 0, 0] if key_mask is None else row_strides(key_mask, dim)
