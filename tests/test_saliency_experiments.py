"""Centres of the phantom, and a segmentation task without masks, as experiments."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asycmst.config import AsyCMSTConfig
from asycmst.experiments import centres, without_masks
from asycmst.experiments.catalogue import run_experiments
from asycmst.experiments.grid import run_name
from asycmst.experiments.scores import Results
from asycmst.experiments.sizes import make_study
from asycmst.saliency.config import SaliencyConfig


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_every_centre_is_tested_by_every_training(tmp_path: Path) -> None:
    grid = centres.grid(make_study("demo", tmp_path, repeats=1))
    assert len(grid) == 2 * 3 * 3
    assert len({run_name(trial.settings) for trial in grid.values()}) == 2 * 3
    for place, trial in grid.items():
        trained, tested = place.column.split(" → ")
        data = trial.settings.data.phantom
        assert data is not None and data.scanner == centres._SCANNERS[trained]
        assert trial.test.phantom is not None
        assert trial.test.phantom.scanner == centres._SCANNERS[tested]
        assert isinstance(trial.settings.model, SaliencyConfig)


def test_the_table_says_what_was_trained_on(tmp_path: Path) -> None:
    study = make_study("demo", tmp_path, repeats=1)
    models = [trial.settings.model for trial in centres.grid(study).values()]
    assert all(isinstance(model, SaliencyConfig) and model.frames == 1 for model in models)
    centres.report(study, Results({}), tmp_path)
    text = (tmp_path / "centres.txt").read_text(encoding="utf-8")
    assert "test samples of 2 x 64 x 64" in text
    assert "Training sees the middle frame of each clip" in text


def test_frames_of_other_sizes_are_left_to_the_other_experiments(tmp_path: Path) -> None:
    study = make_study("demo", tmp_path)
    assert centres.fits(study)
    odd = replace(study, base=replace(study.base, model=AsyCMSTConfig(image_size=(64, 100))))
    assert not centres.fits(odd)


def test_the_released_losses_are_a_row_of_their_own(tmp_path: Path) -> None:
    grid = centres.grid(make_study("demo", tmp_path, repeats=1))
    ours, released = (
        next(t.settings.model for place, t in grid.items() if place.row == row)
        for row in (centres._OURS, centres._RELEASED)
    )
    assert isinstance(ours, SaliencyConfig) and isinstance(released, SaliencyConfig)
    assert (ours.lesion, ours.area_weight > 0) == ("dark", True)
    assert (released.lesion, released.area_weight, released.scope) == ("bright", 0, "both")


def test_tasks_with_and_without_masks_differ_in_nothing_else(tmp_path: Path) -> None:
    grid = without_masks.grid(make_study("demo", tmp_path, repeats=1))
    models: list[Any] = [
        trial.settings.model for place, trial in grid.items() if place.column == "Breast"
    ]
    assert [model.bus_task for model in models] == ["dice", "saliency", None]
    assert {replace(model, bus_task="dice") for model in models} == {AsyCMSTConfig.demo()}


@pytest.mark.parametrize(
    ("name", "file", "scores"),
    [
        ("centres", "centres.csv", ("dice", "pointing")),
        ("without-masks", "without-masks.csv", ("dice", "pointing")),
    ],
)
def test_small_ones_run_to_their_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str, scores: tuple[str, ...]
) -> None:
    monkeypatch.setattr(centres, "_SCANNERS", dict(list(centres._SCANNERS.items())[:1]))
    monkeypatch.setattr(
        centres, "_rows", lambda study, made=centres._rows: dict(list(made(study).items())[:1])
    )
    study = make_study("smoke", tmp_path, repeats=1)
    study = replace(study, sources=study.sources[:1])
    written = run_experiments([name], study)
    assert tmp_path / name / file in written
    records = [rows(file) for file in (tmp_path / "runs").glob("*/test-*.csv")]
    found = [[float(row[score]) for row in record for score in scores] for record in records]
    assert any(all(0 <= value <= 1 for value in values) for values in found)
    assert len(rows(tmp_path / name / file)) > 1
