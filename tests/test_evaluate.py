"""Checkpoints over splits: what is scored, what is refused, and the command from end to end."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from asycmst import cli
from asycmst.analysis.evaluate import Study, evaluate
from asycmst.analysis.predict_dataset import predict_dataset
from asycmst.analysis.thresholds import choose_threshold
from asycmst.baselines.early_fusion import EarlyFusion, EarlyFusionConfig
from asycmst.commands import study_data
from asycmst.config import AsyCMSTConfig
from asycmst.data.phantom import PhantomConfig
from asycmst.data.protocol import make_splits
from asycmst.data.samples import Item, PhantomDataset
from asycmst.data.splits import Split, write_splits
from asycmst.model import AsyCMST
from asycmst.training.checkpoint import save_checkpoint
from asycmst.training.networks import network_named

CONFIG = replace(
    AsyCMSTConfig.demo(),
    frames=2,
    image_size=32,
    dim=8,
    layers=1,
    heads=1,
    ffn_dim=8,
    decoder_channels=(4, 4),
)
PHANTOMS = PhantomDataset(PhantomConfig(frames=2, size=32), 0, 48)


class Case:
    """Two clips of each patient, of one class."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = f"n{index}"
        self.patient = f"MRN-{index // 2}"
        self.label = index // 2 % 2
        self.split = ("train", "validation", "test")[index // 2 // 8]


CASES = [Case(index) for index in range(48)]


class Clips(Dataset[Item]):
    """Phantoms under the names and labels of cases, as a cache has them."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.cases = [CASES[int(id_[1:])] for id_ in ids]

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, place: int) -> Item:
        if place >= len(self):
            raise IndexError(place)
        case = self.cases[place]
        item = PHANTOMS[case.index]
        item["id"], item["label"] = case.id, torch.tensor(case.label)
        return item


def checkpoint(folder: Path, seed: int = 0, **meta: Any) -> Path:
    torch.manual_seed(seed)
    folder.mkdir(exist_ok=True)
    save_checkpoint(folder / "best.ckpt", AsyCMST(CONFIG), {"trained_on": "mine", **meta})
    return folder / "best.ckpt"


def part(first: int, last: int) -> tuple[str, ...]:
    return tuple(case.id for case in CASES[first:last])


SPLIT = Split(part(0, 16), part(16, 32), part(32, 48))


def test_every_part_is_answered_by_its_own_model(tmp_path: Path) -> None:
    other = Split(part(32, 48), part(0, 16), part(16, 32))
    study = Study("mine", (checkpoint(tmp_path / "1", 1), checkpoint(tmp_path / "2", 2)))
    heard: list[tuple[str, int, int]] = []
    found = evaluate(
        [study], [SPLIT, other], CASES, Clips, report=lambda *step: heard.append(step)
    )
    assert heard[0] == ("mine, split 1, validation", 16, 16) and len(heard) == 4
    assert found.counts[0]["test"] == {
        "cases": 16,
        "patients": 8,
        "benign": 8,
        "malignant": 8,
    }
    for fold, split, seed in zip(found.folds["mine"], (SPLIT, other), (1, 2), strict=True):
        torch.manual_seed(seed)
        expected = predict_dataset(AsyCMST(CONFIG), Clips(split.test))
        assert fold.test.ids == list(split.test)
        assert fold.test.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
        assert fold.scored.probabilities.tolist() == fold.test.probabilities
        pairs = fold.scored.patients.reshape(8, 2)
        assert (pairs[:, 0] == pairs[:, 1]).all() and len(np.unique(pairs)) == 8
        assert fold.validation.ids == list(split.validation)
        assert set(fold.thresholds) == {"youden", "f1", "sensitivity"}
        assert fold.thresholds["youden"] == choose_threshold(
            fold.validation.labels, fold.validation.probabilities, "youden"
        )


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"train_ids": ["n33"]}, "trained on 1 of the 8 patients of this test part"),
        ({"validation_ids": list(part(30, 36))}, "chosen by 2 of the 8 patients"),
    ],
    ids=["training", "validation"],
)
def test_nobody_is_scored_on_what_it_learnt(
    tmp_path: Path, meta: dict[str, list[str]], words: str
) -> None:
    """n33 is another clip of a patient whose n32 is tested, where only n32 is in the test part."""
    clips_apart = SPLIT._replace(train=(), validation=(), test=part(32, 48)[::2])
    seen = Study("m", (checkpoint(tmp_path / "m", **meta),))

    def untouched(ids: Sequence[str]) -> Dataset[Item]:
        pytest.fail("the refusal comes before any prediction")

    with pytest.raises(ValueError, match=words) as raised:
        evaluate([seen], [clips_apart], CASES, untouched)
    assert "MRN" not in str(raised.value)
    fine = Study("m", (checkpoint(tmp_path / "m", train_ids=list(SPLIT.train)),))
    assert evaluate([fine], [clips_apart], CASES, Clips)


def test_on_another_data_set_equal_ids_are_other_cases(tmp_path: Path) -> None:
    seen = Study("m", (checkpoint(tmp_path / "m", train_ids=["n33"]),))
    assert evaluate([seen], [SPLIT], CASES, Clips, transfer=True).folds["m"]


def test_bad_requests_are_one_line(tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "m")
    one = Study("m", (file,))
    for studies, splits, words in (
        ([], [], "models none: give at least one"),
        ([one, one], [SPLIT], "models m, m: give at least one, each with a name of its own"),
        ([one], [SPLIT, SPLIT], r"m has 1 checkpoint\(s\) for 2 split\(s\)"),
        ([one], [SPLIT._replace(test=())], "split 1: no benign case among the 0"),
        ([one], [SPLIT._replace(test=part(34, 36))], "split 1: no benign case among the 2"),
        ([one], [SPLIT._replace(test=("z",))], "names 1 cases that the data set lacks"),
        ([one], [SPLIT._replace(train=part(0, 34))], r"split 1 leaks|n16 occurs twice"),
    ):
        with pytest.raises(ValueError, match=words):
            evaluate(studies, splits, CASES, Clips)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        evaluate([Study("m", (tmp_path / "none",))], [SPLIT], CASES, Clips)


def test_a_diverged_model_is_named(tmp_path: Path) -> None:
    model = AsyCMST(CONFIG)
    torch.nn.init.constant_(model.classifier.fc.bias, float("nan"))
    save_checkpoint(tmp_path / "nan.ckpt", model, {})
    with pytest.raises(ValueError, match=r"nan.ckpt answers NaN: its training diverged"):
        evaluate([Study("m", (tmp_path / "nan.ckpt",))], [SPLIT], CASES, Clips)


def test_networks_of_different_kinds_are_scored_side_by_side(
    cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "examples"))
    early = EarlyFusion(EarlyFusionConfig.from_dict(CONFIG.to_dict()))
    plug_in = network_named("plug_in:network")
    mine = plug_in.build(plug_in.config(frames=2, image_size=32))
    files = [tmp_path / name for name in ("early.ckpt", "mine.ckpt")]
    for file, model in zip(files, (early, mine), strict=True):
        save_checkpoint(file, model, {"train_ids": list(SPLIT.train)})
    words = ["evaluate", "--checkpoint", str(checkpoint(tmp_path / "full")), "--data", "c"]
    for file in files:
        words += ["--compare", f"{file.stem}={file}"]
    words += ["--out", str(tmp_path / "out")]
    assert cli.main(words) == 2
    assert "name it yourself: --model plug_in:network" in capsys.readouterr().err
    assert cli.main([*words, "--model", "plug_in:network"]) == 0
    models = json.loads((tmp_path / "out" / "metrics.json").read_text())["models"]
    assert {name: model["network"] for name, model in models.items()} == {
        "full": "asycmst",
        "early": "early-fusion",
        "mine": "plug_in:network",
    }
    assert "plug_in:network" in (tmp_path / "out" / "report.html").read_text()


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_data, "open_cache", lambda folder: (CASES, Clips))
    monkeypatch.setattr(study_data, "read_cases", lambda folder: CASES)


@pytest.mark.usefixtures("cache")
def test_from_split_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = tmp_path / "splits"
    assert cli.main(["split", "cache", "--out", str(splits), "--seed", "3", "--stratified"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[0].startswith("split 1: train ")
    assert json.loads((splits / "splits.json").read_text())["seed"] == 3

    files = [str(checkpoint(tmp_path / f"run{k}", k)) for k in range(6)]
    out = tmp_path / "report"
    call = ["evaluate", "--checkpoint", *files[:3], "--name", "ours", "--data", "cache"]
    call += ["--splits", str(splits), "--out", str(out), "--threshold", "sensitivity"]
    assert cli.main([*call, "--compare", f"theirs={','.join(files[3:])}"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == str(out / "report.html") and not printed.err
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["models"]) == ["ours", "theirs"]
    assert metrics["chosen_point"] == "sensitivity" and metrics["tests_disjoint"]
    index = json.loads((splits / "splits.json").read_text())
    assert [s["sha256"] for s in metrics["splits"]] == [s["sha256"] for s in index["splits"]]
    assert "MRN" not in "".join(file.read_text() for file in out.iterdir())


@pytest.mark.usefixtures("cache")
def test_the_split_column_serves_without_splits(tmp_path: Path) -> None:
    file, out = checkpoint(tmp_path / "run"), tmp_path / "report"
    assert cli.main(["evaluate", "--checkpoint", str(file), "--data", "c", "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["models"]) == ["run"] and metrics["splits"][0]["sha256"] == SPLIT.sha256


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--fold", "1"), "--fold is a split of a folder: give --splits as well"),
        (("--splits", "{f}/s", "--fold", "1", "2"), "1 checkpoint(s) and 2 fold(s)"),
        (("--splits", "{f}/s", "--fold", "9"), "fold 9: "),
        (("--splits", "{f}/none"), "no splits.json in"),
        (("--compare", "x"), "--compare x: give NAME=CHECKPOINT"),
        (("--compare", "x={f}/none"), "no checkpoint at"),
        (("--sensitivity", "2"), "sensitivity=2.0: allowed is more than 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_call_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], words: str
) -> None:
    file = checkpoint(tmp_path / "run")
    write_splits(tmp_path / "s", make_splits(CASES, seed=0), CASES, {})
    call = ["evaluate", "--checkpoint", str(file), "--data", "c", "--out", str(tmp_path / "o")]
    assert cli.main([*call, *(text.format(f=tmp_path) for text in more)]) == 2
    printed = capsys.readouterr()
    assert words in printed.err and printed.err.count("\n") == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run", "s"]
