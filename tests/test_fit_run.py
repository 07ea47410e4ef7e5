"""Training into a folder: what it leaves, how it ends, and that it goes on bit for bit."""

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from asycmst.config import AsyCMSTConfig
from asycmst.experiments.training import train_in_sight
from asycmst.jobs import JobError
from asycmst.training.checkpoint import load_checkpoint
from asycmst.training.module import Progress
from asycmst.training.recipe import Recipe
from asycmst.training.run import Ended, fit_run
from asycmst.training.run_folder import git_revision, stored_settings
from asycmst.training.settings import DataSettings, FitSettings, PhantomSplits, RunSettings
from asycmst.training.settings_file import to_yaml
from asycmst.training.state import load_state

MODEL = replace(
    AsyCMSTConfig.demo(),
    frames=2,
    image_size=32,
    dim=16,
    ffn_dim=16,
    decoder_channels=(8, 8),
    dropout=0.2,
)
RECIPE = Recipe(epochs=3, batch_size=4, accumulate=2, gradient_clip=1.0)


def settings(
    out: Path, *, recipe: Recipe = RECIPE, train: int = 18, workers: int = 0, **run: Any
) -> FitSettings:
    """Two samples are left over by each epoch of four steps."""
    phantom = PhantomSplits(frames=2, size=32, train=train, validation=6)
    data = DataSettings(phantom=phantom, workers=workers)
    chosen = RunSettings(out=out, accelerator="cpu", threads=1, **run)
    return FitSettings(MODEL, recipe, data, chosen)


