"""Splits by patient: how they are drawn, written, read and refused."""

import csv
import json
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pytest

from asycmst.data.protocol import Cover, make_splits
from asycmst.data.splits import (
    Split,
    check_split,
    count,
    number_of_splits,
    read_split,
    split_of_column,
    write_splits,
)


class Case(NamedTuple):
    id: str
    label: int
    patient: str | None = None
    split: str | None = None


THYROID = (1606, 1304)
BREAST = (540, 706)


def cases(benign: int, malignant: int) -> list[Case]:
    return [Case(f"case-{i}", int(i >= benign)) for i in range(benign + malignant)]


def clips(patients: int, each: int = 3) -> list[Case]:
    """Every third patient is malignant; a patient has 1 to `each` clips."""
    return [
        Case(f"{p}-{clip}", int(p % 3 == 0), f"MRN-{p}")
        for p in range(patients)
        for clip in range(1 + p % each)
    ]


@pytest.mark.parametrize("stratified", [False, True], ids=["random", "stratified"])
@pytest.mark.parametrize(
    ("classes", "cover", "sizes"),
    [
        (THYROID, "disjoint", [(1455, 582, 873)] * 3),
        (BREAST, "disjoint", [(622, 250, 374)] * 3),
        (THYROID, "exact", [(1385, 555, 970)] * 3),
        (BREAST, "exact", [(592, 238, 416), (593, 238, 415), (593, 238, 415)]),
    ],
)
def test_the_papers_data_sets_divide_5_2_3(
    classes: tuple[int, int], cover: Cover, sizes: list[tuple[int, ...]], stratified: bool
) -> None:
    everyone = cases(*classes)
    splits = make_splits(everyone, seed=0, cover=cover, stratified=stratified)
    assert [tuple(map(len, split)) for split in splits] == sizes
    for split in splits:
        assert len(set().union(*split)) == len(everyone)
    for one, other in combinations(splits, 2):
        assert not set(one.test) & set(other.test)
    tested = sum(len(split.test) for split in splits)
    assert tested == (len(everyone) if cover == "exact" else 3 * sizes[0][2])
    share = classes[1] / sum(classes)
    off = [
        abs(count(part, everyone)["malignant"] / len(part) - share)
        for split in splits
        for part in split
    ]
    assert max(off) < 0.004 if stratified else 0.004 < max(off) < 0.1


def test_a_split_is_a_matter_of_seed_and_not_of_order() -> None:
    everyone = clips(60)
    once = make_splits(everyone, seed=4)
    assert once == make_splits(everyone, seed=4) != make_splits(everyone, seed=5)
    turned = make_splits(everyone[::-1], seed=4)
    assert [split.sha256 for split in turned] == [split.sha256 for split in once]
    assert len({split.sha256 for split in once}) == 3


@pytest.mark.parametrize("cover", ["disjoint", "exact"])
@pytest.mark.parametrize("stratified", [False, True])
def test_all_clips_of_a_patient_stay_together(cover: Cover, stratified: bool) -> None:
    everyone = clips(50)
    patient = {case.id: case.patient for case in everyone}
    for split in make_splits(everyone, seed=1, cover=cover, stratified=stratified, folds=2):
        owners = [{patient[id_] for id_ in part} for part in split]
        assert sum(map(len, owners)) == 50 == len(set.union(*owners))
        assert sum(map(len, split)) == len(everyone)


def test_folds_and_their_limits() -> None:
    everyone = cases(30, 30)
    five = make_splits(everyone, seed=0, cover="exact", folds=5)
    assert sorted(id_ for split in five for id_ in split.test) == sorted(c.id for c in everyone)
    assert len(make_splits(everyone, seed=0, folds=1)) == 1
    with pytest.raises(ValueError, match=r"folds=4 with cover='disjoint'.*allowed are 1 to 3"):
        make_splits(everyone, seed=0, folds=4)
    with pytest.raises(ValueError, match="folds=1 with cover='exact'"):
        make_splits(everyone, seed=0, cover="exact", folds=1)


@pytest.mark.parametrize("stratified", [False, True], ids=["random", "stratified"])
@pytest.mark.parametrize("cover", ["disjoint", "exact"])
@pytest.mark.parametrize("classes", [(2, 1), (40, 2), (60, 0), (2, 2)])
def test_too_few_patients_are_one_error(
    classes: tuple[int, int], cover: Cover, stratified: bool
) -> None:
    words = "too few for|has no (benign|malignant) case among"
    with pytest.raises(ValueError, match=words) as raised:
        make_splits(cases(*classes), seed=0, cover=cover, stratified=stratified)
    assert "add cases" in str(raised.value)


def test_an_id_may_occur_once() -> None:
    with pytest.raises(ValueError, match="case case-3 occurs twice"):
        make_splits([*cases(9, 9), Case("case-3", 0, "other")], seed=0)


