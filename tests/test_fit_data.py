"""Where a run's samples come from, with stand-ins for what caches and folds hold."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from asycmst.config import AsyCMSTConfig
from asycmst.data.contour_noise import PerturbedContours
from asycmst.data.phantom import make_phantom
from asycmst.data.splits import Split
from asycmst.training.data import open_data
from asycmst.training.settings import DataSettings, PhantomSplits

MODEL = replace(AsyCMSTConfig.demo(), frames=4, image_size=32)


class Case(NamedTuple):
    id: str
    split: str | None = None
    patient: str | None = None
    label: int = 0


class Cache(NamedTuple):
    cases: tuple[Case, ...]
    frames: int = 4
    frame_size: tuple[int, int] = (32, 32)


class Samples(list[str]):
    def __init__(self, folder: Path, ids: Sequence[str]) -> None:
        super().__init__(f"{folder}/{name}" for name in ids)

    def nodule_share(self) -> float:
        return 0.25 if "c/a" in self else math.nan


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache "c" has the cases a, b and d; its column puts b aside. Fold 2 puts a aside."""
    caches = {
        "c": Cache((Case("a", "train"), Case("b", "valid"), Case("d", "train"))),
        "twice": Cache((Case("a", patient="p"), Case("b", patient="q"), Case("d", patient="p"))),
        "long": Cache((Case("a"),), frames=9),
        "wide": Cache((Case("a"),), frame_size=(32, 48)),
    }
    folds = {
        1: Split(("a",), (), ()),
        2: Split(("b", "d"), ("a",), ()),
        3: Split(("a", "x"), ("b",), ()),
    }
    # First: this imports the room, which then must not take up the stand-in of the cache.
    monkeypatch.setattr("asycmst.data.cached.CachedDataset", Samples)
    monkeypatch.setattr("asycmst.data.cache.read_cache", lambda folder: caches[str(folder)])
    monkeypatch.setattr("asycmst.data.splits.read_split", lambda folder, fold: folds[fold])


def test_a_cache_by_its_column(prepared: None) -> None:
    data = open_data(DataSettings(cache=Path("c")), MODEL)
    assert list(data.train) == ["c/a", "c/d"] and list(data.validation) == ["c/b"]
    assert (data.train_ids, data.validation_ids) == (["a", "d"], ["b"])
    assert data.facts()["trained_on"] == "c, its split column"
    assert data.facts()["has_masks"] is True


