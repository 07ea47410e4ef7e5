"""What misregistration between BUS and CEUS costs designs that fuse early, late or by attention.

Training and test share the misregistration, and samples differ in nothing but the offset between
their clips. The ideal observer reads latents, so its figures hold for any registration.
"""

from dataclasses import replace
from pathlib import Path

from asycmst.experiments.comparison import made_methods
from asycmst.experiments.grid import Columns, Overrides, Place, Source, Study, Trial, grid_of
from asycmst.experiments.score_table import score_table
from asycmst.experiments.scores import Results
from asycmst.experiments.writers import write_table

SLIGHT_PIXELS = 2.0
"""Standard deviation of the offset along each axis, in pixels of a frame of 64."""


def _rows(study: Study) -> dict[str, Overrides]:
    return {
        "full": {},
        "no cross-attention": {"model": {"cross_attention": None}},
        "early fusion": made_methods(study)["Early fusion"],
    }


def _columns(study: Study) -> list[Columns]:
    columns = []
    for source in study.sources:
        if source.phantom is None:
            raise ValueError(
                "misregistration is drawn for phantoms only: leave out --data, or take another "
                "experiment"
            )
        pixels = SLIGHT_PIXELS * source.phantom.size / 64
        columns.append(_shifted(source, 0.0, "registered"))
        columns.append(_shifted(source, pixels, f"offset sd {pixels:g} px"))
    return columns


def _shifted(source: Source, pixels: float, words: str) -> Columns:
    assert source.phantom is not None
    phantom = replace(source.phantom, misregistration=pixels)
    name = f"{source.name}, {words}"
    shifted = replace(source, name=name, phantom=phantom)
    return Columns(name, shifted, shifted)


def grid(study: Study) -> dict[Place, Trial]:
    """Every design with and without misregistration."""
    return grid_of(study, _rows(study), _columns(study))


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write the table of the designs."""
    table = score_table(
        "Registration: fusion early, late and by attention",
        study,
        results,
        ["Design"],
        {row: [row] for row in _rows(study)},
        columns=_columns(study),
        baseline="full",
    )
    return write_table(table, folder, "registration")
