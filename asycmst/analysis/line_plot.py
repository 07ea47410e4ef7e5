"""Means with error bars against a setting, such as noise or the number of layers (Fig 12, 13)."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asycmst.analysis.canvas import COLOURS, MARKERS, STYLES, new_figure, save_both


class Line(NamedTuple):
    """One curve.

    Attributes:
        x: shape (n,), the setting.
        values: shape (n,) of means or (n, runs) of single results; NaN is a run that is not there.
    """

    x: ArrayLike
    values: ArrayLike


def mean_and_deviation(values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over the runs (n,) and their sample standard deviations, NaN for a single run."""
    table = np.asarray(values, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    there = np.isfinite(table)
    counts = there.sum(axis=1)
    sums = np.where(there, table, 0).sum(axis=1)
    means = np.divide(sums, counts, out=np.full(len(table), np.nan), where=counts > 0)
    squares = (np.where(there, table - means[:, None], 0) ** 2).sum(axis=1)
    variances = np.divide(squares, counts - 1, out=np.full(len(table), np.nan), where=counts > 1)
    return means, np.sqrt(variances)


def line_plot(
    path: str | os.PathLike[str],
    panels: Mapping[str, Mapping[str, Line]],
    *,
    x_name: str,
    y_name: str,
    ticks: Sequence[float] | None = None,
) -> None:
    """Draw means with one standard deviation up and down, single runs as faint points.

    Args:
        path: the figure without suffix; PATH.png and PATH.svg are written.
        panels: by heading and name of the line.
        x_name: what the setting is, with its unit.
        y_name: what the values are, with their unit.
        ticks: where the x axis has numbers; None is wherever a line has a point.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: the folder of `path` does not exist.
        ValueError: there is nothing to draw, or a line's lengths differ.
    """
    if not panels or not all(panels.values()):
        raise ValueError("no line is given: give at least one for each panel")
    figure = new_figure(4.4 * len(panels), 3.6)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (heading, lines) in zip(grid, panels.items(), strict=True):
        places: set[float] = set()
        for number, (name, line) in enumerate(lines.items()):
            x = np.asarray(line.x, dtype=np.float64)
            values = np.asarray(line.values, dtype=np.float64)
            if x.ndim != 1 or values.ndim not in (1, 2) or len(values) != len(x):
                raise ValueError(
                    f"{name}: x has shape {x.shape} and the values {values.shape}; give (n,) and "
                    "(n,) or (n, runs)"
                )
            places |= set(x.tolist())
            colour = COLOURS[number % len(COLOURS)]
            means, deviations = mean_and_deviation(values)
            if values.ndim == 2:
                axes.plot(x, values, ".", color=colour, alpha=0.3, markersize=6)
            axes.errorbar(
                x,
                means,
                yerr=None if np.isnan(deviations).all() else deviations,
                color=colour,
                linestyle=STYLES[number % len(STYLES)],
                marker=MARKERS[number % len(MARKERS)],
                capsize=3,
                linewidth=1.8,
                label=name,
            )
        axes.set(xlabel=x_name, title=heading)
        axes.set_xticks(sorted(places) if ticks is None else list(ticks))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=9)
    grid[0].set_ylabel(y_name)
    save_both(figure, path)
