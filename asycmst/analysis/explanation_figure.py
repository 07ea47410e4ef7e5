"""Pictures of one case: the plate with everything, the curves, and the attention by layer."""

import os
import textwrap
from typing import Any

import numpy as np

from asycmst.analysis.canvas import new_figure, save_figure
from asycmst.analysis.insight import Insight, of_layer
from asycmst.analysis.insight_panels import (
    ATTENTION_LABEL,
    BRANCHES,
    RELEVANCE_LABEL,
    RING,
    draw_attention_over_time,
    draw_curves,
    draw_lesion,
    draw_table,
    frame_labels,
    layer_words,
    other,
    table_notes,
    where_rows,
)
from asycmst.analysis.panels import (
    ATTENTION,
    Row,
    colour_bar,
    draw_outline,
    draw_pictures,
    draw_scores,
    draw_when,
    key_frames,
)

_KEY_FRAMES = 5
_SIDE = 1.7  # inches of a picture
_PLOTS = 6.2  # inches of the column of plots
_CHARACTERS = 16  # of small text, in an inch


def explanation_plate(
    path: str | os.PathLike[str], insight: Insight, layer: int | None, title: str
) -> None:
    """Draw key frames with relevance and attention beside the curves over time.

    Args:
        path: the PNG file to write.
        insight: the case.
        layer: the layer whose attention is mapped; None is the mean of all.
        title: a line above the figure.
    """
    looks, top = where_rows(insight, [layer])
    rows = [*_rows(insight), *looks]
    attention = insight.attention
    when = () if attention is None else attention.when
    scores = insight.prediction.frame_scores
    plots = 1 + 2 * len(when) + (scores is not None)

    columns = len(key_frames(len(insight.lesion.mask), _KEY_FRAMES))
    width = _SIDE * columns + 0.6
    height = max(_SIDE * len(rows) + 1.4, 2.1 * plots)
    lines = _caption(insight, width + _PLOTS)
    below = 1.0 + 0.17 * len(lines)
    figure = new_figure(width + _PLOTS, height + below + 0.5)
    upper, lower = figure.subfigures(2, 1, height_ratios=[height, below])
    left, right = upper.subfigures(1, 2, width_ratios=[width, _PLOTS])
    panels = draw_pictures(left, rows, frame_labels(insight), _KEY_FRAMES)
    for index, (frame, axes) in enumerate(panels):
        draw_lesion(axes, insight, frame)
        row = rows[index // columns]
        if row.clip is insight.clips.ceus.frames and row.maps is None:
            draw_outline(axes, insight.ring[frame], RING, ":")
    pictures = list(left.axes)
    if insight.relevance is not None:
        colour_bar(left, RELEVANCE_LABEL, pictures=pictures)
    if looks:
        words = f"{ATTENTION_LABEL}; {layer_words(layer)}"
        colour_bar(left, words, ATTENTION, (1, top), pictures)

    places = iter(right.subplots(plots, 1, squeeze=False)[:, 0])
    draw_curves(next(places), insight)
    for look in when:
        assert attention is not None
        draw_attention_over_time(next(places), insight, look, layer)
        asks, reads = insight.name(look.asks), insight.name(other(look.asks))
        weights = of_layer(attention.layers, look.by_frame, layer)
        axes = next(places)
        axes.set_anchor("W")  # in line with the curves
        draw_when(right, axes, weights, asks, reads, f"By {asks} frame\n({layer_words(layer)})")
    if scores is not None:
        draw_scores(next(places), np.asarray(scores))
    _write_below(lower, insight, lines)
    figure.suptitle(title)
    save_figure(figure, path)


def tic_figure(path: str | os.PathLike[str], insight: Insight, title: str) -> None:
    """Draw the time-intensity curves with their figures below."""
    lines = _caption(insight, 9.0)
    below = 1.0 + 0.17 * len(lines)
    figure = new_figure(9.0, 4.4 + below)
    upper, lower = figure.subfigures(2, 1, height_ratios=[4.4, below])
    draw_curves(upper.add_subplot(), insight)
    _write_below(lower, insight, lines)
    figure.suptitle(title)
    save_figure(figure, path)


def attention_plate(path: str | os.PathLike[str], insight: Insight, title: str) -> None:
    """Draw when and where every layer looks, one line each, their mean last.

    Args:
        path: the PNG file to write.
        insight: a case of a model with attention to show.
        title: a line above the figure.
    """
    attention = insight.attention
    assert attention is not None
    chosen = [*attention.layers, None] if len(attention.layers) > 1 else [attention.layers[0]]
    count = len(chosen)
    looks, top = where_rows(insight, chosen)
    columns = len(key_frames(len(insight.lesion.mask), _KEY_FRAMES))
    widths = [3.6] * len(attention.when) + [_SIDE * columns + 0.6] * len(attention.where)
    figure = new_figure(sum(widths), (2.4 if attention.when else 1.7) * count + 1.5)
    parts = figure.subfigures(1, len(widths), width_ratios=widths, squeeze=False)[0]
    for part, look in zip(parts, attention.when, strict=False):
        asks, reads = insight.name(look.asks), insight.name(other(look.asks))
        part.suptitle(f"When {asks} at the lesion looks in {reads}", fontsize=10)
        for layer, axes in zip(chosen, part.subplots(count, 1, squeeze=False)[:, 0], strict=True):
            weights = of_layer(attention.layers, look.by_frame, layer)
            draw_when(part, axes, weights, asks, reads, layer_words(layer))
    for part, place in zip(parts[len(attention.when) :], attention.where, strict=True):
        asks, reads = insight.name(place.asks), insight.name(other(place.asks))
        part.suptitle(f"Where {asks} looks in {reads}", fontsize=10)
        rows = [
            row._replace(name=layer_words(layer))
            for row, layer in zip(looks[:count], chosen, strict=True)
        ]
        del looks[:count]
        for frame, axes in draw_pictures(part, rows, frame_labels(insight), _KEY_FRAMES):
            draw_lesion(axes, insight, frame)
        colour_bar(part, ATTENTION_LABEL, ATTENTION, (1, top))
    figure.suptitle(title)
    save_figure(figure, path)


def _rows(insight: Insight) -> list[Row]:
    rows = []
    for branch in BRANCHES:
        clip, name = insight.clip(branch).frames, insight.name(branch).replace(" (", "\n(")
        rows.append(Row(name, clip))
        if insight.relevance is not None:
            rows.append(Row(f"{name}\nGrad-CAM++", clip, insight.relevance[branch]))
    return rows


def _caption(insight: Insight, width: float) -> list[str]:
    """The notes below a figure of `width` inches."""
    notes = [
        f"White outline: {insight.lesion.words}; blue dots: the surrounding ring.",
        *table_notes(insight),
        *insight.notes,
        *insight.prediction.warnings,
        "Brightness is that of the display, no measured concentration.",
    ]
    return textwrap.wrap(" ".join(_sentence(note) for note in notes), int(width * _CHARACTERS))


def _sentence(note: str) -> str:
    return note[0].upper() + note[1:].rstrip(".") + "."


def _write_below(part: Any, insight: Insight, lines: list[str]) -> None:
    table, text = part.subplots(2, 1, height_ratios=[0.9, 0.1 + 0.17 * len(lines)])
    draw_table(table, insight)
    text.axis("off")
    text.text(0, 1, "\n".join(lines), fontsize=8.5, va="top", transform=text.transAxes)
