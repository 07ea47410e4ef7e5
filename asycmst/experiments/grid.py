"""An experiment as data: trainings, where each is tested, and its place in a table.

A training is described by its settings alone. Two experiments whose settings agree in all that
decides the outcome have one training between them, in one folder.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from asycmst.config import AsyCMSTConfig, Modality
from asycmst.data.cache import read_cache
from asycmst.data.cached import CachedDataset
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import Item, PhantomDataset, split_seed
from asycmst.data.splits import check_split, number_of_splits, read_split
from asycmst.experiments.fingerprint import part_sha256
from asycmst.training.networks import name_of
from asycmst.training.run_folder import FREE
from asycmst.training.settings import DataSettings, FitSettings, PhantomSplits
from asycmst.training.settings_file import change

Overrides = Mapping[str, Mapping[str, Any]]
"""Sections of the settings with the values that differ, as in a YAML file of `asycmst fit`."""


@dataclass(frozen=True)
class HeldOut:
    """Samples that a trained model is asked about once.

    Attributes:
        name: of the data, in tables.
        repeat: which split, or seed of phantoms.
        phantom: whose patients; None for a cache.
        samples: number of phantoms.
        cache: folder of `asycmst prepare`.
        splits: folder of `asycmst split`.
    """

    name: str
    repeat: int
    phantom: PhantomConfig | None = None
    samples: int = 0
    cache: Path | None = None
    splits: Path | None = None

    @property
    def key(self) -> str:
        """Names the test in the folder of a run; equal for equal tests."""
        return f"{_source_word(self.phantom, self.cache)}-{self.repeat}-{_digest(self.facts())}"

    def facts(self) -> dict[str, Any]:
        """All that decides which samples these are, as plain types.

        Raises:
            OSError, ValueError: the cache or its splits are missing, damaged or do not fit.
        """
        if self.phantom is not None:
            return {
                "phantom": _changed(self.phantom),
                "samples": self.samples,
                "repeat": self.repeat,
            }
        assert self.cache is not None and self.splits is not None
        fold = self.repeat + 1
        return {"fold": fold, "test": part_sha256(self.cache, self.splits, fold, "test")}

    def open(self, masks_of: Modality = "bus") -> tuple[Dataset[Item], list[str]]:
        """The samples, and the patient of each; equal names are one patient.

        Args:
            masks_of: the clip of a phantom that masks belong to, the one that is segmented.

        Raises:
            OSError, ValueError: the cache or its splits are missing, damaged or do not fit.
        """
        if self.phantom is not None:
            drawn = PhantomDataset(
                self.phantom, split_seed(self.repeat, "test"), self.samples, masks_of
            )
            return drawn, drawn.ids()
        assert self.cache is not None and self.splits is not None
        cases = read_cache(self.cache).cases
        split = read_split(self.splits, self.repeat + 1)
        check_split(split, cases, f"fold {self.repeat + 1} of {self.splits}")
        owner = {case.id: case.patient for case in cases}
        return CachedDataset(self.cache, split.test), [owner[name] for name in split.test]


@dataclass(frozen=True)
class Source:
    """A data set of the study: what a repeat trains on and is tested on.

    Attributes:
        name: in tables, such as "Thyroid".
        phantom: synthetic patients, whose seed is the repeat; None for a cache.
        test_samples: number of phantoms in a test set.
        cache: folder of `asycmst prepare`.
        splits: folder of `asycmst split`; repeat k is its fold k + 1.
    """

    name: str
    phantom: PhantomSplits | None = None
    test_samples: int = 0
    cache: Path | None = None
    splits: Path | None = None

    def training(self, repeat: int) -> DataSettings:
        """What repeat `repeat` trains on."""
        if self.phantom is not None:
            return DataSettings(phantom=replace(self.phantom, seed=repeat))
        return DataSettings(cache=self.cache, splits=self.splits, fold=repeat + 1)

    def test(self, repeat: int) -> HeldOut:
        """What repeat `repeat` is tested on."""
        if self.phantom is None:
            return HeldOut(self.name, repeat, cache=self.cache, splits=self.splits)
        names = PhantomConfig.__dataclass_fields__
        physics = PhantomConfig(**{name: getattr(self.phantom, name) for name in names})
        return HeldOut(self.name, repeat, physics, self.test_samples)

    def has_masks(self) -> bool:
        """Whether a nodule is drawn in any frame."""
        if self.cache is None:
            return True
        return any(facts["annotated"] for facts in read_cache(self.cache).facts)

    def most_repeats(self) -> int | None:
        """How many repeats there can be; None for as many as one likes."""
        return None if self.splits is None else number_of_splits(self.splits)


@dataclass(frozen=True)
class Study:
    """What all experiments of one command share.

    Attributes:
        size: "smoke", "demo" or "paper".
        base: settings that the rows of a table change; their data are a source's.
        sources: one data set or two.
        repeats: splits or seeds, 0 to `repeats` - 1.
        out: folder of everything.
        loss_weights: the values of w1 and w2 that the grid of Fig 14 takes.
    """

    size: str
    base: FitSettings
    sources: tuple[Source, ...]
    repeats: int
    out: Path
    loss_weights: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8, 1.6)


class Place(NamedTuple):
    """Where a run stands in a table."""

    row: str
    column: str
    repeat: int


@dataclass(frozen=True)
class Trial:
    """A training, and the test that its best epoch is put to."""

    settings: FitSettings
    test: HeldOut


Grid = Mapping[Place, Trial]


class Columns(NamedTuple):
    """A column's name, what is trained on and what is tested on."""

    name: str
    train: Source
    test: Source


