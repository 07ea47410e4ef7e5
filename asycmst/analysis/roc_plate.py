"""ROC curves of several methods, panel beside panel (Fig 6, 7 and 12)."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asycmst.analysis.canvas import COLOURS, STYLES, new_figure, save_both

TestSet = tuple[ArrayLike, ArrayLike]

_GRID = np.linspace(0, 1, 501)


class MeanCurve(NamedTuple):
    """A method's curve over one or several test sets.

    Attributes:
        false_positive: 1 - specificity, ascending from 0 to 1.
        sensitivity: at these, the mean over the test sets.
        areas: the AUC of each test set.
    """

    false_positive: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    areas: list[float]


def mean_curve(test_sets: Sequence[TestSet]) -> MeanCurve:
    """The ROC curve of one test set, or the mean sensitivity of several at equal specificities.

    Args:
        test_sets: labels (n,) in {0, 1} and scores (n,) of each.

    Raises:
        ValueError: there is no test set, or one has a single class.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    if not test_sets:
        raise ValueError("no test set is given: give at least one with its labels and scores")
    curves, areas = [], []
    for labels, scores in test_sets:
        truth = np.asarray(labels)
        if len(np.unique(truth)) < 2:
            raise ValueError("a test set has one class only: an ROC curve needs both")
        false, true, _ = roc_curve(truth, np.asarray(scores), drop_intermediate=False)
        curves.append((false, true))
        areas.append(float(roc_auc_score(truth, np.asarray(scores))))
    if len(curves) == 1:
        return MeanCurve(*curves[0], areas)
    heights = np.mean([np.interp(_GRID, false, true) for false, true in curves], axis=0)
    # A curve rises from 0 at the rate 0; interpolation alone starts at the top of that step.
    return MeanCurve(np.append(0.0, _GRID), np.append(0.0, heights), areas)


def roc_plate(
    path: str | os.PathLike[str],
    panels: Mapping[str, Mapping[str, Sequence[TestSet]]],
    columns: int = 2,
) -> None:
    """Draw curves with their AUC in the legend: mean and standard deviation over test sets.

    Args:
        path: the figure without suffix; PATH.png and PATH.svg are written.
        panels: by heading and method the test sets, as `mean_curve` takes them.
        columns: panels beside each other.

    Raises:
        ImportError: matplotlib or scikit-learn is not installed.
        FileNotFoundError: the folder of `path` does not exist.
        ValueError: there is nothing to draw, or a test set has a single class.
    """
    if not panels or not all(panels.values()):
        raise ValueError("no curve is given: give at least one method for each panel")
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure = new_figure(4.6 * columns, 4.7 * lines)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.axis("off")
    for axes, (heading, methods) in zip(grid, panels.items(), strict=False):
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        for number, (name, test_sets) in enumerate(methods.items()):
            curve = mean_curve(test_sets)
            # Of seven colours and four styles no pair comes twice among 28 methods.
            axes.plot(
                curve.false_positive,
                curve.sensitivity,
                color=COLOURS[number % len(COLOURS)],
                linestyle=STYLES[number % len(STYLES)],
                linewidth=1.8,
                label=f"{name} ({_area(curve.areas)})",
            )
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", title=heading)
        axes.set(xlabel="1 - specificity", ylabel="Sensitivity")
        axes.legend(loc="lower right", fontsize=7.5, title="AUC", title_fontsize=7.5)
    save_both(figure, path)


def _area(areas: Sequence[float]) -> str:
    if len(areas) == 1:
        return f"{areas[0]:.3f}"
    return f"{np.mean(areas):.3f} ± {np.std(areas, ddof=1):.3f}"
