"""Experiments on one's own data, and how a grid is shown."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from asycmst.data.cache import prepare, read_cache
from asycmst.data.manifest import read_manifest
from asycmst.data.phantom import PhantomConfig
from asycmst.data.phantom_files import write_phantom
from asycmst.data.protocol import make_splits
from asycmst.data.splits import read_split, write_splits
from asycmst.experiments import runner
from asycmst.experiments.catalogue import run_experiments
from asycmst.experiments.grid import Source, Task, run_name
from asycmst.experiments.grid_console import grid_display
from asycmst.experiments.runner import End, Step
from asycmst.experiments.sizes import CaseFolder, make_study
from asycmst.files import write_text
from asycmst.training.module import Progress
from asycmst.training.settings import FitSettings


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> CaseFolder:
    """A cache of 20 small cases and two splits of it."""
    folder = tmp_path_factory.mktemp("own")
    write_phantom(
        folder / "clips",
        20,
        "frames",
        PhantomConfig(frames=4, size=32),
        seed=0,
        masks=True,
        demographics=True,
    )
    cases = read_manifest(folder / "clips" / "manifest.csv")
    prepare(cases, folder / "clinic", frames=4, size=(32, 32))
    splits = make_splits(cases, seed=0, cover="disjoint", stratified=True, folds=2)
    write_splits(folder / "splits", splits, cases, {"seed": 0})
    return CaseFolder(folder / "clinic", folder / "splits")


def lines(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def test_own_data_are_trained_and_tested_by_their_splits(own: CaseFolder, tmp_path: Path) -> None:
    study = make_study("smoke", tmp_path, folders=[own])
    assert study.repeats == 2 and study.base.model.frame_size == (32, 32)
    study = replace(
        study, base=replace(study.base, recipe=replace(study.base.recipe, batch_size=4))
    )
    run_experiments(["gradcam", "dataset"], study, console=Console(file=io.StringIO()))
    tests = sorted((tmp_path / "runs").glob("clinic-asymmetric-fss-ns-*/test-clinic-*.csv"))
    assert len(tests) == 2
    tested = [{row["id"] for row in lines(file)} for file in tests]
    assert all(6 <= len(ids) <= 7 for ids in tested) and not tested[0] & tested[1]
    assert {row["patient"] for row in lines(tests[0])} <= {
        case.patient for case in read_cache(own.cache).cases
    }
    (row,) = lines(tmp_path / "dataset" / "table-1.csv")
    assert (row["Dataset"], row["Overall"]) == ("clinic", "20")


def copied(data: CaseFolder, folder: Path) -> CaseFolder:
    """The same data at another place."""
    return CaseFolder(
        shutil.copytree(data.cache, folder / "clinic"),
        shutil.copytree(data.splits, folder / "splits"),
    )


def relabel(data: CaseFolder, id_: str) -> None:
    index = data.cache / "index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    (case,) = (case for case in content["cases"] if case["id"] == id_)
    case["label"] = 1 - case["label"]
    write_text(index, json.dumps(content))


def names(data: CaseFolder) -> tuple[str, str]:
    """Of the first repeat's run and of its test."""
    (source,) = make_study("smoke", Path("out"), folders=[data]).sources
    settings = replace(FitSettings.demo(), data=source.training(0))
    return run_name(settings), source.test(0).key


def test_a_run_and_a_test_are_known_by_their_cases_and_labels(
    own: CaseFolder, tmp_path: Path
) -> None:
    moved, split = copied(own, tmp_path), read_split(own.splits, 1)
    run, test = names(moved)
    assert (run, test) == names(own)
    relabel(moved, split.test[0])
    after_test = names(moved)
    assert after_test[0] == run and after_test[1] != test
    relabel(moved, split.validation[0])
    assert names(moved)[0] != run and names(moved)[1] == after_test[1]


def test_an_interrupted_run_goes_on_where_its_data_lie_now(
    own: CaseFolder, tmp_path: Path
) -> None:
    study = make_study("smoke", tmp_path, folders=[own])
    settings = replace(study.base, recipe=replace(study.base.recipe, batch_size=4))
    (moved,) = make_study("smoke", tmp_path, folders=[copied(own, tmp_path / "mnt")]).sources
    weights = []
    for source in (study.sources[0], moved):
        task = Task(replace(settings, data=source.training(0)).in_folder(tmp_path / "run"))
        assert runner._train(task, lambda what: None) is None
        weights.append((tmp_path / "run" / "best.ckpt").stat().st_mtime_ns)
        (tmp_path / "run" / "trained.json").unlink()
    assert weights[0] == weights[1]


def test_data_sets_in_folders_of_one_name_are_told_apart(own: CaseFolder, tmp_path: Path) -> None:
    other = copied(own, tmp_path / "second")
    study = make_study("smoke", tmp_path, folders=[own, other])
    found = [source.name for source in study.sources]
    assert found == [f"{own.cache.parent.name}/clinic", "second/clinic"]
    with pytest.raises(ValueError, match=r"are two data sets of one name, .*/clinic; give two"):
        make_study("smoke", tmp_path, folders=[own, own])


def test_masks_are_looked_for_in_the_cache(own: CaseFolder, tmp_path: Path) -> None:
    assert Source("own", cache=own.cache).has_masks()
    cases = read_manifest(own.cache.parent / "clips" / "manifest.csv")
    bare = [replace(case, mask=None) for case in cases[:2]]
    prepare(bare, tmp_path / "bare", frames=4, size=(32, 32))
    assert not Source("bare", cache=tmp_path / "bare").has_masks()


def test_more_repeats_than_splits_are_refused(own: CaseFolder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--seeds 3: the splits have 2 folds; give no more"):
        make_study("smoke", tmp_path, repeats=3, folders=[own])


def test_two_data_sets_must_be_prepared_alike(own: CaseFolder, tmp_path: Path) -> None:
    cases = read_manifest(own.cache.parent / "clips" / "manifest.csv")
    prepare(cases, tmp_path / "longer", frames=3, size=(32, 32))
    with pytest.raises(
        ValueError, match=r"has 4 frames of 32 x 32, .*longer 3 frames of 32 x 32;"
    ):
        make_study("smoke", tmp_path, folders=[own, CaseFolder(tmp_path / "longer", own.splits)])


def shown(terminal: bool) -> str:
    text = io.StringIO()
    console = Console(file=text, width=200, force_terminal=terminal, color_system=None)
    with grid_display(console, ["one", "two", "three"]) as tell:
        tell(Step(0, "drawing phantoms"))
        tell(Step(0, Progress(1, 2, 3, 8, 0.5, 0.4, 0.1, 0.2, 0.6, 0.7, True)))
        tell(End(0, 2.0))
        tell(End(1, None))
        tell(End(2, 1.0, "the training loss is nan"))
    return text.getvalue()


def test_lines_name_what_ended_here_and_what_is_left() -> None:
    first, last = shown(terminal=False).splitlines()
    assert first.startswith("1/3  one  2.0 s, left 0:00:0")
    assert last == "3/3  three  failed: the training loss is nan, none left"


def test_a_terminal_shows_the_grid_and_each_run_under_way() -> None:
    text = shown(terminal=True)
    assert "all runs" in text and "3/3" in text and "none left" in text
    assert "three  failed: the training loss is nan" in text
