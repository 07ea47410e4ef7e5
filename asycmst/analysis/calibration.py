"""Whether a probability of 0.7 means 70 %: reliability, calibration error, Brier score."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Calibration(NamedTuple):
    """Calibration of malignant probabilities.

    Attributes:
        brier: mean squared distance of probability and label, in [0, 1], lower is better.
        ece: expected calibration error, the mean distance of a bin's probability and share of
            malignant cases, weighted by its cases.
        mean_probability: of each bin that holds a case.
        malignant_share: of each such bin.
        cases: of each such bin.
    """

    brier: float
    ece: float
    mean_probability: list[float]
    malignant_share: list[float]
    cases: list[int]


def calibration(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> Calibration:
    """Compare probabilities with what happened, in bins of equal width.

    Args:
        labels: shape (n,), 0 or 1, n at least 1.
        probabilities: shape (n,), in [0, 1]; on the edge of two bins, the lower one.
        bins: number of bins of [0, 1].

    Raises:
        ValueError: `bins` is below 1 or a probability outside [0, 1].
    """
    truth, values = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    if bins < 1 or values.min() < 0 or values.max() > 1:
        raise ValueError(
            f"bins={bins}, probabilities in [{values.min():.4g}, {values.max():.4g}]: allowed are "
            "at least 1 bin and probabilities within [0, 1]"
        )
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], values)
    cases = np.bincount(place, minlength=bins)
    held = cases > 0

    def means(of: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(place, weights=of, minlength=bins)
        result: NDArray[np.float64] = sums[held] / cases[held]
        return result

    said, happened = means(values), means(truth)
    return Calibration(
        brier=float(np.mean((values - truth) ** 2)),
        ece=float(np.abs(said - happened) @ cases[held] / truth.size),
        mean_probability=said.tolist(),
        malignant_share=happened.tolist(),
        cases=cases[held].tolist(),
    )
