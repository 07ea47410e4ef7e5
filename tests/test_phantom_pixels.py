"""The phantom's pixels: speckle, nodule and decoy, time-intensity curves, registration."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from asycmst.data.phantom import PhantomConfig, PhantomSample, make_phantom

PATIENTS = 200


def cohort(count: int = PATIENTS, **fields: object) -> list[PhantomSample]:
    config = PhantomConfig(**fields)  # type: ignore[arg-type]
    return [make_phantom(config, 0, index) for index in range(count)]


@pytest.fixture(scope="module")
def breast() -> list[PhantomSample]:
    return cohort()


@pytest.fixture(scope="module")
def thyroid() -> list[PhantomSample]:
    return cohort(domain="thyroid")


def latent(samples: list[PhantomSample], name: str) -> np.ndarray:
    return np.array([sample.latents[name] for sample in samples])


def labels(samples: list[PhantomSample]) -> np.ndarray:
    return np.array([sample.label for sample in samples])


def intensity_curve(sample: PhantomSample, mask: np.ndarray) -> np.ndarray:
    """Mean linear intensity per frame inside a mask, from the green channel, any unit."""
    grey = (sample.ceus[..., 1] / (255 * 0.82)) ** 0.8
    power = 10 ** (3.2 * grey)
    return np.array([frame[inside].mean() for frame, inside in zip(power, mask, strict=True)])


def mean_time(sample: PhantomSample, mask: np.ndarray) -> float:
    """Centre of mass in time of the enhancement inside a mask, against the rest of the image."""
    rest = ~sample.mask & ~sample.decoy_mask
    times = [
        np.average(sample.times, weights=intensity_curve(sample, area)) for area in (mask, rest)
    ]
    return float(times[0] - times[1])


def ring_around(mask: np.ndarray, width: int = 4) -> np.ndarray:
    """Pixels of a (T, H, W) mask's neighbourhood that lie outside it."""
    grown = mask.copy()
    for axis in (1, 2):
        for step in range(1, width + 1):
            grown |= np.roll(mask, step, axis) | np.roll(mask, -step, axis)
    return grown & ~mask


