"""Tables and figures that experiments write, from made-up answers."""

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asycmst.analysis import category_plot as category_room
from asycmst.analysis.category_plot import category_plot
from asycmst.analysis.predict_dataset import Predictions
from asycmst.experiments import (
    comparison,
    datasets,
    features,
    noise,
    placement,
    swap,
    timing,
    transfer,
    weights,
)
from asycmst.experiments.claims import Claims
from asycmst.experiments.grid import Place, Source, Trial
from asycmst.experiments.records import Answered, Failed, Outcome
from asycmst.experiments.scores import Results
from asycmst.experiments.sizes import make_study

STUDY = make_study("smoke", Path("out"), repeats=2)


def answers(grid: Mapping[Place, Trial], folder: Path, right: Mapping[str, float]) -> Results:
    """Made-up ones: `right` is the share of right answers of a row, 0.75 for others."""
    found: dict[Place, Outcome | None] = {}
    for place in grid:
        labels = [0, 1] * 10
        share = right.get(place.row, 0.75)
        said = [x if i < round(20 * share) else 1 - x for i, x in enumerate(labels)]
        chances = [0.1 + 0.8 * x for x in said]
        names = [f"{place.column}-{place.repeat}-{i}" for i in range(20)]
        nothing = [float("nan")] * 20
        file = folder / f"{len(found)}.npy"
        np.save(
            file,
            np.random.default_rng(len(found)).normal(size=(20, 5)) + np.array(labels)[:, None],
        )
        one = Predictions(names, labels, chances, nothing, nothing)
        found[place] = Answered(one, names, 7, 1, 1.0, folder, file)
    return Results(found)