def test_written_splits_are_read_again(tmp_path: Path) -> None:
    everyone = clips(60)
    splits = make_splits(everyone, seed=7, stratified=True)
    folder = tmp_path / "new" / "splits"
    write_splits(folder, splits, everyone, {"seed": 7, "cover": "disjoint", "stratified": True})
    assert number_of_splits(folder) == 3
    assert tuple(read_split(folder, k) for k in (1, 2, 3)) == splits
    names = {f"{part}_{k}.csv" for part in ("train", "valid", "test") for k in (1, 2, 3)}
    assert {entry.name for entry in folder.iterdir()} == names | {"splits.json"}
    assert [entry.name for entry in folder.parent.iterdir()] == ["splits"]

    index = json.loads((folder / "splits.json").read_text())
    assert (index["seed"], index["cover"], index["stratified"]) == (7, "disjoint", True)
    second = index["splits"][1]
    assert second["sha256"] == splits[1].sha256
    with (folder / "valid_2.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == list(splits[1].validation)
    assert second["validation"] == {
        "cases": len(rows),
        "patients": len({row["patient"] for row in rows}),
        "benign": sum(row["label"] == "0" for row in rows),
        "malignant": sum(row["label"] == "1" for row in rows),
    }
    assert not any("MRN" in file.read_text() for file in folder.iterdir())


def stored(tmp_path: Path) -> Path:
    everyone = clips(30)
    write_splits(tmp_path / "s", make_splits(everyone, seed=0), everyone, {"seed": 0})
    return tmp_path / "s"


def test_an_edited_file_is_refused(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    file = folder / "test_2.csv"
    file.write_text(file.read_text().replace(",1,", ",0,", 1))
    assert read_split(folder, 1)
    with pytest.raises(ValueError, match=r"test_2.csv was changed after it was written"):
        read_split(folder, 2)


def test_a_leak_in_the_files_is_refused(tmp_path: Path) -> None:
    """Also where somebody made the hashes fit."""
    import hashlib

    folder = stored(tmp_path)
    patient = (folder / "train_1.csv").read_text().splitlines()[1].split(",")[2]
    content = (folder / "test_1.csv").read_text() + f"new,1,{patient}\n"
    (folder / "test_1.csv").write_text(content)
    index = json.loads((folder / "splits.json").read_text())
    index["files_sha256"]["test_1.csv"] = hashlib.sha256(content.encode()).hexdigest()
    (folder / "splits.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"leaks: 1 patient\(s\) are in both its train and its t"):
        read_split(folder, 1)


def test_what_is_no_folder_of_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no splits.json in .*`asycmst split`"):
        read_split(tmp_path, 1)
    folder = stored(tmp_path)
    with pytest.raises(ValueError, match=r"fold 4: .* holds the splits 1 to 3"):
        read_split(folder, 4)
    (folder / "valid_3.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"valid_3.csv"):
        read_split(folder, 3)
    for content in ("{", "[]", '{"format": 2}', '{"format": 1}'):
        (folder / "splits.json").write_text(content)
        with pytest.raises(ValueError, match="is damaged or of another version"):
            read_split(folder, 1)


def test_earlier_splits_are_kept(tmp_path: Path) -> None:
    everyone = clips(30)
    splits = make_splits(everyone, seed=1)
    folder = stored(tmp_path)
    before = {file.name: file.read_text() for file in folder.iterdir()}
    with pytest.raises(ValueError, match="not an empty folder: give --out a new folder"):
        write_splits(folder, splits, everyone, {"seed": 1})
    assert {file.name: file.read_text() for file in folder.iterdir()} == before
    (tmp_path / "empty").mkdir()
    write_splits(tmp_path / "empty", splits, everyone, {"seed": 1})
    assert number_of_splits(tmp_path / "empty") == 3


def test_leaking_splits_are_never_written(tmp_path: Path) -> None:
    everyone = [Case("a", 0, "p"), Case("b", 1, "p"), Case("c", 0, None)]
    leaking = Split(("a",), ("c",), ("b",))
    with pytest.raises(ValueError, match="split 1 leaks: 1 patient"):
        write_splits(tmp_path / "s", [leaking], everyone, {})
    with pytest.raises(ValueError, match="case a occurs twice"):
        check_split(Split(("a",), (), ("a",)), everyone, "it")
    with pytest.raises(ValueError, match="it names 1 cases that the data set lacks, such as z"):
        check_split(Split(("a", "z"), (), ()), everyone, "it")
    assert not list(tmp_path.iterdir())


def test_the_data_sets_own_column() -> None:
    words = ("train", "valid", "validation", "test", "train")
    everyone = [Case(str(i), i % 2, None, word) for i, word in enumerate(words)]
    assert split_of_column(everyone) == Split(("0", "4"), ("1", "2"), ("3",))
    with pytest.raises(ValueError, match=r"1 of 6 cases have no entry in the split column"):
        split_of_column([*everyone, Case("5", 0)])
    with pytest.raises(ValueError, match=r"case 5 has split 'tset': allowed are train, valid"):
        split_of_column([*everyone, Case("5", 0, None, "tset")])
    with pytest.raises(ValueError, match="the split column leaks: 1 patient"):
        split_of_column([Case("0", 0, "p", "train"), Case("1", 1, "p", "test")])
