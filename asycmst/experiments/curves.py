"""What figures need of the results of a grid: curves, and single values by repeat."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asycmst.analysis.roc_plate import TestSet, roc_plate
from asycmst.experiments.scores import Results

Panels = Mapping[str, tuple[str, Sequence[str]]]
"""By heading the column of the grid and its rows."""


def roc_figure(
    results: Results, panels: Panels, folder: Path, name: str, columns: int = 2
) -> list[Path]:
    """ROC curves, mean over repeats, as NAME.png and NAME.svg.

    Rows without results are left out, as are test sets of a single class.

    Returns:
        The files; none where there is no curve.
    """
    drawn: dict[str, dict[str, Sequence[TestSet]]] = {}
    for heading, (column, rows) in panels.items():
        sets: dict[str, Sequence[TestSet]] = {
            row: _test_sets(results, row, column) for row in rows
        }
        found = {row: one for row, one in sets.items() if one}
        if found:
            drawn[heading] = found
    if not drawn:
        return []
    roc_plate(folder / name, drawn, columns)
    return figure_files(folder, name)


def figure_files(folder: Path, name: str) -> list[Path]:
    """The two files of a figure."""
    return [folder / f"{name}.{suffix}" for suffix in ("png", "svg")]


def values_by_repeat(
    results: Results, rows: Iterable[str], column: str, score: str
) -> NDArray[np.float64]:
    """A score of each row and repeat, shape (rows, repeats); NaN where there is no result."""
    table = [
        [results.values(row, column, score).get(k, np.nan) for k in range(results.repeats)]
        for row in rows
    ]
    return np.array(table, dtype=np.float64)


def _test_sets(results: Results, row: str, column: str) -> list[TestSet]:
    return [
        (one.answers.labels, one.answers.probabilities)
        for one in results.tests(row, column).values()
        if len(set(one.answers.labels)) == 2
    ]
