"""Kernels in plain PyTorch, for every device and case that has none of its own.

Forwards are the reference itself; backwards are written out, because kernels run below autograd.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from asycmst_ops import reference
from asycmst_ops._problem import Backward, Forward, UnionBackward, UnionForward

_AXES: dict[int, reference.Axis] = {1: "time", 2: "space"}
# Subscripts of the keys and of the weights, by attended dimension; queries are always "btnhd".
_KEYS = {1: "bunhd", 2: "btmhd"}
_WEIGHTS = {1: "btnhu", 2: "btnhm"}


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def axial_forward(problems: Sequence[Forward], scale: float) -> None:
    for p in problems:
        p.out.copy_(
            reference.axial_attention(
                _wide(p.q),
                _wide(p.k),
                _wide(p.v),
                axis=_AXES[p.dim],
                scale=scale,
                key_mask=p.key_mask,
            )
        )


def axial_backward(problems: Sequence[Backward], scale: float) -> None:
    """With softmax rows w and upstream g: dv = w'g, ds = w(gv' - rowsum(w gv')), dq = ds k."""
    for p in problems:
        key, weight = _KEYS[p.dim], _WEIGHTS[p.dim]
        q, k, v, grad = (_wide(x) for x in (p.q, p.k, p.v, p.grad))
        if p.key_mask is not None:
            hidden = ~p.key_mask[..., None, None]
            k, v = k.masked_fill(hidden, 0.0), v.masked_fill(hidden, 0.0)
        w = reference.attention_weights(q, k, axis=_AXES[p.dim], scale=scale, key_mask=p.key_mask)
        p.dv.copy_(torch.einsum(f"{weight},btnhd->{key}", w, grad))
        dw = torch.einsum(f"btnhd,{key}->{weight}", grad, v)
        ds = w * (dw - (w * dw).sum(-1, keepdim=True)) * scale
        p.dq.copy_(torch.einsum(f"{weight},{key}->btnhd", ds, k))
        p.dk.copy_(torch.einsum(f"{weight},btnhd->{key}", ds, q))


def union_forward(problems: Sequence[UnionForward], scale: float) -> None:
    for p in problems:
        p.out.copy_(
            reference.union_attention(
                _wide(p.q), _wide(p.k), _wide(p.v), scale=scale, key_mask=p.key_mask
            )
        )


def union_backward(problems: Sequence[UnionBackward], scale: float) -> None:
    """As `axial_backward`, with the row sums over both axes."""
    for p in problems:
        q, k, v, grad = (_wide(x) for x in (p.q, p.k, p.v, p.grad))
        if p.key_mask is not None:
            hidden = ~p.key_mask[..., None, None]
            k, v = k.masked_fill(hidden, 0.0), v.masked_fill(hidden, 0.0)
        weights = reference.union_weights(q, k, scale=scale, key_mask=p.key_mask)
        shares = [
            (
                _KEYS[dim],
                _WEIGHTS[dim],
                w,
                torch.einsum(f"btnhd,{_KEYS[dim]}->{_WEIGHTS[dim]}", grad, v),
            )
            for dim, w in zip(_AXES, weights, strict=True)
        ]
        row_sum = sum((w * dw).sum(-1, keepdim=True) for *_, w, dw in shares)
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for key, weight, w, dw in shares:
            ds = w * (dw - row_sum) * scale
            dq += torch.einsum(f"{weight},{key}->btnhd", ds, k)
            dk += torch.einsum(f"{weight},btnhd->{key}", ds, q)
            dv += torch.einsum(f"{weight},btnhd->{key}", w, grad)
        for to, x in zip((p.dq, p.dk, p.dv), (dq, dk, dv), strict=True):
            to.copy_(x)


def fss_ranking(
    loss: Tensor, grad: Tensor, scores: Tensor, lengths: Tensor | None, clamp: float
) -> None:
    """Loss of each row (B,) and its gradient by the scores (B, T)."""
    loss.copy_(reference.fss_ranking_loss(scores, clamp=clamp, lengths=lengths, reduction="none"))
    frames = scores.shape[1]
    order = torch.arange(frames, device=scores.device)
    count = torch.full_like(loss, frames) if lengths is None else lengths.to(loss.dtype)
    taking_part = order < count.masked_fill(count < 2, 0)[:, None]
    wide = _wide(scores).masked_fill(~taking_part, 0.0)
    gap = wide[:, :, None] - wide[:, None, :]
    pair = (taking_part[:, :, None] & taking_part[:, None, :]).triu(1)
    counted = pair & (-F.logsigmoid(-gap) > -math.log(clamp))
    weight = 2.0 / (count * (count - 1)).clamp(min=1)
    slope = (gap.sigmoid() * counted) * weight[:, None, None]
    grad.copy_(slope.sum(2) - slope.sum(1))


def gates_forward(out: Tensor, x: Tensor, patch: int, split: bool) -> None:
    scope: Literal["both", "split"] = "split" if split else "both"
    out.copy_(reference.dual_attention_gates(_wide(x), scope=scope, patch=patch))


def gates_backward(dx: Tensor, grad: Tensor, x: Tensor, patch: int, split: bool) -> None:
    """With out = x (a + u) and q = grad x: the gates themselves, then a = sigmoid(var x) passes
    sum(q) on to every pixel, and u = up(sigmoid(mean x)) passes up'(q) on to its patch.
    """
    x, grad = _wide(x), _wide(grad)
    height, width = x.shape[2:]
    patch = min(patch, max(height, width))  # a larger one holds the same pixels
    begin = x.shape[1] // 2 if split else 0
    end = begin if split else x.shape[1]
    q = grad * x
    found = torch.zeros_like(x)

    own = x[:, :end]
    degrees = max(height * width - 1, 1)
    centred = own - own.mean((2, 3), keepdim=True)
    a = (centred.square().sum((2, 3), keepdim=True) / degrees).sigmoid()
    slope = 2 * a * (1 - a) / degrees * q[:, :end].sum((2, 3), keepdim=True)
    found[:, :end] = grad[:, :end] * a + slope * centred

    rows, columns = (_interpolation(n, patch, x) for n in (height, width))
    s = F.avg_pool2d(x[:, begin:], patch, ceil_mode=True).sigmoid()
    pulled = s * (1 - s) * (rows.T @ q[:, begin:] @ columns)
    pixels = F.avg_pool2d(torch.ones_like(x[:1, :1]), patch, ceil_mode=True, divisor_override=1)
    spread = (pulled / pixels).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    found[:, begin:] += grad[:, begin:] * (rows @ s @ columns.T) + spread[:, :, :height, :width]
    dx.copy_(found)


def saliency_losses_forward(
    losses: Tensor, target: Tensor, saliency: Tensor, floor: float
) -> None:
    losses.copy_(reference.saliency_losses(target, saliency, floor=floor))


def saliency_losses_backward(
    slope: Tensor, grad: Tensor, target: Tensor, saliency: Tensor, floor: float
) -> None:
    """Each absolute value passes on its sign. With r the difference of the normalised changes and
    b what the saliency's own changes g are multiplied by, g gets 2 b (mean(r g) b - r).
    """
    target, saliency = _wide(target), _wide(saliency)
    missed, edges, affinity = (grad / saliency[0].numel()).view(-1, 3, 1, 1).unbind(1)
    found = missed * (target * saliency - target).sign() * target

    kernels = reference.sobel_kernels(target)
    gap = F.pad((target - saliency)[:, None], (1, 1, 1, 1), mode="replicate")
    spread = F.conv_transpose2d(F.conv2d(gap, kernels).sign(), kernels)[:, 0]
    for dim in (1, 2):  # a pixel beyond the border was its neighbour's copy
        size = saliency.shape[dim]
        inner = spread.narrow(dim, 1, size).clone()
        inner.select(dim, 0).add_(spread.select(dim, 0))
        inner.select(dim, -1).add_(spread.select(dim, -1))
        spread = inner
    found -= edges * spread

    changes = reference.changes(saliency)
    b = 1 / (changes.mean((1, 2), keepdim=True) + floor)
    r = reference.affinities(target, floor) - changes * b
    slopes = affinity * 2 * b * ((r * changes).mean((1, 2), keepdim=True) * b - r)
    for dim in (1, 2):
        size = saliency.shape[dim]
        pull = slopes.narrow(dim, 0, size - 1) * saliency.diff(dim=dim).sign()
        found.narrow(dim, 0, size - 1).sub_(pull)
        found.narrow(dim, 1, size - 1).add_(pull)
    slope.copy_(found)


def _interpolation(length: int, patch: int, like: Tensor) -> Tensor:
    """Weights (length, patches) with which the patches along a side enter its pixels."""
    patches = -(-length // patch)
    unit = torch.eye(patches, dtype=like.dtype, device=like.device)[None]
    return F.interpolate(unit, scale_factor=patch, mode="linear")[0, :, :length].T
