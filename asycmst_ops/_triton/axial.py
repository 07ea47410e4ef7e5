"""Attention along one axis of a token grid on CUDA, for axes of at most 64 queries and keys.

Both axes run the same two kernels: `dim` decides which stride is the row of a tile and which one
is the group. Nothing is copied, allocated, synchronised or tuned, so a launch may be captured in a
CUDA graph.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asycmst_ops._problem import Backward, Forward
from asycmst_ops._triton.axial_kernels import backward_kernel, forward_kernel

MAX_LENGTH = 64
MAX_CHANNELS = 256
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_MAX_PROGRAMS = 2**31 - 1
ALIGNMENT = 16  # bytes of the widest access


class Launch(NamedTuple):
    """Tile sizes and warps of one launch; `block_d` below the channels works on them in chunks."""

    block_q: int
    block_k: int
    block_d: int
    num_warps: int


def refusal(q: Tensor, k: Tensor, dim: int) -> str | None:
    """Why these kernels do not serve a problem, in one line, or None when they do."""
    if q.dtype not in DTYPES:
        return f"the Triton kernels serve float16, bfloat16 and float32, not {q.dtype}"
    if max(q.shape[dim], k.shape[dim]) > MAX_LENGTH:
        return (
            f"the Triton kernels serve axes of up to {MAX_LENGTH} tokens, "
            f"not {q.shape[dim]} queries and {k.shape[dim]} keys"
        )
    if q.shape[4] > MAX_CHANNELS:
        return f"the Triton kernels serve up to {MAX_CHANNELS} head channels, not {q.shape[4]}"
    if q.shape[0] * q.shape[3 - dim] * q.shape[3] > _MAX_PROGRAMS:
        return f"the Triton kernels serve up to {_MAX_PROGRAMS} groups times heads"
    return None


def supports(q: Tensor, k: Tensor, dim: int) -> bool:
    """Whether these kernels serve attention of `q` to `k` along `dim`, 1 (time) or 2 (space)."""
    return refusal(q, k, dim) is None


def matmul_precision(dtype: torch.dtype) -> str:
    """How products of `dtype` operands are computed: "tf32" or "ieee", as PyTorch is set up."""
    if dtype != torch.float32:
        return "ieee"
    # The newer setting first: asking for the older one raises an error when the two disagree.
    chosen = str(torch.backends.cuda.matmul.fp32_precision)
    if chosen == "none":
        chosen = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    return chosen


def launch_for(
    q_length: int,
    k_length: int,
    channels: int,
    dtype: torch.dtype,
    *,
    precision: str,
    aligned: bool,
    backward: bool,
) -> Launch:
    """The launch of a kernel: a fixed table, because both kernels are bound by memory traffic.

    Warps grow with the tile. Tiles that would spill registers go in chunks of channels: float32
    operands, narrow accesses (every element has its own address), and 64 rows of many channels.
    """
    block_q, block_k, block_d = _block(q_length), _block(k_length), _block(channels)
    rows = max(block_q, block_k)
    if dtype == torch.float32 or not aligned:
        if rows == 16:
            whole = dtype == torch.float32 and block_d <= 128
            chunk = block_d if whole else min(block_d, 64)
            return Launch(block_q, block_k, chunk, min(4, chunk // 16))
        fma = dtype == torch.float32 and precision == "ieee"
        if rows == 32:
            return Launch(block_q, block_k, *((min(block_d, 32), 8) if fma else (16, 4)))
        many = fma or (dtype == torch.float32 and aligned)
        return Launch(block_q, block_k, 16, 8 if many else 4)
    if rows == 16:
        return Launch(block_q, block_k, block_d, 1 if block_d <= 64 else 4)
    if rows == 32:
        return Launch(block_q, block_k, block_d, 2 if block_d <= 128 else 4)
    if block_d > 128:
        return Launch(block_q, block_k, 64, 4)
    return Launch(block_q, block_k, block_d, 8 if backward and block_d > 64 else 4)


def compile_keywords(
    launch: Launch, channels: int, unit: int, has_mask: bool, precision: str
) -> dict[str, Any]:
    """Everything that, beside the dtypes, selects a compiled kernel."""
    return {
        "D": channels,
        "BLOCK_Q": launch.block_q,
        "BLOCK_K": launch.block_k,
        "BLOCK_D": launch.block_d,
        "UNIT": unit,
        "HAS_MASK": has_mask,
        "PRECISION": precision,
        "num_warps": launch.num_warps,
        "num_stages": 1,
        "enable_fp_fusion": True,
    }


def axial_forward(problems: Sequence[Forward], scale: float) -> None:
    """Fill `out` of each problem; all tensors on one CUDA device, served as `supports` says."""
    for out, q, k, v, key_mask, dim in problems:
        _run(forward_kernel, (out,), (q, k, v), key_mask, dim, scale)


def axial_backward(problems: Sequence[Backward], scale: float) -> None:
    """Fill `dq`, `dk` and `dv` of each problem, bit for bit the same at every call."""
    for dq, dk, dv, grad, q, k, v, key_mask, dim in problems:
        _run(backward_kernel, (dq, dk, dv, grad), (q, k, v), key_mask, dim, scale)


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Launch where the tensor lives, not on whatever device happens to be current."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _run(
    kernel: Any,
    others: tuple[Tensor, ...],
    inputs: tuple[Tensor, Tensor, Tensor],
    key_mask: Tensor | None,
    dim: int,
    scale: float,
) -> None:
    q, k, _ = inputs
    grids = others + inputs
    batches, groups, heads, channels = q.shape[0], q.shape[3 - dim], q.shape[3], q.shape[4]
    q_length, k_length = q.shape[dim], k.shape[dim]
    precision = matmul_precision(q.dtype)
    unit, strides = _layout(grids, dim)
    launch = launch_for(
        q_length,
        k_length,
        channels,
        q.dtype,
        precision=precision,
        aligned=unit > 1,
        backward=kernel is backward_kernel,
    )
    with on_device(q):
        kernel[(batches * groups * heads,)](
            *grids,
            q if key_mask is None else key_mask,
            *strides,
            *((0, 0, 0) if key_mask is None else _strides(key_mask, dim)),
            groups,
            heads,
            q_length,
            k_length,
            scale,
            **compile_keywords(launch, channels, unit, key_mask is not None, precision),
        )


def _block(size: int) -> int:
    """The smallest power of two that holds `size` and that a matrix product accepts."""
    return max(16, 1 << (size - 1).bit_length())


def _layout(grids: tuple[Tensor, ...], dim: int) -> tuple[int, list[int]]:
    """The unit of all strides, and the strides over batch, group, row and head of each grid.

    Where every row of every grid starts at a multiple of 16 bytes, strides are given in 16 bytes
    and multiplied in the kernel, which is how the compiler learns that it may use 128-bit
    accesses. Any other layout is read by the same kernel with single elements as the unit.
    """
    strides = [stride for grid in grids for stride in _strides(grid, dim)]
    elements = ALIGNMENT // grids[0].element_size()
    if any(stride % elements for stride in strides):
        return 1, strides
    if any(grid.data_ptr() % ALIGNMENT for grid in grids):
        return 1, strides
    return elements, [stride // elements for stride in strides]


def _strides(grid: Tensor, dim: int) -> list[int]:
    """Strides over batch, group, row and (if it has one) head; 0 where there is one element."""
    order = (0, 3 - dim, dim, 3) if grid.ndim == 5 else (0, 3 - dim, dim)
    return [0 if grid.shape[each] == 1 else grid.stride(each) for each in order]
