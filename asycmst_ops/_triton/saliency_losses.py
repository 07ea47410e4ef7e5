"""The saliency losses and their gradient on CUDA, in two launches and in three.

An image is cut into blocks of neighbouring pixels. The first launch sums over each block and, in
the backward, writes the signs of both edges of every pixel, a byte each; the second joins the
blocks of an image; the third, of the backward, gathers what each pixel gets from the signs and the
changes around it: no atomics, and the same bits at every call.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from asycmst_ops._triton.layout import on_device
from asycmst_ops._triton.saliency_losses_kernels import (
    collect_kernel,
    settle_kernel,
    write_kernel,
)

_PIXELS, _BLOCKS = 512, 128
_MOST_PIXELS = 2**30  # of an image; places are 32-bit numbers
_SMALLEST_FLOOR = torch.finfo(torch.float32).tiny
# Of a block, forward and backward.
_STATISTICS = (7, 5)


def supports(x: Tensor) -> bool:
    """Whether these kernels serve images (n, H, W) of this dtype and size."""
    return x.dtype != torch.float64 and x.shape[1] * x.shape[2] <= _MOST_PIXELS


def compile_keywords(kernel: str, backward: bool) -> dict[str, Any]:
    """What selects a compiled kernel beside the dtypes; "collect", "settle" or "write"."""
    size = {"BLOCKS": _BLOCKS} if kernel == "settle" else {"PIXELS": _PIXELS}
    way = {} if kernel == "write" else {"BACKWARD": backward}
    return {**size, **way, "num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def saliency_losses_forward(
    losses: Tensor, target: Tensor, saliency: Tensor, floor: float
) -> None:
    """Fill `losses`, float32 (n, 3), from images (n, H, W) with contiguous rows."""
    _collect(losses, losses, target, saliency, floor, backward=False)


def saliency_losses_backward(
    slope: Tensor, grad: Tensor, target: Tensor, saliency: Tensor, floor: float
) -> None:
    """Fill `slope` (n, H, W), the gradient by `saliency`; it and `grad`, float32 (n, 3), are
    contiguous.
    """
    settled = torch.empty_like(grad)
    signs = torch.empty(saliency.shape, dtype=torch.int8, device=saliency.device)
    blocks = _collect(settled, signs, target, saliency, floor, backward=True)
    with on_device(saliency):
        write_kernel[(saliency.shape[0] * blocks,)](
            slope,
            settled,
            signs,
            grad,
            target,
            saliency,
            *target.stride()[:2],
            *saliency.stride()[:2],
            *saliency.shape[1:],
            blocks,
            **compile_keywords("write", backward=True),
        )


def _collect(
    settled: Tensor, signs: Tensor, target: Tensor, saliency: Tensor, floor: float, backward: bool
) -> int:
    """The first two launches; the number of blocks of an image."""
    images, height, width = saliency.shape
    blocks = triton.cdiv(height * width, _PIXELS)
    statistics = torch.empty(
        (images, _STATISTICS[backward], blocks), dtype=torch.float64, device=saliency.device
    )
    with on_device(saliency):
        collect_kernel[(images * blocks,)](
            statistics,
            signs,
            target,
            saliency,
            *target.stride()[:2],
            *saliency.stride()[:2],
            height,
            width,
            blocks,
            **compile_keywords("collect", backward),
        )
        settle_kernel[(images,)](
            settled,
            statistics,
            blocks,
            height * width,
            max(floor, _SMALLEST_FLOOR),
            **compile_keywords("settle", backward),
        )
    return int(blocks)
