"""Reliability, calibration error and Brier score."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from asycmst.analysis.calibration import calibration


def test_calibration_by_hand() -> None:
    """Two bins used: (0.1, 0.3; one of two malignant) and (0.9, 1.0; both)."""
    found = calibration([0, 1, 1, 1], [0.1, 0.3, 0.9, 1.0], bins=2)
    assert found.cases == [2, 2]
    assert found.mean_probability == pytest.approx([0.2, 0.95])
    assert found.malignant_share == [0.5, 1.0]
    assert found.ece == pytest.approx((2 * 0.3 + 2 * 0.05) / 4)
    assert found.brier == pytest.approx((0.01 + 0.49 + 0.01) / 4)


def test_calibration_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    values = generator.random(200) ** 2
    labels = (generator.random(200) < values).astype(int)
    found = calibration(labels, values)
    shares, means = calibration_curve(labels, values, n_bins=10)
    assert found.malignant_share == pytest.approx(list(shares))
    assert found.mean_probability == pytest.approx(list(means))
    assert found.brier == pytest.approx(brier_score_loss(labels, values))
    assert sum(found.cases) == 200


def test_ends_and_edges_are_in_a_bin() -> None:
    found = calibration([0, 0, 1, 1], [0.0, 0.5, 0.5, 1.0], bins=2)
    assert found.cases == [3, 1]


@pytest.mark.parametrize(("values", "bins"), [([0.1, 1.2], 10), ([-0.1, 1], 10), ([0, 1], 0)])
def test_what_is_no_probability_is_refused(values: list[float], bins: int) -> None:
    with pytest.raises(ValueError, match=r"allowed are at least 1 bin and probabilities within"):
        calibration([0, 1], values, bins=bins)
