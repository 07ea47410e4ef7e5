"""How well a map finds the nodule: overlap and pointing game, beside a guess at the centre."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from asycmst.analysis.metrics import dice


class Localisation(NamedTuple):
    """A map against the masks of one case; NaN where no frame shows an annotated nodule.

    Attributes:
        dice: overlap where the map is above 0, over the annotated frames together; NaN only
            without an annotated frame.
        pointing: share of frames whose largest map value lies on the nodule (the pointing game,
            without tolerance).
        centre_dice: overlap of a disc at the centre of the image, as large as the nodule in each
            frame: a guess that knows the size and nothing else.
        centre_pointing: share of frames whose centre lies on the nodule.
    """

    dice: float
    pointing: float
    centre_dice: float
    centre_pointing: float


NOWHERE = Localisation(math.nan, math.nan, math.nan, math.nan)


def localise(logits: Tensor, truth: Tensor, annotated: Tensor) -> Localisation:
    """Scores a map of one case.

    Args:
        logits: floating, shape (T, H, W), above 0 where the nodule is taken to be.
        truth: bool, the same shape.
        annotated: bool, shape (T,).
    """
    if not annotated.any():
        return NOWHERE
    overlap = float(dice(logits[annotated] > 0, truth[annotated]))
    shown = annotated & truth.flatten(1).any(1)
    if not shown.any():
        return NOWHERE._replace(dice=overlap)
    masks = truth[shown]
    discs = centre_discs(masks)
    return Localisation(
        dice=overlap,
        pointing=_share_on(masks, logits[shown].flatten(1).argmax(1)),
        centre_dice=float(dice(discs, masks)),
        centre_pointing=_share_on(masks, _closeness(masks).argmax().expand(len(masks))),
    )


def centre_discs(masks: Tensor) -> Tensor:
    """Discs around the centre of the image, each with as many pixels as the mask (T, H, W)."""
    rank = _closeness(masks).argsort(descending=True, stable=True).argsort()
    area = masks.flatten(1).sum(1, keepdim=True)
    return (rank < area).reshape(masks.shape)


def _closeness(masks: Tensor) -> Tensor:
    """Less the squared distance of each pixel from the centre, shape (H * W,)."""
    height, width = masks.shape[1:]
    y = torch.arange(height, device=masks.device) - (height - 1) / 2
    x = torch.arange(width, device=masks.device) - (width - 1) / 2
    return -(y[:, None].square() + x.square()).flatten()


def _share_on(masks: Tensor, places: Tensor) -> float:
    return float(masks.flatten(1).gather(1, places[:, None]).double().mean())
