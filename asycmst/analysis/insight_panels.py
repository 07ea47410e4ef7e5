"""The panels that the pictures and the video of one case share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F

from asycmst.analysis.canvas import COLOURS, STYLES
from asycmst.analysis.insight import Curve, Insight, moments, of_layer
from asycmst.analysis.lesion_attention import When
from asycmst.analysis.panels import ATTENTION, Row, draw_outline
from asycmst.config import Branch

BRANCHES: tuple[Branch, Branch] = ("lower", "upper")
RELEVANCE_LABEL = "Grad-CAM++ relevance for malignant (1 = the clip's maximum)"
ATTENTION_LABEL = "Attention above an even look (1 = even: no colour)"
RING = COLOURS[5]

_SPREAD = 2.0  # times an even look: no attention below it is drawn at full strength
_CURVE, _RING_CURVE = "black", COLOURS[0]
_PEAK, _ARRIVAL, _HALF = COLOURS[1], COLOURS[2], COLOURS[3]


def other(branch: Branch) -> Branch:
    """The branch that a branch reads."""
    return "upper" if branch == "lower" else "lower"


def frame_labels(insight: Insight) -> list[str]:
    """The name of each frame: its number, and its time in the contrast clip where known."""
    times, unit = moments(insight.clips.ceus)
    count = len(times)
    if unit == "s":
        return [f"frame {n} of {count}, {time:.1f} s" for n, time in enumerate(times, start=1)]
    return [f"frame {n} of {count}" for n in range(1, count + 1)]


def where_rows(insight: Insight, layers: Sequence[int | None]) -> tuple[list[Row], float]:
    """Attention over the places of one clip, laid over it, for every look and layer.

    Shown is how many times an even look, which is 1/N at each of N places, a place gets, from 1
    up: where a model looks evenly the picture stays free.

    Returns:
        The rows, those of a look together, and what full colour stands for.
    """
    if insight.attention is None:
        return [], _SPREAD
    times_even = []
    for look in insight.attention.where:
        for layer in layers:
            maps = of_layer(insight.attention.layers, look.maps, layer)
            times_even.append((look.asks, maps * maps[0].numel()))
    top = max([_SPREAD, *(float(maps.max()) for _, maps in times_even)])
    rows = []
    for asks, maps in times_even:
        clip = insight.clip(other(asks)).frames
        name = f"Where {insight.name(asks)}\nlooks in {insight.name(other(asks))}"
        above = ((maps - 1) / (top - 1)).clamp(min=0)[:, None]
        sized = F.interpolate(above, size=clip.shape[1:3], mode="nearest-exact")[:, 0]
        rows.append(Row(name, clip, sized.numpy(), ATTENTION))
    return rows, top


def layer_words(layer: int | None) -> str:
    """Which layers a map is of."""
    return "mean of layers" if layer is None else f"layer {layer}"


def draw_lesion(axes: Any, insight: Insight, frame: int) -> Any:
    """The border of the lesion in one frame."""
    return draw_outline(axes, insight.lesion.mask[frame], "white")


def draw_curves(axes: Any, insight: Insight) -> None:
    """Time-intensity curves of lesion and ring, with arrival, peak and wash-out of the lesion."""
    times, _ = moments(insight.clips.ceus)
    lesion, ring = insight.curves
    for curve, colour, style in ((lesion, _CURVE, "o-"), (ring, _RING_CURVE, "s--")):
        axes.plot(
            times, curve.values, style, color=colour, label=curve.name, linewidth=1.8, markersize=4
        )
    _mark(axes, lesion)
    axes.set(
        xlabel=_time_label(insight, "CEUS"),
        ylabel="CEUS brightness (0 to 1)",
        title="Time-intensity curves",
    )
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    _legend_beside(axes)


def draw_attention_over_time(axes: Any, insight: Insight, look: When, layer: int | None) -> None:
    """The lesion's attention over the frames of the other clip: layers, their mean, uniform."""
    assert insight.attention is not None
    reads = other(look.asks)
    times, _ = moments(insight.clip(reads))
    layers = insight.attention.layers
    thick = {"color": COLOURS[1], "linewidth": 2.2, "marker": "o", "markersize": 4}
    for index, number in enumerate(layers):
        if number != layer and len(layers) > 1:
            weights = of_layer(layers, look.overall, number)
            style = STYLES[index % len(STYLES)]
            colour = ("0.35", "0.6")[index // len(STYLES) % 2]
            axes.plot(times, weights, style, color=colour, linewidth=1, label=f"layer {number}")
    weights = of_layer(layers, look.overall, layer)
    axes.plot(times, weights, **thick, label=layer_words(layer))
    axes.axhline(1 / len(times), color=COLOURS[0], linewidth=1, linestyle=":", label="uniform")
    axes.set(
        xlabel=_time_label(insight, insight.name(reads)),
        ylabel="Attention weight",
        title=f"When {insight.name(look.asks)} at the lesion looks in {insight.name(reads)}",
    )
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    _legend_beside(axes)


def curve_table(insight: Insight) -> tuple[list[str], list[list[str]]]:
    """Headings and one row for each curve."""
    _, unit = moments(insight.clips.ceus)
    headings = [
        "region",
        "baseline",
        "peak",
        f"arrival ({unit})",
        f"peak at ({unit})",
        f"time to peak ({unit})",
        f"wash-in slope (1/{unit})",
        f"half wash-out ({unit})",
    ]
    rows = []
    for curve in insight.curves:
        found = curve.parameters
        beyond = {"start": " *", "end": " *"}.get(found.peak_at, "")
        rows.append(
            [
                curve.name,
                _text(found.baseline, 2),
                _text(found.peak_intensity, 2),
                _text(found.arrival_time, 1),
                _text(found.peak_time, 1) + beyond,
                _text(found.time_to_peak, 1),
                _text(found.wash_in_slope, 3),
                _text(found.half_washout, 1),
            ]
        )
    return headings, rows


def table_notes(insight: Insight) -> list[str]:
    """What the table's marks mean, where it has any."""
    if any(curve.parameters.peak_at in ("start", "end") for curve in insight.curves):
        return ["* highest at the first or last frame: the true peak may lie beyond the clip"]
    return []


def draw_table(axes: Any, insight: Insight) -> None:
    """The figures of both curves."""
    headings, rows = curve_table(insight)
    axes.axis("off")
    table = axes.table(
        rows, colLabels=headings, loc="center left", cellLoc="center", edges="horizontal"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8.5)
    table.auto_set_column_width(list(range(len(headings))))


def _mark(axes: Any, curve: Curve) -> None:
    found = curve.parameters
    if found.peak_time is None or found.peak_intensity is None:
        return
    axes.plot(found.peak_time, found.peak_intensity, "v", color=_PEAK, label="peak")
    if found.baseline is None or found.arrival_time is None:
        return
    rise = found.peak_intensity - found.baseline
    low = found.baseline + 0.1 * rise
    axes.plot(found.arrival_time, low, ">", color=_ARRIVAL, label="arrival")
    if found.half_washout is not None:
        half = found.peak_time + found.half_washout, found.baseline + rise / 2
        axes.plot(*half, "D", color=_HALF, label="half wash-out")


def _legend_beside(axes: Any) -> None:
    """Outside: inside it would cover the curves."""
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _time_label(insight: Insight, name: str) -> str:
    clip = insight.clips.ceus if name.startswith("CEUS") else insight.clips.bus
    return f"{name} time (s)" if moments(clip)[1] == "s" else f"{name} frame (from 0)"


def _text(value: float | None, digits: int) -> str:
    return "not seen" if value is None or np.isnan(value) else f"{value:.{digits}f}"
