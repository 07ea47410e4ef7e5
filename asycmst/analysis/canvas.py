"""The canvas figures are drawn on: no pyplot, no window, no global state.

Colours are those of Okabe and Ito, which colour-blind readers tell apart.
"""

import os
from typing import Any

from asycmst.files import replacing

# Lines and clouds of points differ in style and marker as well as in colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure that arranges its parts itself.

    Args:
        width: inches.
        height: inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError(
            'drawing figures needs matplotlib, which is missing: pip install ".[train]"'
        ) from error
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.06)  # inches
    return Figure(figsize=(width, height), dpi=120, layout=layout)


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a PNG file, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def save_both(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write PATH.png and PATH.svg, each whole or not at all; the same figure gives equal files."""
    from matplotlib import rc_context

    with replacing(f"{os.fspath(path)}.png") as temporary:
        figure.savefig(temporary, format="png", dpi=200)
    look = {"svg.hashsalt": "asycmst", "svg.fonttype": "path"}
    with replacing(f"{os.fspath(path)}.svg") as temporary, rc_context(look):
        figure.savefig(temporary, format="svg", metadata={"Date": None}, facecolor="white")
