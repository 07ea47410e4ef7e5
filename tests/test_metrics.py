"""Classification scores, the AUC's interval and the Dice overlap."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_auc_score

from asycmst.analysis.metrics import bootstrap_auc_ci, classification_metrics, dice, roc_auc


def cases(size: int = 80, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    labels = np.arange(size) % 3 == 0
    scores = generator.normal(size=size) + labels
    return labels.astype(int), np.round(scores) if ties else scores


def test_auc_is_the_share_of_pairs_in_order() -> None:
    labels, scores = cases(ties=True)
    malignant, benign = scores[labels == 1], scores[labels == 0]
    pairs = malignant[:, None] - benign[None, :]
    assert (pairs == 0).any(), "the test needs ties"
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert roc_auc(labels, scores) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor], ids=["list", "array", "tensor"])
def test_auc_takes_lists_arrays_and_tensors(kind: Any) -> None:
    assert roc_auc(kind([0, 1, 0, 1]), kind([0.1, 0.9, 0.5, 0.4])) == 0.75


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc_but_a_reason(label: int) -> None:
    labels, scores = [label] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]
    with pytest.warns(UndefinedMetricWarning, match=f"all 5 labels are {label}") as given:
        assert math.isnan(roc_auc(labels, scores))
    assert len(given) == 1
    with pytest.warns(UndefinedMetricWarning):
        assert all(math.isnan(bound) for bound in bootstrap_auc_ci(labels, scores))
    with pytest.warns(UndefinedMetricWarning) as given:
        metrics = classification_metrics(labels, scores)
    assert len(given) == 1
    assert math.isnan(metrics["auc"]) and metrics["accuracy"] == 1 - label


@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "ties"])
def test_interval_is_that_of_plain_resampling(ties: bool) -> None:
    labels, scores = cases(ties=ties)
    drawn = np.random.default_rng(5).multinomial(80, np.full(80, 1 / 80), size=400)
    areas = [roc_auc_score(labels, scores, sample_weight=weights) for weights in drawn]
    expected = np.quantile(areas, [0.05, 0.95])
    found = bootstrap_auc_ci(labels, scores, resamples=400, seed=5, confidence=0.9)
    assert found == pytest.approx(tuple(expected), abs=1e-12)


def test_interval_holds_the_auc_and_depends_on_the_seed_only() -> None:
    labels, scores = cases()
    low, high = bootstrap_auc_ci(labels, scores)
    assert 0 < low < roc_auc(labels, scores) < high < 1
    assert (low, high) == bootstrap_auc_ci(labels, scores)
    assert (low, high) != bootstrap_auc_ci(labels, scores, seed=1)
    wide = bootstrap_auc_ci(labels, scores, confidence=0.99)
    assert wide[0] < low and high < wide[1]


def test_interval_of_many_cases_works_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = cases()
    whole = bootstrap_auc_ci(labels, scores, resamples=300)
    monkeypatch.setattr("asycmst.analysis.metrics._BLOCK", 80 * 7)
    assert bootstrap_auc_ci(labels, scores, resamples=300) == whole


def test_resamples_of_one_class_are_left_out() -> None:
    low, high = bootstrap_auc_ci([0, 1], [0.2, 0.8], resamples=50)
    assert (low, high) == (1.0, 1.0)


def test_hand_made_confusion() -> None:
    """3 malignant found, 1 missed, 2 benign called malignant, 4 called benign."""
    labels = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    probabilities = [0.9, 0.8, 0.51, 0.5, 0.7, 0.6, 0.5, 0.1, 0.2, 0.3]
    metrics = classification_metrics(labels, probabilities)
    assert metrics == pytest.approx(
        {"accuracy": 0.7, "recall": 0.75, "precision": 0.6, "f1": 2 / 3, "auc": 19.5 / 24}
    )


def test_nothing_called_malignant_scores_zero() -> None:
    metrics = classification_metrics([0, 1, 1], [0.1, 0.2, 0.3])
    assert (metrics["recall"], metrics["precision"], metrics["f1"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        pytest.param([], [], "n at least 1", id="nothing"),
        pytest.param([0, 1], [0.5], "one of each per case", id="unequal"),
        pytest.param([0, 2], [0.5, 0.6], "other than 0", id="label 2"),
        pytest.param([0, 1], [0.5, math.nan], "1 of 2 scores are NaN", id="NaN"),
        pytest.param([0, 1], [0.5, 1.5], "softmax", id="no probability"),
    ],
)
def test_what_cannot_be_scored(labels: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification_metrics(labels, scores)


@pytest.mark.parametrize("arguments", [{"resamples": 0}, {"confidence": 1.0}], ids=str)
def test_interval_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="allowed are"):
        bootstrap_auc_ci(*cases(), **arguments)


@pytest.mark.parametrize(
    ("prediction", "target", "expected"),
    [
        pytest.param([1, 1, 0, 0], [1, 0, 1, 0], 0.5, id="half"),
        pytest.param([1, 1, 1, 0], [1, 1, 0, 0], 0.8, id="unequal sizes"),
        pytest.param([1, 0], [0, 1], 0.0, id="apart"),
        pytest.param([0, 0], [0, 0], 1.0, id="both empty"),
        pytest.param([0, 0], [0, 1], 0.0, id="one empty"),
    ],
)
@pytest.mark.parametrize("kind", [np.array, torch.tensor], ids=["array", "tensor"])
def test_dice(kind: Any, prediction: list[int], target: list[int], expected: float) -> None:
    assert dice(kind(prediction), kind(target)) == pytest.approx(expected)
    assert dice(kind(prediction) > 0, kind(target) > 0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [([0.3, 0.9], "threshold it first"), ([1, 0, 1], "masks of one shape")],
)
def test_what_is_no_mask(prediction: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dice(np.array(prediction), np.array([1, 0]))
