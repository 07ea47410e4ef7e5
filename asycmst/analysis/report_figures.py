"""The figures of a report as SVG data that a page holds within itself."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Of Okabe and Ito, which colour-blind readers tell apart; lines differ in style as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = ("-", "--", "-.", ":")
_MARKERS = ("o", "^", "s", "D")

Array = NDArray[Any]


class Curve(NamedTuple):
    """A test set's labels (n,), probabilities (n,) and how to name it."""

    name: str
    labels: Array
    probabilities: Array


def roc_svg(
    curves: Sequence[Curve], points: Mapping[str, Sequence[tuple[float, float]]] | None = None
) -> str:
    """ROC curves, each with its AUC, and operating points as (1 - specificity, sensitivity)."""
    from sklearn.metrics import roc_curve

    from asycmst.analysis.metrics import roc_auc

    figure, axes = _figure(5.6, 5.0 + 0.22 * (len(curves) + len(points or {})))
    axes.plot([0, 1], [0, 1], color="0.75", linewidth=1)
    for number, curve in enumerate(curves):
        false, true, _ = roc_curve(curve.labels, curve.probabilities)
        axes.plot(
            false,
            true,
            color=_COLOURS[number % len(_COLOURS)],
            linestyle=_STYLES[number % len(_STYLES)],
            linewidth=2,
            label=f"{curve.name}: AUC {roc_auc(curve.labels, curve.probabilities):.3f}",
        )
    for number, (name, places) in enumerate((points or {}).items()):
        x, y = zip(*places, strict=True)
        marker = _MARKERS[number % len(_MARKERS)]
        axes.plot(x, y, marker, color="black", markerfacecolor="white", markersize=8, label=name)
    axes.set(
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        aspect="equal",
        xlabel="1 - specificity (share of benign called malignant)",
        ylabel="Sensitivity (share of malignant called malignant)",
    )
    figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    return _data(figure)


def reliability_svg(mean: Sequence[float], share: Sequence[float], cases: Sequence[int]) -> str:
    """Share of malignant cases against the probability given, with the number of cases per bin."""
    figure, axes = _figure(5.6, 4.6)
    axes.plot([0, 1], [0, 1], color="0.75", linewidth=1)
    axes.plot(mean, share, "o-", color=_COLOURS[0], linewidth=2)
    for x, y, n in zip(mean, share, cases, strict=True):
        axes.annotate(f"{n}", (x, y), textcoords="offset points", xytext=(7, -10), fontsize=8)
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
        xlabel="Mean probability of malignancy in the bin",
        ylabel="Share of malignant cases in the bin",
    )
    return _data(figure)


def histogram_svg(labels: Array, probabilities: Array) -> str:
    """How the probabilities of benign and malignant cases are spread."""
    figure, axes = _figure(5.6, 3.2)
    edges = np.linspace(0, 1, 21)
    for value, (name, hatch) in enumerate((("benign", None), ("malignant", "//"))):
        axes.hist(
            probabilities[labels == value],
            edges,
            color=_COLOURS[value],
            alpha=0.55,
            hatch=hatch,
            label=name,
        )
    axes.set(xlim=(0, 1), xlabel="Probability of malignancy", ylabel="Cases")
    axes.legend(frameon=False)
    return _data(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'a report needs matplotlib, which is missing: pip install ".[train]"'
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _data(figure: Any) -> str:
    """A data URI; white behind, so that it reads on a dark page too."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.hashsalt": "asycmst", "svg.fonttype": "path"}):
        figure.savefig(text, format="svg", metadata={"Date": None}, facecolor="white")
    coded = base64.b64encode(text.getvalue().encode()).decode("ascii")
    return f"data:image/svg+xml;base64,{coded}"
