"""Scores of studies, their intervals by patient, and paired tests."""

import math
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from asycmst.analysis.paired_tests import delong, mcnemar, paired_t
from asycmst.analysis.statistics import (
    SCORES,
    Average,
    Scored,
    interval,
    over_splits,
    resampled_scores,
    scores,
)


def scored(size: int = 60, seed: int = 0, **other: Any) -> Scored:
    generator = np.random.default_rng(seed)
    labels = np.arange(size) % 3 // 2
    values = generator.normal(size=size) + labels
    present = generator.random(size) < 0.7
    content = {
        "labels": labels,
        "probabilities": np.round(1 / (1 + np.exp(-values)), 2),
        "patients": np.arange(size) // 2,
        **{
            name: np.where(present, generator.random(size), np.nan)
            for name in ("dice", "pointing", "centre_dice", "centre_pointing")
        },
        "frame_order": np.full(size, np.nan),
    }
    return Scored(**(content | other))


def by_sklearn(
    test: Scored, threshold: float, average: str, drawn: np.ndarray
) -> dict[str, float]:
    """The same of the cases that were drawn, repeated."""
    labels, values = test.labels[drawn], test.probabilities[drawn]
    called = (values > threshold).astype(int)
    how = {"average": average, "zero_division": 0}
    return {
        "auc": roc_auc_score(labels, values),
        "accuracy": accuracy_score(labels, called),
        "recall": recall_score(labels, called, **how),
        "specificity": recall_score(labels, called, pos_label=0),
        "precision": precision_score(labels, called, **how),
        "f1": f1_score(labels, called, **how),
        **{
            name: np.nanmean(getattr(test, name)[drawn])
            for name in ("dice", "pointing", "centre_dice", "centre_pointing")
        },
    }


@pytest.mark.parametrize("average", ["binary", "macro"])
@pytest.mark.parametrize("threshold", [0.3, 0.62, 1.0])
def test_scores_are_scikit_learns(average: Average, threshold: float) -> None:
    test = scored()
    found = scores(test, threshold, average)
    assert list(found) == list(SCORES)
    assert math.isnan(found.pop("frame_order"))
    expected = by_sklearn(test, threshold, average, np.arange(60))
    assert found == pytest.approx(expected, abs=1e-12)


def test_patients_are_drawn_whole_and_in_every_test_set() -> None:
    """Against plain repetition of the drawn cases, patient by patient."""
    one, other = scored(seed=1), scored(size=40, seed=2)
    found = resampled_scores([one, other], [0.5, 0.6], resamples=20, seed=3)
    drawn = np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), size=20)
    for row, patients in enumerate(drawn):
        each = [
            by_sklearn(test, threshold, "binary", np.repeat(np.arange(n), patients[test.patients]))
            for test, threshold, n in ((one, 0.5, 60), (other, 0.6, 40))
        ]
        for name, value in each[0].items():
            mean = (value + each[1][name]) / 2
            assert found[name][row] == pytest.approx(mean, abs=1e-12), name


def test_clips_of_one_patient_do_not_narrow_the_interval() -> None:
    """Five copies of every case say no more than one."""
    alone = scored(patients=np.arange(60))
    copies = Scored(*(np.repeat(values, 5) for values in alone))
    widths = {}
    for name, test in (
        ("alone", alone),
        ("copies", copies),
        ("ignored", copies._replace(patients=np.arange(300))),
    ):
        auc = interval(0.0, resampled_scores([test], [0.5], seed=4)["auc"])
        widths[name] = auc.high - auc.low
    assert widths["copies"] == pytest.approx(widths["alone"], abs=1e-12)
    assert widths["ignored"] < 0.6 * widths["alone"]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resampled_scores([scored()], [0.5], resamples=50)
    monkeypatch.setattr("asycmst.analysis.statistics._BLOCK", 60 * 7)
    parts = resampled_scores([scored()], [0.5], resamples=50)
    for name in SCORES:
        np.testing.assert_allclose(whole[name], parts[name], rtol=1e-12)


def test_resamples_that_lack_a_class_are_left_out() -> None:
    test = scored(
        2, labels=np.array([0, 1]), probabilities=np.array([0.2, 0.8]), patients=np.arange(2)
    )
    found = resampled_scores([test], [0.5], resamples=64)
    lacking = np.isnan(found["auc"])
    assert 10 < lacking.sum() < 54
    for name in SCORES[:6]:
        np.testing.assert_array_equal(np.isnan(found[name]), lacking)
    assert interval(1.0, found["auc"]) == (1, 1, 1)
    nothing = interval(0.5, np.full(3, np.nan))
    assert nothing.value == 0.5 and math.isnan(nothing.low) and math.isnan(nothing.high)
    with pytest.raises(ValueError, match="resamples=0"):
        resampled_scores([test], [0.5], resamples=0)


