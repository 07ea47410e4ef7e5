"""Kernels for CUDA tensors: Triton where it serves the case, plain PyTorch elsewhere.

Triton is imported at the first call, so that importing the package needs neither Triton nor a GPU.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from asycmst_ops import _eager
from asycmst_ops._problem import Backward, Forward, UnionBackward, UnionForward

SERVED = "float16, bfloat16 and float32; float64 runs the reference"


def unavailable_reason() -> str | None:
    """Why no Triton kernel can serve here; None when one can."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    return None


def axial_forward(problems: Sequence[Forward], scale: float) -> None:
    from asycmst_ops._triton import axial

    _family(axial, problems).axial_forward(problems, scale)


def axial_backward(problems: Sequence[Backward], scale: float) -> None:
    from asycmst_ops._triton import axial

    _family(axial, problems).axial_backward(problems, scale)


def union_forward(problems: Sequence[UnionForward], scale: float) -> None:
    from asycmst_ops._triton import union

    _union_family(union, problems).union_forward(problems, scale)


def union_backward(problems: Sequence[UnionBackward], scale: float) -> None:
    from asycmst_ops._triton import union

    _union_family(union, problems).union_backward(problems, scale)


def fss_ranking(
    loss: Tensor, grad: Tensor, scores: Tensor, lengths: Tensor | None, clamp: float
) -> None:
    if scores.dtype == torch.float64:
        _eager.fss_ranking(loss, grad, scores, lengths, clamp)
        return
    from asycmst_ops._triton import ranking

    ranking.fss_ranking(loss, grad, scores, lengths, clamp)


def gates_forward(out: Tensor, x: Tensor, patch: int, split: bool) -> None:
    from asycmst_ops._triton import gates

    family: Any = gates if gates.supports(x, patch) else _eager
    family.gates_forward(out, x, patch, split)


def gates_backward(dx: Tensor, grad: Tensor, x: Tensor, patch: int, split: bool) -> None:
    from asycmst_ops._triton import gates

    family: Any = gates if gates.supports(x, patch) else _eager
    family.gates_backward(dx, grad, x, patch, split)


def saliency_losses_forward(
    losses: Tensor, target: Tensor, saliency: Tensor, floor: float
) -> None:
    from asycmst_ops._triton import saliency_losses

    family: Any = saliency_losses if saliency_losses.supports(saliency) else _eager
    family.saliency_losses_forward(losses, target, saliency, floor)


def saliency_losses_backward(
    slope: Tensor, grad: Tensor, target: Tensor, saliency: Tensor, floor: float
) -> None:
    from asycmst_ops._triton import saliency_losses

    family: Any = saliency_losses if saliency_losses.supports(saliency) else _eager
    family.saliency_losses_backward(slope, grad, target, saliency, floor)


def _family(axial: Any, problems: Sequence[Forward] | Sequence[Backward]) -> Any:
    return axial if all(axial.supports(p.q, p.k, p.dim) for p in problems) else _eager


def _union_family(union: Any, problems: Sequence[UnionForward] | Sequence[UnionBackward]) -> Any:
    return union if all(union.supports(p.q) for p in problems) else _eager
