"""Experiments as data: what a run is called, and which runs experiments have in common."""

from dataclasses import replace
from pathlib import Path

import pytest

from asycmst.experiments import ablation, strategies
from asycmst.experiments.grid import Place, grid_of, run_name, tasks_of
from asycmst.experiments.sizes import make_study
from asycmst.training.settings import FitSettings

STUDY = make_study("smoke", Path("out"), repeats=2)


def test_tables_4_and_5_share_the_runs_that_are_the_same() -> None:
    four, five = ablation.grid(STUDY), strategies.grid(STUDY)
    for column in ("Thyroid", "Breast"):
        for one, other in (("FSS+NS", "None"), ("ACMST+FSS+NS", "Asymmetric")):
            first, second = four[Place(one, column, 1)], five[Place(other, column, 1)]
            assert run_name(first.settings) == run_name(second.settings)
            assert first.test.key == second.test.key
    # 8 and 6 rows, 2 in common; two data sets, two seeds.
    assert len(tasks_of([four, five], Path("out"))) == (8 + 6 - 2) * 2 * 2


def test_the_eight_rows_of_table_4_switch_their_modules() -> None:
    grid = ablation.grid(STUDY)
    found = {
        (m.cross_attention is not None, m.sorts_frames, m.segments_nodule)
        for place, trial in grid.items()
        if place[1:] == ("Thyroid", 0)
        for m in [trial.settings.model]
    }
    assert len(found) == len(ablation.ROWS) == 8
    assert next(iter(ablation.ROWS)) == "none" and list(ablation.ROWS)[-1] == "ACMST+FSS+NS"


def test_a_repeat_has_its_own_data_weights_and_test() -> None:
    grid = strategies.grid(STUDY)
    first, second = (grid[Place("Global", "Breast", repeat)] for repeat in (0, 1))
    assert first.settings.run.seed == 0 and second.settings.run.seed == 1
    assert first.settings.data.phantom is not None and second.settings.data.phantom is not None
    assert (first.settings.data.phantom.seed, second.settings.data.phantom.seed) == (0, 1)
    assert first.test.key != second.test.key


def test_the_name_of_a_run_hangs_on_what_decides_its_outcome_alone() -> None:
    settings = FitSettings.demo()
    name = run_name(settings)
    moved = settings.in_folder(Path("elsewhere"))
    moved = replace(moved, run=replace(moved.run, threads=7, save_minutes=1.0))
    moved = replace(moved, data=replace(moved.data, workers=3))
    assert run_name(moved) == name
    for other in (
        replace(settings, run=replace(settings.run, seed=1)),
        replace(settings, recipe=replace(settings.recipe, learning_rate=2e-3)),
        replace(settings, model=replace(settings.model, fss_clamp=0.8)),
        replace(
            settings,
            data=replace(
                settings.data, phantom=replace(settings.data.phantom or pytest.fail(), train=1599)
            ),
        ),
    ):
        assert run_name(other) != name


def test_the_name_of_a_run_stays_what_it_was() -> None:
    """Folders of earlier versions are found again; a change here orphans people's runs."""
    assert run_name(FitSettings.demo()) == "breast-asymmetric-fss-ns-s0-70ae589b"


def test_an_override_that_is_no_setting_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no setting model\.cross_atention"):
        grid_of(STUDY, {"row": {"model": {"cross_atention": None}}})