def test_a_cache_by_a_fold(prepared: None) -> None:
    data = open_data(DataSettings(cache=Path("c"), splits=Path("s"), fold=2), MODEL)
    assert list(data.train) == ["c/b", "c/d"] and list(data.validation) == ["c/a"]
    assert data.facts()["trained_on"] == "c, fold 2 of s"
    assert data.facts()["has_masks"] is False
    again = open_data(DataSettings(cache=Path("c"), splits=Path("s"), fold=2), MODEL)
    assert again.facts() == data.facts()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (DataSettings(), r"no data; give data.cache=FOLDER of `asycmst prepare`, or data.phantom"),
        (DataSettings(cache=Path("long")), r"9 frames .* model takes 4 .* set model.frames=9"),
        (DataSettings(cache=Path("wide")), r"model.image_size=\[32, 48\]"),
        (DataSettings(cache=Path("c"), splits=Path("s"), fold=1), "has no validation cases"),
        (
            DataSettings(cache=Path("c"), splits=Path("s"), fold=3),
            "fold 3 of s names 1 cases that the data set lacks, such as x",
        ),
        (
            DataSettings(cache=Path("twice"), splits=Path("s"), fold=2),
            "fold 2 of s.*patient",
        ),
        (DataSettings(phantom=PhantomSplits()), r"phantom has 8 frames of 64 x 64, the model"),
    ],
    ids=lambda value: "" if isinstance(value, str) else repr(value)[:60],
)
def test_what_does_not_fit_is_named(prepared: None, settings: DataSettings, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        open_data(settings, MODEL)


def test_the_phantom_keeps_training_and_validation_apart() -> None:
    phantom = PhantomSplits(frames=4, size=32, train=5, validation=3, seed=2)
    data = open_data(DataSettings(phantom=phantom), MODEL)
    assert (len(data.train), len(data.validation)) == (5, 3)
    assert [data.train[i]["id"] for i in range(5)] == data.train_ids
    assert not set(data.train_ids) & set(data.validation_ids)
    other = open_data(DataSettings(phantom=replace(phantom, seed=3)), MODEL)
    assert not set(data.train_ids) & set(other.train_ids + other.validation_ids)


NOISY = DataSettings(
    phantom=PhantomSplits(frames=4, size=32, train=20, validation=6),
    label_noise=0.2,
    contour_noise="shrink",
    noise_seed=7,
)


def test_noise_is_in_the_training_part_alone_and_on_record() -> None:
    """Section 4.7: validation keeps the labels and contours that it has."""
    clean = open_data(replace(NOISY, label_noise=0.0, contour_noise=None), MODEL)
    noisy = open_data(NOISY, MODEL)
    assert (noisy.train_ids, noisy.validation_ids) == (clean.train_ids, clean.validation_ids)
    wrong = np.flatnonzero(noisy.train.labels() != clean.train.labels())
    facts = noisy.facts()["label_noise"]
    assert facts["inverted_ids"] == [clean.train_ids[index] for index in wrong]
    malignant = int(clean.train.labels().sum())
    assert facts["malignant_as_benign"] == round(0.2 * malignant) > 0
    assert facts["benign_as_malignant"] == round(0.2 * (20 - malignant)) > 0
    assert noisy.facts()["contour_noise"] == {"kind": "shrink", "seed": 7}
    assert 0.6 < noisy.train.nodule_share() / clean.train.nodule_share() < 0.85
    for index in range(20):
        one, was = noisy.train[index], clean.train[index]
        assert (one["label"] != was["label"]) == (index in wrong)
        assert one["mask"].sum() < was["mask"].sum()
        assert torch.equal(one["ceus"], was["ceus"])
    for index in range(6):
        one, was = noisy.validation[index], clean.validation[index]
        assert one["label"] == was["label"] and torch.equal(one["mask"], was["mask"])


def test_no_noise_is_the_clean_run() -> None:
    clean = open_data(DataSettings(phantom=NOISY.phantom), MODEL)
    facts = clean.facts()
    assert not {"label_noise", "contour_noise"} & set(facts)
    only = open_data(replace(NOISY, contour_noise=None), MODEL)
    assert not isinstance(only.train, PerturbedContours)
    assert "contour_noise" not in only.facts()
    other = open_data(replace(NOISY, noise_seed=8), MODEL).facts()["label_noise"]
    assert other["inverted_ids"] != only.facts()["label_noise"]["inverted_ids"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"label_noise": 1.5}, r"data.label_noise=1.5 is not allowed; use \[0, 1\]"),
        ({"label_noise": float("nan")}, "data.label_noise=nan"),
        ({"noise_seed": -1}, "data.noise_seed=-1 is not allowed; use 0 or more"),
    ],
)
def test_noise_out_of_range(changes: dict[str, float], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        replace(NOISY, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "of"),
    [
        ({}, "bus"),
        ({"lower": "ceus", "upper": "bus"}, "ceus"),
        ({"lower": "ceus"}, "ceus"),
        ({"upper": "bus"}, "bus"),
        ({"lower": "ceus", "upper": "bus", "task_place": "modality"}, "bus"),
    ],
    ids=["CEUS over BUS", "BUS over CEUS", "CEUS twice", "BUS twice", "tasks follow"],
)
def test_masks_are_those_of_the_clip_that_is_segmented(changes: dict[str, Any], of: str) -> None:
    """Fig 9: segmentation stays in the lower branch, whatever that sees."""
    phantom = PhantomSplits(frames=4, size=32, train=2, validation=1, misregistration=4.0)
    data = open_data(DataSettings(phantom=phantom), replace(MODEL, **changes))
    for part, seed in ((data.train, 0), (data.validation, 1)):
        sample = make_phantom(phantom, seed, 0)
        expected = {"bus": sample.mask, "ceus": sample.ceus_mask}
        assert not np.array_equal(*expected.values())
        assert np.array_equal(part[0]["mask"].numpy(), expected[of])
        assert torch.equal(part.masks(0)[0], part[0]["mask"])
