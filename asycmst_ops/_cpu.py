"""Compiled kernels for CPU tensors: hands addresses, sizes and strides to `asycmst_ops._C`."""

import importlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from asycmst_ops._problem import Backward, Forward, UnionBackward, UnionForward

available: bool
unavailable_reason: str
_C: Any
try:
    _C = importlib.import_module("asycmst_ops._C")
    available, unavailable_reason = True, ""
except ImportError as _error:
    _C = None
    available, unavailable_reason = False, f"the compiled kernels do not load ({_error})"

# The numbers of csrc/isa.h.
_DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
_NO_MASK = (0, (0, 0, 0))


def info() -> dict[str, Any]:
    """How the kernels were built and run: instruction set, compiler, OpenMP, threads."""
    if not available:
        return {}
    return {
        "isa": _C.isas()[0],
        "compiler": _C.compiler,
        "openmp": _C.openmp,
        "threads": torch.get_num_threads() if _C.openmp else 1,
    }


def axial_forward(problems: Sequence[Forward], scale: float, *, isa: int = 0) -> None:
    """Fill the `out` of every problem, all in one parallel region.

    Args:
        problems: grids of one dtype on the CPU, each with a contiguous last dimension.
        scale: factor on the scores.
        isa: position in `_C.isas()`; 0 is the fastest this processor runs.
    """
    _C.axial_forward(
        _dtype(problems[0].q),
        [_forward(p) for p in problems],
        scale,
        torch.get_num_threads(),
        isa,
    )


def axial_backward(problems: Sequence[Backward], scale: float, *, isa: int = 0) -> None:
    """Fill `dq`, `dk` and `dv` of every problem; the arguments are those of `axial_forward`."""
    _C.axial_backward(
        _dtype(problems[0].q),
        [_backward(p) for p in problems],
        scale,
        torch.get_num_threads(),
        isa,
    )


def union_forward(problems: Sequence[UnionForward], scale: float, *, isa: int = 0) -> None:
    """As `axial_forward`, each query over its column and its frame."""
    _C.union_forward(
        _dtype(problems[0].q),
        [_forward(Forward(*p, dim=1)) for p in problems],
        scale,
        torch.get_num_threads(),
        isa,
    )


def union_backward(problems: Sequence[UnionBackward], scale: float, *, isa: int = 0) -> None:
    """As `axial_backward`, each query over its column and its frame."""
    _C.union_backward(
        _dtype(problems[0].q),
        [_backward(Backward(*p, dim=1)) for p in problems],
        scale,
        torch.get_num_threads(),
        isa,
    )


def fss_ranking(
    loss: Tensor,
    grad: Tensor,
    scores: Tensor,
    lengths: Tensor | None,
    clamp: float,
    *,
    isa: int = 0,
) -> None:
    """Fill the loss of each row, (B,), and its gradient by the scores, (B, T).

    Args:
        loss: contiguous, float32, or float64 for float64 scores.
        grad: as `loss`.
        scores: (B, T), any strides.
        lengths: None or the number of frames that take part in each row, (B,).
        clamp: upper bound of the probability in Eq 4, in (0, 1].
        isa: as in `axial_forward`.
    """
    if lengths is not None:
        lengths = lengths.to(torch.int64).contiguous()
    _C.fss_ranking(
        _dtype(scores),
        loss.data_ptr(),
        grad.data_ptr(),
        scores.data_ptr(),
        *scores.shape,
        *scores.stride(),
        0 if lengths is None else lengths.data_ptr(),
        -math.log(clamp),
        torch.get_num_threads(),
        isa,
    )


def gates_forward(out: Tensor, x: Tensor, patch: int, split: bool, *, isa: int = 0) -> None:
    """Fill `out` (B, C, H, W) with the gated `x`.

    Args:
        out, x: of one shape and dtype, all with contiguous rows, or all with contiguous channels.
        patch: side of the patches of the spatial gate.
        split: the channel gate acts on the first half of the channels, the spatial one on the
            second half, instead of both on all.
        isa: as in `axial_forward`.
    """
    _C.gates_forward(_dtype(x), _maps((out, x), patch, split), torch.get_num_threads(), isa)


def gates_backward(
    dx: Tensor, grad: Tensor, x: Tensor, patch: int, split: bool, *, isa: int = 0
) -> None:
    """Fill `dx`, the gradient by `x`; the arguments are those of `gates_forward`."""
    _C.gates_backward(_dtype(x), _maps((dx, grad, x), patch, split), torch.get_num_threads(), isa)


def saliency_losses_forward(
    losses: Tensor, target: Tensor, saliency: Tensor, floor: float, *, isa: int = 0
) -> None:
    """Fill `losses` (n, 3): reconstruction, boundary and affinity of each image.

    Args:
        losses: contiguous, float32, or float64 for float64 images.
        target, saliency: (n, H, W) of one dtype, with contiguous rows.
        floor: added to the mean change of an image, positive.
        isa: as in `axial_forward`.
    """
    images = (saliency.shape, losses.data_ptr(), *_grid(target), *_grid(saliency))
    _C.saliency_losses_forward(_dtype(saliency), images, floor, torch.get_num_threads(), isa)


def saliency_losses_backward(
    slope: Tensor,
    grad: Tensor,
    target: Tensor,
    saliency: Tensor,
    floor: float,
    *,
    isa: int = 0,
) -> None:
    """Fill `slope`, the gradient by `saliency`, from `grad`, that of the losses."""
    images = (
        saliency.shape,
        grad.data_ptr(),
        *_grid(slope),
        *_grid(target),
        *_grid(saliency),
    )
    _C.saliency_losses_backward(_dtype(saliency), images, floor, torch.get_num_threads(), isa)


def _maps(maps: Sequence[Tensor], patch: int, split: bool) -> tuple[Any, ...]:
    x = maps[-1]
    return (
        x.shape,
        min(patch, max(x.shape[2:])),  # a larger one holds the same pixels
        x.shape[1] // 2 if split else 0,
        int(x.stride(1) == 1 and x.stride(3) != 1),
        *(part for each in maps for part in _grid(each)),
    )


def _forward(p: Forward) -> tuple[Any, ...]:
    return (
        p.dim,
        p.q.shape,
        p.k.shape[p.dim],
        *(_NO_MASK if p.key_mask is None else _grid(p.key_mask)),
        *_grid(p.out),
        *_grid(p.q),
        *_grid(p.k),
        *_grid(p.v),
    )


def _backward(p: Backward) -> tuple[Any, ...]:
    return (
        p.dim,
        p.q.shape,
        p.k.shape[p.dim],
        *(_NO_MASK if p.key_mask is None else _grid(p.key_mask)),
        *_grid(p.dq),
        *_grid(p.dk),
        *_grid(p.dv),
        *_grid(p.grad),
        *_grid(p.q),
        *_grid(p.k),
        *_grid(p.v),
    )


def _grid(x: Tensor) -> tuple[int, tuple[int, ...]]:
    return x.data_ptr(), x.stride()


def _dtype(x: Tensor) -> int:
    number = _DTYPES.get(x.dtype)
    if number is None:
        raise TypeError(
            f"got {x.dtype}; the CPU kernels take float16, bfloat16, float32 and float64"
        )
    return number
