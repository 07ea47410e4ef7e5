"""The figures of an evaluation as plain values: what metrics.json holds and the report shows."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from asycmst.analysis.calibration import calibration
from asycmst.analysis.evaluate import Evaluated, Fold
from asycmst.analysis.paired_tests import delong, mcnemar, paired_t
from asycmst.analysis.statistics import (
    SCORES,
    Average,
    Floats,
    interval,
    over_splits,
    resampled_scores,
    scores,
)
from asycmst.analysis.thresholds import RULES, Rule
from asycmst.training.networks import name_of

DEFAULT = "0.5"  # the operating point of the more probable class
_WORST = 10  # errors listed
_TESTED = ("auc", "accuracy", "f1")  # by the t-test over splits


def summarise(
    evaluated: Evaluated,
    *,
    rule: Rule = "youden",
    average: Average = "binary",
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores, operating points, calibration, errors and comparisons.

    Args:
        evaluated: what :func:`asycmst.analysis.evaluate.evaluate` found.
        rule: which threshold of the validation parts stands beside 0.5.
        average: of recall, precision and F1, see :func:`asycmst.analysis.statistics.scores`.
        resamples: of the bootstrap by patient.
        seed: of the bootstrap.

    Returns:
        Strings, numbers, lists and dictionaries of these; NaN is None.
    """
    points = _points(evaluated)
    chosen = rule if rule in points else DEFAULT
    resampled: dict[str, dict[str, dict[str, Floats]]] = {}
    models = {}
    for name, folds in evaluated.folds.items():
        tests = [fold.scored for fold in folds]
        resampled[name] = {
            point: resampled_scores(
                tests,
                [_threshold(fold, point) for fold in folds],
                average=average,
                resamples=resamples,
                seed=seed,
            )
            for point in points
        }
        models[name] = _model(folds, resampled[name], points, average, chosen)
    content = {
        "chosen_point": chosen,
        "average": average,
        "bootstrap": {"resamples": resamples, "seed": seed, "unit": "patient", "level": 0.95},
        "wanted_sensitivity": evaluated.wanted_sensitivity,
        "splits": [
            {"number": number, "sha256": split.sha256, **counts}
            for number, (split, counts) in enumerate(
                zip(evaluated.splits, evaluated.counts, strict=True), 1
            )
        ],
        "tests_disjoint": _disjoint(evaluated),
        "models": models,
        "comparisons": [
            _comparison(evaluated, pair, resampled, average, chosen)
            for pair in combinations(evaluated.folds, 2)
        ],
    }
    plain: dict[str, Any] = _plain(content)
    return plain


def _points(evaluated: Evaluated) -> list[str]:
    """0.5, and the rules whose threshold every fold of every study has."""
    folds = [fold for folds in evaluated.folds.values() for fold in folds]
    return [DEFAULT, *(rule for rule in RULES if all(rule in fold.thresholds for fold in folds))]


def _threshold(fold: Fold, point: str) -> float:
    return next((value for rule, value in fold.thresholds.items() if rule == point), 0.5)


def _disjoint(evaluated: Evaluated) -> bool:
    tested = [id_ for split in evaluated.splits for id_ in split.test]
    return len(set(tested)) == len(tested)


def _model(
    folds: Sequence[Fold],
    resampled: dict[str, dict[str, Floats]],
    points: Sequence[str],
    average: Average,
    chosen: str,
) -> dict[str, Any]:
    labels = np.concatenate([fold.scored.labels for fold in folds])
    probabilities = np.concatenate([fold.scored.probabilities for fold in folds])
    operating = {}
    for point in points:
        each = [scores(fold.scored, _threshold(fold, point), average) for fold in folds]
        mean = {name: float(np.mean([one[name] for one in each])) for name in SCORES}
        operating[point] = {
            "thresholds": [_threshold(fold, point) for fold in folds],
            "confusion": _confusion(folds, point),
            "per_split": each,
            "over_splits": {
                name: over_splits([one[name] for one in each])._asdict() for name in SCORES
            },
            "scores": {
                name: interval(mean[name], resampled[point][name])._asdict() for name in SCORES
            },
        }
    first = folds[0]
    return {
        "checkpoints": [
            {"sha256": fold.checkpoint_sha256, "meta": _shown_meta(fold.meta)} for fold in folds
        ],
        "network": name_of(first.config),
        "config": first.config.to_dict(),
        "parameters": first.parameters,
        "operating_points": operating,
        "calibration": calibration(labels, probabilities)._asdict(),
        "worst_errors": _worst(folds, chosen),
    }


