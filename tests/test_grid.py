"""Experiments as data: what a run is called, and which runs experiments have in common."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from asycmst.analysis.predict_dataset import Predictions
from asycmst.config import AsyCMSTConfig, Modality
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import PhantomDataset
from asycmst.experiments import (
    ablation,
    comparison,
    features,
    noise,
    placement,
    registration,
    runner,
    strategies,
    swap,
    timing,
    transfer,
    weights,
)
from asycmst.experiments.grid import (
    HeldOut,
    Place,
    Source,
    Task,
    Trial,
    grid_of,
    run_name,
    tasks_of,
)
from asycmst.experiments.records import (
    Answered,
    Failed,
    outcome,
    record_failed,
    record_trained,
)
from asycmst.experiments.runner import End
from asycmst.experiments.sizes import Domain, make_study
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


def same(one: Trial, other: Trial) -> bool:
    """Whether two tables have a run in common."""
    first, second = run_name(one.settings), run_name(other.settings)
    return first == second and one.test.key == other.test.key


def test_figures_have_their_ends_and_middles_in_common_with_the_tables() -> None:
    full = ablation.grid(STUDY)[Place("ACMST+FSS+NS", "Thyroid", 0)]
    apart = ablation.grid(STUDY)[Place("FSS+NS", "Thyroid", 0)]
    for grid, row in (
        (comparison.grid(STUDY), "AsyCMST"),
        (swap.grid(STUDY), "AsyCMST, CEUS+BUS"),
        (placement.grid(STUDY), "L1-L2"),
        (weights.grid(STUDY), "0.4, 0.4"),
        (noise.grid(STUDY), "clean"),
        (features.grid(STUDY), "ACMST+FSS+NS"),
        (timing.grid(STUDY), "AsyCMST"),
    ):
        assert same(grid[Place(row, "Thyroid", 0)], full), row
    assert same(placement.grid(STUDY)[Place("none", "Thyroid", 0)], apart)
    late = comparison.grid(STUDY)[Place("ViViT", "Breast", 1)]
    assert same(swap.grid(STUDY)[Place("ViViT, CEUS+BUS", "Breast", 1)], late)


def test_a_transfer_is_another_test_of_the_same_training() -> None:
    """Table 3: trained on breast, tested on thyroid, and the other way round."""
    there, here = transfer.grid(STUDY), comparison.grid(STUDY)
    trial = there[Place("AsyCMST", "Breast → Thyroid", 1)]
    trained = here[Place("AsyCMST", "Breast", 1)]
    assert run_name(trial.settings) == run_name(trained.settings)
    assert trial.test.key == here[Place("AsyCMST", "Thyroid", 1)].test.key
    assert trial.test.phantom is not None and trial.test.phantom.domain == "thyroid"
    tasks = tasks_of([there, here], Path("out"))
    assert len(tasks) == len(here) and all(len(task.tests) == 2 for task in tasks.values())


def test_one_phantom_has_the_runs_that_it_has_beside_the_other() -> None:
    alone = ablation.grid(make_study("smoke", Path("out"), repeats=2, domains=("breast",)))
    both = ablation.grid(STUDY)
    assert {place.column for place in alone} == {"Breast"} and len(alone) == len(both) // 2
    assert set(tasks_of([alone], Path("out"))) < set(tasks_of([both], Path("out")))


def test_a_transfer_needs_two_data_sets() -> None:
    with pytest.raises(ValueError, match="a transfer needs two data sets: give --other-data"):
        transfer.grid(replace(STUDY, sources=(Source("own", cache=Path("own")),)))
    with pytest.raises(ValueError, match="a transfer needs two data sets: leave out --phantom"):
        transfer.grid(replace(STUDY, sources=STUDY.sources[:1]))


def test_fig_14_has_each_weight_with_each_on_the_first_data_set() -> None:
    grid = weights.grid(make_study("demo", Path("out"), repeats=1))
    assert len(grid) == 25 and {place.column for place in grid} == {"Thyroid"}
    model = grid[Place("0.1, 1.6", "Thyroid", 0)].settings.model
    assert isinstance(model, AsyCMSTConfig)
    assert (model.fss_weight, model.segmentation_weight) == (0.1, 1.6)


def test_fig_13_goes_from_no_layer_to_all_of_them() -> None:
    grid = placement.grid(make_study("paper", Path("out"), repeats=1))
    found = [
        trial.settings.model.cross_attention_layers
        for place, trial in grid.items()
        if place.column == "Breast" and isinstance(trial.settings.model, AsyCMSTConfig)
    ]
    assert found == [tuple(range(1, n + 1)) for n in range(7)]


def test_noise_is_in_the_training_data_alone() -> None:
    grid = noise.grid(STUDY)
    clean = grid[Place("clean", "Breast", 0)]
    flipped = grid[Place("20% of labels inverted", "Breast", 0)]
    shrunk = grid[Place("shrunk by 15%", "Breast", 0)]
    assert flipped.settings.data.label_noise == 0.2
    assert shrunk.settings.data.contour_noise == "shrink"
    assert flipped.test == shrunk.test == clean.test


def test_misregistration_is_of_training_and_test_and_of_phantoms_alone() -> None:
    grid = registration.grid(STUDY)
    for row in ("full", "no cross-attention", "early fusion"):
        trial = grid[Place(row, "Breast, offset sd 1 px", 1)]
        assert trial.settings.data.phantom is not None and trial.test.phantom is not None
        assert trial.settings.data.phantom.misregistration == 1.0
        assert trial.test.phantom.misregistration == 1.0
    registered = grid[Place("full", "Breast, registered", 1)]
    assert same(registered, strategies.grid(STUDY)[Place("Asymmetric", "Breast", 1)])
    own = replace(STUDY.sources[0], phantom=None, cache=Path("cache"))
    with pytest.raises(ValueError, match="phantoms only: leave out --data"):
        registration.grid(replace(STUDY, sources=(own,)))


def test_the_eight_rows_of_table_4_switch_their_modules() -> None:
    grid = ablation.grid(STUDY)
    found = {
        (m.cross_attention is not None, m.sorts_frames, m.segments_nodule)
        for place, trial in grid.items()
        if place[1:] == ("Thyroid", 0)
        for m in [trial.settings.model]
        if isinstance(m, AsyCMSTConfig)
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


@pytest.mark.parametrize(("lower", "upper"), [("bus", "ceus"), ("ceus", "bus"), ("ceus", "ceus")])
def test_a_test_has_the_masks_of_the_clip_that_is_segmented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lower: Modality, upper: Modality
) -> None:
    """Fig 9: of phantoms whose clips are displaced against each other."""
    tested: list[PhantomDataset] = []

    def answer(model: nn.Module, dataset: PhantomDataset, **_: object) -> Predictions:
        tested.append(dataset)
        return Predictions([], [], [], [], [])

    monkeypatch.setattr(runner, "load_checkpoint", lambda path: (nn.ReLU(), {"best_epoch": 1}))
    monkeypatch.setattr(runner, "predict_dataset", answer)
    monkeypatch.setattr(runner, "record_tested", lambda *_, **__: None)
    model = replace(AsyCMSTConfig.demo(), lower=lower, upper=upper)
    settings = replace(FitSettings.demo(), model=model).in_folder(tmp_path)
    test = HeldOut("Breast", 0, PhantomConfig(frames=2, size=32, misregistration=3.0), 1)
    assert runner._test(Task(settings, {test.key: test}), lambda text: None) is None
    sample = tested[0].sample(0)
    expected = sample.mask if lower == "bus" else sample.ceus_mask
    assert np.array_equal(tested[0][0]["mask"].numpy(), expected)
    assert not np.array_equal(sample.mask, sample.ceus_mask)


def held_out(domain: Domain) -> HeldOut:
    return HeldOut(domain, 0, PhantomConfig(frames=2, size=32, domain=domain), 1)


def test_a_test_without_answers_leaves_the_other_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transfer that comes to nothing does not hide the test on the model's own data."""

    def answer(model: nn.Module, dataset: PhantomDataset, **_: object) -> Predictions:
        chance = math.nan if dataset.config.domain == "breast" else 0.7
        return Predictions(["a"], [1], [chance], [math.nan], [math.nan], [[0.0]])

    monkeypatch.setattr(runner, "load_checkpoint", lambda path: (nn.ReLU(), {"best_epoch": 1}))
    monkeypatch.setattr(runner, "predict_dataset", answer)
    tests = {test.key: test for test in map(held_out, ("breast", "thyroid"))}
    ends: list[object] = []
    record_trained(tmp_path, 1.0)
    task = Task(FitSettings.demo().in_folder(tmp_path), tests)
    for _ in range(2):
        runner.work_through([task], ends.append)
        (end,) = (one for one in ends if isinstance(one, End))
        assert end.reason == "the best epoch answers NaN on breast" and not end.repairable
        lost, found = (outcome(tmp_path, key) for key in tests)
        assert lost == Failed("the best epoch answers NaN on breast")
        assert isinstance(found, Answered) and found.answers.probabilities == [0.7]
        ends.clear()
    record_failed(tmp_path, "as earlier versions wrote it")
    assert isinstance(outcome(tmp_path, list(tests)[1]), Answered)


def test_a_run_that_needs_too_much_memory_ends_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(settings: FitSettings, **_: object) -> None:
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB.")

    monkeypatch.setattr(runner, "fit_run", fit)
    test = held_out("breast")
    tasks = [Task(FitSettings.demo().in_folder(tmp_path / x), {test.key: test}) for x in "ab"]
    ends: list[object] = []
    runner.work_through(tasks, ends.append)
    found = [(x.run, x.reason, x.repairable) for x in ends if isinstance(x, End)]
    reason = "RuntimeError: CUDA out of memory."
    assert found == [(0, reason, True), (1, reason, True)]
    assert not list(tmp_path.rglob("failed*.json"))
