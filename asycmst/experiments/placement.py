"""Fig 13: cross-attention in the first n layers, from none to all."""

from pathlib import Path
from typing import Any

from asycmst.analysis.line_plot import Line, line_plot
from asycmst.config import AsyCMSTConfig
from asycmst.experiments.curves import figure_files, values_by_repeat
from asycmst.experiments.grid import Overrides, Place, Study, Trial, grid_of
from asycmst.experiments.score_table import score_table
from asycmst.experiments.scores import Results
from asycmst.experiments.writers import write_table


def _rows(study: Study) -> dict[str, Overrides]:
    assert isinstance(study.base.model, AsyCMSTConfig)
    layers = study.base.model.layers
    rows: dict[str, Overrides] = {}
    for n in range(layers + 1):
        # As Tables 4 and 5 have them, so that the runs are the same.
        model: dict[str, Any] = {"cross_attention": None} if n == 0 else {}
        if 0 < n < layers:
            model["acmst_layers"] = list(range(1, n + 1))
        rows["none" if n == 0 else "L1" if n == 1 else f"L1-L{n}"] = {"model": model}
    return rows


def grid(study: Study) -> dict[Place, Trial]:
    """The runs of Fig 13."""
    return grid_of(study, _rows(study))


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write Fig 13 and its numbers."""
    rows = _rows(study)
    table = score_table(
        "Fig 13: layers with cross-attention",
        study,
        results,
        ["Layers"],
        {row: [row] for row in rows},
        baseline="none",
    )
    panels = {
        source.name: {
            "AsyCMST": Line(
                range(len(rows)),
                100 * values_by_repeat(results, rows, source.name, "accuracy"),
            )
        }
        for source in study.sources
    }
    line_plot(
        folder / "fig-13",
        panels,
        x_name="Layers with cross-attention, from the first",
        y_name="Accuracy (%)",
    )
    return [*write_table(table, folder, "fig-13"), *figure_files(folder, "fig-13")]
