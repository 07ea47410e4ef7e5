"""What the best possible reader of a phantom reaches, by how it combines the two streams.

The observer sees the latents a clip was made from, not its pixels. Given the latents the pixels
do not depend on the class, so no reader of the pixels can do better: these are upper bounds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from asycmst.data.phantom import PhantomConfig

Values = NDArray[np.float64]


def ideal_observer_auc(
    config: PhantomConfig, samples: int = 200_000, seed: int = 0
) -> dict[str, float]:
    """Areas under the ROC curve of four ideal observers, by Monte Carlo over the latents.

    All use log likelihood ratios of malignant against benign. With class distance d, a single
    latent x ~ N(+-d/2, 1) has the ratio d x and the closed form AUC = Phi(d / sqrt 2).

    - ``bus``: the B-mode score alone.
    - ``ceus``: the q of both lobules, without knowing which belongs to the nodule.
    - ``late``: the sum of the two ratios above, as late fusion of two finished verdicts.
    - ``gated``: the B-mode score, and the q of each lobule knowing which is the nodule's.
      With an independent decoy AUC = Phi(sqrt(bus_d^2 + tic_d^2) / sqrt 2).

    Half of the draws are malignant whatever the prevalence of the nodule, as an AUC compares
    the two classes; the class of the decoy follows `config`.

    Args:
        config: The phantom.
        samples: Number of draws, at least 2.
        seed: Seed of the draws.

    Returns:
        AUC by observer. The standard error is below ``0.58 / sqrt(samples)``.

    Raises:
        ValueError: `samples` is below 2.
    """
    if samples < 2:
        raise ValueError(f"samples is {samples}; give at least 2, one of each class")
    rng = np.random.Generator(np.random.PCG64(seed))
    malignant = np.arange(samples) % 2 == 1
    benign_rate, malignant_rate = (config.decoy_probability(label) for label in (False, True))
    decoy_malignant = rng.random(samples) < np.where(malignant, malignant_rate, benign_rate)
    noise = rng.standard_normal((3, samples))
    bus = config.bus_d * (config.bus_d * (malignant - 0.5) + noise[0])
    nodule = config.tic_d * (config.tic_d * (malignant - 0.5) + noise[1])
    decoy = config.tic_d * (config.tic_d * (decoy_malignant - 0.5) + noise[2])
    if config.decoy:
        named = nodule + _mixture(decoy, malignant_rate) - _mixture(decoy, benign_rate)
        ceus = np.logaddexp(
            nodule + _mixture(decoy, malignant_rate), decoy + _mixture(nodule, malignant_rate)
        ) - np.logaddexp(_mixture(decoy, benign_rate), _mixture(nodule, benign_rate))
    else:
        named = ceus = nodule
    observers = {"bus": bus, "ceus": ceus, "late": bus + ceus, "gated": bus + named}
    return {name: _auc(malignant, score) for name, score in observers.items()}


def _mixture(ratio: Values, rate: float) -> Values:
    """Log of ``rate exp(ratio) + 1 - rate``: a latent whose class is malignant with `rate`."""
    present = math.log(rate) if rate > 0 else -math.inf
    absent = math.log1p(-rate) if rate < 1 else -math.inf
    mixed: Values = np.logaddexp(present + ratio, absent)
    return mixed


def _auc(positive: NDArray[np.bool_], score: Values) -> float:
    """Mann-Whitney statistic; equal scores count one half."""
    _, level, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[level]
    positives = int(positive.sum())
    excess = rank[positive].sum() - positives * (positives + 1) / 2
    return float(excess / (positives * (len(score) - positives)))
