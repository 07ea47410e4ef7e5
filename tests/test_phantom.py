"""The phantom: its arrays, labels, latents, masks and random streams."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from asycmst.data.phantom import PhantomConfig, PhantomSample, make_phantom
from asycmst.data.phantom_bmode import nodule_outline
from asycmst.data.phantom_ceus import KINETICS, gamma_variate
from asycmst.data.phantom_geometry import place_lobules


def cohort(count: int, **fields: object) -> list[PhantomSample]:
    config = PhantomConfig(**fields)  # type: ignore[arg-type]
    return [make_phantom(config, 0, index) for index in range(count)]


def latent(samples: list[PhantomSample], name: str) -> np.ndarray:
    return np.array([sample.latents[name] for sample in samples])


def labels(samples: list[PhantomSample]) -> np.ndarray:
    return np.array([sample.label for sample in samples])


@pytest.mark.parametrize(("frames", "size"), [(8, 64), (2, 32), (5, 48)])
def test_arrays_have_the_promised_shapes_and_types(frames: int, size: int) -> None:
    sample = make_phantom(PhantomConfig(frames=frames, size=size, duration_s=40.0), 1, 2)
    got = [(array.shape, array.dtype.name) for array in sample if isinstance(array, np.ndarray)]
    clip = (frames, size, size)
    assert got == [
        (clip, "uint8"),
        ((*clip, 3), "uint8"),
        (clip, "bool"),
        (clip, "bool"),
        (clip, "bool"),
        ((frames,), "float32"),
    ]
    assert sample.label in (0, 1)
    assert (sample.times[0], sample.times[-1]) == (0.0, 40.0)
    assert all(type(value) is float for value in sample.latents.values())


def assert_same(first: PhantomSample, second: PhantomSample) -> None:
    for name, one, other in zip(PhantomSample._fields, first, second, strict=True):
        np.testing.assert_equal(one, other, err_msg=name)


def test_a_sample_depends_on_config_seed_and_index_only() -> None:
    config = PhantomConfig(size=32)
    forwards = {index: make_phantom(config, 5, index) for index in (0, 1, 2)}
    np.random.seed(0)
    for index in (2, 0, 1):
        assert_same(make_phantom(config, 5, index), forwards[index])
    assert (forwards[0].bus != forwards[1].bus).mean() > 0.5
    assert (forwards[0].bus != make_phantom(config, 6, 0).bus).mean() > 0.5
    assert (forwards[0].ceus != make_phantom(config, 6, 0).ceus).mean() > 0.5


def test_seed_and_index_do_not_mix() -> None:
    config = PhantomConfig(size=32)
    assert make_phantom(config, 1, 2).latents != make_phantom(config, 2, 1).latents


@pytest.mark.parametrize("prevalence", [0.0, 0.3, 1.0])
def test_labels_follow_the_prevalence(prevalence: float) -> None:
    samples = cohort(400, size=32, frames=2, prevalence=prevalence)
    error = np.sqrt(prevalence * (1 - prevalence) / 400)
    for share in (labels(samples).mean(), latent(samples, "decoy_label").mean()):
        assert abs(share - prevalence) <= 3.5 * error


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.6])
def test_decoy_class_has_the_asked_correlation(correlation: float) -> None:
    samples = cohort(400, size=32, frames=2, decoy_corr=correlation)
    measured = np.corrcoef(labels(samples), latent(samples, "decoy_label"))[0, 1]
    assert abs(measured - correlation) < 0.16


def test_latents_have_the_asked_class_distances() -> None:
    samples = cohort(400, size=32, frames=2, bus_d=0.8, tic_d=2.5)
    malignant = labels(samples) == 1
    decoy = latent(samples, "decoy_label") == 1
    for name, positive, distance in (
        ("bus_score", malignant, 0.8),
        ("nodule_q", malignant, 2.5),
        ("decoy_q", decoy, 2.5),
        ("decoy_q", malignant, 0.0),
    ):
        values = latent(samples, name)
        gap = values[positive].mean() - values[~positive].mean()
        assert abs(gap - distance) < 0.45, name
    for name in ("bus_score", "nodule_q"):
        assert 0.85 < latent(samples, name)[malignant].std() < 1.15


def test_arrival_jitters_around_eight_seconds() -> None:
    arrival = latent(cohort(200, size=32, frames=2), "arrival_s")
    assert abs(arrival.mean() - 8) < 3.5 * 3 / np.sqrt(200)
    assert 2.4 < arrival.std() < 3.6
    still = make_phantom(PhantomConfig(arrival_jitter_s=0.0), 0, 0)
    assert still.latents["arrival_s"] == 8.0


@pytest.mark.parametrize("size", [32, 64])
def test_masks_stay_inside_the_image_and_apart(size: int) -> None:
    for sample in cohort(100, size=size, motion=2.0):
        for mask in (sample.mask, sample.decoy_mask):
            border = np.ones((size, size), dtype=bool)
            border[1:-1, 1:-1] = False
            assert not mask[:, border].any()
        assert not (sample.mask & sample.decoy_mask).any()
        expected = np.pi * sample.latents["nodule_radius"] ** 2
        areas = sample.mask.sum(axis=(1, 2))
        assert np.all(np.abs(areas / expected - 1) < (0.25 if size == 32 else 0.1))
        assert 0.02 < areas.mean() / size**2 < 0.08


@pytest.mark.parametrize("motion", [0.0, 1.0])
def test_masks_move_with_motion_only(motion: float) -> None:
    for sample in cohort(20, motion=motion):
        for mask in (sample.mask, sample.decoy_mask):
            moved = (mask[1:] != mask[:1]).any()
            assert moved == (motion > 0)


def test_the_contrast_clip_has_its_mask_where_it_is_displaced_to() -> None:
    still = make_phantom(PhantomConfig(), 0, 3)
    assert np.array_equal(still.ceus_mask, still.mask)
    moved = make_phantom(PhantomConfig(misregistration=5.0), 0, 3)
    assert np.array_equal(moved.mask, still.mask)
    expected = [moved.latents["offset_y"], moved.latents["offset_x"]]
    assert np.abs(expected).max() > 2
    for frame in range(8):
        places = [np.argwhere(mask[frame]).mean(0) for mask in (moved.ceus_mask, moved.mask)]
        assert places[0] - places[1] == pytest.approx(expected, abs=0.2)


def test_each_stream_sees_its_own_latents_only() -> None:
    """Contrast pixels do not carry the B-mode score, nor B-mode pixels the kinetics."""
    base = PhantomConfig(size=32)
    for index in range(5):
        sample = make_phantom(base, 3, index)
        other_score = make_phantom(dataclasses.replace(base, bus_d=3.0), 3, index)
        other_kinetics = make_phantom(dataclasses.replace(base, tic_d=0.5), 3, index)
        np.testing.assert_array_equal(other_score.ceus, sample.ceus)
        assert (other_score.bus != sample.bus).any()
        np.testing.assert_array_equal(other_kinetics.bus, sample.bus)
        assert (other_kinetics.ceus != sample.ceus).any()


@pytest.mark.parametrize(
    ("domain", "q", "peak_s", "left"),
    [
        ("breast", -1.25, 14.5, 0.34),
        ("breast", 1.25, 8.4, 0.15),
        ("thyroid", -1.25, 8.4, 0.15),
        ("thyroid", 1.25, 14.5, 0.34),
    ],
)
def test_curves_of_the_class_means(domain: str, q: float, peak_s: float, left: float) -> None:
    """Time to peak and what is left at 50 s, 42 s after the arrival, as the reports give them."""
    kinetics = KINETICS[domain]
    since = np.arange(-5, 60, 0.1, dtype=np.float32)
    curve = gamma_variate(
        since,
        np.float32(kinetics.time_to_peak_s.geometric(q)),
        np.float32(kinetics.shape().geometric(q)),
    )
    assert since[curve.argmax()] == pytest.approx(peak_s, abs=0.11)
    assert curve.max() == pytest.approx(1, abs=1e-3)
    assert np.interp(42, since, curve) == pytest.approx(left, abs=1e-3)
    assert np.all(curve[since < 0] < 0.01)
    assert np.all(np.isfinite(curve))


def test_contour_follows_the_score_at_constant_area() -> None:
    outlines = [
        nodule_outline(np.random.default_rng(4), (32.0, 32.0), 9.0, score)
        for score in (-5.0, -1.0, 0.0, 1.0, 5.0)
    ]
    irregularity = [sum(abs(wave) for wave in outline.waves) for outline in outlines]
    aspect = [outline.aspect for outline in outlines]
    assert irregularity == sorted(set(irregularity))
    assert irregularity[3] / irregularity[1] > 1.5
    assert aspect == sorted(set(aspect))
    fine = np.arange(0, 64, 0.125, dtype=np.float32)
    for outline in outlines:
        inside = outline.relative_radius(fine[:, None], fine) < 1
        assert inside.sum() / 64 == pytest.approx(np.pi * 81, rel=0.01)
        rows, columns = np.nonzero(inside)
        reach = np.hypot(fine[rows] - 32, fine[columns] - 32).max()
        assert reach < 1.45 * 9


def test_place_does_not_tell_the_nodule_from_the_decoy() -> None:
    rng = np.random.default_rng(0)
    places = [place_lobules(rng, 64) for _ in range(1000)]
    gaps = np.array([np.r_[p.centres[0] - p.centres[1], p.radii[0] - p.radii[1]] for p in places])
    assert np.all(np.abs(gaps.mean(axis=0)) < 3.5 * gaps.std(axis=0) / np.sqrt(1000))
    assert np.all(gaps.std(axis=0) > 0.5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"frames": 1}, "frames is 1"),
        ({"size": 16}, "size is 16"),
        ({"domain": "liver"}, "'breast', 'thyroid'"),
        ({"bus_d": -0.1}, "bus_d is -0.1"),
        ({"tic_d": float("nan")}, "tic_d is nan"),
        ({"tic_d": float("inf")}, "tic_d is inf"),
        ({"decoy_corr": 1.5}, "decoy_corr is 1.5"),
        ({"decoy_corr": -0.9, "prevalence": 0.2}, "cannot be had with prevalence 0.2"),
        ({"arrival_jitter_s": -1.0}, "arrival_jitter_s is -1.0"),
        ({"motion": 2.5}, "motion is 2.5"),
        ({"misregistration": 9.0}, "misregistration is 9.0"),
        ({"prevalence": 1.1}, "prevalence is 1.1"),
        ({"duration_s": 0.0}, "duration_s is 0.0"),
    ],
)
def test_a_bad_field_is_named_in_one_line(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        PhantomConfig(**fields)  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("frames", [8.0, True, "8"])
def test_frames_must_be_whole(frames: object) -> None:
    with pytest.raises(TypeError, match=r"frames is .*; give a whole number"):
        PhantomConfig(frames=frames)  # type: ignore[arg-type]


@pytest.mark.parametrize(("seed", "index", "name"), [(-1, 0, "seed"), (0, -1, "index")])
def test_seed_and_index_count_from_zero(seed: int, index: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is -1; give at least 0"):
        make_phantom(PhantomConfig(), seed, index)


def test_demo_is_eight_frames_of_64_pixels() -> None:
    demo = PhantomConfig.demo()
    assert (demo.frames, demo.size, demo.domain, demo.decoy) == (8, 64, "breast", True)
