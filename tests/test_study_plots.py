"""Plots of a study from plain numbers: ROC panels, heat map, lines with error bars."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import auc

from asycmst.analysis import heat_map as heat_room
from asycmst.analysis import line_plot as line_room
from asycmst.analysis import roc_plate as roc_room
from asycmst.analysis.heat_map import heat_map
from asycmst.analysis.line_plot import Line, line_plot, mean_and_deviation
from asycmst.analysis.roc_plate import mean_curve, roc_plate


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures made in a test, to look into."""
    made: list[Any] = []
    original = heat_room.new_figure
    for room in (heat_room, line_room, roc_room):
        monkeypatch.setattr(
            room, "new_figure", lambda *size: made.append(original(*size)) or made[-1]
        )
    return made


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_test_set_has_its_own_curve() -> None:
    curve = mean_curve([([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])])
    assert curve.areas == [0.75]
    assert auc(curve.false_positive, curve.sensitivity) == pytest.approx(0.75)
    steps = [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]
    assert list(zip(curve.false_positive, curve.sensitivity, strict=True)) == steps


def test_several_test_sets_are_averaged_at_equal_specificity() -> None:
    """The mean of curves of areas 1 and 1/2 has the area 3/4, and is 1/2 where one is 0."""
    perfect = ([0, 1], [0.0, 1.0])
    chance = ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5])
    curve = mean_curve([perfect, chance])
    assert curve.areas == [1.0, 0.5]
    assert auc(curve.false_positive, curve.sensitivity) == pytest.approx(0.75, abs=1e-6)
    assert curve.sensitivity[0] == 0 and curve.sensitivity[1] == 0.5
    assert (np.diff(curve.sensitivity) >= 0).all() and curve.sensitivity[-1] == 1


def test_roc_panels(tmp_path: Path, drawn: list[Any]) -> None:
    one = ([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])
    two = ([0, 0, 1, 1], [0.1, 0.2, 0.4, 0.9])
    panels = {name: {"none": [one], "all": [one, two]} for name in ("a", "b", "c")}
    roc_plate(tmp_path / "roc", panels)
    assert written(tmp_path) == ["roc.png", "roc.svg"]
    shown = drawn[0].axes
    assert [axes.get_title() for axes in shown] == ["a", "b", "c", ""]
    legend = [text.get_text() for text in shown[0].get_legend().get_texts()]
    assert legend == ["none (0.750)", "all (0.875 ± 0.177)"]
    _, first, second = shown[0].lines
    assert first.get_linestyle() != second.get_linestyle()
    assert first.get_color() != second.get_color()
    for wrong in ({}, {"a": {}}):
        with pytest.raises(ValueError, match="no curve is given"):
            roc_plate(tmp_path / "x", wrong)
    with pytest.raises(ValueError, match="one class only"):
        roc_plate(tmp_path / "x", {"a": {"m": [([1, 1], [0.1, 0.2])]}})
    assert written(tmp_path) == ["roc.png", "roc.svg"]


def test_the_heat_map_has_w1_along_x(tmp_path: Path, drawn: list[Any]) -> None:
    """Fig 14: w1 horizontal; the best pair is framed."""
    values = np.array([[70.0, 71.0, 72.0], [79.5, 73.0, np.nan]])
    heat_map(tmp_path / "heat", values, (0.1, 0.2, 0.4), (0.8, 1.6))
    assert written(tmp_path) == ["heat.png", "heat.svg"]
    axes = drawn[0].axes[0]
    assert axes.get_xlabel().startswith("$w_1$") and axes.get_ylabel().startswith("$w_2$")
    assert [x.get_text() for x in axes.get_xticklabels()] == ["0.1", "0.2", "0.4"]
    assert [x.get_text() for x in axes.get_yticklabels()] == ["0.8", "1.6"]
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown[2, 0] == "72.0", "w1 = 0.4, w2 = 0.8"
    assert shown[0, 1] == "79.5" and shown[2, 1] == "no run"
    low, high = axes.get_ylim()
    assert low < high, "w2 grows upwards"
    (frame,) = axes.patches
    assert (frame.get_x() + frame.get_width() / 2, frame.get_y() + frame.get_height() / 2) == (
        pytest.approx((0, 1))
    )
    with pytest.raises(ValueError, match=r"shape \(2, 3\): give 3 rows"):
        heat_map(tmp_path / "x", values, (0.8, 1.6), (0.1, 0.2, 0.4))
    with pytest.raises(ValueError, match="no value is a number"):
        heat_map(tmp_path / "x", [[np.nan]], (1,), (1,))


def test_means_and_deviations_leave_out_runs_that_are_not_there() -> None:
    means, deviations = mean_and_deviation([[1.0, 3.0, np.nan], [5.0, np.nan, np.nan]])
    assert means.tolist() == [2.0, 5.0]
    assert deviations[0] == pytest.approx(2**0.5) and np.isnan(deviations[1])
    means, deviations = mean_and_deviation([[np.nan], [1.0]])
    assert np.isnan(means[0]) and np.isnan(deviations).all()
    assert mean_and_deviation([4.0, 6.0])[0].tolist() == [4.0, 6.0]


def test_lines_have_error_bars_and_single_runs(tmp_path: Path, drawn: list[Any]) -> None:
    x = [0, 0.1, 0.4]
    several = Line(x, [[0.9, 0.8], [0.7, 0.7], [0.5, 0.6]])
    panels = {"a": {"ours": several, "theirs": Line(x, [0.8, 0.7, 0.4])}, "b": {"ours": several}}
    line_plot(tmp_path / "lines", panels, x_name="Share inverted", y_name="AUC")
    assert written(tmp_path) == ["lines.png", "lines.svg"]
    left, right = drawn[0].axes
    assert (left.get_title(), left.get_xlabel(), left.get_ylabel()) == (
        "a",
        "Share inverted",
        "AUC",
    )
    assert [text.get_text() for text in left.get_xticklabels()] == ["0", "0.1", "0.4"]
    ours, theirs = left.containers
    assert ours.lines[0].get_ydata().tolist() == pytest.approx([0.85, 0.7, 0.55])
    first = ours.lines[2][0].get_segments()[0]
    assert first[:, 1].tolist() == pytest.approx([0.85 - 0.1 / 2**0.5, 0.85 + 0.1 / 2**0.5])
    assert theirs.lines[2] == (), "single runs have no deviation"
    assert ours.lines[0].get_marker() != theirs.lines[0].get_marker()
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["ours", "theirs"]
    assert right.get_legend() is None and len(right.containers) == 1
    with pytest.raises(ValueError, match="no line is given"):
        line_plot(tmp_path / "x", {"a": {}}, x_name="", y_name="")
    with pytest.raises(ValueError, match=r"m: x has shape \(2,\) and the values \(3,\)"):
        line_plot(tmp_path / "x", {"a": {"m": Line([1, 2], [1, 2, 3])}}, x_name="", y_name="")
    assert written(tmp_path) == ["lines.png", "lines.svg"]


def test_the_same_figure_gives_the_same_files(tmp_path: Path) -> None:
    for name in "ab":
        heat_map(tmp_path / name, [[1.0, 2.0]], (1, 2), (1,))
    for suffix in ("png", "svg"):
        one, other = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
        assert one == other
