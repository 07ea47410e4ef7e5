"""The data of a study as the commands are given them: a cache, or a manifest."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from asycmst.data.samples import Item
    from asycmst.data.splits import MarkedCase


def read_cases(data: Path) -> "Sequence[MarkedCase]":
    """The cases of a cache of `asycmst prepare`, else of a manifest.

    Raises:
        FileNotFoundError, ValueError: `data` is neither, or damaged.
    """
    from asycmst.data.cache import read_cache
    from asycmst.data.manifest import read_manifest

    if data.is_dir():
        try:
            cached: Sequence[MarkedCase] = read_cache(data).cases
            return cached
        except FileNotFoundError:
            pass  # the folder of the released data
    listed: Sequence[MarkedCase] = read_manifest(data)
    return listed


def open_images(
    table: Path, size: tuple[int, int]
) -> "tuple[Sequence[MarkedCase], Callable[[Sequence[str]], Dataset[Item]]]":
    """The cases of a CSV of images, and what opens some of them by their ids.

    Args:
        table: a CSV as data.images of `asycmst fit`.
        size: (height, width) that images are resized to.

    Raises:
        ValueError: the CSV is wrong.
    """
    from asycmst.data.image_study import ImageDataset, read_image_study

    images = {case.id: case for case in read_image_study(table)}
    return list(images.values()), lambda ids: ImageDataset([images[x] for x in ids], size)


def open_cache(
    folder: Path,
) -> "tuple[Sequence[MarkedCase], Callable[[Sequence[str]], Dataset[Item]]]":
    """The cases of a cache, and what opens the clips of some ids.

    Raises:
        FileNotFoundError, ValueError: there is no finished cache in `folder`.
    """
    from asycmst.data.cache import read_cache
    from asycmst.data.cached import CachedDataset

    return read_cache(folder).cases, lambda ids: CachedDataset(folder, ids)