def test_an_interval_is_of_percentiles() -> None:
    assert interval(7, np.arange(101.0)[::-1], 0.9) == pytest.approx((7, 5, 95))
    assert interval(7, np.append(np.arange(101.0), np.nan)) == pytest.approx((7, 2.5, 97.5))


def test_mean_and_deviation_over_splits_divide_by_n_minus_1() -> None:
    assert over_splits([1, 2, 3]) == (2, 1, 3)
    alone = over_splits([0.8])
    assert alone.mean == 0.8 and math.isnan(alone.std) and alone.n == 1


def test_paired_t_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3); p of t = 3.464 with 2 degrees."""
    found = paired_t([3, 5, 7], [2, 3, 4])
    assert found.difference == 2 and found.n == 3
    assert found.t == pytest.approx(2 * 3**0.5)
    # The t distribution with 2 degrees of freedom: p = 1 - t / sqrt(t^2 + 2).
    assert found.p == pytest.approx(1 - found.t / (found.t**2 + 2) ** 0.5)
    assert paired_t([9.93, 10, 10.07], [0, 0, 0]).p < 0.01
    edge = paired_t([9.92 / 3**0.5 + d for d in (-1, 0, 1)], [0, 0, 0])
    assert edge.t == pytest.approx(9.92) and edge.p == pytest.approx(0.01, abs=1e-4)


def test_paired_t_without_spread_or_pairs() -> None:
    assert paired_t([1, 2], [1, 2]) == (0, 0, 1, 2)
    assert paired_t([1, 2], [2, 3]) == (-1, -math.inf, 0, 2)
    for one, other in (([1], [2]), ([1, 2], [1, 2, 3])):
        with pytest.raises(ValueError, match="needs two of each or more"):
            paired_t(one, other)


def test_mcnemar_by_hand() -> None:
    """One case only the first has right, six only the second: 2 (1 + 7) / 2^7."""
    labels = [1] * 5 + [0] * 5
    first = [1, 0, 0, 0, 0, 1, 1, 0, 1, 0]
    second = [0, 1, 1, 1, 1, 0, 0, 0, 1, 0]
    assert mcnemar(labels, first, second) == (1, 6, pytest.approx(2 * 8 / 128))
    assert mcnemar(labels, second, first) == (6, 1, pytest.approx(2 * 8 / 128))
    assert mcnemar(labels, first, first) == (0, 0, 1)


def pairs(malignant: np.ndarray, benign: np.ndarray) -> np.ndarray:
    difference = malignant[:, None] - benign[None, :]
    return (difference > 0) + 0.5 * (difference == 0)


def test_delong_by_its_definition() -> None:
    """Variance of structural components over all pairs, ties included."""
    generator = np.random.default_rng(0)
    labels = np.arange(50) % 3 // 2
    first = np.round(generator.normal(size=50) + labels, 1)
    second = np.round(first + generator.normal(size=50), 1)
    wins = [pairs(s[labels == 1], s[labels == 0]) for s in (first, second)]
    assert any((w == 0.5).any() for w in wins), "the test needs ties"
    apart = wins[0] - wins[1]
    m, n = apart.shape
    variance = apart.mean(axis=1).var(ddof=1) / m + apart.mean(axis=0).var(ddof=1) / n
    found = delong(labels, first, second)
    assert found.first == pytest.approx(roc_auc_score(labels, first))
    assert found.second == pytest.approx(wins[1].mean())
    assert found.standard_error == pytest.approx(variance**0.5, abs=1e-12)
    assert found.z == pytest.approx(apart.mean() / variance**0.5)
    assert found.p == pytest.approx(math.erfc(abs(found.z) / 2**0.5))
    back = delong(labels, second, first)
    assert (back.z, back.p) == (pytest.approx(-found.z), pytest.approx(found.p))


def test_delong_is_level_under_the_null() -> None:
    """Two equally good models: about one in twenty tests has p < 0.05."""
    generator = np.random.default_rng(1)
    labels = np.arange(80) % 2
    low = 0
    for _ in range(400):
        shared = generator.normal(size=80) + labels
        first, second = (shared + generator.normal(size=80) for _ in range(2))
        low += delong(labels, first, second).p < 0.05
    assert 8 <= low <= 34


def test_delong_where_cases_decide_nothing() -> None:
    same = delong([0, 0, 1, 1], [1, 3, 2, 4], [1, 3, 2, 4])
    assert (same.difference, same.z, same.p) == (0, 0, 1)
    apart = delong([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    assert apart.difference == 1 and math.isnan(apart.z) and math.isnan(apart.p)
    with pytest.raises(ValueError, match="1 malignant and 2 benign"):
        delong([0, 0, 1], [1, 2, 3], [1, 2, 3])
    with pytest.warns(UndefinedMetricWarning), pytest.raises(ValueError, match="0 malignant"):
        delong([0, 0, 0], [1, 2, 3], [1, 2, 3])
