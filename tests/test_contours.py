"""Contours as masks (Section 4.1.1), and masks on some frames only (Section 3.2)."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from asycmst.config import AsyCMSTConfig
from asycmst.data.contours import contour_mask, contour_masks
from asycmst.losses import AsyCMSTLoss
from asycmst.model import AsyCMSTOutput


def circle(radius: float, x: float, y: float, points: int = 200) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * math.pi, points, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


@pytest.mark.parametrize("centre", [(50.0, 50.0), (47.3, 52.8)])
def test_a_disc_covers_its_area(centre: tuple[float, float]) -> None:
    mask = contour_mask(circle(30.0, *centre), 100, 100)
    assert mask.sum() == pytest.approx(math.pi * 30**2, rel=0.01)


def test_the_orientation_and_the_first_point_do_not_matter() -> None:
    points = circle(11.0, 20.0, 13.0, points=9)
    expected = contour_mask(points, 30, 40)
    assert np.array_equal(contour_mask(points[::-1], 30, 40), expected)
    assert np.array_equal(contour_mask(np.roll(points, 4, axis=0), 30, 40), expected)


def test_x_runs_along_columns_and_pixels_count_by_their_centres() -> None:
    mask = contour_mask([(1.0, 0.4), (3.2, 0.4), (3.2, 2.6), (1.0, 2.6)], 4, 5)
    assert mask.astype(int).tolist() == [
        [0, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_concave_contours_stay_concave_and_what_leaves_the_frame_is_cut() -> None:
    notched = [(-5.0, -5.0), (9.0, -5.0), (9.0, 9.0), (2.0, 2.0), (-5.0, 9.0)]
    mask = contour_mask(notched, 4, 4)
    assert mask[0].all()
    assert not mask[3, 1:3].any()


@pytest.mark.parametrize(
    ("points", "size", "hint"),
    [
        ([(0, 0), (1, 1)], (4, 4), "at least three"),
        ([(0, 0, 0)] * 3, (4, 4), r"shape \(3, 3\)"),
        ([(0, 0), (1, 1), (float("nan"), 0)], (4, 4), "not finite"),
        ([(0, 0), (1, 1), (1, 0)], (0, 4), "0 x 4"),
    ],
)
def test_what_is_no_contour_is_named(points: Any, size: tuple[int, int], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        contour_mask(points, *size)


def test_frames_without_a_contour_are_not_annotated() -> None:
    masks, annotated = contour_masks({1: circle(2.0, 4.0, 4.0), 3: circle(1.0, 4.0, 4.0)}, 5, 8, 8)
    assert annotated.tolist() == [False, True, False, True, False]
    assert (masks.any(axis=(1, 2)) == annotated).all()
    assert masks[1].sum() > masks[3].sum()
    with pytest.raises(ValueError, match="frame 5; the clip has frames 0 to 4"):
        contour_masks({5: circle(2.0, 4.0, 4.0)}, 5, 8, 8)


def test_frames_without_a_contour_add_nothing_to_the_dice_loss() -> None:
    masks, annotated = contour_masks({1: circle(2.0, 4.0, 4.0)}, 3, 8, 8)
    mask, valid = torch.from_numpy(masks)[None], torch.from_numpy(annotated)[None]
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    loss = AsyCMSTLoss(AsyCMSTConfig.demo())
    output = AsyCMSTOutput(torch.zeros(1, 2), None, logits, torch.zeros(1, 4))
    both = loss(output, torch.tensor([0]), mask, valid).segmentation
    p, g = logits[0, 1].sigmoid(), mask[0, 1].float()
    expected = 1 - (2 * (p * g).sum() + 1e-6) / (p.sum() + g.sum() + 1e-6)
    torch.testing.assert_close(both, expected)
    (gradient,) = torch.autograd.grad(both, logits)
    assert gradient.abs().amax((0, 2, 3)).bool().tolist() == [False, True, False]
