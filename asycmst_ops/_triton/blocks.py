"""Launches of the kernels that work in blocks, for long axes and for softmaxes over two axes.

Traffic, in units of one grid, when the keys of a group stay in cache while its queries pass:
4 forward (q, k, v -> out); 11 backward in two launches (q, k, v, grad -> dq and the state of each
query; the same and the state -> dk, dv). The state is formed anew by the first of the two and not
kept from the forward pass: without the output, which is not kept either, the row term of the
softmax gradient needs that pass over q, k, v and grad in any case, and the logarithm of the
softmax's sum comes out of it free.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from asycmst_ops._problem import Backward, Forward
from asycmst_ops._triton.block_kernels import forward_kernel, key_kernel, query_kernel
from asycmst_ops._triton.layout import (
    ALIGNMENT,
    block,
    mask_strides,
    matmul_precision,
    on_device,
    unit_and_strides,
)

LEAST_ROWS = 16  # of a block


class Launch(NamedTuple):
    """Tile sizes, warps and pipeline stages of one launch."""

    block_q: int
    block_k: int
    block_d: int
    num_warps: int
    num_stages: int


# Queries, keys, warps and stages for up to 64, 128 and 256 channels: the largest tiles that spill
# no register and fit 99 KB of shared memory on every architecture that the audit compiles for.
# "narrow" stands for grids whose addresses allow no 128-bit access: each element has its own.
# Above 128 channels those are `cramped`, and float32 products there are "ieee" in any case.
Sizes = tuple[int, int, int, int]
TABLE: dict[str, dict[str, tuple[Sizes, ...]]] = {
    "forward": {
        "half": ((64, 32, 4, 2), (64, 32, 4, 2), (32, 32, 4, 2)),
        "tf32": ((32, 32, 4, 2), (32, 32, 4, 2), (32, 16, 8, 2)),
        "ieee": ((32, 16, 4, 2), (16, 16, 8, 2), (16, 16, 4, 2)),
        "half narrow": ((32, 32, 4, 1), (16, 16, 4, 1), (16, 16, 8, 1)),
        "tf32 narrow": ((16, 16, 8, 1), (16, 16, 8, 1)),
        "ieee narrow": ((16, 16, 4, 2), (16, 16, 8, 2), (16, 16, 16, 2)),
    },
    "state": {
        "half": ((64, 32, 4, 2), (64, 32, 4, 2), (32, 32, 8, 2)),
        "tf32": ((32, 32, 4, 2), (32, 32, 8, 2), (16, 16, 8, 2)),
        "ieee": ((32, 32, 8, 2), (16, 16, 8, 2), (16, 16, 4, 2)),
        "half narrow": ((32, 32, 8, 1), (32, 32, 8, 1), (16, 16, 8, 1)),
        "tf32 narrow": ((32, 32, 8, 1), (16, 16, 8, 1)),
        "ieee narrow": ((16, 16, 8, 2), (16, 16, 8, 2), (16, 16, 8, 2)),
    },
    "query": {
        "half": ((64, 32, 4, 2), (64, 32, 4, 2), (32, 32, 8, 2)),
        "tf32": ((32, 32, 4, 2), (32, 32, 8, 2), (16, 16, 8, 2)),
        "ieee": ((32, 32, 8, 2), (16, 16, 4, 2), (16, 16, 4, 2)),
        "half narrow": ((32, 32, 4, 1), (32, 32, 8, 1), (16, 16, 8, 1)),
        "tf32 narrow": ((32, 32, 8, 1), (16, 16, 8, 1)),
        "ieee narrow": ((16, 16, 8, 2), (16, 16, 8, 2), (16, 16, 8, 1)),
    },
    "key": {
        "half": ((64, 32, 4, 2), (32, 32, 4, 2), (16, 32, 8, 2)),
        "tf32": ((32, 32, 4, 2), (16, 32, 4, 2), (16, 16, 8, 2)),
        "ieee": ((32, 32, 8, 1), (16, 32, 8, 1), (16, 16, 8, 1)),
        "half narrow": ((32, 32, 4, 1), (32, 32, 8, 1), (16, 16, 8, 1)),
        "tf32 narrow": ((32, 32, 8, 1), (16, 16, 8, 1)),
        "ieee narrow": ((16, 16, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1)),
    },
}


def launch_for(
    kernel: str,
    q_length: int,
    k_length: int,
    channels: int,
    dtype: torch.dtype,
    *,
    precision: str,
    aligned: bool,
) -> Launch:
    """The launch of one of `KERNELS`: a fixed table, as for whole axes.

    No block holds more rows than the power of two that holds the axis, so short axes (of softmaxes
    over two) and few channels have small tiles, which fewer warps fill.
    """
    kind = precision if dtype == torch.float32 else "half"
    block_d = block(channels)
    sizes = TABLE[kernel][kind if aligned else f"{kind} narrow"]
    most_q, most_k, warps, stages = sizes[0 if block_d <= 64 else 1 if block_d == 128 else 2]
    block_q, block_k = min(most_q, block(q_length)), min(most_k, block(k_length))
    if aligned:
        # At least two 128-bit accesses for each thread, or some would be narrower.
        tile = min(block_q, block_k) * block_d * dtype.itemsize
        warps = min(warps, max(1, tile // (2 * 32 * ALIGNMENT)))
    return Launch(block_q, block_k, block_d, warps, stages)


def cramped(channels: int, unit: int) -> bool:
    """Whether narrow accesses to wide rows take the registers of tf32 or of two loops in one."""
    return unit == 1 and channels > 128


def compile_keywords(
    launch: Launch, channels: int, unit: int, has_mask: bool, precision: str, **flags: Any
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
        **flags,
        "num_warps": launch.num_warps,
        "num_stages": launch.num_stages,
        "enable_fp_fusion": True,
    }


def new_state(q: Tensor, dim: int) -> Tensor:
    """Room for what queries (B, T, N, H, d) remember between launches, (3, B, T, N, H)."""
    order = [3, q.shape[0], q.shape[3], q.shape[3 - dim], q.shape[dim]]
    state = torch.empty(order, dtype=torch.float32, device=q.device)
    return state.permute((0, 1, 4, 3, 2) if dim == 1 else (0, 1, 3, 4, 2))


def forward(
    problem: Forward,
    scale: float,
    state: Tensor | None = None,
    *,
    resume: bool = False,
    save: bool = False,
    skip_self: bool = False,
) -> None:
    """Fill `out`; the keyword arguments are those of the kernel."""
    out, q, k, v, key_mask, dim = problem
    flags = {"CONTINUE": resume, "SAVE": save, "SKIP_SELF": skip_self}
    _run("forward", (out,), state, (q, k, v), key_mask, dim, scale, flags)


def query_gradient(
    problem: Backward,
    scale: float,
    state: Tensor,
    *,
    begin: str = "new",
    save: bool = True,
    write: str = "set",
    skip_self: bool = False,
) -> None:
    """Fill `state` and `dq`; the keyword arguments are those of the kernel."""
    dq, _, _, grad, q, k, v, key_mask, dim = problem
    unit, _ = unit_and_strides((dq, grad, q, k, v), dim)
    if begin != "given" and write != "no" and cramped(q.shape[4], unit):
        query_gradient(problem, scale, state, begin=begin, write="no", skip_self=skip_self)
        begin, save = "given", False
    flags = {"BEGIN": begin, "SAVE": save, "WRITE": write, "SKIP_SELF": skip_self}
    name = "state" if write == "no" else "query"
    _run(name, (dq, grad), state, (q, k, v), key_mask, dim, scale, flags)


def key_gradient(
    problem: Backward,
    scale: float,
    state: Tensor,
    *,
    write: str = "set",
    skip_self: bool = False,
) -> None:
    """Fill `dk` and `dv` from a finished state; the keyword arguments are those of the kernel."""
    _, dk, dv, grad, q, k, v, key_mask, dim = problem
    flags = {"WRITE": write, "SKIP_SELF": skip_self}
    _run("key", (dk, dv, grad), state, (q, k, v), key_mask, dim, scale, flags)


def backward(problem: Backward, scale: float) -> None:
    """Fill `dq`, `dk` and `dv` of attention along one axis of any length."""
    state = new_state(problem.q, problem.dim)
    query_gradient(problem, scale, state)
    key_gradient(problem, scale, state)


KERNELS = {
    "forward": forward_kernel,
    "state": query_kernel,
    "query": query_kernel,
    "key": key_kernel,
}


def _run(
    name: str,
    others: tuple[Tensor, ...],
    state: Tensor | None,
    inputs: tuple[Tensor, Tensor, Tensor],
    key_mask: Tensor | None,
    dim: int,
    scale: float,
    flags: dict[str, Any],
) -> None:
    """Launch one kernel: `others` are its results and, last in the backward, the gradient."""
    q, k, _ = inputs
    groups, heads, channels = q.shape[3 - dim], q.shape[3], q.shape[4]
    q_length, k_length = q.shape[dim], k.shape[dim]
    results, grads = (others, ()) if name == "forward" else (others[:-1], others[-1:])
    unit, strides = unit_and_strides((*others, *inputs), dim)
    precision = "ieee" if cramped(channels, unit) else matmul_precision(q.dtype)
    split = 4 * len(results)
    launch = launch_for(
        name, q_length, k_length, channels, q.dtype, precision=precision, aligned=unit > 1
    )
    rows, size = (k_length, launch.block_k) if name == "key" else (q_length, launch.block_q)
    programs = -(-rows // size) * q.shape[0] * groups * heads
    with on_device(q):
        KERNELS[name][(programs,)](
            *results,
            q if state is None else state,
            *grads,
            *inputs,
            q if key_mask is None else key_mask,
            *strides[:split],
            *_state_strides(state, dim),
            *strides[split:],
            *mask_strides(key_mask, dim),
            groups,
            heads,
            q_length,
            k_length,
            scale,
            **compile_keywords(launch, channels, unit, key_mask is not None, precision, **flags),
        )


def _state_strides(state: Tensor | None, dim: int) -> tuple[int, ...]:
    """Strides over plane, batch, group, row and head of a state; zeros without one."""
    if state is None:
        return (0, 0, 0, 0, 0)
    plane, batch, *axes, head = state.stride()
    return plane, batch, axes[2 - dim], axes[dim - 1], head
