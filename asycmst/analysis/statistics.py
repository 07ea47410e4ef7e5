"""Scores of a study with intervals that respect patients, and their mean over splits.

A study is one model, or the models of several splits, each with its test set. A score of the study
is the mean over its test sets. Its interval is a percentile bootstrap in which whole patients are
drawn with replacement, all clips of a patient together and in every test set that has them, so
that clips of one patient do not count as independent.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asycmst.analysis.metrics import weighted_auc

Average = Literal["binary", "macro"]
Floats = NDArray[np.float64]

# In the order of tables; from "dice" on only where the model has the task.
SCORES = (
    "auc",
    "accuracy",
    "recall",
    "specificity",
    "precision",
    "f1",
    "dice",
    "pointing",
    "centre_dice",
    "centre_pointing",
    "frame_order",
)

_BLOCK = 4_000_000  # resampled cases weighed at a time: bounds the memory


class Scored(NamedTuple):
    """The cases of a test set with the answers of a model, shape (n,) each.

    Attributes:
        labels: int64, 0 or 1; both occur.
        probabilities: of malignancy, in [0, 1].
        patients: int64, equal for cases of one patient, also across test sets.
        dice: overlap of each case, NaN where there is none.
        frame_order: Kendall's tau of each case, NaN where there is none.
        pointing: the pointing game of each case, NaN where there is none; None as NaN for all.
        centre_dice: overlap of a disc at the centre of the image, likewise.
        centre_pointing: the pointing game of the centre, likewise.
    """

    labels: NDArray[np.int64]
    probabilities: Floats
    patients: NDArray[np.int64]
    dice: Floats
    frame_order: Floats
    pointing: Floats | None = None
    centre_dice: Floats | None = None
    centre_pointing: Floats | None = None


class Interval(NamedTuple):
    """A value with the bounds of its interval."""

    value: float
    low: float
    high: float


class OverSplits(NamedTuple):
    """Mean and standard deviation with n - 1 in the denominator (ddof=1); NaN for n = 1."""

    mean: float
    std: float
    n: int


def over_splits(values: Sequence[float]) -> OverSplits:
    """Mean and standard deviation (ddof=1) of one value per split."""
    array = np.asarray(values, dtype=np.float64)
    std = float(array.std(ddof=1)) if array.size > 1 else float("nan")
    return OverSplits(float(array.mean()), std, array.size)


def scores(test: Scored, threshold: float, average: Average = "binary") -> dict[str, float]:
    """The scores of one test set.

    A case is called malignant where its probability lies above `threshold`. A quotient whose
    denominator is 0 (precision where nothing is called malignant) is 0, as scikit-learn has it.

    Args:
        test: answers and truth.
        threshold: of the probability.
        average: "binary" gives recall, precision and F1 of the malignant class; "macro" their
            mean over both classes.

    Returns:
        Values by the names of `SCORES`; "recall" is the sensitivity. "dice" and "frame_order" are
        the means over the cases that have one, NaN where none has.
    """
    once = np.ones((1, len(test.labels)), dtype=np.int64)
    return {
        name: float(value[0]) for name, value in _scores(test, once, threshold, average).items()
    }


def resampled_scores(
    tests: Sequence[Scored],
    thresholds: Sequence[float],
    *,
    average: Average = "binary",
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Floats]:
    """The scores of each bootstrap resample, patients drawn with replacement.

    Two studies with the same patients and the same seed are resampled alike, so that differences
    of their scores can be taken resample by resample.

    Args:
        tests: of the splits of one study.
        thresholds: one per test set.
        average: as in :func:`scores`.
        resamples: number of resamples, at least 1.
        seed: of the resampling.

    Returns:
        Shape (resamples,) by the names of `SCORES`: means over the test sets, NaN where a resample
        of a test set lacks a class.

    Raises:
        ValueError: `resamples` is below 1.
    """
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: give at least 1")
    everyone = np.unique(np.concatenate([test.patients for test in tests]))
    places = [np.searchsorted(everyone, test.patients) for test in tests]
    generator = np.random.default_rng(seed)
    share = np.full(len(everyone), 1 / len(everyone))
    rows = max(1, _BLOCK // max(len(everyone), *map(len, places)))
    blocks = []
    for begin in range(0, resamples, rows):
        drawn = generator.multinomial(len(everyone), share, size=min(rows, resamples - begin))
        found = [
            _scores(test, drawn[:, place], threshold, average)
            for test, place, threshold in zip(tests, places, thresholds, strict=True)
        ]
        blocks.append({name: np.mean([one[name] for one in found], axis=0) for name in SCORES})
    return {name: np.concatenate([block[name] for block in blocks]) for name in SCORES}


def interval(value: float, resampled: Floats, confidence: float = 0.95) -> Interval:
    """The percentile interval of a value; resamples without one (NaN) are left out.

    Args:
        value: the value of all cases.
        resampled: shape (resamples,), the same of each resample.
        confidence: share of resamples inside, in (0, 1).

    Returns:
        The value with its bounds, NaN where no resample has a value.
    """
    kept = resampled[~np.isnan(resampled)]
    if kept.size == 0:
        return Interval(value, float("nan"), float("nan"))
    tail = (1 - confidence) / 2
    low, high = np.quantile(kept, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _scores(
    test: Scored, counts: NDArray[np.int64], threshold: float, average: Average
) -> dict[str, Floats]:
    """Scores of each row of `counts` (R, n), NaN where it lacks a class."""
    called = test.probabilities > threshold
    truth = test.labels == 1
    tp, fp, fn, tn = (
        (counts @ cell.astype(np.int64)).astype(np.float64)
        for cell in (truth & called, ~truth & called, truth & ~called, ~truth & ~called)
    )
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    precision, f1 = _ratio(tp, tp + fp), _ratio(2 * tp, 2 * tp + fp + fn)
    found = {
        "auc": weighted_auc(test.labels, test.probabilities, counts),
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
        "recall": recall,
        "specificity": specificity,
        "precision": precision,
        "f1": f1,
    }
    if average == "macro":
        found["recall"] = (recall + specificity) / 2
        found["precision"] = (precision + _ratio(tn, tn + fn)) / 2
        found["f1"] = (f1 + _ratio(2 * tn, 2 * tn + fp + fn)) / 2
    both = (tp + fn > 0) & (tn + fp > 0)
    found = {name: np.where(both, values, np.nan) for name, values in found.items()}
    return found | {
        name: _mean(getattr(test, name), counts)
        for name in ("dice", "pointing", "centre_dice", "centre_pointing", "frame_order")
    }


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _mean(values: Floats | None, counts: NDArray[np.int64]) -> Floats:
    """Weighted mean over the cases that have a value."""
    if values is None:
        return np.full(len(counts), np.nan)
    present = ~np.isnan(values)
    total = (counts @ present.astype(np.int64)).astype(np.float64)
    weighted = counts @ np.where(present, values, 0.0)
    return np.divide(weighted, total, out=np.full_like(total, np.nan), where=total > 0)
