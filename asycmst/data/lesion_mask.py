"""A lesion marked by hand, from one image or a NumPy file."""

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from asycmst.data.clips import Clip
from asycmst.data.frame_folder import IMAGE_SUFFIXES


def read_lesion_mask(path: str | os.PathLike[str], clip: Clip) -> NDArray[np.bool_]:
    """Read the mask of a clip that was read by :func:`asycmst.data.clips.load_clip`.

    An image (any pixel that is not black is lesion) or a .npy array of shape (H, W) holds for all
    frames; a .npy array of shape (n, H, W) has one mask for each frame of the source, or for each
    of the T sampled ones. It covers what the clip shows, its half where a view was chosen, at any
    resolution (nearest neighbour).

    Returns:
        bool, shape (T, height, width) of the clip.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ImportError: pillow is not installed.
        ValueError: the file is no mask, or has another number of frames.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no mask file at {source}: check the path and its spelling")
    suffix = source.suffix.lower()
    if suffix != ".npy" and suffix not in IMAGE_SUFFIXES:
        allowed = " ".join((".npy", *IMAGE_SUFFIXES))
        raise ValueError(f"{source.name} has the suffix {suffix or '(none)'}: masks are {allowed}")
    marked = _read_npy(source) if suffix == ".npy" else _read_image(source)
    frames, size = len(clip.frames), clip.frames.shape[1:3]
    if marked.ndim == 2:
        marked = np.broadcast_to(marked, (frames, *marked.shape))
    elif len(marked) != frames:
        last = int(clip.source_indices[-1])
        if len(marked) != last + 1:
            raise ValueError(
                f"{source} has {len(marked)} masks: give one, {frames} (the frames the model "
                f"takes) or {last + 1} (those of the clip)"
            )
        marked = marked[clip.source_indices]
    planes = torch.from_numpy(np.ascontiguousarray(marked, dtype=np.float32))[:, None]
    sized = F.interpolate(planes, size=size, mode="nearest-exact")[:, 0]
    result: NDArray[np.bool_] = sized.numpy() > 0
    return result


def _read_npy(source: Path) -> NDArray[np.bool_]:
    try:
        array = np.load(source, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{source} cannot be read as a NumPy array: it is broken, cut off or holds Python "
            "objects; save it again with numpy.save"
        ) from error
    if array.dtype.kind not in "biu" or array.ndim not in (2, 3) or not array.size:
        raise ValueError(
            f"{source} holds {array.dtype} of shape {array.shape}: save bool or whole numbers of "
            "shape (H, W) or (n, H, W)"
        )
    marked: NDArray[np.bool_] = array.astype(np.bool_)
    return marked


def _read_image(source: Path) -> NDArray[np.bool_]:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            f'reading {source.name} needs pillow, which is missing: pip install ".[train]"'
        ) from error
    try:
        with Image.open(source) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{source} cannot be read as an image: it is broken, cut off or of another format"
        ) from error
    marked: NDArray[np.bool_] = np.asarray(pixels.any(axis=2))
    return marked
