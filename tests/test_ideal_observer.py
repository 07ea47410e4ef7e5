"""The ideal observers: closed forms, limits, and agreement with what the phantom draws."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from asycmst.data.ideal_observer import ideal_observer_auc
from asycmst.data.phantom import PhantomConfig, make_phantom

TOLERANCE = 0.004  # about four standard errors of 200 000 draws


def closed_form(*distances: float) -> float:
    """AUC of independent unit Gaussians whose means differ by `distances`."""
    return NormalDist().cdf(float(np.linalg.norm(distances)) / 2**0.5)


@pytest.mark.parametrize(("bus_d", "tic_d"), [(0.8, 2.5), (0.0, 1.0), (1.5, 0.0), (0.4, 40.0)])
def test_single_and_gated_follow_the_closed_forms(bus_d: float, tic_d: float) -> None:
    auc = ideal_observer_auc(PhantomConfig(bus_d=bus_d, tic_d=tic_d))
    assert auc["bus"] == pytest.approx(closed_form(bus_d), abs=TOLERANCE)
    assert auc["gated"] == pytest.approx(closed_form(bus_d, tic_d), abs=TOLERANCE)


def test_without_a_decoy_addition_is_as_good_as_gating() -> None:
    auc = ideal_observer_auc(PhantomConfig(decoy=False))
    assert auc["ceus"] == pytest.approx(closed_form(2.5), abs=TOLERANCE)
    assert auc["late"] == auc["gated"] == pytest.approx(closed_form(0.8, 2.5), abs=TOLERANCE)


def test_default_phantom() -> None:
    auc = ideal_observer_auc(PhantomConfig())
    expected = {"bus": 0.714, "ceus": 0.834, "late": 0.877, "gated": 0.968}
    assert auc == pytest.approx(expected, abs=TOLERANCE)
    assert auc["bus"] < auc["ceus"] < auc["late"] < auc["gated"]


def test_a_decoy_of_the_same_class_is_a_second_measurement() -> None:
    auc = ideal_observer_auc(PhantomConfig(decoy_corr=1.0))
    assert auc["ceus"] == pytest.approx(closed_form(2.5, 2.5), abs=TOLERANCE)
    assert auc["gated"] == pytest.approx(closed_form(0.8, 2.5, 2.5), abs=TOLERANCE)


def test_a_decoy_of_the_other_class_hides_the_nodule() -> None:
    auc = ideal_observer_auc(PhantomConfig(decoy_corr=-1.0))
    assert auc["ceus"] == pytest.approx(0.5, abs=TOLERANCE)
    assert auc["late"] == pytest.approx(closed_form(0.8), abs=TOLERANCE)
    assert auc["gated"] == pytest.approx(closed_form(0.8, 2.5, 2.5), abs=TOLERANCE)


def test_addition_loses_more_as_the_decoy_differs_more() -> None:
    late = [
        ideal_observer_auc(PhantomConfig(decoy_corr=correlation))["late"]
        for correlation in (-0.5, 0.0, 0.5)
    ]
    assert late[0] + 0.02 < late[1] < late[2] - 0.02


@pytest.mark.parametrize("prevalence", [0.0, 0.2, 1.0])
def test_gated_bound_does_not_depend_on_the_prevalence(prevalence: float) -> None:
    auc = ideal_observer_auc(PhantomConfig(prevalence=prevalence))
    assert auc["gated"] == pytest.approx(closed_form(0.8, 2.5), abs=TOLERANCE)
    if prevalence in (0.0, 1.0):  # all decoys alike still dilute what the nodule shows
        assert auc["ceus"] < closed_form(2.5) - 0.005


def test_without_information_every_observer_guesses() -> None:
    auc = ideal_observer_auc(PhantomConfig(bus_d=0.0, tic_d=0.0), samples=1000)
    assert auc == {"bus": 0.5, "ceus": 0.5, "late": 0.5, "gated": 0.5}


def test_the_phantom_draws_what_the_observer_reads() -> None:
    config = PhantomConfig(size=32, frames=2)
    samples = [make_phantom(config, 7, index) for index in range(500)]
    label = [sample.label for sample in samples]
    score, q = (
        np.array([sample.latents[name] for sample in samples])
        for name in ("bus_score", "nodule_q")
    )
    auc = ideal_observer_auc(config)
    assert roc_auc_score(label, score) == pytest.approx(auc["bus"], abs=0.08)
    fused = config.bus_d * score + config.tic_d * q
    assert roc_auc_score(label, fused) == pytest.approx(auc["gated"], abs=0.03)


def test_draws_are_seeded() -> None:
    first, again, other = (
        ideal_observer_auc(PhantomConfig(), samples=2000, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_too_few_samples_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^samples is 1; give at least 2, one of each class$"):
        ideal_observer_auc(PhantomConfig(), samples=1)