def in_dataset(sources: Iterable[Source]) -> list[Columns]:
    """Each data set trained and tested on itself."""
    return [Columns(source.name, source, source) for source in sources]


def grid_of(
    study: Study, rows: Mapping[str, Overrides], columns: Sequence[Columns] | None = None
) -> dict[Place, Trial]:
    """Every row of a table for every column and repeat.

    Args:
        study: what is shared.
        rows: per name what differs from the study's settings.
        columns: None is each data set by itself.

    Raises:
        ValueError: an override is no setting, or makes settings that contradict each other.
    """
    columns = in_dataset(study.sources) if columns is None else columns
    grid = {}
    for name, overrides in rows.items():
        for column, train, test in columns:
            for repeat in range(study.repeats):
                settings = replace(
                    study.base,
                    data=train.training(repeat),
                    run=replace(study.base.run, seed=repeat),
                )
                place = Place(name, column, repeat)
                grid[place] = Trial(change(settings, overrides), test.test(repeat))
    return grid


@dataclass
class Task:
    """A training with all the tests that it is put to.

    Attributes:
        settings: of the training; `run.out` is its folder.
        tests: by key.
    """

    settings: FitSettings
    tests: dict[str, HeldOut] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Of the run."""
        assert self.settings.run.out is not None
        return self.settings.run.out


def tasks_of(grids: Iterable[Grid], out: Path) -> dict[str, Task]:
    """The trainings behind some tables, each once, by the name of its folder."""
    tasks: dict[str, Task] = {}
    for grid in grids:
        for trial in grid.values():
            name = run_name(trial.settings)
            if name not in tasks:
                tasks[name] = Task(trial.settings.in_folder(out / "runs" / name))
            tasks[name].tests[trial.test.key] = trial.test
    return tasks


def run_name(settings: FitSettings) -> str:
    """What a run is in a few words, and the hash of all settings that decide its outcome.

    Settings at their defaults stay out of the hash, so that a later version with more of them
    finds the runs of this one. A cache with its splits is what it holds for training and
    validation, wherever it lies.

    Raises:
        OSError, ValueError: the cache or its splits are missing, damaged or do not fit.
    """
    free = {
        section: replace(getattr(settings, section), **_defaults(section, names))
        for section, names in FREE.items()
    }
    facts = _changed(replace(settings, **free))
    data = settings.data
    if data.cache is not None and data.splits is not None and data.fold is not None:
        place = data.cache, data.splits, data.fold
        for name in ("cache", "splits"):
            del facts["data"][name]
        facts["data"]["train"] = part_sha256(*place, "train")
        facts["data"]["validation"] = part_sha256(*place, "validation")
    return "-".join((*_words(settings), _digest(facts)))


def _defaults(section: str, names: Iterable[str]) -> dict[str, Any]:
    usual = getattr(FitSettings(), section)
    return {name: getattr(usual, name) for name in names}


def _words(settings: FitSettings) -> list[str]:
    data, model = settings.data, settings.model
    words = [_source_word(data.phantom, data.cache)]
    if type(model) is AsyCMSTConfig:
        words.append(model.cross_attention or "none")
        words += ["fss"] * model.sorts_frames + ["ns"] * model.segments_nodule
    else:
        words.append(_word(name_of(model)))
    seen = getattr(model, "upper", "ceus"), getattr(model, "lower", "bus")
    if seen != ("ceus", "bus"):
        words.append("-".join(seen))
    return [*words, f"s{settings.run.seed}"]


def _source_word(phantom: PhantomConfig | None, cache: Path | None) -> str:
    if phantom is not None:
        return phantom.domain
    return _word("data" if cache is None else cache.name)


def _word(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())


def _changed(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their defaults, nested, as plain values."""
    usual = type(settings)()
    found: dict[str, Any] = {}
    for entry in fields(settings):
        value, default = getattr(settings, entry.name), getattr(usual, entry.name)
        if is_dataclass(value):
            inner = _changed(value)
            if type(value) is not type(default):
                inner["kind"] = type(value).__name__
            if inner:
                found[entry.name] = inner
        elif value != default:
            found[entry.name] = str(value) if isinstance(value, Path) else value
    return found


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
