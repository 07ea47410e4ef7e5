"""Grids that are run: shared, resumed, claimed, failed and damaged; their tables."""

import csv
import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from asycmst.analysis.predict_dataset import Predictions
from asycmst.commands.experiment import STUDIES
from asycmst.experiments import catalogue, strategies
from asycmst.experiments.catalogue import EXPERIMENTS, Experiment, run_experiments
from asycmst.experiments.grid import Overrides, Place, Study, Trial, grid_of
from asycmst.experiments.records import Answered, Failed
from asycmst.experiments.score_table import score_table
from asycmst.experiments.scores import Results
from asycmst.experiments.sizes import make_study
from asycmst.experiments.writers import to_csv, to_markdown, to_text, write_table
from asycmst.jobs import JobError

ROWS: dict[str, Overrides] = {
    "None": {"model": {"cross_attention": None}},
    "Asymmetric": {},
}


def study(out: Path, repeats: int = 1) -> Study:
    """The smallest: one data set of smoke size."""
    whole = make_study("smoke", out, repeats=repeats)
    return replace(whole, sources=whole.sources[:1])


def _grid(study: Study) -> dict[Place, Trial]:
    return grid_of(study, ROWS)


def _report(study: Study, results: Results, folder: Path) -> list[Path]:
    rows = {name: [name] for name in ROWS}
    table = score_table("Two", study, results, ["Strategy"], rows, baseline="None")
    return write_table(table, folder, "two")


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """An experiment of two rows."""
    monkeypatch.setitem(catalogue.EXPERIMENTS, "two", Experiment(_grid, _report))


def run(chosen: Study) -> str:
    """What the command shows."""
    text = io.StringIO()
    run_experiments(["two"], chosen, console=Console(file=text, width=500))
    return text.getvalue()


def lines(text: str) -> list[dict[str, str]]:
    """Of a CSV file."""
    return list(csv.DictReader(io.StringIO(text)))


def runs(out: Path) -> list[Path]:
    return sorted((out / "runs").iterdir())


@pytest.mark.usefixtures("two")
def test_a_grid_is_run_once_and_its_table_made_again(tmp_path: Path) -> None:
    shown = run(study(tmp_path))
    assert "2 runs in" in shown and "2/2  thyroid-asymmetric-fss-ns-s0-" in shown
    for folder in runs(tmp_path):
        names = {file.name for file in folder.iterdir()}
        assert {"config.yaml", "best.ckpt", "trained.json"} < names
        (cases,) = folder.glob("test-*.csv")
        assert len(lines(cases.read_text())) == 24
    table = (tmp_path / "two" / "two.csv").read_text()
    assert table.startswith("Strategy,Thyroid Acc (%)")
    weights = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.ckpt")}
    (tmp_path / "two" / "two.csv").unlink()
    run(study(tmp_path))
    assert (tmp_path / "two" / "two.csv").read_text() == table
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.ckpt")} == weights


def test_fig_10_shows_cases_of_both_classes(tmp_path: Path) -> None:
    files = run_experiments(["gradcam"], study(tmp_path), console=Console(file=io.StringIO()))
    assert [file.name for file in files] == ["fig-10-thyroid.png", "fig-10-thyroid.svg"]
    assert files[0].read_bytes().startswith(b"\x89PNG") and files[0].stat().st_size > 20000
    (features,) = runs(tmp_path)[0].glob("test-*.npy")
    assert np.load(features).shape == (24, 16)


@pytest.mark.usefixtures("two")
def test_a_run_that_diverges_stays_failed_and_the_others_go_on(tmp_path: Path) -> None:
    chosen = study(tmp_path)
    hot = replace(chosen.base.recipe, learning_rate=1e30, gradient_clip=None, epochs=2)
    shown = run(replace(chosen, base=replace(chosen.base, recipe=hot)))
    assert shown.count("failed: ") == 2
    table = (tmp_path / "two" / "two.txt").read_text()
    assert "Failed: None, Thyroid, repeat 0: " in table
    failed = json.loads((runs(tmp_path)[0] / "failed.json").read_text())
    assert "the training loss is" in failed["reason"]
    again = run(replace(chosen, base=replace(chosen.base, recipe=hot)))
    assert again.count("failed: ") == 2


@pytest.mark.usefixtures("two")
def test_a_damaged_run_is_one_line_and_the_others_stand(tmp_path: Path) -> None:
    run(study(tmp_path))
    (cases,) = runs(tmp_path)[0].glob("test-*.csv")
    cases.write_text(cases.read_text()[:-5])
    with pytest.raises(JobError, match=r"1 of 2 runs have no result: .*csv is missing or damaged"):
        run(study(tmp_path))
    first, second = lines((tmp_path / "two" / "two.csv").read_text())[:2]
    assert {first["Thyroid Acc (%)"], second["Thyroid Acc (%)"]} > {"-"}
    cases.with_suffix(".json").unlink()  # what the line says to do
    run(study(tmp_path))
    mended = (tmp_path / "two" / "two.csv").read_text()
    assert lines(mended)[0]["Thyroid Acc (%)"] != "-" != lines(mended)[1]["Thyroid Acc (%)"]


_WORKER = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from asycmst.experiments import strategies
from asycmst.experiments.grid import tasks_of
from asycmst.experiments.runner import End, work_through
from asycmst.experiments.sizes import make_study
torch.set_num_threads(1)
study = make_study("smoke", Path(sys.argv[1]))
study = replace(study, sources=study.sources[:1])
tasks = list(tasks_of([strategies.grid(study)], study.out).values())
def tell(message):
    if isinstance(message, End):
        print(message.run, message.seconds is not None, message.reason)
