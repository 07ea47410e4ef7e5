"""Masks from contours: control points to polygon to pixels (Section 4.1.1)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def contour_mask(points: ArrayLike, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels whose centres lie inside a contour.

    The control points are the corners of a closed polygon, in either orientation; the last one
    joins the first. Pixel (row i, column j) has its centre at x = j + 0.5, y = i + 0.5, so that
    the frame is [0, width] x [0, height]. What lies outside the frame is cut off.

    Args:
        points: shape (K, 2), K >= 3, the control points (x, y) in pixels.
        height: rows of the frame.
        width: columns of the frame.

    Returns:
        Shape (height, width), True inside.

    Raises:
        ValueError: fewer than three points, another shape, a coordinate that is not finite, or an
            empty frame.
    """
    from matplotlib.path import Path

    corners = np.asarray(points, dtype=np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(
            f"a contour has shape {corners.shape}; give at least three control points (x, y)"
        )
    if not np.isfinite(corners).all():
        raise ValueError("a contour has a coordinate that is not finite; correct or remove it")
    if height < 1 or width < 1:
        raise ValueError(f"the frame is {height} x {width}; give at least one pixel")
    # Only the pixels around it are asked: a nodule is small.
    frame = np.array([width, height])
    left, top = np.clip(np.floor(corners.min(0)), 0, frame).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(0)), 0, frame).astype(int)
    y, x = np.mgrid[top:bottom, left:right] + 0.5
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[top:bottom, left:right] = Path(corners).contains_points(centres).reshape(x.shape)
    return mask


def contour_masks(
    contours: dict[int, ArrayLike], frames: int, height: int, width: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The masks of a clip of which some frames have a contour.

    Args:
        contours: control points of each annotated frame, by its index from 0.
        frames: T, the frames of the clip.
        height: rows of a frame.
        width: columns of a frame.

    Returns:
        The masks (T, height, width), empty where there is no contour, and which frames are
        annotated, (T,): `mask` and `mask_valid` of `asycmst.AsyCMSTLoss` for one clip.

    Raises:
        ValueError: a frame index outside the clip, or a contour that `contour_mask` refuses.
    """
    masks = np.zeros((frames, height, width), dtype=np.bool_)
    annotated = np.zeros(frames, dtype=np.bool_)
    for index, points in contours.items():
        if not 0 <= index < frames:
            raise ValueError(
                f"a contour belongs to frame {index}; the clip has frames 0 to {frames - 1}"
            )
        masks[index] = contour_mask(points, height, width)
        annotated[index] = True
    return masks, annotated
