"""Figures as PNG files: ROC curves, Grad-CAM++ overlays, attention maps.

Every figure is drawn on a canvas of its own (no pyplot, no window, no global state) and its file
appears whole or not at all. Colours are those of Okabe and Ito and perceptually uniform maps,
which colour-blind readers tell apart; lines differ in style as well.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from asycmst.analysis.attention_maps import CrossAttentionMaps
from asycmst.analysis.gradcam import GradCAM
from asycmst.files import replacing

PLUMBING_TITLE = "Plumbing check, no diagnosis"

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":")
_NODULE, _DECOY = "#FFFFFF", "#56B4E9"
_RELEVANCE = "viridis"
_COLUMNS = 4  # key frames shown

Array = NDArray[Any]


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
    figure = _new_figure(6.4, 5.6 + 0.2 * (len(curves) + len(ideal or {})))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.75", linewidth=1)
    for number, (name, (labels, scores)) in enumerate(curves.items()):
        truth = np.asarray(labels)
        look = {
            "color": _COLOURS[number % len(_COLOURS)],
            "linestyle": _STYLES[number % len(_STYLES)],
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
    _save(figure, path)


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
    relevance = _cam_of_one_clip(cam)
    if decoy_mask is not None and not np.any(decoy_mask):
        decoy_mask = None
    masks = {"mask": mask} if decoy_mask is None else {"mask": mask, "decoy_mask": decoy_mask}
    _check_shapes(bus, ceus, relevance, seconds, masks)
    rows = [("BUS", bus, relevance[0]), ("CEUS", ceus, relevance[1])]
    figure = _new_figure(2.0 * len(_key_frames(len(bus))) + 4.6, 5.2)
    left, right = figure.subfigures(1, 2, width_ratios=[2.0 * len(_key_frames(len(bus))), 4.2])
    panels = _pictures(left, rows, [f"{second:.1f} s" for second in seconds])
    for frame, axes in panels:
        _outline(axes, mask[frame], _NODULE, "-")
        if decoy_mask is not None:
            _outline(axes, decoy_mask[frame], _DECOY, "--")
    _relevance_bar(left, "Grad-CAM++ relevance for malignant (1 = the clip's maximum)")
    _intensity_curves(right.add_subplot(), ceus, mask, decoy_mask, seconds)
    if title is not None:
        figure.suptitle(title)
    _save(figure, path)


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
    relevance = _cam_of_one_clip(cam)
    _check_shapes(bus, ceus, relevance, np.arange(len(bus)), {})
    rows: list[tuple[str, Array, Array | None]] = [
        (names[0], bus, None),
        (f"{names[0]}\nGrad-CAM++", bus, relevance[0]),
        (names[1], ceus, None),
        (f"{names[1]}\nGrad-CAM++", ceus, relevance[1]),
    ]
    if attention is not None:
        where = f"Where {names[1]}\nlooks in {names[0]}"
        rows.append((where, bus, _where(attention, bus.shape[1:3])))
    width, height = 1.7 * len(_key_frames(len(bus))) + 0.4, 1.7 * len(rows) + 1.2
    plots = (attention is not None) + (frame_scores is not None)
    figure = _new_figure(width + 4.6 * (plots > 0), height)
    left = figure
    if plots:
        left, right = figure.subfigures(1, 2, width_ratios=[width, 4.6])
        places = iter(right.subplots(plots, 1, squeeze=False)[:, 0])
        if attention is not None:
            _when_map(right, next(places), attention, names)
        if frame_scores is not None:
            _score_curve(next(places), np.asarray(frame_scores, dtype=np.float64))
    labels = [f"frame {number} of {len(bus)}" for number in range(1, len(bus) + 1)]
    _pictures(left, rows, labels)
    _relevance_bar(left, "Relevance or attention (1 = the clip's maximum)")
    figure.suptitle(title)
    _save(figure, path)


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


def _new_figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError(
            'drawing figures needs matplotlib, which is missing: pip install ".[train]"'
        ) from error
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.06)  # inches
    return Figure(figsize=(width, height), dpi=120, layout=layout)


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _key_frames(frames: int) -> Sequence[int]:
    """Up to four frames, evenly spread from the first to the last."""
    count = min(_COLUMNS, frames)
    return [index * (frames - 1) // max(count - 1, 1) for index in range(count)]


def _cam_of_one_clip(cam: GradCAM) -> tuple[Array, Array]:
    bus, ceus = (torch.as_tensor(maps).detach().cpu().numpy() for maps in cam)
    if bus.ndim == 4 and len(bus) == 1:
        return bus[0], ceus[0]
    return bus, ceus


def _check_shapes(
    bus: Array, ceus: Array, cam: tuple[Array, Array], times: Array, masks: Mapping[str, Array]
) -> None:
    clip = bus.shape[:3]
    for name, array in {"bus": bus, "ceus": ceus}.items():
        if array.dtype != np.uint8 or array.shape not in (clip, (*clip, 3)):
            raise ValueError(
                f"{name} is {array.dtype} of shape {array.shape}: give uint8 (T, H, W) or "
                "(T, H, W, 3), bus and ceus alike"
            )
    for name, array in {"cam.bus": cam[0], "cam.ceus": cam[1], **masks}.items():
        if array.shape != clip:
            raise ValueError(f"{name} has shape {array.shape}: the clips need {clip} (T, H, W)")
    if times.shape != clip[:1]:
        raise ValueError(f"times have shape {times.shape}: the clips need {clip[:1]}")


def _pictures(
    figure: Any, rows: Sequence[tuple[str, Array, Array | None]], labels: Sequence[str]
) -> list[tuple[int, Any]]:
    """Key frames side by side, one row per clip; returns each picture's frame and axes."""
    shown = _key_frames(len(labels))
    panels = []
    grid = figure.subplots(len(rows), len(shown), squeeze=False)
    for (name, clip, maps), line in zip(rows, grid, strict=True):
        line[0].set_ylabel(name, fontsize=9)
        for frame, axes in zip(shown, line, strict=True):
            axes.imshow(clip[frame], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if maps is not None:
                # The less relevant, the more transparent: the frame itself stays readable.
                look = {"cmap": _RELEVANCE, "vmin": 0, "vmax": 1, "interpolation": "nearest"}
                axes.imshow(maps[frame], alpha=0.65 * maps[frame], **look)
            panels.append((frame, axes))
    for frame, axes in zip(shown, grid[0], strict=True):
        axes.set_title(labels[frame], fontsize=9)
    return panels


def _outline(axes: Any, region: Array, colour: str, style: str) -> None:
    axes.contour(region, levels=[0.5], colors=colour, linewidths=1.4, linestyles=style)


def _relevance_bar(figure: Any, label: str) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(
        ScalarMappable(cmap=_RELEVANCE), ax=figure.axes, location="bottom", aspect=40, shrink=0.9
    )
    bar.set_label(label, fontsize=9)


def _score_curve(axes: Any, scores: Array) -> None:
    axes.plot(np.arange(1, len(scores) + 1), scores, "o-", color=_COLOURS[0])
    axes.set(
        xlabel="Frame",
        ylabel="Frame score (no unit)",
        title="Frame self-sorting: later is higher",
    )
    axes.xaxis.get_major_locator().set_params(integer=True)


def _intensity_curves(
    axes: Any, ceus: Array, mask: Array, decoy_mask: Array | None, seconds: Array
) -> None:
    grey = ceus.astype(np.float64) / 255
    grey = grey.mean(axis=-1) if grey.ndim == 4 else grey
    regions = [("nodule (white outline)", mask, "o-", "black")]
    if decoy_mask is not None:
        regions.append(("decoy (blue dashed outline)", decoy_mask, "s--", _DECOY))
    for name, region, style, colour in regions:
        size = region.sum(axis=(1, 2))
        sums = (grey * region).sum(axis=(1, 2))
        means = np.divide(sums, size, out=np.full(len(sums), math.nan), where=size > 0)
        axes.plot(seconds, means, style, color=colour, label=name, linewidth=2)
    axes.set(
        xlabel="Time (s)",
        ylabel="Mean CEUS brightness (0 to 1)",
        title="Time-intensity curve",
    )
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.legend(frameon=False)


def _where(attention: CrossAttentionMaps, size: tuple[int, ...]) -> Array:
    """The where maps of the one clip, resized to its frames, the clip's maximum being 1."""
    maps = attention.where[0].detach().cpu().float()
    sized = torch.nn.functional.interpolate(maps[:, None], size=size, mode="nearest")[:, 0]
    result: Array = (sized / sized.max()).numpy()
    return result


def _when_map(
    figure: Any, axes: Any, attention: CrossAttentionMaps, names: tuple[str, str]
) -> None:
    lower, upper = names
    weights = attention.when[0].detach().cpu().numpy()
    frames = len(weights)
    edges = (0.5, frames + 0.5, frames + 0.5, 0.5)
    picture = axes.imshow(weights, cmap="cividis", vmin=0, extent=edges, interpolation="nearest")
    axes.set(
        xlabel=f"{upper} frame looked at",
        ylabel=f"{lower} frame",
        title=f"When {lower} looks in {upper}",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    figure.colorbar(picture, ax=axes, label="Attention weight", shrink=0.9)
