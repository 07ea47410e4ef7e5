"""Saliency-guided diagnosis of B-mode images within a centre and across centres.

Trained at each centre and tested at each. Without data of several centres they are phantoms whose
scanners differ in gain, dynamic range, resolution and speckle. No mask is learned from; those of
the test sets say how well the saliency map finds the nodule, beside a disc at the centre of the
image that knows the nodule's size.
"""

from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

from asycmst.data.phantom_bmode import Scanner
from asycmst.experiments.grid import (
    Columns,
    Overrides,
    Place,
    Source,
    Study,
    Trial,
    grid_of,
)
from asycmst.experiments.score_table import EMPTY, study_notes
from asycmst.experiments.scores import Results
from asycmst.experiments.tables import Cell, Column, Table
from asycmst.experiments.writers import write_table
from asycmst.saliency.config import SaliencyConfig
from asycmst.saliency.network import STRIDE
from asycmst.self_supervision import NODULES, SaliencyObjective

_SCANNERS = {
    "Centre A": Scanner(),
    "Centre B": Scanner(gain_db=-4.0, dynamic_range_db=60.0, psf=1.5),
    "Centre C": Scanner(gain_db=3.0, dynamic_range_db=40.0, psf=0.8, looks=4),
}
_OURS = "Dark for its depth, area held"
_RELEASED = "As released, but for the border of the image"
_SCORES = {"dice": "Dice (%)", "pointing": "Pointing (%)"}
_GUESS = {"dice": "centre_dice", "pointing": "centre_pointing"}


def _centres(study: Study) -> tuple[Source, ...]:
    phantom = study.sources[0].phantom
    if phantom is None:
        return study.sources
    return tuple(
        Source(name, replace(phantom, frames=2, scanner=scanner), study.sources[0].test_samples)
        for name, scanner in _SCANNERS.items()
    )


def _columns(study: Study) -> list[Columns]:
    pairs = product(_centres(study), repeat=2)
    return [Columns(_place(one, other), one, other) for one, other in pairs]


def _place(trained: Source, tested: Source) -> str:
    return f"{trained.name} → {tested.name}"


def _rows(study: Study) -> dict[str, Overrides]:
    model = SaliencyConfig.paper() if study.size == "paper" else SaliencyConfig.demo()
    model = replace(model, image_size=study.base.model.image_size)
    ours = replace(model, **asdict(NODULES))
    released = replace(model, scope="both", suppress=False, **asdict(SaliencyObjective()))
    return {
        name: {"model": {"network": "saliency", **config.to_dict()}}
        for name, config in ((_OURS, ours), (_RELEASED, released))
    }


def fits(study: Study) -> bool:
    """Whether the frames have a size that the saliency net takes."""
    return not any(side % STRIDE for side in study.base.model.frame_size)


def grid(study: Study) -> dict[Place, Trial]:
    """Each kind of losses, trained at each centre and tested at each."""
    return grid_of(study, _rows(study), _columns(study))


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write the table: a row for what was trained where, columns for where it was tested."""
    centres = _centres(study)
    header = [Column("Losses of the map"), Column("Trained at")]
    for centre in centres:
        header.append(Column("AUC [95 % CI]", centre.name, "highest"))
        header += [Column(text, centre.name, "highest") for text in _SCORES.values()]
    body = []
    for row in _rows(study):
        for trained in centres:
            cells = [Cell(row), Cell(trained.name)]
            for tested in centres:
                place = _place(trained, tested)
                cells.append(results.auc_cell(row, place))
                cells += [results.cell(row, place, score) for score in _SCORES]
            body.append(tuple(cells))
    guess = [Cell("A disc at the centre, as large as the nodule"), EMPTY]
    for tested in centres:
        place = _place(tested, tested)
        guess += [EMPTY, *(results.cell(_OURS, place, score) for score in _GUESS.values())]
    body.append(tuple(guess))
    notes = study_notes(replace(study, sources=centres), results)
    notes.append(
        "Training sees the middle frame of each clip; a test case is diagnosed by the mean of its "
        "frames' features."
    )
    if study.sources[0].phantom is not None:
        notes += [f"{name}: {_words(scanner)}." for name, scanner in _SCANNERS.items()]
    title = "Saliency-guided diagnosis of B-mode images, within centres and across"
    return write_table(Table(title, tuple(header), tuple(body), tuple(notes)), folder, "centres")


def _words(scanner: Scanner) -> str:
    return (
        f"gain {scanner.gain_db:+g} dB, dynamic range {scanner.dynamic_range_db:g} dB, point "
        f"spread times {scanner.psf:g}, {scanner.looks} look(s)"
    )
