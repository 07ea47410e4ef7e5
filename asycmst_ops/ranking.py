"""The frame self-sorting loss: later frames must score higher (Section 3.2)."""

from typing import Any, Literal

import torch
from torch import Tensor

from asycmst_ops import _library


def fss_ranking_loss(
    scores: Tensor,
    *,
    clamp: float = 0.9,
    lengths: Tensor | None = None,
    reduction: Literal["none", "mean", "sum"] = "mean",
) -> Tensor:
    """Mean over all frame pairs t < i of -log min(sigmoid(s_i - s_t), clamp) (Eq 3-4).

    Computed as max(softplus(s_t - s_i), -log clamp), which stays finite for any finite scores.
    A row of one frame has no pair: its loss and gradient are exactly 0.

    Args:
        scores: frame scores (B, T), T >= 1; float16, bfloat16, float32 or float64; any strides.
        clamp: the threshold phi in (0, 1]; 1 switches the clamp off.
        lengths: integer tensor (B,), clamped to [0, T]: only the first frames of a row take
            part; padded scores (NaN included) get exactly zero gradient. None means T.
        reduction: "none" gives (B,); "mean" and "sum" a scalar over all rows.

    Returns:
        float32, or float64 for float64 scores.

    Raises:
        TypeError: scores or lengths of an unserved dtype or on different devices.
        ValueError: wrong shapes, T = 0, a clamp outside (0, 1], an unknown reduction.
    """
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        got = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"scores is {got}; pass a floating tensor (B, T)")
    if scores.dim() != 2 or scores.shape[1] == 0:
        raise ValueError(f"scores has shape {tuple(scores.shape)}; pass (B, T) with T >= 1")
    if isinstance(clamp, bool) or not isinstance(clamp, (int, float)) or not 0.0 < clamp <= 1.0:
        raise ValueError(f"clamp is {clamp!r}; pass a number in (0, 1], 1 switches it off")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f'reduction is {reduction!r}; pass "none", "mean" or "sum"')
    if lengths is not None:
        lengths = _check_lengths(lengths, scores)
    loss: Tensor = _fss_ranking(scores, lengths, float(clamp), reduction)[0]
    return loss


def _check_lengths(lengths: Tensor, scores: Tensor) -> Tensor:
    integer = isinstance(lengths, Tensor) and not (
        lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool
    )
    if not integer:
        got = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise TypeError(f"lengths is {got}; pass an integer tensor (B,)")
    if lengths.shape != scores.shape[:1]:
        raise ValueError(
            f"lengths has shape {tuple(lengths.shape)}; pass one for each of the"
            f" {scores.shape[0]} rows"
        )
    if lengths.device != scores.device:
        raise TypeError(f"lengths is on {lengths.device} but scores on {scores.device}; move one")
    return lengths.to(torch.int64).clamp(0, scores.shape[1]).contiguous()


class _Ranking(torch.autograd.Function):
    """The forward computes the slopes with the loss, so the backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, lengths: Tensor | None, clamp: float, reduction: str
    ) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            loss, slopes = _library.fss_ranking(scores, lengths, clamp, reduction)
        ctx.save_for_backward(scores, slopes)
        ctx.mark_non_differentiable(slopes)
        ctx.set_materialize_grads(False)  # zeros for the slopes would cost as much as the op
        return loss, slopes

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> Any:
        if grad is None:
            return None, None, None, None
        return _fss_ranking_backward(grad, *ctx.saved_tensors), None, None, None


_fss_ranking, _fss_ranking_backward = _library.register_autograd(
    _library.fss_ranking, _library.fss_ranking_backward, _Ranking
)
