"""Affine and photometric augmentation: one draw per clip, one resampling, as MONAI does it."""

import math

import pytest
import torch
from monai.transforms.intensity.array import ScaleIntensity, ScaleIntensityFixedMean
from monai.transforms.spatial.array import Affine, Flip

from asycmst.data.samples import Item
from asycmst.training.affine import AffineAugmentation, Draw, matrix, resample
from asycmst.training.augmentation import Augmentation
from asycmst.training.draws import Draws
from asycmst.training.photometric import PhotometricAugmentation, adjust


def batch_of(frames: torch.Tensor) -> Item:
    """Every channel, modality and the mask show the same frames (B, T, H, W)."""
    clip = frames[:, None].expand(-1, 3, -1, -1, -1)
    return Item(
        bus=clip,
        ceus=clip,
        mask=frames > 0.5,
        mask_valid=torch.ones(frames.shape[:2], dtype=torch.bool),
        label=torch.zeros(len(frames), dtype=torch.int64),
        id=[f"case {i}" for i in range(len(frames))],  # type: ignore[typeddict-item]
    )


def smooth(batch: int, height: int, width: int) -> torch.Tensor:
    """Pictures that linear interpolation barely changes."""
    coarse = torch.rand(batch, 1, 5, 6)
    size = (height, width)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)


def monai_affine(draw: Draw, height: int, width: int) -> torch.Tensor:
    """Our map in MONAI's terms: pixels from the centre, row before column."""
    half = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    ours = matrix(draw, height, width)
    result = torch.eye(3, dtype=torch.float64)
    result[:2, :2] = (half[:, None] * ours[:, :2] / half).flip(0, 1)
    result[:2, 2] = (half * ours[:, 2]).flip(0)
    return result


@pytest.mark.parametrize(
    "draw",
    [
        Draw(degrees=30),
        Draw(degrees=-45, horizontal_flip=True),
        Draw(height=0.8, width=0.9, down=0.08, right=-0.04),
        Draw(20, 0.9, 0.8, -0.05, 0.1, False, True),
    ],
    ids=lambda draw: ",".join(map(str, draw)),
)
def test_a_draw_is_monais_affine_of_the_same_matrix(draw: Draw) -> None:
    frames = smooth(1, 40, 56)
    moved = resample(batch_of(frames), [draw])
    for mode, ours, image in (
        ("bilinear", moved["bus"][0, 0], frames[0]),
        ("nearest", moved["mask"][0].float(), (frames[0] > 0.5).float()),
    ):
        theirs = Affine(
            affine=monai_affine(draw, 40, 56).numpy(),
            mode=mode,
            padding_mode="zeros",
            image_only=True,
        )(image).as_tensor()
        if mode == "bilinear":
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
        else:  # a place on the line between two pixels may go either way
            assert (ours != theirs).float().mean() < 0.002


def test_rotation_is_counter_clockwise_and_keeps_shapes_in_a_wide_frame() -> None:
    """A point right of the centre goes up, by as many pixels as it was away."""
    frames = torch.zeros(1, 1, 41, 61)
    frames[..., 20, 40:43] = 1
    quarter = resample(batch_of(frames), [Draw(degrees=90)])["bus"][0, 0, 0]
    rows, columns = (quarter > 0.5).nonzero().T
    assert rows.tolist() == [8, 9, 10] and columns.tolist() == [30, 30, 30]


def test_flips_alone_are_monais_flips() -> None:
    frames = torch.rand(2, 3, 16, 20)
    for draw, axes in (
        (Draw(horizontal_flip=True), [1]),
        (Draw(vertical_flip=True), [0]),
        (Draw(horizontal_flip=True, vertical_flip=True), [0, 1]),
        (Draw(), []),
    ):
        moved = resample(batch_of(frames), [draw] * 2)
        for clip, original in zip(moved["ceus"][:, 2], frames, strict=True):
            expected = Flip(axes)(original).as_tensor() if axes else original
            torch.testing.assert_close(clip, expected, atol=1e-5, rtol=0)


def test_a_crop_fills_the_frame() -> None:
    """A quarter of the frame, its upper left one, at twice the size."""
    frames = smooth(1, 32, 32)
    moved = resample(batch_of(frames), [Draw(height=0.5, width=0.5, down=-0.25, right=-0.25)])
    doubled = torch.nn.functional.interpolate(
        frames[..., :16, :16], size=(32, 32), mode="bilinear", align_corners=False
    )
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(moved["bus"][0, 0][inner], doubled[0][inner], atol=1e-5, rtol=0)


def test_all_frames_both_modalities_and_the_mask_move_alike() -> None:
    picture = smooth(1, 24, 32).expand(6, 4, -1, -1)
    moved = AffineAugmentation()(batch_of(picture))
    assert moved["mask"].dtype == torch.bool
    for clip, other, mask in zip(moved["bus"], moved["ceus"], moved["mask"], strict=True):
        assert torch.equal(clip, other)
        assert torch.equal(clip, clip[:1, :1].expand_as(clip))
        assert torch.equal(mask, mask[:1].expand_as(mask))
        away = (clip[0] - 0.5).abs() > 0.1  # from the mask's edge
        assert ((clip[0] > 0.5) == mask)[away].float().mean() > 0.97
    assert len({tuple(clip.flatten().tolist()) for clip in moved["bus"]}) == 6


