"""The samples of a run: from a cache of prepared clips, or drawn by the phantom."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from asycmst.config import AsyCMSTConfig
from asycmst.data.samples import Item, PhantomDataset, split_seed
from asycmst.training.settings import DataSettings, PhantomSplits


class LabelledDataset(Protocol):
    """Samples that know their classes without being loaded."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...

    def labels(self) -> NDArray[np.int64]: ...

    def nodule_share(self) -> float: ...


class TrainingData(NamedTuple):
    """What a run trains on and chooses its best epoch by.

    Attributes:
        train: training samples.
        validation: samples that are never trained on.
        train_ids: one for each training sample.
        validation_ids: one for each validation sample.
        name: what the data are, for the record.
    """

    train: LabelledDataset
    validation: LabelledDataset
    train_ids: list[str]
    validation_ids: list[str]
    name: str

    def facts(self) -> dict[str, Any]:
        """For the record beside the run and within its checkpoints."""
        return {
            "trained_on": self.name,
            "train_ids": self.train_ids,
            "train_ids_sha256": _digest(self.train_ids),
            "validation_ids": self.validation_ids,
            "has_masks": self.train.nodule_share() > 0,  # not where the share is NaN
        }


def open_data(
    settings: DataSettings, model: AsyCMSTConfig, stage: Callable[[str], None] = lambda text: None
) -> TrainingData:
    """The samples that `settings` name.

    Args:
        settings: of the data.
        model: which they must fit.
        stage: called with a few words about what takes a while.

    Raises:
        ValueError: no data are named, they do not fit the model, or a part is empty.
        OSError: a folder is missing.
    """
    if settings.phantom is not None:
        _check_sizes("the phantom", settings.phantom.frames, settings.phantom.size, model)
        stage("drawing phantoms")
        return _draw(settings.phantom)
    if settings.cache is None:
        raise ValueError(
            "no data; give data.cache=FOLDER of `asycmst prepare`, or data.phantom.train=SAMPLES "
            "for synthetic ones"
        )
    from asycmst.data.cache import read_cache
    from asycmst.data.cached import CachedDataset
    from asycmst.data.splits import check_split, read_split, split_of_column

    cache = read_cache(settings.cache)
    _check_sizes(str(settings.cache), cache.frames, cache.frame_size, model)
    if settings.splits is None:
        split, source = split_of_column(cache.cases), "its split column"
    else:
        assert settings.fold is not None
        split = read_split(settings.splits, settings.fold)
        source = f"fold {settings.fold} of {settings.splits}"
    for part, ids in (("training", split.train), ("validation", split.validation)):
        if not ids:
            raise ValueError(f"{settings.cache} with {source} has no {part} cases; split anew")
    check_split(split, cache.cases, source)
    return TrainingData(
        CachedDataset(settings.cache, split.train),
        CachedDataset(settings.cache, split.validation),
        list(split.train),
        list(split.validation),
        f"{settings.cache}, {source}",
    )


def _draw(phantom: PhantomSplits) -> TrainingData:
    train = PhantomDataset(phantom, split_seed(phantom.seed, "train"), phantom.train)
    validation = PhantomDataset(
        phantom, split_seed(phantom.seed, "validation"), phantom.validation
    )
    return TrainingData(
        train,
        validation,
        train.ids(),
        validation.ids(),
        f"synthetic {phantom.domain} phantom",
    )


def _check_sizes(
    name: str, frames: int, frame_size: int | Sequence[int], model: AsyCMSTConfig
) -> None:
    height, width = (frame_size, frame_size) if isinstance(frame_size, int) else tuple(frame_size)
    if frames > model.frames or (height, width) != model.frame_size:
        raise ValueError(
            f"{name} has {frames} frames of {height} x {width}, the model takes {model.frames} of "
            f"{model.frame_size[0]} x {model.frame_size[1]}; set model.frames={frames} and "
            f"model.image_size={height if height == width else [height, width]}"
        )


def _digest(ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
