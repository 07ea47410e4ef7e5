"""Temporal sampling and the way a frame becomes a square RGB image."""

import numpy as np
import pytest
from PIL import Image

from asycmst.data.contours import contour_mask
from asycmst.data.sampling import Box, fit_frame, half, sample_indices


@pytest.mark.parametrize(
    ("available", "frames", "expected"),
    [
        pytest.param(16, 16, list(range(16)), id="as many as there are"),
        pytest.param(31, 16, list(range(0, 31, 2)), id="every second"),
        pytest.param(3, 8, [0, 0, 0, 0, 1, 1, 1, 2], id="repeats a short clip"),
        pytest.param(10, 4, [0, 3, 6, 9], id="first and last included"),
        pytest.param(30, 8, [0, 4, 8, 12, 16, 20, 24, 29], id="rounds down"),
        pytest.param(9, 1, [0], id="one frame is the first"),
        pytest.param(1, 3, [0, 0, 0], id="one source frame"),
    ],
)
def test_sample_indices(available: int, frames: int, expected: list[int]) -> None:
    indices = sample_indices(available, frames)
    assert indices.tolist() == expected
    assert indices.dtype == np.int64


def test_sampling_never_goes_back_and_reaches_both_ends() -> None:
    for available in range(1, 70):
        for frames in range(2, 40):
            indices = sample_indices(available, frames)
            exact = [j * (available - 1) // (frames - 1) for j in range(frames)]
            assert indices.tolist() == exact
            assert (indices[0], indices[-1]) == (0, available - 1)
            assert (np.diff(indices) >= 0).all()


@pytest.mark.parametrize(("available", "frames"), [(0, 4), (4, 0)])
def test_nothing_to_sample(available: int, frames: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        sample_indices(available, frames)


@pytest.mark.parametrize("shape", [(48, 64, 3), (48, 64), (20, 30, 3)], ids=str)
@pytest.mark.parametrize("size", [32, 7, 100])
def test_resize_is_pillow_s_antialiased_bilinear(shape: tuple[int, ...], size: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    mine = fit_frame(frame, size)
    pillow = Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR).convert("RGB")
    assert mine.shape == (size, size, 3) and mine.dtype == np.uint8
    assert np.abs(mine.astype(int) - np.asarray(pillow).astype(int)).max() <= 1


def test_a_frame_of_the_right_size_is_untouched_and_grey_becomes_rgb() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    assert (fit_frame(frame, 12) == frame[..., None]).all()


def test_box_is_cut_before_the_resize() -> None:
    frame = np.zeros((20, 30), np.uint8)
    frame[5:15, 10:20] = 200
    assert (fit_frame(frame, 10, Box(10, 5, 20, 15)) == 200).all()


@pytest.mark.parametrize(
    ("side", "box", "expected"),
    [
        ("left", None, Box(0, 0, 4, 6)),
        ("right", None, Box(5, 0, 9, 6)),
        ("left", Box(2, 1, 8, 5), Box(2, 1, 5, 5)),
        ("right", Box(2, 1, 8, 5), Box(5, 1, 8, 5)),
    ],
)
def test_half_of_a_frame_or_of_a_part(side: str, box: Box | None, expected: Box) -> None:
    assert half(6, 9, side, box) == expected


def test_a_column_has_no_half() -> None:
    with pytest.raises(ValueError, match="no halves"):
        half(6, 1, "left")


@pytest.mark.parametrize("size", [224, 60, (48, 100)], ids=str)
def test_a_resized_frame_stays_under_the_mask_of_the_contour_scaled_with_it(
    size: int | tuple[int, int],
) -> None:
    height, width = (size, size) if isinstance(size, int) else size
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    contour = np.stack([95 + 20 * np.cos(angle), 40 + 20 * np.sin(angle)], axis=1)  # (x, y)
    disc = contour_mask(contour, 120, 160)
    frame = fit_frame(255 * disc.astype(np.uint8), size)[..., 0]
    mask = contour_mask(contour * (width / 160, height / 120), height, width)
    assert mask.dtype == np.bool_ and mask.shape == frame.shape

    def centroid(weights: np.ndarray) -> list[float]:
        return [float(np.average(axis, weights=weights)) for axis in np.indices(weights.shape)]

    assert centroid(frame) == pytest.approx(centroid(mask), abs=0.25)
    assert frame.mean() / 255 == pytest.approx(mask.mean(), rel=0.03)
