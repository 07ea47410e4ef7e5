"""Masks of annotated frames: images, contours, which frame they belong to, and their size."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asycmst.data.masks import read_masks
from asycmst.data.sampling import Box, Source, fit_frame, fit_mask

CLIP = Source(40, None, (20, 30))


def disc(height: int = 20, width: int = 30) -> np.ndarray:
    y, x = np.mgrid[:height, :width] + 0.5
    return (y - height * 0.4) ** 2 + (x - width * 0.6) ** 2 < (height / 5) ** 2


def save(path: Path, mask: np.ndarray, white: int = 255, mode: str | None = None) -> None:
    path.parent.mkdir(exist_ok=True)
    image = Image.fromarray(mask.astype(np.uint8) * white)
    (image if mode is None else image.convert(mode)).save(path)


@pytest.mark.parametrize(("white", "mode"), [(255, None), (1, None), (255, "RGB"), (255, "1")])
def test_images(tmp_path: Path, white: int, mode: str | None) -> None:
    save(tmp_path / "m" / "00012.png", disc(), white, mode)
    save(tmp_path / "m" / "case7_3.png", np.zeros((20, 30), bool))
    masks = read_masks(tmp_path / "m")
    assert masks.frames == (3, 12) and masks.indices(CLIP) == {3: 3, 12: 12}
    assert (masks.at(12, 20, 30) == disc()).all() and not masks.at(3, 20, 30).any()


def test_images_carry_the_numbers_of_a_frame_folder(tmp_path: Path) -> None:
    save(tmp_path / "m" / "00012.png", disc())
    source = CLIP._replace(frames=5, numbers=np.array([10, 11, 12, 20, 21]))
    assert read_masks(tmp_path / "m").indices(source) == {2: 12}


def contours(**changes: Any) -> str:
    square = [[3, 2], [9, 2], [9, 8], [3, 8]]
    content = {
        "size": [30, 20],
        "frames": {"12": [square, [[20, 10], [24, 10], [24, 14], [20, 14]]]},
    }
    return json.dumps(content | changes)


def test_contours(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(contours())
    masks = read_masks(tmp_path / "c.json")
    expected = np.zeros((20, 30), bool)
    expected[2:8, 3:9] = expected[10:14, 20:24] = True
    assert masks.indices(CLIP) == {12: 12}
    assert (masks.at(12, 20, 30) == expected).all()
    (tmp_path / "c.json").write_text(contours(frames={"5": []}))
    assert not read_masks(tmp_path / "c.json").at(5, 20, 30).any()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "does not describe contours"),
        ("[]", "does not describe contours"),
        (contours(size=[30]), "does not describe contours"),
        (contours(frames={}), "does not describe contours"),
        (contours(frames={"x": []}), "does not describe contours"),
        (contours(size=[20, 30]), "drawn on frames of 20 x 30 pixels, the BUS clip has 30 x 20"),
        (
            contours(frames={"40": [], "3": []}),
            r"1 of 2 masks match no frame .*such as 40.* 0 to 39",
        ),
        (contours(frames={"3": [[[1, 2], [3, 4]]]}), "frame 3: a contour has shape"),
        (contours(frames={"3": [[[1, 2], [3, 4], [float("nan"), 1]]]}), "frame 3: .*not finite"),
        (contours(frames={"3": [["a", "b", "c"]]}), "frame 3: "),
    ],
)
def test_broken_contours(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        masks = read_masks(tmp_path / "c.json")
        for number in masks.indices(CLIP).values():
            masks.at(number, *CLIP.size)


def test_broken_images(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with pytest.raises(FileNotFoundError, match="no mask at"):
        read_masks(folder)
    folder.mkdir()
    with pytest.raises(ValueError, match="holds no PNG"):
        read_masks(folder)
    save(folder / "1.png", disc())
    with pytest.raises(ValueError, match="is 30 x 20 pixels and the frame 10 x 20"):
        read_masks(folder).at(1, 20, 10)
    save(folder / "1.png", disc(), white=128)
    with pytest.raises(ValueError, match="holds the value 128"):
        read_masks(folder).at(1, 20, 30)
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match="broken or cut off"):
        read_masks(folder).at(1, 20, 30)
    save(folder / "01.png", disc())
    with pytest.raises(ValueError, match="have the number 1"):
        read_masks(folder)
    (folder / "01.png").rename(folder / "mask.png")
    with pytest.raises(ValueError, match="no number in its name"):
        read_masks(folder)


@pytest.mark.parametrize("box", [None, Box(10, 0, 130, 80)])
@pytest.mark.parametrize("size", [24, (96, 60), 224])
def test_mask_and_image_stay_aligned(size: Any, box: Box | None) -> None:
    """IN3: a disc drawn as image and as mask has one centroid after cropping and resizing."""
    mask = disc(90, 140)
    resized = fit_mask(mask, size, box)
    assert resized.dtype == np.bool_
    image = fit_frame(mask.astype(np.uint8) * 255, size, box)[..., 0].astype(float)
    assert image.shape == resized.shape
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    for axis in (y, x):
        offset = (axis * image).sum() / image.sum() - axis[resized].mean()
        assert abs(offset) < 0.3
