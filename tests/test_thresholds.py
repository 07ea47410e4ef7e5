"""Thresholds chosen on validation cases."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_curve

from asycmst.analysis.thresholds import Rule, choose_threshold

#          benign ------------------------- malignant
LABELS = [0, 0, 0, 1, 0, 1, 1, 0, 1, 1]
VALUES = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [
        ("youden", 0.45),  # 4/5 found, 1/5 false: 0.6; at 0.25 5/5 and 2/5: 0.6, farther from 0.5
        ("f1", 0.25),  # 10/12; at 0.45 8/10
        ("sensitivity", 0.25),  # 0.9 of five are five
    ],
)
def test_rules_by_hand(rule: Rule, threshold: float) -> None:
    assert choose_threshold(LABELS, VALUES, rule) == pytest.approx(threshold)


@pytest.mark.parametrize(("wanted", "threshold"), [(0.8, 0.45), (0.81, 0.25), (0.2, 0.75)])
def test_a_wanted_sensitivity_at_the_largest_specificity(wanted: float, threshold: float) -> None:
    """0.2 is had without a false alarm at 0.85 and at 0.75, which is nearer to 0.5."""
    found = choose_threshold(LABELS, VALUES, "sensitivity", wanted)
    assert found == pytest.approx(threshold)


def test_rules_find_the_best_there_is() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3 // 2
    values = np.clip(generator.normal(0.4, 0.2, 90) + 0.2 * labels, 0, 1).round(2)
    false, true, edges = roc_curve(labels, values)
    found = values > choose_threshold(labels, values, "youden")
    merit = found[labels == 1].mean() - found[labels == 0].mean()
    assert merit == pytest.approx((true - false).max())
    found = values > choose_threshold(labels, values, "f1")
    best = max(f1_score(labels, values >= edge) for edge in edges)
    assert f1_score(labels, found) == pytest.approx(best)


def test_thresholds_lie_within_0_and_1() -> None:
    assert choose_threshold([0, 1], [0.2, 0.8], "youden") == pytest.approx(0.5)
    assert choose_threshold([0, 1], [0.5, 0.5], "f1") in (0.25, 0.75)
    assert 0 < choose_threshold([1, 0], [0.3, 0.6], "sensitivity", 1.0) < 0.3


@pytest.mark.parametrize(
    ("labels", "values", "rule", "sensitivity", "words"),
    [
        ([0, 0], [0.1, 0.2], "youden", 0.9, "the 2 validation cases lack a class"),
        ([], [], "youden", 0.9, "the 0 validation cases lack a class"),
        ([0, 1], [0.1, 0.2], "best", 0.9, "rule 'best': allowed are youden, f1, sensitivity"),
        ([0, 1], [0.1, 0.2], "sensitivity", 0.0, "sensitivity=0.0: allowed"),
        ([0, 1], [0.1, 0.0], "sensitivity", 0.9, "no threshold has a sensitivity of 0.9"),
        ([0, 1], [0.1, float("nan")], "youden", 0.9, "1 of 2 scores are NaN"),
    ],
)
def test_bad_input_is_one_line(
    labels: list[int], values: list[float], rule: Rule, sensitivity: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        choose_threshold(labels, values, rule, sensitivity)
