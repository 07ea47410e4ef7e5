"""What the perturbations of contours do to a drawn nodule, beside each other (Fig 11b)."""

import os
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from asycmst.analysis.canvas import COLOURS, STYLES, new_figure, save_both
from asycmst.analysis.panels import draw_picture
from asycmst.data.contour_noise import ContourNoise, centroid, control_points, moved, outlines

_WORDS: dict[ContourNoise, str] = {
    "jitter": "points moved by up to 15 %",
    "shrink": "shrunk by 15 %",
    "expand": "expanded by 15 %",
}


def noise_plate(
    path: str | os.PathLike[str],
    frame: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    seed: int = 0,
) -> None:
    """Draw the nodule three times, with its contour as it is and as each perturbation makes it.

    Args:
        path: the figure without suffix; PATH.png and PATH.svg are written.
        frame: uint8 (H, W) or (H, W, 3).
        mask: bool (H, W), the nodule.
        seed: of the points that move at random.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: the folder of `path` does not exist.
        ValueError: the mask is empty or of another size than the frame.
    """
    if mask.shape != frame.shape[:2] or not mask.any():
        raise ValueError(
            f"the mask of shape {mask.shape} marks {int(mask.sum())} pixels of a frame of "
            f"{frame.shape[:2]}: give the nodule of this frame"
        )
    (top, bottom), (left, right) = (
        _around(np.flatnonzero(mask.any(axis=axis)), size)
        for axis, size in ((1, mask.shape[0]), (0, mask.shape[1]))
    )
    kinds = get_args(ContourNoise)
    figure = new_figure(2.9 * len(kinds), 2.9 * (bottom - top) / (right - left) + 0.8)
    generator = np.random.default_rng(seed)
    for axes, kind in zip(figure.subplots(1, len(kinds)), kinds, strict=True):
        draw_picture(axes, frame, None, "gray")
        for part in outlines(mask):
            centre = centroid(part[0])
            for contour in part:
                points = control_points(contour) if kind == "jitter" else contour
                changed = moved(points, centre, kind, generator)
                # Pixels are drawn about whole numbers, contours count from the frame's corner.
                for line, colour, style, name in (
                    (contour, COLOURS[5], STYLES[0], "drawn"),
                    (changed, COLOURS[4], STYLES[1], "changed"),
                ):
                    closed = np.concatenate([line, line[:1]]) - 0.5
                    axes.plot(*closed.T, color=colour, linestyle=style, linewidth=2, label=name)
                if kind == "jitter":
                    axes.plot(*(changed - 0.5).T, "o", color=COLOURS[4], markersize=3)
        axes.set(xlim=(left - 0.5, right - 0.5), ylim=(bottom - 0.5, top - 0.5))
        axes.set_title(_WORDS[kind], fontsize=10)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles[:2], names[:2], loc="outside lower center", ncols=2, frameon=False)
    save_both(figure, path)


def _around(marked: NDArray[np.int64], size: int) -> tuple[int, int]:
    """Where the nodule is along an axis, with half of its extent on each side."""
    low, high = int(marked[0]), int(marked[-1]) + 1
    margin = max(2, (high - low) // 2)
    return max(0, low - margin), min(size, high + margin)