def centroid(weights: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(weights.shape)
    return np.array([np.average(rows, weights=weights), np.average(columns, weights=weights)])


def test_bmode_speckle_moves_with_the_mask() -> None:
    for sample in cohort(10, motion=1.5, frames=4):
        spectra = np.fft.fft2(sample.bus - sample.bus.mean(axis=(1, 2), keepdims=True))
        for frame in range(1, 4):
            match = np.fft.ifft2(spectra[frame] * spectra[0].conj()).real
            peak = np.array(np.unravel_index(match.argmax(), match.shape))
            peak = (peak + 32) % 64 - 32
            moved = centroid(sample.mask[frame]) - centroid(sample.mask[0])
            assert np.all(np.abs(peak - moved) < 0.9)


def frame_correlation(clip: np.ndarray, area: np.ndarray) -> float:
    first, last = clip[4][area].astype(float), clip[5][area].astype(float)
    return float(np.corrcoef(first, last)[0, 1])


def test_bmode_speckle_stays_and_contrast_speckle_is_fresh() -> None:
    for sample in cohort(10, motion=0.0):
        tissue = ~ring_around(sample.mask | sample.decoy_mask)[0]
        tissue &= ~(sample.mask | sample.decoy_mask)[0]
        assert frame_correlation(sample.bus, tissue) > 0.9
        assert frame_correlation(sample.ceus[..., 0], tissue) < 0.35


def test_nodule_is_darker_than_its_surround_in_bmode(breast: list[PhantomSample]) -> None:
    steps = [s.bus[ring_around(s.mask)].mean() - s.bus[s.mask].mean() for s in breast]
    assert np.min(steps) > 8
    # 6 to 14 dB of 45 dB in 255 grey levels is 34 to 79, less what the soft edge takes.
    assert 25 < np.mean(steps) < 79


def test_bmode_looks_like_log_compressed_rayleigh_speckle() -> None:
    """The logarithm of Rayleigh speckle has a standard deviation of 5.57 dB."""
    spread = []
    for sample in cohort(30, motion=0.0):
        middle = sample.bus[0, 14:50].astype(float)
        tissue = ~(ring_around(sample.mask) | sample.mask)[0, 14:50]
        spread.append(middle[tissue].std() * 45 / 255)
    assert 5.2 < np.mean(spread) < 7.0


def test_decoy_does_not_exist_in_bmode(breast: list[PhantomSample]) -> None:
    """No pixel depends on it, and where it lies is as bright as next to it on average."""
    steps = np.array(
        [s.bus[ring_around(s.decoy_mask)].mean() - s.bus[s.decoy_mask].mean() for s in breast]
    )
    clear = np.array([not (ring_around(s.decoy_mask) & s.mask).any() for s in breast])
    away_from_fasciae = (latent(breast, "decoy_y") > 24) & (latent(breast, "decoy_y") < 40)
    steps = steps[clear & away_from_fasciae]
    assert len(steps) >= 40
    assert abs(steps.mean()) < 4 * steps.std() / np.sqrt(len(steps))
    assert abs(steps.mean()) < 5
    for index in range(5):
        alone = make_phantom(PhantomConfig(decoy=False), 0, index)
        np.testing.assert_array_equal(alone.bus, breast[index].bus)
        np.testing.assert_array_equal(alone.mask, breast[index].mask)
        assert not alone.decoy_mask.any()
        assert not any(name.startswith("decoy") for name in alone.latents)


def test_decoy_and_nodule_are_bright_in_the_breast(breast: list[PhantomSample]) -> None:
    for sample in breast:
        rest = intensity_curve(sample, ~sample.mask & ~sample.decoy_mask).max()
        assert intensity_curve(sample, sample.decoy_mask).max() > 2 * rest
        assert intensity_curve(sample, sample.mask).max() > 2 * rest


def test_dropping_the_decoy_removes_its_enhancement_only(breast: list[PhantomSample]) -> None:
    alone = make_phantom(PhantomConfig(decoy=False), 0, 0)
    changed = (alone.ceus != breast[0].ceus).any(axis=-1).any(axis=0)
    assert changed[breast[0].decoy_mask.any(axis=0)].mean() > 0.9
    assert not changed[breast[0].mask.all(axis=0)].any()


def test_thyroid_nodules_enhance_less_when_malignant(thyroid: list[PhantomSample]) -> None:
    peaks = []
    for sample in thyroid:
        rest = intensity_curve(sample, ~sample.mask & ~sample.decoy_mask).max()
        peaks.append(intensity_curve(sample, sample.mask).max() / rest)
    malignant = labels(thyroid) == 1
    less = np.array(peaks) < 1
    assert 0.5 < less[malignant].mean() < 0.9
    assert less[~malignant].mean() < 0.25


def test_contrast_washes_in_and_out(breast: list[PhantomSample]) -> None:
    benign, malignant = (
        np.mean(
            [intensity_curve(s, s.mask) for s in breast if s.label == label],
            axis=0,
        )
        for label in (0, 1)
    )
    for curve in (benign, malignant):
        assert curve.max() > 10 * curve[0]
        assert curve[-1] < 0.75 * curve.max()
        assert 0 < curve.argmax() < len(curve) - 1
    assert malignant[-1] / malignant.max() < benign[-1] / benign.max()


def test_time_to_peak_after_arrival() -> None:
    """8.4 s in malignant and 14.5 s in benign lobules; noise on the flat peak makes it later."""
    config = PhantomConfig(frames=49)
    delays: dict[int, list[float]] = {0: [], 1: []}
    for index in range(60):
        sample = make_phantom(config, 0, index)
        curve = np.convolve(intensity_curve(sample, sample.mask), np.ones(5), "same")
        peak = float(sample.times[curve.argmax()])
        delays[sample.label].append(peak - sample.latents["arrival_s"])
    benign, malignant = np.mean(delays[0]), np.mean(delays[1])
    assert 7.5 < malignant < 12
    assert 13 < benign < 20
    assert 1.4 < benign / malignant < 2.1


@pytest.mark.parametrize(("domain", "sign"), [("breast", -1), ("thyroid", 1)])
def test_timing_tells_the_classes_apart(
    domain: str, sign: int, request: pytest.FixtureRequest
) -> None:
    """Measured on pixels; malignant is early in the breast and late in the thyroid."""
    samples: list[PhantomSample] = request.getfixturevalue(domain)
    nodule = [sign * mean_time(sample, sample.mask) for sample in samples]
    decoy = [sign * mean_time(sample, sample.decoy_mask) for sample in samples]
    assert roc_auc_score(labels(samples), nodule) > 0.85
    assert roc_auc_score(latent(samples, "decoy_label"), decoy) > 0.85
    assert 0.38 < roc_auc_score(labels(samples), decoy) < 0.62


def test_malignant_breast_lobules_have_a_brighter_rim(breast: list[PhantomSample]) -> None:
    rims = []
    for sample in breast:
        pixels = np.indices(sample.mask.shape[1:])
        centre = np.array([sample.latents["decoy_y"], sample.latents["decoy_x"]])
        radius = np.hypot(*(pixels - centre[:, None, None])) / sample.latents["decoy_radius"]
        shine = sample.ceus[2:6].astype(float).mean(axis=(0, -1))
        rims.append(shine[(radius > 0.7) & (radius < 1)].mean() - shine[radius < 0.5].mean())
    assert roc_auc_score(latent(breast, "decoy_label"), rims) > 0.75


def shadow_db(sample: PhantomSample) -> float:
    """How much darker it is behind the nodule than beside that."""
    columns = np.flatnonzero(sample.mask[0].any(axis=0))
    bottom = np.flatnonzero(sample.mask[0].any(axis=1))[-1]
    below = sample.bus[:, bottom + 3 :].mean(axis=0)
    distance = np.abs(np.arange(below.shape[1]) - columns.mean()) / len(columns)
    return float(below[:, distance > 0.8].mean() - below[:, distance < 0.35].mean()) * 45 / 255


def height_over_width(sample: PhantomSample) -> float:
    return float(sample.mask[0].any(axis=1).sum() / sample.mask[0].any(axis=0).sum())


def test_bmode_shows_its_score_and_little_of_the_class() -> None:
    samples = cohort(500)
    score = latent(samples, "bus_score")
    shadow = np.array([shadow_db(sample) for sample in samples])
    assert 2.0 < np.polyfit(score, shadow, 1)[0] < 3.0  # 2.5 dB per unit of the score
    statistic = np.array([height_over_width(sample) for sample in samples]) / 0.15 + shadow / 3
    assert np.corrcoef(statistic, score)[0, 1] > 0.85
    assert 0.6 < roc_auc_score(labels(samples), statistic) < 0.77


def enhancement_centre(sample: PhantomSample) -> np.ndarray:
    shine = sample.ceus[2:].astype(float).mean(axis=(0, -1))
    shine = np.clip(shine - np.median(shine) - 25, 0, None)
    near = np.hypot(*(np.indices(shine.shape) - centroid(shine**2)[:, None, None]))
    return centroid(np.where(near < 14, shine, 0))


def test_misregistration_moves_the_contrast_clip_alone() -> None:
    aligned = PhantomConfig(decoy=False, motion=0.0)
    moved = dataclasses.replace(aligned, misregistration=3.0)
    offsets, shifts = [], []
    for index in range(60):
        before, after = (make_phantom(config, 0, index) for config in (aligned, moved))
        np.testing.assert_array_equal(before.bus, after.bus)
        np.testing.assert_array_equal(before.mask, after.mask)
        same = {k: v for k, v in before.latents.items() if not k.startswith("offset")}
        assert same.items() <= after.latents.items()
        offsets.append([after.latents["offset_y"], after.latents["offset_x"]])
        shifts.append(enhancement_centre(after) - enhancement_centre(before))
    assert before.latents["offset_y"] == before.latents["offset_x"] == 0
    assert np.all(np.abs(np.std(offsets, axis=0) - 3) < 0.9)
    assert np.abs(np.mean(offsets, axis=0)).max() < 1.3
    assert np.median(np.abs(np.array(shifts) - offsets)) < 0.6
    for axis in (0, 1):
        slope = np.polyfit(np.array(offsets)[:, axis], np.array(shifts)[:, axis], 1)[0]
        assert 0.85 < slope < 1.15


def test_contrast_clip_is_amber(breast: list[PhantomSample]) -> None:
    red, green, blue = np.moveaxis(breast[0].ceus, -1, 0)
    assert np.all(red >= green)
    assert np.all(green >= blue)
    assert red.max() > 200 > blue.max()
