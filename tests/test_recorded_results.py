"""Recorded results: their tables are what the recorded answers of their runs come to."""

from pathlib import Path

import pytest

from asycmst.experiments.catalogue import EXPERIMENTS
from asycmst.experiments.grid import run_name
from asycmst.experiments.records import Answered, outcome
from asycmst.experiments.scores import Results
from asycmst.experiments.sizes import make_study

RECORDED = Path(__file__).parents[1] / "results" / "paper"


@pytest.mark.parametrize(
    "name", ["ablation", "strategies", "registration", "without-masks", "centres"]
)
def test_a_recorded_table_is_what_its_runs_come_to(name: str, tmp_path: Path) -> None:
    """So whoever runs the recorded command trains nothing anew and finds the same table."""
    study = make_study("demo", RECORDED, repeats=3, domains=("breast",))
    experiment = EXPERIMENTS[name]
    found = {
        place: outcome(RECORDED / "runs" / run_name(trial.settings), trial.test.key)
        for place, trial in experiment.grid(study).items()
    }
    assert [place for place, one in found.items() if not isinstance(one, Answered)] == []
    tables = [
        file
        for file in experiment.report(study, Results(found), tmp_path)
        if file.suffix in (".csv", ".md", ".txt")
    ]
    assert tables
    for file in tables:
        assert file.read_text() == (RECORDED / name / file.name).read_text()
