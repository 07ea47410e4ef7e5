"""The two clips of a case, from files or from a cache, as a model takes them."""

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asycmst.data.cached import CachedDataset
from asycmst.data.clips import Clip, View, clip_to_tensor
from asycmst.data.masks import Masks, sampled_masks
from asycmst.data.pairs import duration_note, load_pair
from asycmst.data.single_image import load_image
from asycmst.network_config import NetworkConfig


class CaseClips(NamedTuple):
    """Clips of T frames of one size.

    Attributes:
        bus: the B-mode clip.
        ceus: the contrast clip.
        same: whether both show the same pictures.
        notes: one line each, what to know about the pair.
        annotated: bool, shape (T, H, W), the annotated nodule, empty where a frame has none; None
            where nothing is known.
    """

    bus: Clip
    ceus: Clip
    same: bool
    notes: tuple[str, ...] = ()
    annotated: NDArray[np.bool_] | None = None

    @property
    def is_image(self) -> bool:
        """Whether there is a B-mode image alone."""
        return self.ceus is self.bus

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch of this one pair, each (1, 3, T, H, W), float32 in [0, 1]."""
        return clip_to_tensor(self.bus)[None], clip_to_tensor(self.ceus)[None]


def read_case(
    config: NetworkConfig,
    bus: str | os.PathLike[str],
    ceus: str | os.PathLike[str] | None,
    bus_view: View | None = None,
    ceus_view: View | None = None,
    *,
    masks: Masks | None = None,
) -> CaseClips:
    """Read two clips as a model of `config` takes them, sampled to common moments.

    Without `ceus`, for a network that does not read it, `bus` is an image or the middle frame of
    a clip, which then stands for both.

    Each note of a reader is also given as one warning. Args and errors are those of
    :func:`asycmst.data.pairs.load_pair` and, with `masks` of the B-mode clip, of
    :func:`asycmst.data.masks.sampled_masks`.
    """
    if ceus is None:
        if config.reads_ceus:
            raise ValueError("the network reads the contrast clip too; give --ceus")
        if ceus_view is not None:
            raise ValueError(
                "--ceus-view is the side of a contrast clip; give --ceus, or leave out"
            )
        image = load_image(bus, config.frame_size, view=bus_view)
        return CaseClips(image, image, same=False)
    pair = load_pair(
        bus,
        ceus,
        config.frames,
        config.frame_size,
        bus_view=bus_view,
        ceus_view=ceus_view,
        annotated=None if masks is None else masks.indices,
    )
    once = Path(bus).resolve() == Path(ceus).resolve() and bus_view == ceus_view
    for clip in (pair.bus,) if once else (pair.bus, pair.ceus):
        for note in clip.notes:
            warnings.warn(f"{clip.source}: {note}", UserWarning, stacklevel=3)
    same = once or np.array_equal(pair.bus.frames, pair.ceus.frames)
    unequal = duration_note(pair.bus_source, pair.ceus_source)
    annotated = None
    if masks is not None:
        annotated = np.zeros(pair.bus.frames.shape[:3], dtype=np.bool_)
        for slot, mask in sampled_masks(masks, pair, config.frame_size).items():
            annotated[slot] = mask
    notes = () if unequal is None else (unequal,)
    return CaseClips(pair.bus, pair.ceus, same, notes, annotated)


def cached_case(config: NetworkConfig, cache: str | os.PathLike[str], case: str) -> CaseClips:
    """One case of a folder that `asycmst prepare` wrote.

    Raises:
        FileNotFoundError: there is no cache at `cache`.
        ValueError: the cache is damaged or lacks the case, or its clips do not fit the model.
    """
    dataset = CachedDataset(cache, [case])
    item = dataset[0]
    found = tuple(item["bus"].shape[1:])
    wanted = (config.frames, *config.frame_size)
    if found != wanted:
        raise ValueError(
            f"the cache holds {_words(found)}, the model takes {_words(wanted)}: prepare the data "
            "again for this model"
        )
    bus_times, ceus_times = dataset.times(0)
    bus, ceus = _as_clip(item["bus"], bus_times, case), _as_clip(item["ceus"], ceus_times, case)
    marked = item["mask"] & item["mask_valid"][:, None, None]
    same = np.array_equal(bus.frames, ceus.frames)
    return CaseClips(bus, ceus, same, annotated=marked.numpy())


def _as_clip(planes: torch.Tensor, times: list[float] | None, case: str) -> Clip:
    """What the cache holds: the sampled frames are the source."""
    pixels = (planes * 255).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous()
    seconds = None if times is None else np.asarray(times, dtype=np.float64)
    return Clip(pixels.numpy(), np.arange(len(pixels)), seconds, case)


def _words(size: tuple[int, ...]) -> str:
    frames, height, width = size
    return f"{frames} frames of {height} x {width}"
