"""A lesion marked by hand: images and arrays, at any resolution, for the frames sampled."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asycmst.data.clips import Clip
from asycmst.data.lesion_mask import read_lesion_mask


def clip() -> Clip:
    """3 of 9 frames, of 8 x 12 pixels."""
    return Clip(np.zeros((3, 8, 12, 3), np.uint8), np.array([0, 4, 8]), None, "clip")


def test_an_image_holds_for_all_frames_at_any_resolution(tmp_path: Path) -> None:
    pixels = np.zeros((16, 24), np.uint8)
    pixels[4:8, 12:20] = 1  # not black is enough
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    expected = np.zeros((3, 8, 12), bool)
    expected[:, 2:4, 6:10] = True
    assert np.array_equal(read_lesion_mask(tmp_path / "mask.png", clip()), expected)
    np.save(tmp_path / "mask.npy", pixels.astype(bool))
    assert np.array_equal(read_lesion_mask(tmp_path / "mask.npy", clip()), expected)


@pytest.mark.parametrize("frames", [3, 9])
def test_one_mask_per_frame_of_the_model_or_of_the_source(tmp_path: Path, frames: int) -> None:
    masks = np.zeros((frames, 8, 12), np.uint8)
    masks[np.arange(frames), 0, np.arange(frames)] = 255
    np.save(tmp_path / "mask.npy", masks)
    found = read_lesion_mask(tmp_path / "mask.npy", clip())
    columns = [0, 1, 2] if frames == 3 else [0, 4, 8]
    assert np.argwhere(found).tolist() == [[t, 0, x] for t, x in enumerate(columns)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.png", None, "no mask file"),
        ("mask.mp4", b"x", "masks are .npy .bmp"),
        ("mask.png", b"no image", "cannot be read as an image"),
        ("mask.npy", b"no array", "cannot be read as a NumPy array"),
        ("mask.npy", np.zeros((8, 12)), "holds float64"),
        ("mask.npy", np.zeros((2, 2, 8, 12), bool), "of shape"),
        ("mask.npy", np.ones((5, 8, 12), bool), "has 5 masks: give one, 3 .* or 9"),
    ],
    ids=["missing", "kind", "image", "array", "float", "axes", "frames"],
)
def test_bad_masks_are_one_line(tmp_path: Path, name: str, content: Any, words: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        np.save(tmp_path / name, content)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as raised:
        read_lesion_mask(tmp_path / name, clip())
    assert "\n" not in str(raised.value)
