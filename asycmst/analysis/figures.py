"""Figures as PNG files: ROC curves, Grad-CAM++ overlays, attention maps.

Every file appears whole or not at all. Lines differ in style as well as in colour.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from asycmst.analysis.attention_maps import CrossAttentionMaps
from asycmst.analysis.canvas import COLOURS, STYLES, new_figure, save_figure
from asycmst.analysis.gradcam import GradCAM
from asycmst.analysis.panels import (
    Array,
    Row,
    cam_of_one_clip,
    check_shapes,
    colour_bar,
    draw_outline,
    draw_pictures,
    draw_scores,
    draw_when,
    key_frames,
    resized_places,
)
from asycmst.analysis.tic import mean_intensity

PLUMBING_TITLE = "Plumbing check, no diagnosis"

_NODULE, _DECOY = "#FFFFFF", "#56B4E9"


def roc_figure(
    path: str | os.PathLike[str],
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    ideal: Mapping[str, float] | None = None,
) -> None:
    """Draw ROC curves with their AUC in the legend.

    Args:
        path: the PNG file to write.
        curves: per name the labels (n,) in {0, 1} and the scores (n,) of one test set; a set
            with one class only is named in the legend as undefined, without a curve.
        ideal: per name an AUC to state beside the curves, such as the ideal observer's.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: the folder of `path` does not exist.
        ValueError: `curves` is empty, or its values are no labels and scores.
    """
    from sklearn.metrics import roc_curve

    from asycmst.analysis.metrics import bootstrap_auc_ci, roc_auc

    if not curves:
        raise ValueError("no curve is given: give at least one name with its labels and scores")
    figure = new_figure(6.4, 5.6 + 0.2 * (len(curves) + len(ideal or {})))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.75", linewidth=1)
    for number, (name, (labels, scores)) in enumerate(curves.items()):
        truth = np.asarray(labels)
        look = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": STYLES[number % len(STYLES)],
            "linewidth": 2,
        }
        if truth.size and truth.min() == truth.max():
            axes.plot([], [], label=f"{name}: AUC undefined, one class only", **look)
            continue
        area = roc_auc(labels, scores)
        low, high = bootstrap_auc_ci(labels, scores)
        false, true, _ = roc_curve(truth, np.asarray(scores))
        text = f"{name}: AUC {area:.3f} (95 % CI {low:.3f} to {high:.3f})"
        axes.plot(false, true, label=text, **look)
    for name, area in (ideal or {}).items():
        axes.plot([], [], " ", label=f"ideal observer, {name}: AUC {area:.3f}")
    axes.set(
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        aspect="equal",
        xlabel="1 - specificity (share of benign called malignant)",
        ylabel="Sensitivity (share of malignant called malignant)",
    )
    # Below the axes: inside, a long legend would cover the curves.
    figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    save_figure(figure, path)


def cam_figure(
    path: str | os.PathLike[str],
    bus: Array,
    ceus: Array,
    cam: GradCAM,
    mask: Array,
    times: ArrayLike,
    *,
    decoy_mask: Array | None = None,
    title: str | None = None,
) -> None:
    """Draw key frames with their Grad-CAM++ and the time-intensity curves of nodule and decoy.

    Args:
        path: the PNG file to write.
        bus: uint8, shape (T, H, W) or (T, H, W, 3).
        ceus: uint8, as `bus`.
        cam: the maps of this one clip, shape (T, H, W) or (1, T, H, W) each.
        mask: bool, shape (T, H, W), the nodule.
        times: shape (T,), seconds.
        decoy_mask: bool, shape (T, H, W), a second enhancing region; None or empty for none.
        title: a line above the figure.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: the folder of `path` does not exist.
        ValueError: a shape does not fit the others.
    """
    seconds = np.asarray(times, dtype=np.float64)
    relevance = cam_of_one_clip(cam)
    if decoy_mask is not None and not np.any(decoy_mask):
        decoy_mask = None
    masks = {"mask": mask} if decoy_mask is None else {"mask": mask, "decoy_mask": decoy_mask}
    check_shapes(bus, ceus, relevance, seconds, masks)
    rows = [Row("BUS", bus, relevance[0]), Row("CEUS", ceus, relevance[1])]
    figure = new_figure(2.0 * len(key_frames(len(bus))) + 4.6, 5.2)
    left, right = figure.subfigures(1, 2, width_ratios=[2.0 * len(key_frames(len(bus))), 4.2])
    panels = draw_pictures(left, rows, [f"{second:.1f} s" for second in seconds])
    for frame, axes in panels:
        draw_outline(axes, mask[frame], _NODULE, "-")
        if decoy_mask is not None:
            draw_outline(axes, decoy_mask[frame], _DECOY, "--")
    colour_bar(left, "Grad-CAM++ relevance for malignant (1 = the clip's maximum)")
    _intensity_curves(right.add_subplot(), ceus, mask, decoy_mask, seconds)
    if title is not None:
        figure.suptitle(title)
    save_figure(figure, path)


def attention_figure(
    path: str | os.PathLike[str],
    bus: Array,
    ceus: Array,
    cam: GradCAM,
    attention: CrossAttentionMaps | None,
    *,
    title: str,
    frame_scores: ArrayLike | None = None,
    names: tuple[str, str] = ("BUS", "CEUS"),
) -> None:
    """Draw what a model saw in one pair of clips: frames, Grad-CAM++ and attention.

    Args:
        path: the PNG file to write.
        bus: what the lower branch saw, uint8, shape (T, H, W) or (T, H, W, 3).
        ceus: what the upper branch saw, as `bus`.
        cam: the maps of this one clip, shape (T, H, W) or (1, T, H, W) each.
        attention: the cross-attention of this one clip (first axis 1), or None for a model
            without an asymmetric one.
        title: a line above the figure.
        frame_scores: shape (T,), the scores of the sorted frames (Eq 2), or None.
        names: what to call the two clips.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: the folder of `path` does not exist.
        ValueError: a shape does not fit the others.
    """
    relevance = cam_of_one_clip(cam)
    check_shapes(bus, ceus, relevance, np.arange(len(bus)), {})
    rows = [
        Row(names[0], bus),
        Row(f"{names[0]}\nGrad-CAM++", bus, relevance[0]),
        Row(names[1], ceus),
        Row(f"{names[1]}\nGrad-CAM++", ceus, relevance[1]),
    ]
    if attention is not None:
        where = f"Where {names[1]}\nlooks in {names[0]}"
        rows.append(Row(where, bus, resized_places(attention.where[0], bus.shape[1:3])))
    width, height = 1.7 * len(key_frames(len(bus))) + 0.4, 1.7 * len(rows) + 1.2
    plots = (attention is not None) + (frame_scores is not None)
    figure = new_figure(width + 4.6 * (plots > 0), height)
    left = figure
    if plots:
        left, right = figure.subfigures(1, 2, width_ratios=[width, 4.6])
        places = iter(right.subplots(plots, 1, squeeze=False)[:, 0])
        if attention is not None:
            draw_when(right, next(places), attention.when[0], *names)
        if frame_scores is not None:
            draw_scores(next(places), np.asarray(frame_scores, dtype=np.float64))
    labels = [f"frame {number} of {len(bus)}" for number in range(1, len(bus) + 1)]
    draw_pictures(left, rows, labels)
    colour_bar(left, "Relevance or attention (1 = the clip's maximum)")
    figure.suptitle(title)
    save_figure(figure, path)


def plumbing_figure(
    path: str | os.PathLike[str],
    bus: Array,
    ceus: Array,
    cam: GradCAM,
    attention: CrossAttentionMaps | None,
    *,
    frame_scores: ArrayLike | None = None,
) -> None:
    """:func:`attention_figure` for clips that are no patient's pair: headed as without meaning.

    For a look at whether reading, model and drawing work on a real file, whatever it shows.
    """
    attention_figure(
        path, bus, ceus, cam, attention, title=PLUMBING_TITLE, frame_scores=frame_scores
    )


def _intensity_curves(
    axes: Any, ceus: Array, mask: Array, decoy_mask: Array | None, seconds: Array
) -> None:
    regions = [("nodule (white outline)", mask, "o-", "black")]
    if decoy_mask is not None:
        regions.append(("decoy (blue dashed outline)", decoy_mask, "s--", _DECOY))
    for name, region, style, colour in regions:
        means = mean_intensity(ceus, region)
        axes.plot(seconds, means, style, color=colour, label=name, linewidth=2)
    axes.set(
        xlabel="Time (s)",
        ylabel="Mean CEUS brightness (0 to 1)",
        title="Time-intensity curve",
    )
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.legend(frameon=False)