def fit(chosen: FitSettings, report: Any = lambda progress: None) -> Ended:
    return fit_run(chosen, report=report)


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimiser, counters and log, bit for bit."""
    states = [load_state(folder / "last.ckpt") for folder in (one, other)]
    assert states[0].counters == states[1].counters
    for name in ("model", "optimizer", "scheduler"):
        first, second = (getattr(state, name) for state in states)
        assert_same(first, second, name)
    assert (one / "log.csv").read_text() == (other / "log.csv").read_text()
    models = [load_checkpoint(folder / "best.ckpt")[0].state_dict() for folder in (one, other)]
    assert_same(models[0], models[1], "best")


def assert_same(one: Any, other: Any, where: str) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            assert_same(value, other[key], f"{where}.{key}")
    else:
        assert one == other, where


def log_of(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's log."""
    return list(csv.DictReader((folder / "log.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    ended = fit(settings(out))
    assert ended.signal is None and ended.best is not None
    return out


def test_a_run_leaves_its_record(whole: Path) -> None:
    names = {"config.yaml", "run.json", "log.csv", "tensorboard", "last.ckpt", "best.ckpt"}
    assert {entry.name for entry in whole.iterdir()} == names
    assert stored_settings(whole) == settings(whole)
    rows = log_of(whole)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["step"] for row in rows] == ["4", "8", "12"]
    record = json.loads((whole / "run.json").read_text())
    assert record["seed"] == 0 and len(record["data"]["train_ids"]) == 18
    assert record["starts"][0]["versions"]["torch"] == torch.__version__
    model, meta = load_checkpoint(whole / "best.ckpt")
    assert model.config == MODEL
    losses = [float(row["validation_loss"]) for row in rows]
    assert meta["best_epoch"] == 1 + losses.index(min(losses))
    assert meta["validation_loss"] == pytest.approx(min(losses))
    assert meta["trained_on"] == "synthetic breast phantom"
    assert not set(meta["train_ids"]) & set(meta["validation_ids"])
    assert list((whole / "tensorboard").iterdir())


def test_a_run_repeats_itself_with_workers_that_load(whole: Path, tmp_path: Path) -> None:
    fit(settings(tmp_path / "again", workers=2))
    assert_same_run(whole, tmp_path / "again")


def test_one_of_several_jobs_loads_its_batches_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many cores there are: a daemonic process may start no others."""
    monkeypatch.setattr("asycmst.info.usable_cores", lambda: 16)
    monkeypatch.setattr(multiprocessing.current_process(), "daemon", True)
    chosen = settings(tmp_path / "run", recipe=replace(RECIPE, epochs=1))
    ended = fit(replace(chosen, data=replace(chosen.data, workers=None)))
    assert ended.best is not None


def test_another_seed_is_another_run(whole: Path, tmp_path: Path) -> None:
    fit(settings(tmp_path / "other", seed=1))
    first, second = (load_state(x / "last.ckpt").model for x in (whole, tmp_path / "other"))
    assert not torch.equal(first["classifier.fc.weight"], second["classifier.fc.weight"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 4, 6, 10])
def test_a_stopped_run_goes_on_bit_for_bit(
    whole: Path, tmp_path: Path, number: signal.Signals, step: int
) -> None:
    """In the first, last and middle step of an epoch, with dropout and augmentation."""

    def stop(progress: Progress) -> None:
        if progress.step == step and not progress.epoch_done:
            os.kill(os.getpid(), number)

    out, handlers = tmp_path / "run", [signal.getsignal(x) for x in (signal.SIGINT, number)]
    ended = fit(settings(out), stop)
    assert ended.signal == number
    assert [signal.getsignal(x) for x in (signal.SIGINT, number)] == handlers
    assert step <= load_state(out / "last.ckpt").counters["step"] <= step + 1
    assert fit(settings(out, save_steps=2)).signal is None  # how often it saves may change
    assert_same_run(whole, out)
    assert len(json.loads((out / "run.json").read_text())["starts"]) == 2


def test_a_killed_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """SIGKILL in the middle of an epoch, by the command line; SIGTERM saves and says so."""
    recipe = replace(RECIPE, epochs=2, accumulate=1)
    chosen = settings(tmp_path / "killed", recipe=recipe, train=120, save_steps=5)
    (tmp_path / "mine.yaml").write_text(to_yaml(chosen))
    status, steps, _ = start_and_signal(tmp_path, "killed", signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert 5 <= steps < 30
    status, steps, said = start_and_signal(tmp_path, "ended", signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert 5 <= steps < 30
    assert f"asycmst fit --resume {tmp_path / 'ended'}" in said
    # One more process does the rest: another one's arithmetic may be set up differently.
    script = (
        "import sys; from asycmst.cli import main\n"
        f"for words in (['--config', 'mine.yaml', '--out', 'whole'], ['--resume', '{tmp_path}/"
        "killed'], ['--config', 'mine.yaml', '--out', 'ended']):\n"
        "    assert main(['fit', *words]) == 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert_same_run(tmp_path / "whole", tmp_path / "ended")


def start_and_signal(folder: Path, name: str, number: signal.Signals) -> tuple[int, int, str]:
    """Start the command, signal it once its first state is on disk.

    Returns:
        Its status, the steps saved in the end, and what it printed.
    """
    last = folder / name / "last.ckpt"
    code = "import sys; from asycmst.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["fit", "--config", "mine.yaml", "--out", str(folder / name)]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 200
    while not last.is_file() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    return process.returncode, load_state(last).counters["step"], said


def test_a_finished_run_stays_as_it_is(whole: Path) -> None:
    before = {entry.name: entry.stat().st_mtime_ns for entry in whole.iterdir()}
    ended = fit(settings(whole))
    assert ended.signal is None and ended.best is not None
    assert {entry.name: entry.stat().st_mtime_ns for entry in whole.iterdir()} == before


def test_other_settings_and_other_folders_are_refused(whole: Path, tmp_path: Path) -> None:
    other = replace(RECIPE, learning_rate=0.5)
    with pytest.raises(ValueError, match=r"a run with recipe.learning_rate=0.001, not 0.5; give"):
        fit(settings(whole, recipe=other))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files that are no run; give --out a new folder"):
        fit(settings(tmp_path))
    with pytest.raises(ValueError, match=r"mine.txt is a file; give --out a folder"):
        fit(settings(tmp_path / "mine.txt"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]
    out = tmp_path / "swapped"
    fit(settings(out, recipe=replace(other, epochs=1)))
    (out / "last.ckpt").write_bytes((whole / "last.ckpt").read_bytes())
    with pytest.raises(ValueError, match=r"last.ckpt is of a run with recipe.epochs=3, not 1"):
        fit(settings(out, recipe=replace(other, epochs=1)))
    (out / "last.ckpt").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"last.ckpt cannot be read as a training state; delete"):
        fit(settings(out, recipe=replace(other, epochs=1)))


def test_dice_over_a_batch_is_not_computed_in_parts(tmp_path: Path) -> None:
    chosen = settings(tmp_path / "run", train=4, recipe=replace(RECIPE, epochs=1))
    whole_batch = replace(MODEL, dice_scope="batch")
    with pytest.raises(ValueError, match=r"dice_scope=batch .* in 2 parts; use frame or sample"):
        fit(replace(chosen, model=whole_batch))
    assert not (tmp_path / "run").exists()
    fit(replace(chosen, model=replace(whole_batch, segmentation_weight=0.0)))


def test_the_revision_is_that_of_the_working_folder(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        author = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *author, *words], cwd=tmp_path, check=True)
    found = git_revision(tmp_path)
    assert found is not None and len(found["commit"]) == 40 and not found["changed"]
    (tmp_path / "new").touch()
    found = git_revision(tmp_path)
    assert found is not None and found["changed"]


@pytest.mark.parametrize(
    ("learning_rate", "words"),
    [(1e30, "the training loss is nan in epoch 1, step 2"), (3e38, "the size of a weight is nan")],
)
def test_a_diverging_run_keeps_its_last_good_state(
    tmp_path: Path, learning_rate: float, words: str
) -> None:
    """Weights may leave the floats while the loss of the step was still finite."""
    recipe = replace(RECIPE, epochs=2, learning_rate=learning_rate, gradient_clip=None)
    chosen = settings(tmp_path / "run", recipe=recipe, save_steps=1)
    with pytest.raises(JobError, match=rf"{words} .*; last.ckpt is the state before"):
        train_in_sight(chosen, Console(quiet=True))
    last = tmp_path / "run" / "last.ckpt"
    assert not last.is_file() or load_state(last).is_finite()


def test_patience_ends_a_run_early(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=30, patience=2, learning_rate=0.05, monitor="accuracy")
    out = tmp_path / "run"
    ended = fit(settings(out, recipe=recipe, train=4))
    rows = log_of(out)
    assert ended.best is not None and len(rows) == ended.best.epoch + 2 < 30
    accuracies = [float(row["validation_accuracy"]) for row in rows]
    assert ended.best.validation_accuracy == max(accuracies)
    assert ended.best.epoch == 1 + accuracies.index(max(accuracies))


def test_bfloat16_trains(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1)
    ended = fit(settings(tmp_path / "run", recipe=recipe, precision="bf16-mixed"))
    assert ended.best is not None
    weights = load_state(tmp_path / "run" / "last.ckpt").model.values()
    assert {x.dtype for x in weights if x.is_floating_point()} == {torch.float32}


def test_progress_is_shown_in_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_in_sight(settings(tmp_path / "run", recipe=replace(RECIPE, epochs=2)))
    printed = capsys.readouterr().out
    assert "run  epoch 2/2  loss " in printed
    assert " samples/s  " in printed and " GiB, left 0 s" in printed
    assert f"{tmp_path / 'run' / 'best.ckpt'}\n" in printed.replace("\n", "", 0)
