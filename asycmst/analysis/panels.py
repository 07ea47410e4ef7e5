"""What several figures are put together from: frames with maps over them, curves, colour bars.

Relevance and attention have colour maps of their own; both grow steadily lighter, so that
colour-blind readers see the order.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asycmst.analysis.canvas import COLOURS
from asycmst.analysis.gradcam import GradCAM

RELEVANCE = "viridis"
ATTENTION = "spring"

_KEY_FRAMES = 4
_STRONGEST = 0.65  # opacity of a map where it is 1

Array = NDArray[Any]


class Row(NamedTuple):
    """One line of pictures.

    Attributes:
        name: written beside it.
        clip: uint8, shape (T, H, W) or (T, H, W, 3).
        maps: shape (T, H, W) in [0, 1], laid over the clip, or None.
        colours: the colour map of `maps`.
    """

    name: str
    clip: Array
    maps: Array | None = None
    colours: str = RELEVANCE


def key_frames(frames: int, count: int = _KEY_FRAMES) -> Sequence[int]:
    """Up to `count` frames, evenly spread from the first to the last."""
    count = min(count, frames)
    return [index * (frames - 1) // max(count - 1, 1) for index in range(count)]


def cam_of_one_clip(cam: GradCAM) -> tuple[Array, Array]:
    """Both maps as arrays, without a batch axis of one."""
    bus, ceus = (torch.as_tensor(maps).detach().cpu().numpy() for maps in cam)
    if bus.ndim == 4 and len(bus) == 1:
        return bus[0], ceus[0]
    return bus, ceus


def check_shapes(
    bus: Array, ceus: Array, cam: tuple[Array, Array], times: Array, masks: Mapping[str, Array]
) -> None:
    """Raises ValueError where clips, maps, times and masks do not belong together."""
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


def draw_picture(axes: Any, frame: Array, overlay: Array | None, colours: str) -> list[Any]:
    """One frame with its map; returns the images, to change them later."""
    images = [axes.imshow(frame, cmap="gray", vmin=0, vmax=255, interpolation="nearest")]
    axes.set(xticks=[], yticks=[])
    if overlay is not None:
        look = {"cmap": colours, "vmin": 0, "vmax": 1, "interpolation": "nearest"}
        images.append(axes.imshow(overlay, alpha=opacity(overlay), **look))
    return images


def opacity(overlay: Array) -> Array:
    """The lower a map, the more transparent: the frame itself stays readable."""
    shown: Array = _STRONGEST * overlay
    return shown


def draw_pictures(
    figure: Any, rows: Sequence[Row], labels: Sequence[str], count: int = _KEY_FRAMES
) -> list[tuple[int, Any]]:
    """Key frames side by side, one row per clip; returns each picture's frame and axes.

    Args:
        figure: a figure or a part of one, empty.
        rows: clips of T frames.
        labels: T headings, of which those of the key frames are shown.
        count: key frames shown.
    """
    shown = key_frames(len(labels), count)
    panels = []
    grid = figure.subplots(len(rows), len(shown), squeeze=False)
    for row, line in zip(rows, grid, strict=True):
        line[0].set_ylabel(row.name, fontsize=9)
        for frame, axes in zip(shown, line, strict=True):
            overlay = None if row.maps is None else row.maps[frame]
            draw_picture(axes, row.clip[frame], overlay, row.colours)
            panels.append((frame, axes))
    for frame, axes in zip(shown, grid[0], strict=True):
        axes.set_title(labels[frame], fontsize=9)
    return panels


def draw_outline(axes: Any, region: Array, colour: str, style: str = "-") -> Any:
    """The border of a bool region (H, W), dark-edged to stand out from bright tissue."""
    from matplotlib.patheffects import withStroke

    lines = axes.contour(region, levels=[0.5], colors=colour, linewidths=1.4, linestyles=style)
    lines.set(path_effects=[withStroke(linewidth=2.2, foreground="black", alpha=0.6)])
    return lines


def colour_bar(
    figure: Any,
    label: str,
    colours: str = RELEVANCE,
    limits: tuple[float, float] = (0, 1),
    pictures: Sequence[Any] | None = None,
) -> None:
    """The scale of maps, below the pictures given, or all that `figure` has.

    Args:
        figure: a figure or a part of one.
        label: what is shown, with its unit.
        colours: the colour map.
        limits: what 0 and 1 in the maps stand for.
        pictures: axes.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(
        ScalarMappable(Normalize(*limits), colours),
        ax=figure.axes if pictures is None else pictures,
        location="bottom",
        aspect=40,
        shrink=0.9,
    )
    bar.set_label(label, fontsize=9)


def draw_scores(axes: Any, scores: Array) -> None:
    """The scores (T,) of the sorted frames, Eq 2."""
    axes.plot(np.arange(1, len(scores) + 1), scores, "o-", color=COLOURS[0])
    axes.set(
        xlabel="Frame",
        ylabel="Frame score (no unit)",
        title="Frame self-sorting: later is higher",
    )
    axes.xaxis.get_major_locator().set_params(integer=True)


def resized_places(maps: torch.Tensor, size: tuple[int, ...]) -> Array:
    """Maps (T, h, w) over places at the size of the frames, the clip's maximum being 1."""
    found = maps.detach().cpu().float()
    sized = torch.nn.functional.interpolate(found[:, None], size=size, mode="nearest")[:, 0]
    result: Array = (sized / sized.max()).numpy()
    return result


def draw_when(
    figure: Any, axes: Any, weights: torch.Tensor, asks: str, reads: str, title: str | None = None
) -> None:
    """Weights (T, T) of the frames of one clip over those of the other, with a colour bar."""
    shown = weights.detach().cpu().numpy()
    frames = len(shown)
    edges = (0.5, frames + 0.5, frames + 0.5, 0.5)
    picture = axes.imshow(shown, cmap="cividis", vmin=0, extent=edges, interpolation="nearest")
    axes.set(
        xlabel=f"{reads} frame looked at",
        ylabel=f"{asks} frame",
        title=f"When {asks} looks in {reads}" if title is None else title,
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    beside = axes.inset_axes((1.05, 0, 0.06, 1))
    figure.colorbar(picture, cax=beside, label="Attention weight")
