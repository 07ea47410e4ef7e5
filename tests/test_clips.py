"""One door for every kind of clip: folders, NumPy files, dispatch and messages."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from asycmst.data.clips import Clip, clip_to_tensor, load_clip


def write_images(folder: Path, values: dict[str, int], size: tuple[int, int] = (20, 12)) -> Path:
    """One grey image of each value, under each name; size is (width, height)."""
    folder.mkdir()
    for name, value in values.items():
        Image.new("RGB", size, (value, value, value)).save(folder / name)
    return folder


def first_values(clip: Clip) -> list[int]:
    return [int(value) for value in clip.frames[:, 0, 0, 0]]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "PNG"])
def test_images_are_ordered_by_number(tmp_path: Path, suffix: str) -> None:
    names = {f"frame_{number}.{suffix}": 10 * number for number in (10, 2, 9, 1, 21)}
    clip = load_clip(write_images(tmp_path / "clip", names), 5, 8)
    assert first_values(clip) == [10, 20, 90, 100, 210]
    assert clip.source_indices.tolist() == [0, 1, 2, 3, 4] and clip.times is None


def test_jpegs_named_as_in_the_data_set(tmp_path: Path) -> None:
    names = {f"{number:05d}.jpg": 20 * number for number in range(9)}
    clip = load_clip(write_images(tmp_path / "clip", names), 3, 8)
    assert clip.source_indices.tolist() == [0, 4, 8]
    assert np.abs(np.array(first_values(clip)) - [0, 80, 160]).max() <= 2


def test_what_is_no_frame_is_left_alone(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "clip", {"1.png": 1, "2.png": 2})
    for name in ("notes.txt", ".DS_Store", "._1.png", "Thumbs.db"):
        (folder / name).write_text("x")
    assert first_values(load_clip(folder, 2, 8)) == [1, 2]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_image_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    (tmp_path / "clip").mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(
            tmp_path / "clip" / f"{number}.png"
        )
    assert (load_clip(tmp_path / "clip", 2, 8).frames == 255).all()


def bad_folder(tmp_path: Path, kind: str) -> Path:
    folder = write_images(tmp_path / "clip", {"1.png": 1, "2.png": 2})
    if kind == "mixed sizes":
        Image.new("RGB", (30, 12)).save(folder / "3.png")
    elif kind == "no number":
        Image.new("RGB", (20, 12)).save(folder / "mask.png")
    elif kind == "number twice":
        Image.new("RGB", (20, 12)).save(folder / "02.png")
    elif kind == "broken":
        (folder / "3.png").write_bytes(b"no image")
    elif kind == "cut off":
        noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "3.png")
        (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:400])
    elif kind == "16 bits":
        Image.fromarray(np.zeros((12, 20), np.uint16)).save(folder / "3.png")
    elif kind == "many pages":
        pages = [Image.new("RGB", (20, 12)) for _ in range(2)]
        pages[0].save(folder / "3.tif", save_all=True, append_images=pages[1:])
    elif kind == "empty":
        for path in folder.iterdir():
            path.unlink()
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("mixed sizes", r"3\.png is 30 x 12 pixels and the first image .* 20 x 12"),
        ("no number", r"mask\.png has no number"),
        ("number twice", r"/02\.png and /.*/2\.png have the same number"),
        ("broken", r"3\.png cannot be read as an image"),
        ("cut off", r"3\.png cannot be read as an image"),
        ("16 bits", r"not an 8-bit image"),
        ("many pages", r"3\.tif holds 2 images"),
        ("empty", r"holds no image: supported are .*\.png"),
    ],
)
def test_folders_that_are_no_clip(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_clip(bad_folder(tmp_path, kind), 3, 8)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(9, 12, 12), (9, 12, 12, 3)], ids=["grey", "colour"])
def test_numpy_files(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "clip.npy", array)
    clip = load_clip(tmp_path / "clip.npy", 4, 12)
    expected = array[[0, 2, 5, 8]]
    assert (clip.frames == (expected if len(shape) == 4 else expected[..., None])).all()
    assert clip.source_indices.tolist() == [0, 2, 5, 8] and clip.times is None
    assert clip.source == "clip.npy" and clip.notes == ()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["numpy", "folder"])
def test_side_by_side_halves(tmp_path: Path, kind: str, side: Any) -> None:
    array = np.zeros((2, 8, 16, 3), np.uint8)
    array[:, :, :8], array[:, :, 8:] = 40, 90
    if kind == "numpy":
        source = tmp_path / "clip.npy"
        np.save(source, array)
    else:
        source = tmp_path / "clip"
        source.mkdir()
        for number, picture in enumerate(array):
            Image.fromarray(picture).save(source / f"{number}.png")
    assert (load_clip(source, 2, 8, view=side).frames == {"left": 40, "right": 90}[side]).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        pytest.param(np.zeros((4, 8, 8), np.float32), "float32 of shape", id="float"),
        pytest.param(np.zeros((4, 8, 8), np.uint16), "save uint8", id="16 bits"),
        pytest.param(np.zeros((8, 8), np.uint8), r"shape \(8, 8\)", id="one image"),
        pytest.param(np.zeros((4, 3, 8, 8), np.uint8), "save uint8 of shape", id="channels first"),
        pytest.param(np.zeros((4, 8, 8, 4), np.uint8), "save uint8 of shape", id="four channels"),
        pytest.param(np.zeros((0, 8, 8), np.uint8), "holds no pixel", id="no frame"),
        pytest.param(np.array([{"a": 1}], dtype=object), "Python objects", id="pickle"),
    ],
)
def test_numpy_files_that_are_no_clip(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "clip.npy", array)
    with pytest.raises(ValueError, match=message):
        load_clip(tmp_path / "clip.npy", 4, 8)


def test_numpy_file_cut_off(tmp_path: Path) -> None:
    np.save(tmp_path / "clip.npy", np.zeros((9, 16, 16), np.uint8))
    content = (tmp_path / "clip.npy").read_bytes()
    for kept in (3, 60, 1000):
        (tmp_path / "clip.npy").write_bytes(content[:kept])
        with pytest.raises(ValueError, match="cut off"):
            load_clip(tmp_path / "clip.npy", 4, 8)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("missing.mp4", FileNotFoundError, r"no file or folder at .*missing\.mp4: check the path"),
        ("a.xyz", ValueError, r"suffix \.xyz: supported are \.avi .*\.npy .* folder of images"),
        ("plain", ValueError, r"suffix \(none\): supported are"),
        ("a.png", ValueError, "single image: give the folder"),
        ("empty.mp4", ValueError, r"empty \(0 bytes\)"),
    ],
)
def test_paths_that_are_no_clip(
    tmp_path: Path, name: str, error: type[Exception], message: str
) -> None:
    if name != "missing.mp4":
        (tmp_path / name).write_text("" if name.startswith("empty") else "some text")
    with pytest.raises(error, match=message) as raised:
        load_clip(tmp_path / name, 4, 8)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"frames": 0}, id="no frame"),
        pytest.param({"size": 0}, id="no pixel"),
        pytest.param({"view": "top"}, id="unknown view"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, Any]) -> None:
    np.save(tmp_path / "clip.npy", np.zeros((9, 16, 16), np.uint8))
    with pytest.raises(ValueError, match=r"at least 1|allowed are"):
        load_clip(tmp_path / "clip.npy", **{"frames": 4, "size": 8, **arguments})


def test_without_pillow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images(tmp_path / "clip", {"1.png": 1})
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'needs pillow.*pip install "\.\[train\]"'):
        load_clip(folder, 1, 8)


def test_tensor_for_the_model(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    array[0, 0, 0] = (0, 51, 255)
    np.save(tmp_path / "clip.npy", array)
    tensor = clip_to_tensor(load_clip(tmp_path / "clip.npy", 5, 8))
    assert tensor.shape == (3, 5, 8, 8) and tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert tensor[:, 0, 0, 0].tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert tensor[1, 3, 2, 5] == pytest.approx(array[3, 2, 5, 1] / 255)