work_through(tasks, tell)
"""


def test_two_processes_share_a_folder_and_do_no_run_twice(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WORKER, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [worker.communicate(timeout=120)[0].splitlines() for worker in both]
    assert [worker.returncode for worker in both] == [0, 0]
    own = [sorted(line for line in lines if " True " in line) for lines in said]
    done = sorted(own[0] + own[1])
    assert done == [f"{number} True None" for number in range(6)], said
    assert len(runs(tmp_path)) == 6
    for folder in runs(tmp_path):
        starts = json.loads((folder / "run.json").read_text())["starts"]
        assert len(starts) == 1, folder


def results(*accuracies: float, row: str = "a", first: int = 0) -> dict[Place, Answered]:
    """A repeat for each accuracy, ten cases each, half of them malignant."""
    found = {}
    for repeat, accuracy in enumerate(accuracies):
        labels = [0, 1] * 5
        right = round(10 * accuracy)
        chance = [abs(x - 0.1 if i < right else x - 0.9) for i, x in enumerate(labels)]
        names = [f"{repeat}-{i}" for i in range(10)]
        nothing = [math.nan] * 10
        answers = Predictions(names, labels, chance, nothing, nothing)
        found[Place(row, "Thyroid", repeat)] = Answered(
            answers, names, 7, 1, 1.0, Path(), Path("features.npy")
        )
    return found


def test_a_cell_is_mean_and_standard_deviation_over_repeats() -> None:
    table = Results(results(0.8, 0.9, 1.0))
    cell = table.cell("a", "Thyroid", "accuracy")
    assert cell.text == "90.0 ± 10.0" and cell.value == pytest.approx(0.9)
    assert Results(results(0.8)).cell("a", "Thyroid", "accuracy").text == "80.0"


def test_a_failed_repeat_is_counted_beside_the_mean_of_the_others() -> None:
    found = {**results(0.8, 1.0), Place("a", "Thyroid", 2): Failed("loss not finite")}
    table = Results(found)
    assert table.cell("a", "Thyroid", "accuracy").text.endswith("(1 of 3 failed)")
    assert table.failures() == ["a, Thyroid, repeat 2: loss not finite"]
    lost = Results({Place("a", "Thyroid", 0): Failed("x"), Place("b", "Thyroid", 0): None})
    assert lost.cell("a", "Thyroid", "accuracy").text == "failed"
    assert lost.cell("b", "Thyroid", "accuracy").text == "-"


def test_rows_are_tested_on_the_cases_that_both_have() -> None:
    found = {**results(1.0, 0.9, 1.0), **results(0.5, 0.6, 0.5, row="b")}
    difference = Results(found).difference("a", "b", "Thyroid")
    assert difference is not None and difference.auc > 0.3
    assert difference.low <= difference.auc <= difference.high
    assert difference.mcnemar < 0.001
    # Accuracies apart by .5, .3, .5: t = .4333 / (.11547 / sqrt 3) = 6.5 with 2 degrees.
    assert difference.t == pytest.approx(0.02286, abs=1e-4)
    assert Results(results(1.0)).difference("a", "b", "Thyroid") is None


def test_rows_on_different_cases_are_not_compared() -> None:
    found = {**results(1.0), **results(0.5, row="b")}
    place = Place("b", "Thyroid", 0)
    answers = found[place].answers
    for changed in (
        answers._replace(labels=[1, *answers.labels[1:]]),
        answers._replace(ids=["new", *answers.ids[1:]]),
    ):
        found[place] = found[place]._replace(answers=changed)
        with pytest.raises(
            ValueError, match=r"'a' and 'b' were tested on different cases or labels in Thyroid"
        ):
            Results(found).difference("a", "b", "Thyroid")


def test_the_best_and_the_second_are_marked_in_every_format(tmp_path: Path) -> None:
    found = {**results(0.8), **results(0.9, row="b"), **results(0.7, row="c")}
    rows = {"a": ["A"], "b": ["B"], "c": ["C"]}
    table = score_table("Three", study(tmp_path), Results(found), ["Model"], rows)
    text, markdown = to_text(table), to_markdown(table)
    assert "90.0*" in text and "80.0+" in text and "70.0 " in text
    assert "**90.0**" in markdown and "<u>80.0</u>" in markdown and "| 70.0 |" in markdown
    found_lines = lines(to_csv(table))
    assert [line["Thyroid Acc (%), rank"] for line in found_lines[:3]] == ["2", "1", ""]
    assert float(found_lines[0]["Thyroid Acc (%), mean"]) == pytest.approx(0.8)
    assert found_lines[-1]["Model"].startswith("ideal: CEUS where") and text.count("ideal: ") == 4
    assert "0.968" in text and "not clinical evidence" in text and "(n - 1)" in text
    assert "no reader of the same pixels does better" in text


def test_table_5_counts_the_pairs_of_the_paper(tmp_path: Path) -> None:
    found = {place: one for row in strategies.ROWS for place, one in results(0.8, row=row).items()}
    strategies.report(study(tmp_path), Results(found), tmp_path)
    found_lines = lines((tmp_path / "table-5.csv").read_text())
    pairs = {line["Strategy"]: line["T = 16, N = 49"] for line in found_lines[:6]}
    assert pairs == {
        "None": "-",
        "Global": "1,229,312",
        "Symmetric": "100,352",
        "Asymmetric": "50,960",
        "Spatial": "76,832",
        "Temporal": "25,088",
    }
    assert found_lines[5]["T = 16, N = 49, rank"] == "1"
    assert found_lines[3]["T = 16, N = 49, rank"] == "2"


def test_the_command_knows_every_experiment() -> None:
    assert set(STUDIES) == set(EXPERIMENTS)
