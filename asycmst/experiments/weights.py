"""Fig 14: the two weights of the auxiliary losses, each with each."""

from pathlib import Path

import numpy as np

from asycmst.analysis.heat_map import heat_map
from asycmst.experiments.curves import figure_files, values_by_repeat
from asycmst.experiments.grid import Overrides, Place, Study, Trial, grid_of, in_dataset
from asycmst.experiments.score_table import score_table
from asycmst.experiments.scores import Results
from asycmst.experiments.writers import write_table


def _row(w1: float, w2: float) -> str:
    return f"{w1:g}, {w2:g}"


def _rows(study: Study) -> dict[str, Overrides]:
    return {
        _row(w1, w2): {"model": {"fss_weight": w1, "segmentation_weight": w2}}
        for w2 in study.loss_weights
        for w1 in study.loss_weights
    }


def grid(study: Study) -> dict[Place, Trial]:
    """The runs of Fig 14, on the first data set as in the paper."""
    return grid_of(study, _rows(study), in_dataset(study.sources[:1]))


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write Fig 14 and its numbers."""
    columns = in_dataset(study.sources[:1])
    rows = {row: row.split(", ") for row in _rows(study)}
    table = score_table(
        "Fig 14: weights of frame self-sorting (w1) and segmentation (w2)",
        study,
        results,
        ["w1", "w2"],
        rows,
        columns=columns,
    )
    files = write_table(table, folder, "fig-14")
    accuracy = 100 * values_by_repeat(results, rows, columns[0].name, "accuracy")
    there = np.isfinite(accuracy)
    if not there.any():
        return files
    sums = np.where(there, accuracy, 0).sum(axis=1)
    means = np.where(there.any(axis=1), sums / np.maximum(there.sum(axis=1), 1), np.nan)
    side = len(study.loss_weights)
    weights = study.loss_weights
    # Rows of the grid run over w1 within w2: [i, j] has w2 number i and w1 number j.
    heat_map(folder / "fig-14", means.reshape(side, side), weights, weights)
    return [*files, *figure_files(folder, "fig-14")]
