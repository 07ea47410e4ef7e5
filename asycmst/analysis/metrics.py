"""Classification and segmentation scores, binary with malignant (1) as the positive class.

An AUC needs both classes. Where only one occurs it is NaN, and one `UndefinedMetricWarning` of
scikit-learn gives the reason; nothing raises, so that a study with one odd fold runs to its end.
"""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

Values = ArrayLike | torch.Tensor

_BLOCK = 4_000_000  # resampled scores weighed at a time: bounds the memory of a bootstrap


def roc_auc(labels: Values, scores: Values) -> float:
    """Area under the ROC curve; equal scores of different classes count one half.

    Args:
        labels: shape (n,), 0 = benign, 1 = malignant.
        scores: shape (n,), higher = more likely malignant, any scale.

    Returns:
        The area in [0, 1], or NaN with an `UndefinedMetricWarning` where one class is missing.

    Raises:
        ValueError: the shapes differ, nothing is given, a label is not 0 or 1, or a score is NaN.
    """
    truth, values = _labels_and_scores(labels, scores)
    if _one_class(truth):
        return float("nan")
    return float(roc_auc_score(truth, values))


def bootstrap_auc_ci(
    labels: Values,
    scores: Values,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the AUC, cases drawn with replacement.

    Resamples that happen to lack a class have no AUC and are left out.

    Args:
        labels: shape (n,), 0 or 1.
        scores: shape (n,).
        resamples: number of resamples, at least 1.
        seed: seed of the resampling; models scored on the same cases with the same seed are
            resampled alike.
        confidence: the share of resamples inside the interval, in (0, 1).

    Returns:
        (low, high), or (NaN, NaN) with an `UndefinedMetricWarning` where one class is missing.

    Raises:
        ValueError: as :func:`roc_auc`, or `resamples` or `confidence` is out of range.
    """
    truth, values = _labels_and_scores(labels, scores)
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"resamples={resamples}, confidence={confidence}: allowed are at least 1 resample "
            "and a confidence between 0 and 1"
        )
    if _one_class(truth):
        return float("nan"), float("nan")
    areas = _resampled_areas(truth, values, resamples, np.random.default_rng(seed))
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(areas, [tail, 1 - tail])
    return float(low), float(high)


def weighted_auc(
    labels: NDArray[np.int64], scores: NDArray[np.float64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """AUC of each resample by the rank statistic.

    Ordered by score, a malignant case beats every benign one below it and halves with those of
    equal score.

    Args:
        labels: shape (n,), 0 or 1.
        scores: shape (n,).
        counts: shape (R, n), how often each resample drew each case.

    Returns:
        Shape (R,), NaN where a resample lacks a class.
    """
    order = np.argsort(scores, kind="stable")
    malignant = labels[order] == 1
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)
    drawn = counts[:, order]
    positives = np.add.reduceat(drawn * malignant, starts, axis=1).astype(np.float64)
    negatives = np.add.reduceat(drawn * ~malignant, starts, axis=1).astype(np.float64)
    below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (below + negatives / 2)).sum(axis=1)
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    areas: NDArray[np.float64] = np.where(pairs > 0, wins / np.maximum(pairs, 1), np.nan)
    return areas


def classification_metrics(labels: Values, probabilities: Values) -> dict[str, float]:
    """Accuracy, recall, precision, F1 and AUC of malignant against benign.

    The decision is the more probable class; at exactly one half it is benign, as the argmax of
    two equal logits is. Recall, precision and F1 are 0 where their denominator is 0 (no
    malignant case, or none called malignant).

    Args:
        labels: shape (n,), 0 or 1.
        probabilities: shape (n,), probability of malignancy in [0, 1].

    Returns:
        Keys "accuracy", "recall", "precision", "f1" and "auc", each in [0, 1]; "auc" is NaN with
        an `UndefinedMetricWarning` where one class is missing.

    Raises:
        ValueError: as :func:`roc_auc`, or a probability lies outside [0, 1].
    """
    truth, values = _labels_and_scores(labels, probabilities)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(
            f"probabilities lie in [{values.min():.4g}, {values.max():.4g}]: give the softmax of "
            "the logits, within [0, 1]"
        )
    called = (values > 0.5).astype(np.int64)
    return {
        "accuracy": float(accuracy_score(truth, called)),
        "recall": float(recall_score(truth, called, zero_division=0)),
        "precision": float(precision_score(truth, called, zero_division=0)),
        "f1": float(f1_score(truth, called, zero_division=0)),
        "auc": roc_auc(truth, values),
    }


def dice(prediction: Values, target: Values) -> float:
    """Dice overlap 2 |P and Y| / (|P| + |Y|) of two masks; two empty masks agree, 1.

    Args:
        prediction: any shape, bool or {0, 1}; threshold probabilities first.
        target: the same shape, bool or {0, 1}.

    Raises:
        ValueError: the shapes differ, or a value is neither 0 nor 1.
    """
    first, second = _array(prediction), _array(target)
    if first.shape != second.shape:
        raise ValueError(
            f"prediction has shape {first.shape}, target {second.shape}: give masks of one shape"
        )
    for name, mask in (("prediction", first), ("target", second)):
        if not np.isin(mask, (0, 1)).all():
            raise ValueError(f"{name} holds values other than 0 and 1: threshold it first")
    overlap = np.count_nonzero((first != 0) & (second != 0))
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * overlap / total if total else 1.0


def _array(values: Values) -> NDArray[Any]:
    if isinstance(values, torch.Tensor):
        return np.asarray(values.detach().cpu())
    return np.asarray(values)


def _labels_and_scores(
    labels: Values, scores: Values
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    truth, values = _array(labels), _array(scores)
    if truth.ndim != 1 or truth.shape != values.shape or truth.size == 0:
        raise ValueError(
            f"labels have shape {truth.shape} and scores {values.shape}: give one of each per "
            "case, shape (n,), n at least 1"
        )
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("labels hold values other than 0 (benign) and 1 (malignant)")
    values = values.astype(np.float64)
    if np.isnan(values).any():
        raise ValueError(
            f"{np.count_nonzero(np.isnan(values))} of {values.size} scores are NaN: look for a "
            "diverged model or a broken clip"
        )
    return truth.astype(np.int64), values


def _one_class(truth: NDArray[np.int64]) -> bool:
    if truth.min() != truth.max():
        return False
    warnings.warn(
        f"AUC is undefined and set to NaN: all {truth.size} labels are {truth[0]}",
        UndefinedMetricWarning,
        stacklevel=3,
    )
    return True


def _resampled_areas(
    truth: NDArray[np.int64],
    values: NDArray[np.float64],
    resamples: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """AUC of each resample, NaN where one class is missing."""
    size = truth.size
    areas = np.empty(resamples)
    rows = max(1, _BLOCK // size)
    for begin in range(0, resamples, rows):
        count = min(rows, resamples - begin)
        drawn = generator.multinomial(size, np.full(size, 1 / size), size=count)
        areas[begin : begin + count] = weighted_auc(truth, values, drawn)
    return areas
