"""Contours drawn otherwise on purpose: the three strategies of Fig 11(b)."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from asycmst.data.contour_noise import (
    PerturbedContours,
    area,
    centroid,
    control_points,
    moved,
    outlines,
    perturbed,
)
from asycmst.data.contours import contour_mask
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import Item, PhantomDataset

Mask = NDArray[np.bool_]
Y, X = np.mgrid[:96, :128] + 0.5


def disc(x: float, y: float, radius: float) -> Mask:
    found: Mask = np.hypot(X - x, Y - y) <= radius
    return found


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


LESION = (np.hypot((X - 60) / 1.6, Y - 45) <= 22) & ~disc(95, 45, 15)  # no circle, not convex
RING = disc(60, 45, 30) & ~disc(60, 45, 12)
BLOBS = {
    "one": LESION,
    "two": disc(30, 30, 15) | disc(95, 60, 12),
    "cut": disc(3, 90, 25),
    "ring": RING,
    "dot": disc(40.5, 40.5, 0.4),
    "touching corners": np.kron(np.eye(2, dtype=bool), np.ones((48, 64), bool)),
    "noise": draws(1).random((96, 128)) < 0.4,
    "all": np.ones((96, 128), bool),
}


@pytest.mark.parametrize("name", BLOBS)
def test_an_outline_gives_its_mask_again(name: str) -> None:
    again = np.zeros_like(BLOBS[name])
    for part in outlines(BLOBS[name]):
        for contour in part:
            again ^= contour_mask(contour, *again.shape)
    assert np.array_equal(again, BLOBS[name])


def test_parts_have_contours_of_their_own() -> None:
    assert [len(part) for part in outlines(BLOBS["two"])] == [1, 1]
    assert [len(part) for part in outlines(RING)] == [2]
    assert outlines(np.zeros((5, 5), bool)) == []


def test_area_and_centroid_are_those_of_the_polygon() -> None:
    triangle = np.array([[10.0, 20.0], [16.0, 20.0], [10.0, 29.0]])
    for points in (triangle, triangle[::-1]):
        assert area(points) == pytest.approx(27.0)
        assert centroid(points) == pytest.approx([12.0, 23.0])
    dense = np.array([[0.0, 0], [1, 0], [2, 0], [3, 0], [4, 0], [4, 2], [0, 2]])
    assert centroid(dense) == pytest.approx([2.0, 1.0]), "the mean of the points is another"


@pytest.mark.parametrize(("noise", "ratio"), [("shrink", 0.7225), ("expand", 1.3225)])
def test_uniform_shifts_scale_the_area(noise: str, ratio: float) -> None:
    """15 % along each axis about the centroid, which stays."""
    (outline,) = outlines(LESION)[0]
    changed = moved(outline, centroid(outline), noise, draws())  # type: ignore[arg-type]
    assert area(changed) / area(outline) == pytest.approx(ratio, rel=1e-12)
    assert centroid(changed) == pytest.approx(centroid(outline))
    pixels = perturbed(LESION, noise, draws())  # type: ignore[arg-type]
    assert pixels.sum() / LESION.sum() == pytest.approx(ratio, rel=0.02)
    smaller, larger = (pixels, LESION) if noise == "shrink" else (LESION, pixels)
    assert not (smaller & ~larger).sum() > 0.01 * LESION.sum()


def test_jitter_stays_within_its_band_and_uses_all_of_it() -> None:
    (outline,) = outlines(LESION)[0]
    points, centre, generator = control_points(outline), centroid(outline), draws()
    assert len(points) == 32
    gaps = np.linalg.norm(points - np.roll(points, -1, axis=0), axis=1)
    assert gaps.max() < 1.2 * np.median(gaps)
    ratios = []
    for _ in range(200):
        changed = moved(points, centre, "jitter", generator)
        before, after = points - centre, changed - centre
        along = (after * before).sum(1) / (before * before).sum(1)
        assert after == pytest.approx(along[:, None] * before), "on the line to the centroid"
        ratios.append(along)
    shifts = np.array(ratios) - 1
    assert -0.15 <= shifts.min() < -0.149 and 0.149 < shifts.max() <= 0.15
    assert shifts.std() == pytest.approx(0.3 / 12**0.5, rel=0.05)
    assert abs(np.corrcoef(shifts[:, 0], shifts[:, 1])[0, 1]) < 0.2, "each point by itself"
    assert not np.array_equal(perturbed(LESION, "jitter", draws()), LESION)


def test_each_lesion_of_a_frame_moves_about_its_own_centroid() -> None:
    both = perturbed(BLOBS["two"], "shrink", draws())
    alone = [perturbed(one, "shrink", draws()) for one in (disc(30, 30, 15), disc(95, 60, 12))]
    assert np.array_equal(both, alone[0] | alone[1])
    for one, (x, y) in zip(alone, ((30, 30), (95, 60)), strict=True):
        assert (X[one].mean(), Y[one].mean()) == pytest.approx((x, y), abs=0.1)


def test_a_ragged_side_does_not_draw_the_centre_to_it() -> None:
    comb = (np.abs(X - 64) < 30) & (np.abs(Y - 48) < 20) & ~((X > 84) & (Y.astype(int) % 2 == 0))
    shrunk = perturbed(comb, "shrink", draws())
    assert X[shrunk].mean() == pytest.approx(X[comb].mean(), abs=0.4)


def test_a_lesion_that_the_border_cuts_grows_within_the_frame() -> None:
    cut = BLOBS["cut"]
    grown, shrunk = (perturbed(cut, n, draws()) for n in ("expand", "shrink"))  # type: ignore[arg-type]
    assert grown.shape == cut.shape and not (cut & ~grown).any() and grown.sum() > cut.sum()
    assert shrunk.sum() / cut.sum() == pytest.approx(0.7225, rel=0.04)
    assert perturbed(BLOBS["all"], "expand", draws()).all()


def test_a_hole_moves_with_its_lesion() -> None:
    grown = perturbed(RING, "expand", draws())
    assert not grown[45, 60] and grown.sum() / RING.sum() == pytest.approx(1.3225, rel=0.02)


def test_a_hole_that_leaves_its_lesion_adds_nothing() -> None:
    whole = disc(60, 45, 25)
    thin = whole & ~disc(60, 45, 23)
    for seed in range(5):
        changed, outer = (
            perturbed(mask, "jitter", np.random.default_rng(seed)) for mask in (thin, whole)
        )
        assert changed.any() and not (changed & ~outer).any()


def test_one_pixel_and_no_pixel() -> None:
    for noise in ("jitter", "shrink", "expand"):
        assert perturbed(BLOBS["dot"], noise, draws()).sum() <= 1  # type: ignore[arg-type]
        nothing = np.zeros((4, 4), bool)
        assert not perturbed(nothing, noise, draws()).any()  # type: ignore[arg-type]


class SomeAnnotated(Dataset[Item]):
    """Phantoms whose odd frames have no annotation."""

    def __init__(self, size: int) -> None:
        self.phantoms = PhantomDataset(PhantomConfig(frames=4, size=32), 0, size)

    def __len__(self) -> int:
        return len(self.phantoms)

    def __getitem__(self, index: int) -> Item:
        item = self.phantoms[index]
        item["mask"], item["mask_valid"] = self.masks(index)
        return item

    def masks(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        mask, valid = self.phantoms.masks(index)
        valid[1::2] = False
        return mask & valid[:, None, None], valid

    def labels(self) -> NDArray[np.int64]:
        return self.phantoms.labels()

    def nodule_share(self) -> float:
        return 0.5


def test_a_dataset_with_changed_contours_changes_nothing_else() -> None:
    clean = SomeAnnotated(3)
    ids = clean.phantoms.ids()
    noisy = PerturbedContours(clean, ids, "jitter", seed=5)
    again = PerturbedContours(clean, ids, "jitter", seed=5)
    other = PerturbedContours(clean, ids, "jitter", seed=6)
    areas = []
    for index in range(3):
        one, was = noisy[index], clean[index]
        for name in ("bus", "ceus", "mask_valid", "label"):
            assert torch.equal(one[name], was[name])  # type: ignore[literal-required]
        assert one["id"] == was["id"] and not torch.equal(one["mask"], was["mask"])
        assert one["mask"].shape == was["mask"].shape and not one["mask"][1::2].any()
        assert torch.equal(one["mask"], again[index]["mask"])
        assert not torch.equal(one["mask"], other[index]["mask"])
        frame = perturbed(was["mask"][0].numpy(), "shrink", draws())
        shrunk = PerturbedContours(clean, ids, "shrink", seed=0)[index]["mask"][0].numpy()
        assert np.array_equal(shrunk, frame)
        areas.append(one["mask"][::2].double().mean())
    assert noisy.nodule_share() == pytest.approx(float(np.mean(areas)))
    assert np.array_equal(noisy.labels(), clean.labels())


def test_a_case_is_changed_alike_in_every_order() -> None:
    clean = PhantomDataset(PhantomConfig(frames=2, size=32), 0, 3)
    ids = clean.ids()
    alone = PhantomDataset(PhantomConfig(frames=2, size=32), 0, 1)
    several = PerturbedContours(clean, ids, "jitter", 1)
    renamed = PerturbedContours(alone, ["another"], "jitter", 1)
    assert not torch.equal(several[0]["mask"], renamed[0]["mask"])
    assert torch.equal(
        several[0]["mask"], PerturbedContours(alone, ids[:1], "jitter", 1)[0]["mask"]
    )


def test_nothing_annotated_is_said() -> None:
    class Bare(SomeAnnotated):
        def masks(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            mask, valid = super().masks(index)
            return mask, torch.zeros_like(valid)

    with pytest.raises(ValueError, match=r"data\.contour_noise changes .* none has any; set it"):
        PerturbedContours(Bare(1), ["a"], "shrink", 0)