def test_draws_fill_their_ranges_and_no_more() -> None:
    augmentation = AffineAugmentation()
    draws = [augmentation.draw() for _ in range(2000)]
    areas = [draw.height * draw.width for draw in draws]
    aspects = [draw.width / draw.height for draw in draws]
    degrees = [draw.degrees for draw in draws]
    assert -45 <= min(degrees) < -43 and 43 < max(degrees) <= 45
    assert 0.79 < min(areas) < 0.82 and 0.98 < max(areas) <= 1
    assert 0.799 < min(aspects) < 0.83 and 1.2 < max(aspects) < 1.251
    assert abs(sum(map(math.log, aspects))) / 2000 < 0.02
    for draw in draws:  # the crop stays in the frame
        assert abs(draw.down) <= (1 - draw.height) / 2 and draw.height <= 1
        assert abs(draw.right) <= (1 - draw.width) / 2 and draw.width <= 1
    assert 0.45 < sum(draw.horizontal_flip for draw in draws) / 2000 < 0.55
    assert 0.45 < sum(draw.vertical_flip for draw in draws) / 2000 < 0.55
    assert any(draw.horizontal_flip != draw.vertical_flip for draw in draws)


def test_nothing_allowed_changes_nothing() -> None:
    frames = smooth(3, 20, 28)
    still = AffineAugmentation(0.0, (1.0, 1.0), (1.0, 1.0), 0.0, 0.0)
    moved = still(batch_of(frames))
    torch.testing.assert_close(moved["bus"][:, 0], frames, atol=1e-5, rtol=0)
    same = PhotometricAugmentation(0.0, 0.0)(batch_of(frames))
    torch.testing.assert_close(same["ceus"][:, 0], frames, atol=1e-6, rtol=0)


def test_brightness_and_contrast_are_monais() -> None:
    clips = 0.2 + 0.5 * torch.rand(2, 3, 4, 8, 8)
    changed = adjust(clips, torch.tensor([0.2, -0.1]), torch.tensor([0.15, -0.2]))
    for clip, original, b, c in zip(changed, clips, (0.2, -0.1), (0.15, -0.2), strict=True):
        brighter = ScaleIntensity(minv=None, maxv=None, factor=b)(original)
        expected = ScaleIntensityFixedMean(factor=c, fixed_mean=True)(brighter)
        torch.testing.assert_close(clip, torch.as_tensor(expected).clamp(0, 1), atol=1e-6, rtol=0)


def test_photometry_is_per_stream_and_leaves_masks_alone() -> None:
    batch = batch_of(0.2 + 0.5 * torch.rand(4, 3, 8, 8))
    changed = PhotometricAugmentation()(batch)
    assert changed["mask"] is batch["mask"]
    assert not torch.allclose(changed["bus"], changed["ceus"], atol=1e-3)
    for alone in (PhotometricAugmentation(contrast=0.0), PhotometricAugmentation(brightness=0.0)):
        one = alone(batch)
        assert not torch.allclose(one["bus"], one["ceus"], atol=1e-3)
    # Within a clip it is one function of the value: frames keep their order of brightness.
    for clip, original in zip(changed["ceus"], batch["ceus"], strict=True):
        order = original.flatten().argsort()
        assert (clip.flatten()[order].diff() >= -1e-6).all()
    bright = PhotometricAugmentation(1.0, 1.0)(batch)["bus"]
    assert bright.min() >= 0 and bright.max() <= 1


@pytest.mark.parametrize(
    "change", [AffineAugmentation(), Augmentation(), PhotometricAugmentation()], ids=repr
)
def test_a_sample_draws_the_same_in_every_batch(
    change: AffineAugmentation | Augmentation | PhotometricAugmentation,
) -> None:
    """By seed, epoch and id: whatever was drawn before, and in whatever company."""
    frames, draws = torch.rand(3, 2, 16, 16), Draws(5)
    whole = batch_of(frames)
    alone = batch_of(frames[1:2])
    first = change(whole, draws.of_samples("x", 2, ["a", "b", "c"]))
    torch.rand(7)
    again = change(alone, draws.of_samples("x", 2, ["b"]))
    assert torch.equal(first["bus"][1:2], again["bus"])
    assert torch.equal(first["mask"][1:2], again["mask"])
    for other in (
        Draws(5).of_samples("x", 3, ["b"]),
        Draws(6).of_samples("x", 2, ["b"]),
        Draws(5).of_samples("y", 2, ["b"]),
    ):
        assert not torch.equal(first["bus"][1:2], change(alone, other)["bus"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AffineAugmentation(rotation=181), "rotation=181"),
        (lambda: AffineAugmentation(area=(0.9, 0.8)), "area="),
        (lambda: AffineAugmentation(area=(0.0, 0.8)), "area="),
        (lambda: AffineAugmentation(aspect=(0.0, 1.0)), "aspect="),
        (lambda: AffineAugmentation(vertical_flip=2), "vertical_flip=2"),
        (lambda: PhotometricAugmentation(brightness=1.5), "brightness=1.5"),
        (lambda: PhotometricAugmentation(contrast=-0.1), "contrast=-0.1"),
    ],
)
def test_wrong_ranges_are_refused(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=f"{words}.* is not allowed"):
        make()  # type: ignore[operator]
