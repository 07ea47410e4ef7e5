"""Where a run's samples come from, with stand-ins for what caches and folds hold."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from asycmst.config import AsyCMSTConfig
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
    monkeypatch.setattr("asycmst.data.cache.read_cache", lambda folder: caches[str(folder)])
    monkeypatch.setattr("asycmst.data.cached.CachedDataset", Samples)
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
