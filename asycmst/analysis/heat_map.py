"""A figure of merit over two loss weights as a heat map (Fig 14)."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from asycmst.analysis.canvas import COLOURS, new_figure, save_both


def heat_map(
    path: str | os.PathLike[str],
    values: ArrayLike,
    horizontal: Sequence[float],
    vertical: Sequence[float],
    *,
    names: tuple[str, str] = ("$w_1$ (frame self-sorting)", "$w_2$ (segmentation)"),
    merit: str = "Accuracy (%)",
) -> None:
    """Draw one number for each pair of weights, the largest framed.

    Args:
        path: the figure without suffix; PATH.png and PATH.svg are written.
        values: shape (len(vertical), len(horizontal)): entry [i, j] belongs to vertical[i] and
            horizontal[j]. NaN is a run that is not there.
        horizontal: the weights along x, left to right.
        vertical: the weights along y, from the bottom up.
        names: of the two weights, horizontal first.
        merit: what the numbers are, with their unit.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: the folder of `path` does not exist.
        ValueError: the shape does not fit the weights, or there is no number at all.
    """
    from matplotlib.patches import Rectangle

    table = np.asarray(values, dtype=np.float64)
    if table.shape != (len(vertical), len(horizontal)) or not table.size:
        raise ValueError(
            f"values have shape {table.shape}: give {len(vertical)} rows, one for each vertical "
            f"weight, and {len(horizontal)} columns, one for each horizontal weight"
        )
    if not np.isfinite(table).any():
        raise ValueError("no value is a number: run at least one pair of weights")
    figure = new_figure(1.6 + 0.95 * len(horizontal), 1.1 + 0.75 * len(vertical))
    axes = figure.add_subplot()
    picture = axes.imshow(table, cmap="cividis", origin="lower", aspect="auto")
    low, high = np.nanmin(table), np.nanmax(table)
    for i, values_of_row in enumerate(table):
        for j, value in enumerate(values_of_row):
            bright = np.isfinite(value) and value > low + 0.55 * (high - low)
            shown = f"{value:.1f}" if np.isfinite(value) else "no run"
            colour = "black" if bright or not np.isfinite(value) else "white"
            axes.text(j, i, shown, ha="center", va="center", fontsize=10, color=colour)
    row, column = divmod(int(np.nanargmax(table)), table.shape[1])
    corner = column - 0.47, row - 0.47
    axes.add_patch(Rectangle(corner, 0.94, 0.94, fill=False, edgecolor=COLOURS[1], linewidth=3))
    axes.set_xticks(range(len(horizontal)), [f"{weight:g}" for weight in horizontal])
    axes.set_yticks(range(len(vertical)), [f"{weight:g}" for weight in vertical])
    axes.set(xlabel=names[0], ylabel=names[1])
    figure.colorbar(picture, label=merit)
    save_both(figure, path)