def lines(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def assert_pictures(files: list[Path], *names: str) -> None:
    """PNG and SVG are there, of something drawn."""
    for name in names:
        (png,) = [file for file in files if file.name == f"{name}.png"]
        (svg,) = [file for file in files if file.name == f"{name}.svg"]
        assert png.read_bytes().startswith(b"\x89PNG") and png.stat().st_size > 4000
        assert "<path" in svg.read_text(encoding="utf-8")


def test_table_2_has_a_row_for_every_method_that_says_what_is_there(tmp_path: Path) -> None:
    results = answers(comparison.grid(STUDY), tmp_path, {"AsyCMST": 0.9, "ViViT": 0.8})
    files = comparison.report(STUDY, results, tmp_path)
    rows = lines(tmp_path / "table-2.csv")
    methods = [row["Method"].split(" (")[0] for row in rows if "ideal" not in row["Method"]]
    assert methods == [
        *("R(2+1)D", "ViViT", "HFMD", "MFT", "FC-Former", "BUS-Net", "DKPD", "DAST"),
        *("Early fusion", "AsyCMST"),
    ]
    by_name = dict(zip(methods, rows, strict=False))
    assert (
        by_name["MFT"]["Thyroid Acc (%)"] == "-"
        and "published for" in by_name["MFT"]["What is here"]
    )
    assert by_name["AsyCMST"]["Breast F1 (%), rank"] == "1"
    assert by_name["ViViT"]["Breast F1 (%), rank"] == "2"
    assert_pictures(files, "fig-6")


def test_a_method_that_does_not_take_the_clips_is_said_not_to(tmp_path: Path) -> None:
    """The tubelets of ViViT are two frames long."""
    odd = replace(STUDY, base=replace(STUDY.base, model=replace(STUDY.base.model, frames=5)))
    comparison.report(odd, answers(comparison.grid(odd), tmp_path, {}), tmp_path)
    rows = {row["Method"].split(" (")[0]: row for row in lines(tmp_path / "table-2.csv")}
    words = "does not take these clips: frames 5 is not a multiple of tubelet 2"
    assert rows["ViViT"]["What is here"].startswith(words)
    assert rows["ViViT"]["Breast Acc (%)"] == "-" != rows["R(2+1)D"]["Breast Acc (%)"]
    assert [*rows][:2] == ["R(2+1)D", "ViViT"]
    files = swap.report(odd, answers(swap.grid(odd), tmp_path, {}), tmp_path)
    methods = [row["Method"] for row in lines(tmp_path / "fig-9.csv")]
    assert methods[:9] == ["R(2+1)D"] * 4 + ["AsyCMST"] * 4 + ["ViViT"]
    assert_pictures(files, "fig-9")
    assert {place.row for place in timing.grid(odd)} == {"R(2+1)D", "Early fusion", "AsyCMST"}


def test_table_3_is_both_ways(tmp_path: Path) -> None:
    results = answers(transfer.grid(STUDY), tmp_path, {})
    files = transfer.report(STUDY, results, tmp_path)
    header = (tmp_path / "table-3.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "Breast → Thyroid Acc (%)" in header and "Thyroid → Breast F1 (%)" in header
    assert_pictures(files, "fig-7")


def test_fig_8_says_how_far_the_classes_are_apart(tmp_path: Path) -> None:
    results = answers(features.grid(STUDY), tmp_path, {})
    files = features.report(STUDY, results, tmp_path)
    rows = lines(tmp_path / "fig-8.csv")
    assert [row["Model"] for row in rows] == ["none", "ACMST", "FSS+NS", "ACMST+FSS+NS"]
    assert -1 <= float(rows[0]["Thyroid silhouette, mean"]) <= 1
    assert_pictures(files, "fig-8")


def test_fig_9_has_four_configurations_of_three_methods(tmp_path: Path) -> None:
    results = answers(swap.grid(STUDY), tmp_path, {"AsyCMST, BUS+CEUS": 0.6})
    files = swap.report(STUDY, results, tmp_path)
    rows = [row for row in lines(tmp_path / "fig-9.csv") if "ideal" not in row["Method"]]
    assert len(rows) == 12
    assert [row["Upper+lower"] for row in rows[:4]] == [
        *("CEUS+CEUS", "BUS+BUS", "CEUS+BUS", "BUS+CEUS")
    ]
    assert rows[-1]["Thyroid Acc (%)"] == "60.0 ± 0.0"
    assert_pictures(files, "fig-9")


def test_figs_11_and_12_have_labels_and_contours(tmp_path: Path) -> None:
    grid = noise.grid(STUDY)
    results = answers(grid, tmp_path, {"40% of labels inverted": 0.55})
    files = noise.report(STUDY, results, tmp_path)
    rows = lines(tmp_path / "fig-12.csv")
    assert rows[5]["Training data"] == "40% of labels inverted"
    assert rows[5]["Breast Acc (%)"] == "55.0 ± 0.0" and rows[0]["Breast p t"] == "-"
    assert "changed in the training part only" in (tmp_path / "fig-12.txt").read_text()
    assert_pictures(files, "fig-11", "fig-12", "fig-12-auc")


def test_contours_are_changed_where_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Source, "has_masks", lambda source: source.name == "Breast")
    grid = noise.grid(STUDY)
    assert Place("shrunk by 15%", "Breast", 1) in grid
    assert Place("shrunk by 15%", "Thyroid", 1) not in grid
    noise.report(STUDY, answers(grid, tmp_path, {}), tmp_path)
    rows = {row["Training data"]: row for row in lines(tmp_path / "fig-12.csv")}
    assert rows["shrunk by 15%"]["Breast Acc (%)"] != "-"
    assert rows["shrunk by 15%"]["Thyroid Acc (%)"] == "-"
    assert "Thyroid has no contours." in (tmp_path / "fig-12.txt").read_text()
    monkeypatch.setattr(Source, "has_masks", lambda source: False)
    assert {place.row for place in noise.grid(STUDY)} == set(noise.LABELS)


def test_fig_13_draws_a_failed_run_as_missing(tmp_path: Path) -> None:
    results = answers(placement.grid(STUDY), tmp_path, {"L1": 0.8})
    results.found[Place("L1", "Breast", 0)] = Failed("the loss is nan")
    files = placement.report(STUDY, results, tmp_path)
    rows = lines(tmp_path / "fig-13.csv")
    assert rows[1]["Breast Acc (%)"] == "80.0 (1 of 2 failed)"
    assert (
        "Failed: L1, Breast, repeat 0: the loss is nan." in (tmp_path / "fig-13.txt").read_text()
    )
    assert_pictures(files, "fig-13")


def test_fig_14_has_w1_along_x(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    original = weights.heat_map

    def keep(path: Path, values: Any, horizontal: Any, vertical: Any) -> None:
        drawn.append(values)
        original(path, values, horizontal, vertical)

    monkeypatch.setattr(weights, "heat_map", keep)
    results = answers(weights.grid(STUDY), tmp_path, {"0.8, 0.4": 0.9})
    files = weights.report(STUDY, results, tmp_path)
    assert drawn[0].tolist() == [[75.0, 90.0], [75.0, 75.0]]  # below right: w1 large, w2 small
    assert_pictures(files, "fig-14")


def test_table_6_measures_once_on_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "MEASURED", 4)
    monkeypatch.setattr(timing, "WARM_UP", 1)
    results = answers(timing.grid(STUDY), tmp_path, {})
    timing.report(STUDY, results, tmp_path)
    rows = {row["Method"].split(" (")[0]: row for row in lines(tmp_path / "table-6.csv")}
    assert float(rows["AsyCMST"]["t (ms), median"]) > 0 and rows["MFT"]["t (ms)"] == "-"
    first = (tmp_path / "times.json").read_text()
    timing.report(STUDY, results, tmp_path)
    assert (tmp_path / "times.json").read_text() == first
    assert "batch of 1" in (tmp_path / "table-6.txt").read_text()
    (tmp_path / "times.json").write_text("{")
    with pytest.raises(ValueError, match=r"times\.json is damaged; delete it to measure again"):
        timing.report(STUDY, results, tmp_path)


def test_processes_that_share_a_folder_do_not_measure_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "milliseconds", lambda config: {"median": 1.0})
    measured = timing._times(STUDY, tmp_path)
    file = tmp_path / "times.json"
    text = file.read_text()
    file.unlink()
    monkeypatch.setattr(timing, "milliseconds", lambda config: pytest.fail("measures as well"))
    monkeypatch.setattr("time.sleep", lambda seconds: file.write_text(text))
    with Claims().holding(tmp_path) as claim:
        assert claim is not None
        assert timing._times(STUDY, tmp_path) == measured


