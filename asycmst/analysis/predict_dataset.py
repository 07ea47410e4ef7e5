"""What a model says about a dataset, case by case."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from asycmst.analysis.localisation import NOWHERE, Localisation, localise
from asycmst.data.samples import Item
from asycmst.inference.prepare import prepare_model


class Predictions(NamedTuple):
    """What a model says about a dataset, one entry of each list per case.

    Attributes:
        ids: names of the cases.
        labels: 0 = benign, 1 = malignant.
        probabilities: of malignancy, in [0, 1].
        dice: overlap of the predicted nodule at probability 1/2 with the drawn one, over the
            annotated frames together; NaN without an annotated frame or without segmentation.
        frame_order: Kendall's tau of the frame scores against time, in [-1, 1], equal scores
            counting as neither in nor out of order; NaN without frame self-sorting or for a
            single frame.
        features: what the classifier sees of each case (Section 3.4), D numbers; None where they
            were not kept.
        localisation: how well the segmentation or saliency map finds the nodule of each case,
            beside a guess; None where it was not kept.
    """

    ids: list[str]
    labels: list[int]
    probabilities: list[float]
    dice: list[float]
    frame_order: list[float]
    features: list[list[float]] | None = None
    localisation: list[Localisation] | None = None


def predict_dataset(
    model: nn.Module,
    dataset: Dataset[Item],
    batch: int = 16,
    report: Callable[[int], None] | None = None,
) -> Predictions:
    """Run a model in evaluation mode over a dataset in order.

    Args:
        model: what takes (bus, ceus) and answers as `AsyCMST` does, on any device; it is made
            ready by :func:`asycmst.inference.prepare.prepare_model`.
        dataset: clips of one number of frames.
        batch: cases at a time.
        report: hears how many cases are done after each batch.
    """
    prepared = prepare_model(model)
    features: list[list[float]] = []
    found: list[Localisation] = []
    result = Predictions([], [], [], [], [], features, found)
    loader: DataLoader[Item] = DataLoader(dataset, batch)
    for items in loader:
        output = prepared(items["bus"], items["ceus"])
        result.ids.extend(items["id"])
        result.labels.extend(items["label"].tolist())
        result.probabilities.extend(output.logits.softmax(dim=1)[:, 1].tolist())
        found.extend(_localised(output.mask_logits, items["mask"], items["mask_valid"]))
        result.frame_order.extend(_frame_order(output.frame_scores, len(items["id"])))
        features.extend(output.features.tolist())
        if report is not None:
            report(len(result.ids))
    result.dice.extend(case.dice for case in found)
    return result


def localisation_scores(found: Predictions) -> dict[str, NDArray[np.float64] | None]:
    """Pointing game and centre scores, shape (n,) each; None where they were not kept."""
    names = ("pointing", "centre_dice", "centre_pointing")
    cases = found.localisation
    if cases is None:
        return dict.fromkeys(names)
    return {name: np.array([getattr(case, name) for case in cases]) for name in names}


def kendall_tau(scores: Tensor) -> Tensor:
    """Kendall's tau-a of each row against its index: the share of pairs in order less those not.

    Args:
        scores: shape (B, T).

    Returns:
        Shape (B,), float64; NaN for T = 1.
    """
    frames = scores.shape[1]
    earlier, later = torch.triu_indices(frames, frames, offset=1)
    return (scores[:, later] - scores[:, earlier]).sign().double().mean(dim=1)


def _localised(logits: Tensor | None, truth: Tensor, annotated: Tensor) -> list[Localisation]:
    if logits is None:
        return [NOWHERE] * len(truth)
    return [localise(*case) for case in zip(logits.cpu(), truth, annotated, strict=True)]


def _frame_order(scores: Tensor | None, cases: int) -> list[float]:
    if scores is None:
        return [math.nan] * cases
    order: list[float] = kendall_tau(scores.cpu()).tolist()
    return order
