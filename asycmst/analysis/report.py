"""An evaluation as files: report.html for people, metrics.json and predictions.csv for programs.

The page is one file without links, scripts or fonts from elsewhere. It names cases by their ids
and never a patient.
"""

import csv
import json
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch

from asycmst import info
from asycmst.analysis.evaluate import Evaluated, Fold
from asycmst.analysis.predict_dataset import Predictions
from asycmst.analysis.report_figures import Curve, histogram_svg, reliability_svg, roc_svg
from asycmst.analysis.summary import DEFAULT
from asycmst.analysis.thresholds import RULES
from asycmst.training.networks import name_of

FILES = ("report.html", "metrics.json", "predictions.csv")
TITLES = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "recall": "Sensitivity (recall)",
    "specificity": "Specificity",
    "precision": "Precision",
    "f1": "F1",
    "dice": "Dice",
    "pointing": "Pointing game",
    "centre_dice": "Dice of a disc at the centre",
    "centre_pointing": "Pointing game of the centre",
    "frame_order": "Frame order (tau)",
}
_SHOWN = ("frames", "frame_size", "encoder", "dim", "layers", "heads", "cross_attention", "stsa")
_PARTS = ("validation", "test")
_COLUMNS = (
    "model",
    "split",
    "part",
    "id",
    "label",
    "probability_malignant",
    "dice",
    "frame_order_tau",
)
_NONE = "\N{EN DASH}"


def write_report(
    folder: Path, evaluated: Evaluated, summary: dict[str, Any], *, command: str
) -> None:
    """Write report.html, metrics.json and predictions.csv.

    Args:
        folder: an existing one.
        evaluated: what the models said.
        summary: of `evaluated`, by :func:`asycmst.analysis.summary.summarise`.
        command: what wrote it, for the record.

    Raises:
        ImportError: matplotlib is missing.
    """
    content = {
        "command": command,
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "asycmst": info.version(),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        },
        **summary,
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    _write_predictions(folder / "predictions.csv", evaluated)
    (folder / "report.html").write_text(render(evaluated, content), encoding="utf-8")


def render(evaluated: Evaluated, content: dict[str, Any]) -> str:
    """The page of an evaluation.

    Args:
        evaluated: for the figures.
        content: of metrics.json.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("asycmst", "analysis"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, percent=_percent, p=_p, signed=_signed)
    names = {DEFAULT: "0.5, the more probable class"}
    names |= {rule: f"validation: {text}" for rule, text in RULES.items()}
    wanted = content["wanted_sensitivity"]
    names["sensitivity"] = f"validation: sensitivity of at least {wanted:g}"
    tables = {
        name: [score for score in TITLES if _has(model, score)]
        for name, model in content["models"].items()
    }
    return environment.get_template("report.html").render(
        content=content,
        titles=TITLES,
        scores=tables,
        any_scores=set().union(*tables.values()),
        point_names=names,
        points=list(dict.fromkeys((content["chosen_point"], DEFAULT))),
        figures={name: _figures(folds, content, name) for name, folds in evaluated.folds.items()},
        together=_together(evaluated),
        shown={name: _config(folds[0]) for name, folds in evaluated.folds.items()},
        notes=_notes(evaluated, content),
    )


def _has(model: dict[str, Any], score: str) -> bool:
    return model["operating_points"][DEFAULT]["scores"][score]["value"] is not None


def _config(fold: Fold) -> dict[str, str]:
    settings = fold.config.to_dict() | {"frame_size": "{} x {}".format(*fold.config.frame_size)}
    shown = {name.replace("_", " "): str(settings.get(name, _NONE)) for name in _SHOWN}
    return {"network": name_of(fold.config), **shown} | {
        "frame self-sorting": "on" if fold.config.sorts_frames else "off",
        "nodule segmentation": "on" if fold.config.segments_nodule else "off",
        "weights": f"{fold.parameters:,}",
    }


def _notes(evaluated: Evaluated, content: dict[str, Any]) -> list[str]:
    """What to know before reading the figures."""
    notes = []
    for name, folds in evaluated.folds.items():
        trained_on = {str(fold.meta.get("trained_on")) for fold in folds}
        if any(text.startswith("synthetic") for text in trained_on):
            notes.append(f"{name} was trained on synthetic data: its figures are no evidence.")
        elif any("train_ids" not in fold.meta for fold in folds):
            notes.append(
                f"The checkpoint of {name} does not list its training cases: whether it saw a "
                "patient of the test part could not be checked."
            )
    if content["chosen_point"] == DEFAULT:
        notes.append("No validation part with both classes: 0.5 is the only threshold.")
    if len(evaluated.splits) > 1 and not content["tests_disjoint"]:
        notes.append(
            "The test parts share cases: models differ, cases do not, and the deviation over "
            "splits is that of training alone."
        )
    return notes


def _curves(name: str, folds: list[Fold]) -> list[Curve]:
    return [
        Curve(
            name if len(folds) == 1 else f"{name}, split {number}",
            fold.scored.labels,
            fold.scored.probabilities,
        )
        for number, fold in enumerate(folds, 1)
    ]


def _figures(folds: list[Fold], content: dict[str, Any], name: str) -> dict[str, str]:
    model = content["models"][name]
    labels = {
        DEFAULT: "threshold 0.5",
        "youden": "Youden on validation",
        "f1": "largest F1 on validation",
        "sensitivity": f"sensitivity {content['wanted_sensitivity']:g} on validation",
    }
    # The axes are those of the malignant class, also where scores are averaged over both.
    points = {
        labels[point]: [_place(fold, threshold) for fold, threshold in pairs]
        for point, pairs in (
            (point, list(zip(folds, found["thresholds"], strict=True)))
            for point, found in model["operating_points"].items()
        )
    }
    fit = model["calibration"]
    truth = np.concatenate([fold.scored.labels for fold in folds])
    answers = np.concatenate([fold.scored.probabilities for fold in folds])
    return {
        "roc": roc_svg(_curves(name, folds), points),
        "reliability": reliability_svg(
            fit["mean_probability"], fit["malignant_share"], fit["cases"]
        ),
        "histogram": histogram_svg(truth, answers),
    }


def _place(fold: Fold, threshold: float) -> tuple[float, float]:
    called = fold.scored.probabilities > threshold
    malignant = fold.scored.labels == 1
    return float(called[~malignant].mean()), float(called[malignant].mean())


def _together(evaluated: Evaluated) -> str | None:
    """The curves of all models, where there are several."""
    if len(evaluated.folds) < 2:
        return None
    return roc_svg([c for name, folds in evaluated.folds.items() for c in _curves(name, folds)])


def _write_predictions(path: Path, evaluated: Evaluated) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        for name, folds in evaluated.folds.items():
            for number, fold in enumerate(folds, 1):
                for part in _PARTS:
                    said: Predictions = getattr(fold, part)
                    columns = (said.ids, said.labels, said.probabilities)
                    for row in zip(*columns, said.dice, said.frame_order, strict=True):
                        id_, label, probability, overlap, order = row
                        values = (f"{probability:.6f}", _plain(overlap), _plain(order))
                        writer.writerow([name, number, part, id_, label, *values])


def _plain(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"


# Adding 0.0 turns a rounded -0.0 into 0.0.
def _number(value: float | None, digits: int = 3) -> str:
    return _NONE if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{round(100 * value, 1) + 0.0:.1f}"


def _signed(value: float | None) -> str:
    return _NONE if value is None else f"{value:+.3f}"


def _p(value: float | None) -> str:
    if value is None:
        return _NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
