"""Above which probability to call a case malignant, chosen on validation cases only."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from asycmst.analysis.metrics import roc_auc

Rule = Literal["youden", "f1", "sensitivity"]

RULES: dict[Rule, str] = {
    "youden": "largest sensitivity + specificity (Youden)",
    "f1": "largest F1",
    "sensitivity": "a wanted sensitivity at the largest specificity",
}


def choose_threshold(
    labels: ArrayLike, probabilities: ArrayLike, rule: Rule, sensitivity: float = 0.9
) -> float:
    """The threshold that a rule prefers among those that divide the cases differently.

    A case is called malignant above the threshold. Candidates lie half-way between neighbouring
    probabilities, and half-way from the outermost ones to 0 and 1; of equally good ones the one
    nearest to 0.5 is taken.

    Args:
        labels: shape (n,), 0 or 1; both occur.
        probabilities: shape (n,), in [0, 1], of validation cases.
        rule: a key of `RULES`.
        sensitivity: the least sensitivity of the rule "sensitivity", in (0, 1].

    Returns:
        A threshold in [0, 1].

    Raises:
        ValueError: a class is missing, the rule is unknown, `sensitivity` is out of range, or no
            threshold reaches it, as where malignant cases have the probability 0.
    """
    if rule not in RULES:
        raise ValueError(f"rule {rule!r}: allowed are {', '.join(RULES)}")
    if not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity={sensitivity}: allowed is more than 0 and up to 1")
    truth, values = np.asarray(labels), np.asarray(probabilities, np.float64)
    if truth.size == 0 or truth.min() == truth.max():
        raise ValueError(
            f"the {truth.size} validation cases lack a class: a threshold needs benign and "
            "malignant ones, take 0.5"
        )
    roc_auc(truth, values)  # refuses what are no labels and scores
    edges = np.unique(np.concatenate([[0.0], values, [1.0]]))
    candidates = (edges[1:] + edges[:-1]) / 2
    called = values > candidates[:, None]
    tp = (called & (truth == 1)).sum(axis=1)
    fp = (called & (truth == 0)).sum(axis=1)
    malignant, benign = np.count_nonzero(truth == 1), np.count_nonzero(truth == 0)
    if rule == "youden":
        merit = tp / malignant - fp / benign
    elif rule == "f1":
        merit = 2 * tp / (tp + fp + malignant)
    else:
        merit = np.where(tp >= sensitivity * malignant - 1e-9, -fp / benign, -np.inf)
        if np.isinf(merit).all():
            raise ValueError(
                f"no threshold has a sensitivity of {sensitivity} on validation: malignant cases "
                "have the probability 0, take a lower one"
            )
    best = np.flatnonzero(merit >= merit.max() - 1e-12)
    return float(candidates[best[np.argmin(np.abs(candidates[best] - 0.5))]])
