"""Table 3 and Fig 7: trained on one data set, tested on the other, both ways.

The trainings are those of Table 2; only the test is another. Nothing of the data set that is
tested on is seen before.
"""

from pathlib import Path

from asycmst.experiments.comparison import (
    OURS,
    SCORES,
    in_order,
    labels,
    made_methods,
    unmade_methods,
)
from asycmst.experiments.curves import roc_figure
from asycmst.experiments.grid import Columns, Place, Study, Trial, grid_of
from asycmst.experiments.score_table import score_table
from asycmst.experiments.scores import Results
from asycmst.experiments.writers import write_table


def _columns(study: Study) -> list[Columns]:
    if len(study.sources) < 2:
        is_phantom = study.sources[0].phantom is not None
        more = "leave out --phantom" if is_phantom else "give --other-data and --other-splits too"
        raise ValueError(f"a transfer needs two data sets: {more}")
    first, second = study.sources
    return [
        Columns(f"{second.name} → {first.name}", second, first),
        Columns(f"{first.name} → {second.name}", first, second),
    ]


def grid(study: Study) -> dict[Place, Trial]:
    """The runs of Table 2, tested on the same repeat of the other data set."""
    return grid_of(study, made_methods(study), _columns(study))


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write Table 3 and Fig 7."""
    columns = _columns(study)
    table = score_table(
        "Table 3: trained on one data set, tested on the other",
        study,
        results,
        ["Method", "What is here"],
        labels(study),
        columns=columns,
        scores=SCORES,
        baseline=OURS,
        unmade=unmade_methods(study),
    )
    panels = {column.name: (column.name, list(labels(study))) for column in columns}
    return [
        *write_table(in_order(table), folder, "table-3"),
        *roc_figure(results, panels, folder, "fig-7"),
    ]
