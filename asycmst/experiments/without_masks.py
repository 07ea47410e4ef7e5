"""What it costs to have no masks: the segmentation task learned from masks, without, and left out.

Without masks the saliency losses stand in for the Dice loss; the masks of the test sets say what
they find.
"""

from pathlib import Path

from asycmst.experiments.grid import Overrides, Place, Study, Trial, grid_of
from asycmst.experiments.score_table import score_table
from asycmst.experiments.scores import Results
from asycmst.experiments.writers import write_table

_MASKS = "Dice, from masks"
_ROWS: dict[str, Overrides] = {
    _MASKS: {"model": {"bus_task": "dice"}},
    "Saliency, no masks": {"model": {"bus_task": "saliency"}},
    "No task": {"model": {"bus_task": None}},
}


def grid(study: Study) -> dict[Place, Trial]:
    """The three kinds of segmentation task on each data set."""
    return grid_of(study, _ROWS)


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write the table."""
    table = score_table(
        "The segmentation task with masks, without masks, and left out",
        study,
        results,
        ["Segmentation"],
        {row: [row] for row in _ROWS},
        scores=("accuracy", "dice", "pointing"),
        baseline=_MASKS,
    )
    return write_table(table, folder, "without-masks")
