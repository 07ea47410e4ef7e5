"""The gates of a dual-attention fusion and their gradient on CUDA, in three launches each.

A map is cut into blocks of whole patches, numbered row by row, so that small maps fill a program
and large ones many. The first launch collects: the gate of every patch, and of every block its
mean and squared deviation, and in the backward what the pixels pass on to each patch. The second
joins the blocks of a channel, the third reads the maps again and writes. A patch gathers what it
gets from the pixels around it, two patches wide, instead of having them add to it: no atomics, and
the same bits at every call.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from asycmst_ops._triton.gates_kernels import collect_kernel, settle_kernel, write_kernel
from asycmst_ops._triton.layout import on_device

# Pixels that a program reads at once, forward and backward, by whether channels come last.
_LANES = {False: (1024, 512), True: (1024, 256)}
_CHANNELS = (32, 16)  # of a program where channels come last, likewise
_JOINED, _SETTLED_CHANNELS = 64, 32  # blocks and channels that are joined at once
_LARGEST_PATCH = 64
_MOST_PIXELS = 2**30  # of a map; places are 32-bit numbers
# Of a block and channel: pixels, mean, squared deviation and, in the backward, sum of q.
_STATISTICS = 4
# Of a channel: the gate, the slope of the variance, the mean.
_SETTLED = 3


def supports(x: Tensor, patch: int) -> bool:
    """Whether these kernels serve maps of this dtype and size and patches of this side."""
    if x.dtype == torch.float64 or x.shape[2] * x.shape[3] > _MOST_PIXELS:
        return False
    return _side(x, patch) <= _LARGEST_PATCH


def _side(x: Tensor, patch: int) -> int:
    """The least side of patches that hold the same pixels."""
    return min(patch, max(x.shape[2:]))


def compile_keywords(
    channels: int, patch: int, channels_last: bool, backward: bool
) -> dict[str, Any]:
    """Everything that, beside the dtypes, selects a compiled kernel of the maps."""
    side = triton.next_power_of_2(patch)
    held = min(_CHANNELS[backward], triton.next_power_of_2(channels)) if channels_last else 1
    return {
        "PATCHES": max(1, _LANES[channels_last][backward] // (side * held)),
        "SIDE": side,
        "CHANNELS": held,
        "LAST": channels_last,
        "BACKWARD": backward,
        "num_warps": 4,
        "num_stages": 1,
        "enable_fp_fusion": True,
    }


def settle_keywords(backward: bool) -> dict[str, Any]:
    """The same of the kernel between them."""
    return {
        "BLOCKS": _JOINED,
        "CHANNELS": _SETTLED_CHANNELS,
        "BACKWARD": backward,
        "num_warps": 4,
        "num_stages": 1,
        "enable_fp_fusion": True,
    }


def gates_forward(out: Tensor, x: Tensor, patch: int, split: bool) -> None:
    """Fill `out` (B, C, H, W) with the gated `x`; all with contiguous rows or channels."""
    _launch(out, None, x, patch, split)


def gates_backward(dx: Tensor, grad: Tensor, x: Tensor, patch: int, split: bool) -> None:
    """Fill `dx`, the gradient by `x`, bit for bit the same at every call."""
    _launch(dx, grad, x, patch, split)


def _launch(out: Tensor, grad: Tensor | None, x: Tensor, patch: int, split: bool) -> None:
    batches, channels, height, width = x.shape
    side = _side(x, patch)
    last = x.stride(1) == 1 and x.stride(3) != 1
    keywords = compile_keywords(channels, side, last, grad is not None)
    patches = -(-height // side) * -(-width // side)
    blocks = triton.cdiv(patches, keywords["PATCHES"])
    channel_blocks = triton.cdiv(channels, keywords["CHANNELS"])
    half = channels // 2

    def room(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=x.device)

    gates = room(batches, patches, channels)
    pulls = gates if grad is None else torch.empty_like(gates)
    statistics = room(_STATISTICS, batches, blocks, channels)
    settled = room(_SETTLED, batches, channels)
    strides = (channels, 1) if last else (1, patches)
    upper = x if grad is None else grad
    grid = (batches * channel_blocks * blocks,)
    with on_device(x):
        collect_kernel[grid](
            gates,
            pulls,
            statistics,
            upper,
            x,
            *upper.stride(),
            *x.stride(),
            channels,
            height,
            width,
            side,
            half if split else 0,
            blocks,
            channel_blocks,
            *strides,
            **keywords,
        )
        groups = triton.cdiv(channels, _SETTLED_CHANNELS)
        settle_kernel[(batches * groups,)](
            settled,
            statistics,
            batches,
            channels,
            blocks,
            half if split else channels,
            groups,
            **settle_keywords(grad is not None),
        )
        write_kernel[grid](
            out,
            gates,
            pulls,
            settled,
            upper,
            x,
            *out.stride(),
            *upper.stride(),
            *x.stride(),
            batches,
            channels,
            height,
            width,
            side,
            blocks,
            channel_blocks,
            *strides,
            **keywords,
        )
