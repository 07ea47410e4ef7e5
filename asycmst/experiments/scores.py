"""Scores of the runs behind a row and a column, over splits or seeds, as cells of a table."""

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import UndefinedMetricWarning

from asycmst.analysis.paired_tests import mcnemar, paired_t
from asycmst.analysis.predict_dataset import localisation_scores
from asycmst.analysis.statistics import (
    Scored,
    interval,
    over_splits,
    resampled_scores,
    scores,
)
from asycmst.experiments.grid import Place
from asycmst.experiments.records import Answered, Failed, Outcome
from asycmst.experiments.tables import Cell

_THRESHOLD = 0.5  # the more probable class
_RESAMPLES = 2000
MISSING = Cell("-")


class Difference(NamedTuple):
    """A row against another on the same test sets, in one column.

    Attributes:
        t: p of the paired t-test of the accuracies over repeats; NaN for a single one.
        mcnemar: exact p of McNemar's test over all cases together.
        auc: mean difference of the AUCs.
        low: of its 95 % interval, patients resampled.
        high: the same.
    """

    t: float
    mcnemar: float
    auc: float
    low: float
    high: float


class Results:
    """The outcomes of a grid.

    Args:
        found: by place; None is a run without a result, such as a damaged one.
    """

    def __init__(self, found: Mapping[Place, Outcome | None]) -> None:
        self.found = dict(found)

    @cached_property
    def repeats(self) -> int:
        """Most repeats of any row."""
        return 1 + max(place.repeat for place in self.found)

    def tests(self, row: str, column: str) -> dict[int, Answered]:
        """The results of a row and column by repeat, those that there are."""
        return {
            place.repeat: one
            for place, one in self.found.items()
            if place[:2] == (row, column) and isinstance(one, Answered)
        }

    def values(self, row: str, column: str, score: str) -> dict[int, float]:
        """A score by repeat; see `asycmst.analysis.statistics.SCORES`."""
        return {
            repeat: scores(scored, _THRESHOLD)[score]
            for repeat, scored in self._scored(row, column).items()
        }

    def cell(self, row: str, column: str, score: str) -> Cell:
        """Mean ± standard deviation (n - 1) over repeats, in percent with one decimal."""
        values = list(self.values(row, column, score).values())
        if not values:
            return self._nothing(row, column)
        if np.isnan(values).all():
            return MISSING  # the model has no such answer
        mean, std, n = over_splits(values)
        text = f"{100 * mean:.1f}" + (f" ± {100 * std:.1f}" if n > 1 else "")
        return Cell(text + self._lost(row, column), mean, {"mean": mean, "std": std, "repeats": n})

    def auc_cell(self, row: str, column: str) -> Cell:
        """Mean AUC over repeats with its 95 % interval, patients resampled."""
        scored = self._scored(row, column)
        if not scored:
            return self._nothing(row, column)
        values = [scores(one, _THRESHOLD)["auc"] for one in scored.values()]
        mean, std, n = over_splits(values)
        _, low, high = interval(mean, _resampled(list(scored.values())))
        return Cell(
            f"{mean:.3f} [{low:.3f}, {high:.3f}]" + self._lost(row, column),
            mean,
            {"mean": mean, "std": std, "low": low, "high": high, "repeats": n},
        )

    def difference(self, row: str, other: str, column: str) -> Difference | None:
        """`row` against `other` where both have a result; None where there is none.

        Raises:
            ValueError: they were tested on different cases, or on other labels of them.
        """
        first, second = self._scored(row, column), self._scored(other, column)
        both = sorted(first.keys() & second.keys())
        if not both:
            return None
        self._check_paired(row, other, column, both)
        pairs = [(first[repeat], second[repeat]) for repeat in both]
        accuracies = [[scores(one, _THRESHOLD)["accuracy"] for one in pair] for pair in pairs]
        t = paired_t(*zip(*accuracies, strict=True)).p if len(both) > 1 else float("nan")
        labels = np.concatenate([one.labels for one, _ in pairs])
        called = [
            np.concatenate([pair[side].probabilities > _THRESHOLD for pair in pairs])
            for side in (0, 1)
        ]
        areas = [[scores(one, _THRESHOLD)["auc"] for one in pair] for pair in pairs]
        gain = float(np.mean([one - two for one, two in areas]))
        resampled = [_resampled([pair[side] for pair in pairs]) for side in (0, 1)]
        _, low, high = interval(gain, resampled[0] - resampled[1])
        return Difference(t, mcnemar(labels, *called).p, gain, low, high)

    def failures(self) -> list[str]:
        """What failed and why, one line each."""
        return [
            f"{place.row}, {place.column}, repeat {place.repeat}: {one.reason}"
            for place, one in self.found.items()
            if isinstance(one, Failed)
        ]

    def _scored(self, row: str, column: str) -> dict[int, Scored]:
        tests = self.tests(row, column)
        names = sorted({name for one in tests.values() for name in one.patients})
        number = {name: place for place, name in enumerate(names)}
        return {repeat: _scored(one, number) for repeat, one in tests.items()}

    def _check_paired(self, row: str, other: str, column: str, repeats: Sequence[int]) -> None:
        first, second = self.tests(row, column), self.tests(other, column)
        for repeat in repeats:
            one, two = first[repeat], second[repeat]
            if one.answers[:2] != two.answers[:2]:
                raise ValueError(
                    f"{row!r} and {other!r} were tested on different cases or labels in {column}, "
                    f"repeat {repeat}; delete the test-*.json in {one.folder} and {two.folder} to "
                    "test them again"
                )

    def _outcomes(self, row: str, column: str) -> list[Outcome | None]:
        return [one for place, one in self.found.items() if place[:2] == (row, column)]

    def _nothing(self, row: str, column: str) -> Cell:
        outcomes = self._outcomes(row, column)
        return Cell("failed") if any(isinstance(x, Failed) for x in outcomes) else MISSING

    def _lost(self, row: str, column: str) -> str:
        outcomes = self._outcomes(row, column)
        lost = sum(not isinstance(one, Answered) for one in outcomes)
        return f" ({lost} of {len(outcomes)} failed)" if lost else ""


def p_text(p: float) -> str:
    """A p value as tables give it."""
    if np.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _scored(one: Answered, number: Mapping[str, int]) -> Scored:
    found = one.answers
    return Scored(
        labels=np.array(found.labels, dtype=np.int64),
        probabilities=np.array(found.probabilities),
        patients=np.array([number[name] for name in one.patients], dtype=np.int64),
        dice=np.array(found.dice),
        frame_order=np.array(found.frame_order),
        **localisation_scores(found),
    )


def _resampled(tests: Sequence[Scored]) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        # A resample of a tiny test set may lack a class; the interval leaves it out.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        found = resampled_scores(tests, [_THRESHOLD] * len(tests), resamples=_RESAMPLES)
    return found["auc"]