def test_table_1_counts_every_phantom(tmp_path: Path) -> None:
    files = datasets.report(STUDY, Results({}), tmp_path)
    rows = lines(tmp_path / "table-1.csv")
    assert [row["Dataset"] for row in rows] == ["Thyroid", "Breast", "Total"]
    assert rows[0]["Overall"] == "60" and rows[2]["Overall"] == "120"
    assert int(rows[0]["Benign"]) + int(rows[0]["Malignant"]) == 60
    phantom = STUDY.sources[0].phantom
    assert phantom is not None
    drawn = STUDY.sources[0].test(0).open()[0]
    whole = [int(drawn[i]["label"]) for i in range(24)]
    cases = datasets._cases(replace(STUDY.sources[0], phantom=replace(phantom, frames=8)))
    assert [case.label for case in cases[-24:]] == whole
    assert "Nobody was examined" in (tmp_path / "table-1.md").read_text()
    assert_pictures(files, "fig-5")


def test_configurations_stand_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    original = category_room.new_figure
    monkeypatch.setattr(
        category_room, "new_figure", lambda *size: made.append(original(*size)) or made[-1]
    )
    panels = {"A": {"one": {"x": [1.0, 3.0], "y": [5.0, float("nan")]}}}
    category_plot(tmp_path / "plot", panels, y_name="Accuracy (%)")
    (axes,) = made[0].axes
    shown = {one.get_label(): one.lines[0].get_xydata()[0] for one in axes.containers}
    assert shown["x"][1] == 2.0 and shown["y"][1] == 5.0 and shown["x"][0] < shown["y"][0]
    with pytest.raises(ValueError, match="the same ones for each method"):
        category_plot(tmp_path / "p", {"A": {"one": {"x": [1]}, "two": {"y": [1]}}}, y_name="")
