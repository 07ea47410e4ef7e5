"""Fig 10: where the model looks in key frames of benign and of malignant test cases."""

from pathlib import Path

from asycmst.analysis.cam_plate import cam_plate, look_at_case
from asycmst.experiments.ablation import ROWS
from asycmst.experiments.curves import figure_files
from asycmst.experiments.grid import Place, Study, Trial, grid_of
from asycmst.experiments.scores import Results
from asycmst.model import AsyCMST
from asycmst.training.checkpoint import load_checkpoint
from asycmst.training.run_folder import BEST

_ROW = "ACMST+FSS+NS"
_NAME = "AsyCMST"
_CASES_OF_A_CLASS = 4


def grid(study: Study) -> dict[Place, Trial]:
    """The full model on each data set."""
    return grid_of(study, {_ROW: ROWS[_ROW]})


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write Fig 10 for each data set: the first four cases of each class, first repeat."""
    files = []
    for source in study.sources:
        found = results.tests(_ROW, source.name).get(0)
        if found is None:
            continue
        model, _ = load_checkpoint(found.folder / BEST)
        assert isinstance(model, AsyCMST)
        cases, _ = source.test(0).open()
        labels = found.answers.labels
        chosen = [
            index
            for label in (0, 1)
            for index in [i for i, one in enumerate(labels) if one == label][:_CASES_OF_A_CLASS]
        ]
        name = f"fig-10-{source.name.lower().replace('/', '-')}"
        looks = [
            look_at_case(cases[index], {_NAME: model}, name=str(number))
            for number, index in enumerate(chosen, 1)
        ]
        cam_plate(folder / name, looks)
        files += figure_files(folder, name)
    return files
