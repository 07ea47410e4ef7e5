"""The samples of a run: from a cache of prepared clips, or drawn by the phantom."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from asycmst.config import Modality
from asycmst.data.images import ImagesOfClips
from asycmst.data.label_noise import InvertedLabels, inverted_cases
from asycmst.data.samples import LabelledDataset, PhantomDataset, split_seed
from asycmst.network_config import NetworkConfig
from asycmst.training.settings import DataSettings, PhantomSplits

if TYPE_CHECKING:
    from asycmst.data.splits import MarkedCase


class TrainingData(NamedTuple):
    """What a run trains on and chooses its best epoch by.

    Attributes:
        train: training samples.
        validation: samples that are never trained on.
        train_ids: one for each training sample.
        validation_ids: one for each validation sample.
        name: what the data are, for the record.
        noise: what is wrong with the training samples on purpose, for the record.
    """

    train: LabelledDataset
    validation: LabelledDataset
    train_ids: list[str]
    validation_ids: list[str]
    name: str
    noise: Mapping[str, Any] = {}

    def facts(self) -> dict[str, Any]:
        """For the record beside the run and within its checkpoints."""
        return {
            "trained_on": self.name,
            "train_ids": self.train_ids,
            "train_ids_sha256": _digest(self.train_ids),
            "validation_ids": self.validation_ids,
            "has_masks": self.train.nodule_share() > 0,  # not where the share is NaN
            **self.noise,
        }


def open_data(
    settings: DataSettings, model: NetworkConfig, stage: Callable[[str], None] = lambda text: None
) -> TrainingData:
    """The samples that `settings` name, frames of them for a network that does not mix frames.

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
        drawn = _draw(settings.phantom, model.segmented_modality)
        return _noisy(settings, _images(drawn, model), stage)
    from asycmst.data.splits import check_split, read_split, split_of_column

    name, cases, open_cases = _study(settings, model)
    if settings.splits is None:
        split, source = split_of_column(cases), "its split column"
    else:
        assert settings.fold is not None
        split = read_split(settings.splits, settings.fold)
        source = f"fold {settings.fold} of {settings.splits}"
    for part, ids in (("training", split.train), ("validation", split.validation)):
        if not ids:
            raise ValueError(f"{name} with {source} has no {part} cases; split anew")
    check_split(split, cases, source)
    clean = TrainingData(
        open_cases(split.train),
        open_cases(split.validation),
        list(split.train),
        list(split.validation),
        f"{name}, {source}",
    )
    return _noisy(settings, _images(clean, model), stage)


def _study(
    settings: DataSettings, model: NetworkConfig
) -> tuple[Path, Sequence["MarkedCase"], Callable[[Sequence[str]], LabelledDataset]]:
    """Its name, its cases, and what opens some of them by their ids."""
    if settings.images is not None:
        from asycmst.data.image_study import ImageDataset, read_image_study

        if model.reads_ceus:
            raise ValueError(
                "data.images are B-mode images, and the network reads the contrast clip too; give "
                "--model saliency, or a data.cache"
            )
        images = {case.id: case for case in read_image_study(settings.images)}
        size = model.frame_size
        return (
            settings.images,
            list(images.values()),
            lambda ids: ImageDataset([images[id_] for id_ in ids], size),
        )
    if settings.cache is None:
        raise ValueError(
            "no data; give data.cache=FOLDER of `asycmst prepare`, or data.phantom.train=SAMPLES "
            "for synthetic ones"
        )
    from asycmst.data.cache import read_cache
    from asycmst.data.cached import CachedDataset

    folder = settings.cache
    cache = read_cache(folder)
    _check_sizes(str(folder), cache.frames, cache.frame_size, model)
    return folder, cache.cases, lambda ids: CachedDataset(folder, ids)


def _images(clips: TrainingData, model: NetworkConfig) -> TrainingData:
    if model.mixes_frames:
        return clips
    return clips._replace(
        train=ImagesOfClips(clips.train, model.frames),
        validation=ImagesOfClips(clips.validation, model.frames),
    )


def _noisy(
    settings: DataSettings, clean: TrainingData, stage: Callable[[str], None]
) -> TrainingData:
    """The data with wrong labels and contours among the training samples (Section 4.7)."""
    train, ids, seed = clean.train, clean.train_ids, settings.noise_seed
    noise: dict[str, Any] = {}
    if settings.contour_noise is not None:
        from asycmst.data.contour_noise import PerturbedContours

        stage("changing contours")
        train = PerturbedContours(train, ids, settings.contour_noise, seed)
        noise["contour_noise"] = {"kind": settings.contour_noise, "seed": seed}
    if settings.label_noise > 0:
        labels = dict(zip(ids, train.labels().tolist(), strict=True))
        inverted = inverted_cases(labels, settings.label_noise, seed)
        train = InvertedLabels(train, ids, inverted)
        malignant = sum(labels[id_] for id_ in inverted)
        noise["label_noise"] = {
            "fraction": settings.label_noise,
            "seed": seed,
            "benign_as_malignant": len(inverted) - malignant,
            "malignant_as_benign": malignant,
            "inverted_ids": inverted,
        }
    return clean._replace(train=train, noise=noise)


def _draw(phantom: PhantomSplits, masks_of: Modality) -> TrainingData:
    seeds = split_seed(phantom.seed, "train"), split_seed(phantom.seed, "validation")
    train, validation = (
        PhantomDataset(phantom, seed, size, masks_of)
        for seed, size in zip(seeds, (phantom.train, phantom.validation), strict=True)
    )
    return TrainingData(
        train,
        validation,
        train.ids(),
        validation.ids(),
        f"synthetic {phantom.domain} phantom",
    )


def _check_sizes(
    name: str, frames: int, frame_size: int | Sequence[int], model: NetworkConfig
) -> None:
    height, width = (frame_size, frame_size) if isinstance(frame_size, int) else tuple(frame_size)
    too_long = model.mixes_frames and frames > model.frames
    if too_long or (height, width) != model.frame_size:
        raise ValueError(
            f"{name} has {frames} frames of {height} x {width}, the model takes {model.frames} of "
            f"{model.frame_size[0]} x {model.frame_size[1]}; set model.frames={frames} and "
            f"model.image_size={height if height == width else [height, width]}"
        )


def _digest(ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
