"""Table 1 and Fig 5: what is counted, and that a table that does not add up is caught."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from asycmst import cli
from asycmst.analysis import dataset_report as room
from asycmst.analysis.dataset_report import (
    Counts,
    add_up,
    age_figure,
    age_histogram,
    count_cases,
    table,
    wrong_sums,
)
from asycmst.data.cache import read_cache


class Case(NamedTuple):
    label: int
    age: int | None = None
    sex: str | None = None


THYROID = [Case(0, 40, "F"), Case(1, 10, "M"), Case(1, 83, "F")]
BREAST = [Case(0, 15, "F"), Case(1, None, "F"), Case(0, 19, None), Case(1, 88, "M")]

# Table 1 as it is printed, and its total as it is printed.
PRINTED = {
    "Thyroid": Counts(2304, 606, 0, 10, 83, 0, 1606, 1304, 2910),
    "Breast": Counts(1233, 13, 0, 15, 88, 0, 540, 706, 1246),
}
PRINTED_TOTAL = Counts(2537, 619, 0, 10, 88, 0, 2146, 2010, 4156)


def test_a_data_set_is_counted() -> None:
    assert count_cases(THYROID) == Counts(2, 1, 0, 10, 83, 0, 1, 2, 3)
    assert count_cases(BREAST) == Counts(2, 1, 1, 15, 88, 1, 2, 2, 4)
    assert count_cases([Case(1)]) == Counts(0, 0, 1, None, None, 1, 0, 1, 1)


def test_the_printed_total_is_caught() -> None:
    """Table 1 prints 2537 women; its lines give 3537, and 2537 + 619 are not 4156."""
    assert wrong_sums(PRINTED, PRINTED_TOTAL) == [
        "Total: F, M and unknown sex are 2537 + 619 + 0 = 3156, overall there are 4156",
        "Total: female is 2537, the data sets give 3537",
    ]
    assert wrong_sums(PRINTED, PRINTED_TOTAL._replace(female=3537)) == []
    assert table(PRINTED) == [
        ["Dataset", "F", "M", "Age range", "Benign", "Malignant", "Overall"],
        ["Thyroid", "2304", "606", "10-83", "1606", "1304", "2910"],
        ["Breast", "1233", "13", "15-88", "540", "706", "1246"],
        ["Total", "3537", "619", "10-88", "2146", "2010", "4156"],
    ]


@pytest.mark.parametrize("field", Counts._fields)
def test_every_column_is_checked(field: str) -> None:
    total = add_up(list(PRINTED.values()))
    wrong = total._replace(**{field: getattr(total, field) + 1})
    assert any(
        f"Total: {field.replace('_', ' ')} is" in line for line in wrong_sums(PRINTED, wrong)
    )


def test_a_case_of_no_class_and_no_sex_does_not_add_up() -> None:
    with pytest.raises(ValueError, match=r"A: benign and malignant are 1 \+ 0 = 1, overall .* 2"):
        table({"A": count_cases([Case(0, 30, "F"), Case(2, 30, "F")])})
    with pytest.raises(ValueError, match=r"A: F, M and unknown sex are 1 \+ 0 \+ 0 = 1"):
        table({"A": count_cases([Case(0, 30, "F"), Case(1, 30, "X")])})


def test_what_is_unknown_has_columns() -> None:
    rows = table({"Thyroid": count_cases(THYROID), "Breast": count_cases(BREAST)})
    assert rows[0] == room.HEADER
    assert rows[2] == ["Breast", "2", "1", "1", "15-88", "1", "2", "2", "4"]
    assert rows[3] == ["Total", "4", "2", "1", "10-88", "1", "3", "4", "7"]
    bare = table({"Phantom": count_cases([Case(0), Case(1)])})
    assert bare[1:] == [["Phantom", "0", "0", "2", "unknown", "2", "1", "1", "2"]]


def test_the_histogram_counts_every_age_once() -> None:
    edges, counts = age_histogram([10, 14, 15, 19, 20, 45])
    assert edges.tolist() == [10, 15, 20, 25, 30, 35, 40, 45, 50]
    assert counts.tolist() == [2, 2, 1, 0, 0, 0, 0, 1]
    assert age_histogram([0])[1].tolist() == [1]


def test_a_panel_for_each_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    original = room.new_figure
    monkeypatch.setattr(room, "new_figure", lambda *s: made.append(original(*s)) or made[-1])
    age_figure(tmp_path / "ages", {"Thyroid": THYROID, "Breast": BREAST, "Phantom": [Case(0)]})
    first, second, third = made[0].axes
    assert first.get_title() == "Thyroid (3 cases)"
    assert second.get_title() == "Breast (3 cases, 1 of unknown age)"
    assert sum(bar.get_height() for bar in second.patches) == 3
    assert third.texts[0].get_text() == "no age is known"
    with Image.open(tmp_path / "ages.png") as image:
        assert image.format == "PNG"
    assert (tmp_path / "ages.svg").is_file()
    with pytest.raises(ValueError, match="no data set is given"):
        age_figure(tmp_path / "x", {})


def test_ages_go_from_the_files_into_the_cache(tmp_path: Path) -> None:
    """Of a patient only age and sex, and of those of the phantom the folder says they are not."""
    folder, cache = tmp_path / "cases", tmp_path / "cache"
    words = ["--cases", "6", "--size", "32", "--frames", "3", "--format", "frames"]
    assert cli.main(["phantom", "--out", str(folder), *words, "--demographics"]) == 0
    assert "drawn at random" in (folder / "SYNTHETIC.txt").read_text()
    words = ["--frames", "2", "--size", "32", "--out", str(cache)]
    assert cli.main(["prepare", str(folder / "manifest.csv"), *words]) == 0
    counts = count_cases(read_cache(cache).cases)
    assert (counts.overall, counts.sex_unknown, counts.age_unknown) == (6, 0, 0)
    assert counts.youngest is not None and 10 <= counts.youngest < counts.oldest <= 88
    assert "PHANTOM-" not in (cache / "index.json").read_text()
