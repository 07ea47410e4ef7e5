"""Attention along one axis of a token grid on CUDA.

Axes of at most 64 queries and keys take one launch each way, with the whole axis in one tile;
longer ones work in blocks (`blocks.py`). Both axes of the grid run the same kernels: `dim` decides
which stride is the row of a tile and which one is the group. Nothing is copied, synchronised or
tuned, and workspace comes from PyTorch's allocator, so a launch may be captured in a CUDA graph.

Two problems of one call are two launches. One launch for both directions would give all its
programs one number of warps and registers: a column of 16 frames, one warp of its own, would run
with the four warps and twice the registers of a frame of 49 places, and the longer direction with
the occupancy that is left. Both ways move the same bytes; what one launch saves is one launch (by
estimate 2 us, or 1.5 us inside a graph), of the two that a call has at every batch size.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asycmst_ops._problem import Backward, Forward
from asycmst_ops._triton import blocks
from asycmst_ops._triton.axial_kernels import backward_kernel, forward_kernel
from asycmst_ops._triton.layout import (
    block,
    mask_strides,
    matmul_precision,
    on_device,
    unit_and_strides,
)

MAX_WHOLE = 64
MAX_CHANNELS = 256
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_MAX_PROGRAMS = 2**31 - 1


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
    if q.shape[4] > MAX_CHANNELS:
        return f"the Triton kernels serve up to {MAX_CHANNELS} head channels, not {q.shape[4]}"
    longest = max(q.shape[dim], k.shape[dim])
    most = 1 if longest <= MAX_WHOLE else -(-longest // blocks.LEAST_ROWS)
    if most * q.shape[0] * q.shape[3 - dim] * q.shape[3] > _MAX_PROGRAMS:
        return f"the Triton kernels serve up to {_MAX_PROGRAMS} blocks times groups times heads"
    return None


def supports(q: Tensor, k: Tensor, dim: int) -> bool:
    """Whether these kernels serve attention of `q` to `k` along `dim`, 1 (time) or 2 (space)."""
    return refusal(q, k, dim) is None


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
    block_q, block_k, block_d = block(q_length), block(k_length), block(channels)
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
    for problem in problems:
        out, q, k, v, key_mask, dim = problem
        if _in_blocks(q, k, dim):
            blocks.forward(problem, scale)
        else:
            _run(forward_kernel, (out,), (q, k, v), key_mask, dim, scale)


def axial_backward(problems: Sequence[Backward], scale: float) -> None:
    """Fill `dq`, `dk` and `dv` of each problem, bit for bit the same at every call."""
    for problem in problems:
        dq, dk, dv, grad, q, k, v, key_mask, dim = problem
        if _in_blocks(q, k, dim):
            blocks.backward(problem, scale)
        else:
            _run(backward_kernel, (dq, dk, dv, grad), (q, k, v), key_mask, dim, scale)


def _in_blocks(q: Tensor, k: Tensor, dim: int) -> bool:
    return max(q.shape[dim], k.shape[dim]) > MAX_WHOLE


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
    unit, strides = unit_and_strides(grids, dim)
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
            *mask_strides(key_mask, dim),
            groups,
            heads,
            q_length,
            k_length,
            scale,
            **compile_keywords(launch, channels, unit, key_mask is not None, precision),
        )
