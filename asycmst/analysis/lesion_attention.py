"""When and where the streams look for the lesion, layer by layer, for every axial strategy."""

from typing import NamedTuple

import torch
from torch import Tensor

from asycmst.config import Branch
from asycmst.encoders import feature_grid
from asycmst.model import AsyCMST, AttentionInputs, attention_inputs
from asycmst_ops import attention_weights

# The axis along which the lower and the upper branch look, by strategy of Table 5.
_AXES = {
    "asymmetric": {"lower": "time", "upper": "space"},
    "spatial": {"lower": "space", "upper": "space"},
    "temporal": {"lower": "time", "upper": "time"},
}


class When(NamedTuple):
    """A branch's look along time at the other one, for L layers, averaged over heads.

    Attributes:
        asks: the branch whose tokens ask; the other one is read.
        overall: float64, shape (L, T), weights over the frames read, each row of sum 1: the mean
            over all asking tokens, weighted by the area of lesion in each.
        by_frame: float64, shape (L, T, T), the same for the tokens of each asking frame (second
            axis) by themselves.
    """

    asks: Branch
    overall: Tensor
    by_frame: Tensor


class Where(NamedTuple):
    """A branch's look over space at the other one, for L layers, averaged over heads.

    Attributes:
        asks: the branch whose tokens ask; the other one is read.
        maps: float64, shape (L, T, h, w), weights over the places of the frame of the same time,
            each of sum 1: the mean over all asking tokens of the frame.
    """

    asks: Branch
    maps: Tensor


class LesionAttention(NamedTuple):
    """What :func:`lesion_attention` found.

    Attributes:
        layers: the L layers with a cross-attention, counted from 1.
        when: the branches that look along time.
        where: the branches that look over space.
    """

    layers: tuple[int, ...]
    when: tuple[When, ...]
    where: tuple[Where, ...]


def why_no_attention(model: AsyCMST) -> str | None:
    """Why a model has no weights along one axis to show; None where it has."""
    config = model.config
    if config.cross_attention is None or not config.cross_attention_layers:
        return "the model has no cross-attention: there is no when and where to show"
    if config.cross_attention not in _AXES:
        return (
            f"the model's cross-attention is {config.cross_attention!r}, one softmax over time "
            "and space together: it has no when and no where of its own"
        )
    if config.emulate_layout:
        return "the model's layout mixes frames and places: its attention has no when and where"
    return None


def lesion_attention(model: AsyCMST, bus: Tensor, ceus: Tensor, areas: Tensor) -> LesionAttention:
    """The cross-attention of one pair of clips, from the lesion's point of view.

    Asymmetric: the lower branch looks along time (Eq 8), the upper one over space (Eq 10).
    "spatial" and "temporal" look along one axis in both directions.

    Args:
        model: in evaluation mode, with one of these three strategies.
        bus: float, shape (1, 3, T, H', W'), values in [0, 1].
        ceus: as `bus`.
        areas: shape (T, N), the area of lesion in each token, more than 0 in each frame.

    Raises:
        ValueError: the model has no such attention, or is in training mode.
    """
    reason = why_no_attention(model)
    if reason is not None:
        raise ValueError(reason)
    inputs = attention_inputs(model, bus, ceus)
    grid = feature_grid(model.config)
    assert model.config.cross_attention is not None
    when, where = [], []
    branches: tuple[Branch, Branch] = ("lower", "upper")
    for branch in branches:
        if _AXES[model.config.cross_attention][branch] == "time":
            when.append(_when(branch, inputs, areas.double()))
        else:
            where.append(_where(branch, inputs, grid))
    return LesionAttention(model.config.cross_attention_layers, tuple(when), tuple(where))


def _when(asks: Branch, inputs: list[AttentionInputs], areas: Tensor) -> When:
    weights = torch.stack(
        [attention_weights(*_query_key(asks, i), axis="time")[0].double().mean(2) for i in inputs]
    )  # (L, T, N, T)
    shares = areas / areas.sum(1, keepdim=True)
    by_frame = torch.einsum("tn,ltns->lts", shares, weights)
    overall = torch.einsum("tn,ltns->ls", areas / areas.sum(), weights)
    return When(asks, overall, by_frame)


def _where(asks: Branch, inputs: list[AttentionInputs], grid: tuple[int, int]) -> Where:
    maps = torch.stack(
        [
            attention_weights(*_query_key(asks, i), axis="space")[0].double().mean((1, 2))
            for i in inputs
        ]
    )  # (L, T, N)
    return Where(asks, maps.unflatten(2, grid))


def _query_key(asks: Branch, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    if asks == "lower":
        return inputs.q_bus, inputs.k_ceus
    return inputs.q_ceus, inputs.k_bus