def _shown_meta(meta: dict[str, Any]) -> dict[str, Any]:
    """Without the ids of the training cases, however deep."""
    return {
        key: _shown_meta(value) if isinstance(value, dict) else value
        for key, value in meta.items()
        if not key.endswith("_ids")
    }


def _confusion(folds: Sequence[Fold], point: str) -> dict[str, int]:
    """Counts over the test sets of all splits."""
    found = dict.fromkeys(("tp", "fp", "fn", "tn"), 0)
    for fold in folds:
        called = fold.scored.probabilities > _threshold(fold, point)
        truth = fold.scored.labels == 1
        cells = (truth & called, ~truth & called, truth & ~called, ~truth & ~called)
        for name, cell in zip(found, cells, strict=True):
            found[name] += int(np.count_nonzero(cell))
    return found


def _worst(folds: Sequence[Fold], point: str) -> list[dict[str, Any]]:
    """The errors whose probability lies farthest on the wrong side of the threshold."""
    errors = []
    for number, fold in enumerate(folds, 1):
        threshold = _threshold(fold, point)
        rows = zip(fold.test.ids, fold.test.labels, fold.test.probabilities, strict=True)
        for id_, label, probability in rows:
            if (probability > threshold) != (label == 1):
                error = {
                    "split": number,
                    "id": id_,
                    "label": label,
                    "probability": probability,
                    "threshold": threshold,
                }
                errors.append((-abs(probability - threshold), number, id_, error))
    return [error for *_, error in sorted(errors, key=lambda row: row[:3])[:_WORST]]


def _comparison(
    evaluated: Evaluated,
    names: tuple[str, str],
    resampled: dict[str, dict[str, dict[str, Floats]]],
    average: Average,
    chosen: str,
) -> dict[str, Any]:
    first, second = (evaluated.folds[name] for name in names)
    points = list(dict.fromkeys((DEFAULT, chosen)))
    differences, t_tests = {}, {}
    for point in points:
        each = [
            [scores(fold.scored, _threshold(fold, point), average) for fold in folds]
            for folds in (first, second)
        ]
        apart = {name: [a[name] - b[name] for a, b in zip(*each, strict=True)] for name in SCORES}
        one, other = (resampled[name][point] for name in names)
        differences[point] = {
            name: interval(float(np.mean(apart[name])), one[name] - other[name])._asdict()
            for name in SCORES
        }
        if len(first) > 1:
            t_tests[point] = {
                name: paired_t(*([one[name] for one in values] for values in each))._asdict()
                for name in _TESTED
            }
    pairs = list(zip(first, second, strict=True))
    content: dict[str, Any] = {
        "first": names[0],
        "second": names[1],
        "differences": differences,
        "paired_t": t_tests,
        "delong": [
            delong(a.scored.labels, a.scored.probabilities, b.scored.probabilities)._asdict()
            if min(np.bincount(a.scored.labels)) > 1
            else None
            for a, b in pairs
        ],
        "mcnemar": {point: [_mcnemar([pair], point) for pair in pairs] for point in points},
    }
    if len(pairs) > 1 and _disjoint(evaluated):
        content["mcnemar_all"] = {point: _mcnemar(pairs, point) for point in points}
    return content


def _mcnemar(pairs: Sequence[tuple[Fold, Fold]], point: str) -> dict[str, Any]:
    def called(fold: Fold) -> Any:
        return (fold.scored.probabilities > _threshold(fold, point)).astype(np.int64)

    labels = np.concatenate([a.scored.labels for a, _ in pairs])
    first, second = (np.concatenate([called(pair[i]) for pair in pairs]) for i in (0, 1))
    return mcnemar(labels, first, second)._asdict()


def _plain(value: Any) -> Any:
    """Numbers that are no number become None, as JSON has none."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
