"""Means with error bars of several methods under several configurations (Fig 9)."""

import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from asycmst.analysis.canvas import COLOURS, MARKERS, new_figure, save_both
from asycmst.analysis.line_plot import mean_and_deviation


def category_plot(
    path: str | os.PathLike[str],
    panels: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]],
    *,
    y_name: str,
) -> None:
    """Draw a group of points for each method, one for each configuration.

    Points and not bars, as the values lie close together and far from zero. A bar up and down is
    one standard deviation; single runs are faint points.

    Args:
        path: the figure without suffix; PATH.png and PATH.svg are written.
        panels: by heading, method and configuration the values of the runs, shape (runs,); NaN is
            a run that is not there. All methods of a figure have the same configurations.
        y_name: what the values are, with their unit.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: the folder of `path` does not exist.
        ValueError: there is nothing to draw, or the configurations differ.
    """
    groups = [group for methods in panels.values() for group in methods.values()]
    names = [list(group) for group in groups]
    if not names or not names[0] or any(one != names[0] for one in names):
        raise ValueError(
            f"configurations {names}: give at least one, the same ones for each method"
        )
    widest = max(len(methods) for methods in panels.values())
    figure = new_figure((1.4 + 1.1 * widest) * len(panels) + 1.6, 3.8)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    offsets = np.linspace(-0.3, 0.3, len(names[0])) if len(names[0]) > 1 else np.zeros(1)
    for axes, (heading, methods) in zip(grid, panels.items(), strict=True):
        for number, (name, offset) in enumerate(zip(names[0], offsets, strict=True)):
            table = np.array([group[name] for group in methods.values()], dtype=np.float64)
            x = np.arange(len(methods)) + offset
            means, deviations = mean_and_deviation(table)
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(x, table, ".", color=colour, alpha=0.3, markersize=6)
            axes.errorbar(
                x,
                means,
                yerr=None if np.isnan(deviations).all() else deviations,
                color=colour,
                linestyle="none",
                marker=MARKERS[number % len(MARKERS)],
                capsize=3,
                label=name,
            )
        axes.set_xticks(range(len(methods)), list(methods))
        axes.set(title=heading, xlim=(-0.6, len(methods) - 0.4))
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
    grid[0].set_ylabel(y_name)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9
    )
    save_both(figure, path)
