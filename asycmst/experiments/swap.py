"""Fig 9: which branch sees which modality, or both the same.

The auxiliary tasks stay with their branch: frame self-sorting in the upper one, segmentation in
the lower one.
"""

from pathlib import Path
from typing import Any

from asycmst.analysis.category_plot import category_plot
from asycmst.experiments.comparison import OURS, made_methods, refused_methods
from asycmst.experiments.curves import figure_files, values_by_repeat
from asycmst.experiments.grid import Overrides, Place, Study, Trial, grid_of
from asycmst.experiments.score_table import score_table
from asycmst.experiments.scores import Results
from asycmst.experiments.writers import write_table

# Upper branch first, as in the figure.
_BRANCHES = (("ceus", "ceus"), ("bus", "bus"), ("ceus", "bus"), ("bus", "ceus"))
_CONFIGURATIONS: dict[str, dict[str, Any]] = {
    f"{upper.upper()}+{lower.upper()}": {"upper": upper, "lower": lower}
    for upper, lower in _BRANCHES
}
_METHODS = ("R(2+1)D", "ViViT", OURS)


def _row(method: str, name: str) -> str:
    return f"{method}, {name}"


def _rows(study: Study) -> list[tuple[str, str]]:
    made = made_methods(study)
    return [(method, name) for method in _METHODS if method in made for name in _CONFIGURATIONS]


def grid(study: Study) -> dict[Place, Trial]:
    """The runs of Fig 9."""
    made = made_methods(study)
    rows: dict[str, Overrides] = {
        _row(method, name): {"model": {**made[method]["model"], **_CONFIGURATIONS[name]}}
        for method, name in _rows(study)
    }
    return grid_of(study, rows)


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write Fig 9 and its numbers."""
    rows = _rows(study)
    table = score_table(
        "Fig 9: what the upper and the lower branch see",
        study,
        results,
        ["Method", "Upper+lower"],
        {_row(*key): key for key in rows},
        baseline=_row(OURS, "CEUS+BUS"),
        unmade={name: why for name, why in refused_methods(study).items() if name in _METHODS},
    )
    panels = {
        source.name: {
            method: {
                name: 100
                * values_by_repeat(results, [_row(method, name)], source.name, "accuracy")[0]
                for name in _CONFIGURATIONS
            }
            for method in dict.fromkeys(method for method, _ in rows)
        }
        for source in study.sources
    }
    category_plot(folder / "fig-9", panels, y_name="Accuracy (%)")
    return [*write_table(table, folder, "fig-9"), *figure_files(folder, "fig-9")]
