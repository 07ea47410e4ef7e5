"""A video of one case: both clips with their maps, and a cursor that runs over the curves."""

import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asycmst.analysis.canvas import COLOURS, new_figure
from asycmst.analysis.insight import Insight, moments
from asycmst.analysis.insight_panels import (
    BRANCHES,
    draw_attention_over_time,
    draw_curves,
    draw_lesion,
    frame_labels,
    other,
    where_rows,
)
from asycmst.analysis.panels import Row, draw_picture, opacity
from asycmst.files import replacing

FRAMES_PER_SECOND = 2
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_BT601 = 6  # what FFmpeg converts RGB by; said in the file, so that players do the same
_SIDE = 2.9  # inches of a picture


def write_overlay(
    path: str | os.PathLike[str], insight: Insight, layer: int | None, title: str
) -> None:
    """Write an mp4 with one picture for each frame that the model took, two in a second.

    H.264, or MPEG-4 where the installed PyAV has no H.264 encoder; yuv420p, even sides. The file
    appears whole or not at all.

    Args:
        path: the mp4 file to write.
        insight: the case.
        layer: the layer whose attention is mapped; None is the mean of all.
        title: a line above the pictures.

    Raises:
        ImportError: PyAV or matplotlib is not installed.
    """
    with replacing(path) as temporary:
        encode(temporary, overlay_frames(insight, layer, title), FRAMES_PER_SECOND)


def overlay_frames(insight: Insight, layer: int | None, title: str) -> Iterator[NDArray[np.uint8]]:
    """The pictures of the video, each uint8 (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    rows = _panes(insight, layer)
    when = () if insight.attention is None else insight.attention.when
    figure = new_figure(max(_SIDE * len(rows), 7.0), _SIDE + 0.9 + 1.9 * (1 + len(when)))
    figure.suptitle(title, fontsize=10)
    upper, lower = figure.subfigures(2, 1, height_ratios=[_SIDE + 0.3, 1.9 * (1 + len(when))])
    images = []
    panes = upper.subplots(1, len(rows), squeeze=False)[0]
    for row, axes in zip(rows, panes, strict=True):
        overlay = None if row.maps is None else row.maps[0]
        images.append(draw_picture(axes, row.clip[0], overlay, row.colours))
        axes.set_title(row.name, fontsize=9)
    stamp = upper.supxlabel(" ", fontsize=9)
    plots = lower.subplots(1 + len(when), 1, squeeze=False)[:, 0]
    draw_curves(plots[0], insight)
    clocks = [moments(insight.clips.ceus)[0]]
    for look, axes in zip(when, plots[1:], strict=True):
        draw_attention_over_time(axes, insight, look, layer)
        clocks.append(moments(insight.clip(other(look.asks)))[0])
    cursors = [
        axes.axvline(clock[0], color=COLOURS[2], linewidth=2, alpha=0.8)
        for clock, axes in zip(clocks, plots, strict=True)
    ]

    canvas = FigureCanvasAgg(figure)
    labels = frame_labels(insight)
    stamp.set_text(labels[-1])
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # arranged once: nothing moves from frame to frame
    for frame, label in enumerate(labels):
        for row, shown in zip(rows, images, strict=True):
            shown[0].set_data(row.clip[frame])
            if row.maps is not None:
                shown[1].set_data(row.maps[frame])
                shown[1].set_alpha(opacity(row.maps[frame]))
        outlines = [draw_lesion(axes, insight, frame) for axes in panes]
        for cursor, clock in zip(cursors, clocks, strict=True):
            cursor.set_xdata([clock[frame], clock[frame]])
        stamp.set_text(label)
        canvas.draw()
        for outline in outlines:
            outline.remove()
        picture: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3]
        yield picture.copy()


def encode(
    path: str | os.PathLike[str], pictures: Iterator[NDArray[np.uint8]], per_second: int
) -> None:
    """Encode pictures of one size, uint8 (height, width, 3), as an mp4 that players play.

    An odd last row or column is cut off, as the format needs even sides.

    Raises:
        ImportError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(
            'writing a video needs PyAV, which is missing: pip install ".[train]"'
        ) from error

    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream: Any = None
        for picture in pictures:
            height, width = (side // 2 * 2 for side in picture.shape[:2])
            if stream is None:
                stream = container.add_stream(_encoder(), rate=Fraction(per_second))
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                context = stream.codec_context
                context.colorspace = context.color_primaries = context.color_trc = _BT601
                if stream.codec.name == "libx264":
                    stream.options = {"crf": "16"}
                else:
                    stream.bit_rate = 4_000_000
            pixels = np.ascontiguousarray(picture[:height, :width])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _encoder() -> str:
    """The best encoder that the installed PyAV brings."""
    import av

    for name in _ENCODERS[:-1]:
        try:
            av.codec.Codec(name, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        return name
    return _ENCODERS[-1]


def _panes(insight: Insight, layer: int | None) -> list[Row]:
    rows = []
    for branch in BRANCHES:
        maps = None if insight.relevance is None else insight.relevance[branch]
        name = insight.name(branch) + ("" if maps is None else "\nGrad-CAM++ for malignant")
        rows.append(Row(name, insight.clip(branch).frames, maps))
    looks, top = where_rows(insight, [layer])
    scale = f"\n(full colour: {top:.1f} times an even look)"
    rows += [row._replace(name=row.name.replace("\n", " ") + scale) for row in looks]
    return rows
