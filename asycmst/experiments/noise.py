"""Figs 11 and 12: training with wrong class labels, and with contours drawn otherwise."""

from dataclasses import replace
from pathlib import Path

import torch

from asycmst.analysis.line_plot import Line, line_plot
from asycmst.analysis.noise_plate import noise_plate
from asycmst.experiments.curves import figure_files, roc_figure, values_by_repeat
from asycmst.experiments.grid import Overrides, Place, Source, Study, Trial, grid_of, in_dataset
from asycmst.experiments.score_table import score_table
from asycmst.experiments.scores import Results
from asycmst.experiments.writers import write_table

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
CLEAN = "clean"
LABELS: dict[str, Overrides] = {
    (f"{fraction:.0%} of labels inverted" if fraction else CLEAN): (
        {"data": {"label_noise": fraction}} if fraction else {}
    )
    for fraction in FRACTIONS
}
CONTOURS: dict[str, Overrides] = {
    "points moved by up to 15%": {"data": {"contour_noise": "jitter"}},
    "shrunk by 15%": {"data": {"contour_noise": "shrink"}},
    "expanded by 15%": {"data": {"contour_noise": "expand"}},
}


def grid(study: Study) -> dict[Place, Trial]:
    """The runs of Fig 12; labels and contours of validation and test stay as they are.

    Contours are changed on data that have any.
    """
    return grid_of(study, LABELS) | grid_of(study, CONTOURS, in_dataset(_drawn(study)))


def _drawn(study: Study) -> list[Source]:
    return [source for source in study.sources if source.has_masks()]


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write Fig 11b, Fig 12 and their numbers."""
    drawn = _drawn(study)
    rows = {**LABELS, **CONTOURS} if drawn else LABELS
    table = score_table(
        "Fig 12: wrong labels and contours in training",
        study,
        results,
        ["Training data"],
        {row: [row] for row in rows},
        baseline=CLEAN,
    )
    notes = ["Labels and contours are changed in the training part only."]
    notes += [f"{one.name} has no contours." for one in study.sources if one not in drawn]
    files = write_table(replace(table, notes=(*table.notes, *notes)), folder, "fig-12")
    panels = {
        f"{source.name}, {what}": (source.name, noise)
        for what, noise, sources in (
            ("labels", [*LABELS], study.sources),
            ("contours", [CLEAN, *CONTOURS], drawn),
        )
        for source in sources
    }
    files += roc_figure(results, panels, folder, "fig-12", columns=len(study.sources))
    line_plot(
        folder / "fig-12-auc",
        {
            source.name: {
                "AsyCMST": Line(FRACTIONS, values_by_repeat(results, LABELS, source.name, "auc"))
            }
            for source in study.sources
        },
        x_name="Share of inverted training labels",
        y_name="AUC",
    )
    return [*files, *figure_files(folder, "fig-12-auc"), *_illustration(study, folder)]


def _illustration(study: Study, folder: Path) -> list[Path]:
    """Fig 11b on the first annotated case of the first test set; nothing where none is."""
    cases, patients = study.sources[0].test(0).open()
    for index in range(len(patients)):
        item = cases[index]
        areas = (item["mask"] & item["mask_valid"][:, None, None]).sum(dim=(1, 2))
        frame = int(areas.argmax())
        if areas[frame] > 0:
            pixels = (item["bus"][:, frame] * 255).round().to(torch.uint8).permute(1, 2, 0)
            noise_plate(folder / "fig-11", pixels.numpy(), item["mask"][frame].numpy())
            return figure_files(folder, "fig-11")
    return []
