"""Tests of two models that were given the same cases or the same splits."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asycmst.analysis.metrics import roc_auc

Floats = NDArray[np.float64]


class PairedT(NamedTuple):
    """A paired t-test over n splits: mean difference, t with n - 1 degrees of freedom, p."""

    difference: float
    t: float
    p: float
    n: int


class McNemar(NamedTuple):
    """Cases that only one of two models got right, and the exact two-sided p."""

    only_first: int
    only_second: int
    p: float


class DeLong(NamedTuple):
    """AUCs of two models on the same cases, their difference, its standard error, z and p."""

    first: float
    second: float
    difference: float
    standard_error: float
    z: float
    p: float


def paired_t(first: Sequence[float], second: Sequence[float]) -> PairedT:
    """Student's t-test of paired values, two-sided (Section 4.2).

    With the paper's n = 3 splits, p < 0.01 needs abs(t) > 9.92. Splits share training cases, so
    that p is only a guide.

    Args:
        first: one value per split.
        second: the values of the other model on the same splits.

    Returns:
        The test of first - second; equal values give t = 0, p = 1, and a constant difference
        other than 0 an infinite t, p = 0.

    Raises:
        ValueError: the numbers of values differ or are below 2.
    """
    from scipy.stats import t as student

    if len(first) != len(second) or len(first) < 2:
        raise ValueError(
            f"{len(first)} and {len(second)} values: a paired t-test needs two of each or more, "
            "one per split"
        )
    differences = np.subtract(first, second, dtype=np.float64)
    n, mean = differences.size, float(differences.mean())
    error = float(differences.std(ddof=1)) / n**0.5
    if error > 0:
        ratio = mean / error
    elif mean == 0:
        ratio = 0.0
    else:
        ratio = float(np.copysign(np.inf, mean))
    return PairedT(mean, ratio, float(2 * student.sf(abs(ratio), n - 1)), n)


def mcnemar(labels: ArrayLike, first: ArrayLike, second: ArrayLike) -> McNemar:
    """McNemar's exact test of which of two models is right more often, two-sided.

    Under the null hypothesis each case that only one of them gets right falls to either with
    probability 1/2. Cases count as independent.

    Args:
        labels: shape (n,), 0 or 1.
        first: shape (n,), the classes that the first model calls.
        second: shape (n,), those of the second.

    Returns:
        The counts and p, which is 1 where the models are never right apart.
    """
    from scipy.stats import binomtest

    truth = np.asarray(labels)
    right = np.asarray(first) == truth, np.asarray(second) == truth
    only_first = int(np.count_nonzero(right[0] & ~right[1]))
    only_second = int(np.count_nonzero(right[1] & ~right[0]))
    apart = only_first + only_second
    p = float(binomtest(only_first, apart).pvalue) if apart else 1.0
    return McNemar(only_first, only_second, p)


def delong(labels: ArrayLike, first: ArrayLike, second: ArrayLike) -> DeLong:
    """Test of DeLong, DeLong and Clarke-Pearson (1988) of two AUCs on the same cases, two-sided.

    Cases count as independent, also those of one patient.

    Args:
        labels: shape (n,), 0 or 1, at least two of each.
        first: shape (n,), scores of the first model.
        second: shape (n,), scores of the second.

    Returns:
        The test of first - second. Where the variance of the difference is 0, equal AUCs give
        z = 0, p = 1, and others NaN: such cases decide nothing.

    Raises:
        ValueError: a shape or label is wrong, or a class has fewer than two cases.
    """
    from scipy.stats import norm

    truth = np.asarray(labels)
    areas = roc_auc(truth, np.asarray(first)), roc_auc(truth, np.asarray(second))
    sizes = np.count_nonzero(truth == 1), np.count_nonzero(truth == 0)
    if min(sizes) < 2:
        raise ValueError(
            f"{sizes[0]} malignant and {sizes[1]} benign cases: DeLong's test needs two of each"
        )
    parts = [_placements(truth, np.asarray(scores, np.float64)) for scores in (first, second)]
    variance = 0.0
    for place, size in enumerate(sizes):
        apart = parts[0][place] - parts[1][place]
        variance += float(apart.var(ddof=1)) / size
    difference = areas[0] - areas[1]
    error = variance**0.5
    if error > 0:
        z = difference / error
    elif difference == 0:
        z = 0.0
    else:
        z = float("nan")
    return DeLong(*areas, difference, error, z, float(2 * norm.sf(abs(z))))


def _placements(truth: NDArray[np.int64], scores: Floats) -> tuple[Floats, Floats]:
    """For each case the share of the other class that it stands right to; ties count one half."""
    from scipy.stats import rankdata

    malignant = truth == 1
    m, n = np.count_nonzero(malignant), np.count_nonzero(~malignant)
    ranks = rankdata(scores)
    above = (ranks[malignant] - rankdata(scores[malignant])) / n
    below = 1 - (ranks[~malignant] - rankdata(scores[~malignant])) / m
    return above, below
