"""Fig 8: what the classifier sees, in two dimensions, for four models of the ablation."""

from pathlib import Path

import numpy as np

from asycmst.analysis.embedding import Embedded, embed, embedding_figure
from asycmst.experiments.ablation import ROWS
from asycmst.experiments.curves import figure_files
from asycmst.experiments.grid import Overrides, Place, Study, Trial, grid_of
from asycmst.experiments.score_table import study_notes
from asycmst.experiments.scores import MISSING, Results
from asycmst.experiments.tables import Cell, Column, Table
from asycmst.experiments.writers import write_table

_MODELS: dict[str, Overrides] = {
    name: ROWS[name] for name in ("none", "ACMST", "FSS+NS", "ACMST+FSS+NS")
}


def grid(study: Study) -> dict[Place, Trial]:
    """The runs of Fig 8, which Table 4 has as well."""
    return grid_of(study, _MODELS)


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write Fig 8 of the first repeat, and how far apart the classes are in all of them."""
    embedded: dict[str, dict[str, Embedded]] = {}
    cells: dict[str, list[Cell]] = {name: [Cell(name)] for name in _MODELS}
    for source in study.sources:
        shown: dict[str, Embedded] = {}
        for name in _MODELS:
            found = {
                repeat: embed(np.load(one.features), one.answers.labels)
                for repeat, one in results.tests(name, source.name).items()
            }
            cells[name].append(_separation([one.separation for one in found.values()]))
            if 0 in found:
                shown[name] = found[0]
        if len(shown) == len(_MODELS):
            embedded[source.name] = shown
    columns = (
        Column("Model"),
        *(Column("silhouette", source.name, "highest") for source in study.sources),
    )
    table = Table(
        "Fig 8: separation of the classes among the features that the classifier sees",
        columns,
        tuple(map(tuple, cells.values())),
        (
            "Mean silhouette in [-1, 1] of the features themselves, before t-SNE, mean ± standard "
            "deviation (n - 1) over repeats; the figure is of repeat 0.",
            *study_notes(study, results)[1:],
        ),
    )
    files = write_table(table, folder, "fig-8")
    if not embedded:
        return files
    embedding_figure(folder / "fig-8", embedded)
    return [*files, *figure_files(folder, "fig-8")]


def _separation(values: list[float]) -> Cell:
    if not values:
        return MISSING
    mean = float(np.mean(values))
    if len(values) == 1:
        return Cell(f"{mean:.3f}", mean, {"mean": mean})
    std = float(np.std(values, ddof=1))
    return Cell(f"{mean:.3f} ± {std:.3f}", mean, {"mean": mean, "std": std})
