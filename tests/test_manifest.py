"""Manifests: what is understood, what is refused, and all of it at once."""

from pathlib import Path

import pytest

from asycmst.data.manifest import Case, parse_manifest, read_manifest

HEADER = "id,bus,ceus,label\n"


def write(folder: Path, text: str | bytes, name: str = "m.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_every_column(tmp_path: Path) -> None:
    text = (
        "id,bus,ceus,label,patient,split,mask,bus_view,ceus_view\n"
        "a,b.mp4,c.mp4,0,P1,train,m,left,right\n"
        'b,"x, y.mp4",d/c.dcm,Malignant,,valid,,,\n'
        "c,/abs/b.npy,c,BENIGN,P2,Test,,,\n"
    )
    assert read_manifest(write(tmp_path, text)) == (
        Case(
            "a",
            tmp_path / "b.mp4",
            tmp_path / "c.mp4",
            0,
            "P1",
            "train",
            tmp_path / "m",
            "left",
            "right",
        ),
        Case("b", tmp_path / "x, y.mp4", tmp_path / "d/c.dcm", 1, None, "validation"),
        Case("c", Path("/abs/b.npy"), tmp_path / "c", 0, "P2", "test"),
    )


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfid,bus,ceus,label\na,b,c,1\n",
        b"id;bus;ceus;label\r\na;b;c;1\r\n",
        b"ID\tBUS\tCEUS\tLabel\na\tb\tc\t1",
        b"label, ceus ,bus,id\n\n 1,c , b,a\n,,,\n",
    ],
    ids=["byte order mark", "semicolons of a spreadsheet", "tabs", "spaces, order, blank lines"],
)
def test_spellings_of_a_csv(tmp_path: Path, text: bytes) -> None:
    expected = (Case("a", tmp_path / "b", tmp_path / "c", 1),)
    assert read_manifest(write(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "m.csv is empty"),
        (HEADER, "holds no case"),
        ("id,bus,label\na,b,0\n", "no column ceus; it has id, bus, label"),
        ("id,bus,ceus,label,id\na,b,c,0,a\n", "has the column id twice"),
        (HEADER + "a,b,c,cancer\n", "line 2: the label is 'cancer': allowed are 0, 1, benign and"),
        (HEADER + "a,b,c,2\n", "the label is '2'"),
        (HEADER + "a,b,c,\n", "the label is empty"),
        (HEADER + "a,,c,0\n", "case a: m.csv, line 2: the bus is empty"),
        (HEADER + "a,b,c\n", "line 2: 3 cells for 4 columns"),
        (HEADER + "a,b,c,0\na,d,e,1\n", "case a: the id stands on 2 lines"),
        (HEADER + 'a,"b,c,0\n', "no CSV"),
        ("id,bus,ceus,label,split\na,b,c,0,dev\n", "the split is 'dev'"),
        ("id,bus,ceus,label,bus_view\na,b,c,0,top\n", "the bus_view is 'top'"),
        ("id,bus,ceus,label,age\na,b,c,0,4.5\n", "the age is '4.5': allowed are whole years"),
        ("id,bus,ceus,label,age\na,b,c,0,121\n", "the age is '121'"),
        ("id,bus,ceus,label,sex\na,b,c,0,w\n", "the sex is 'w': allowed are F, M, female"),
        ("id,bus,ceus,label\n\xe4,b,c,0\n".encode("latin-1"), "not UTF-8 text"),
        ("id,bus,ceus,label\na,b,c,0\n".encode("utf-16"), "not UTF-8 text"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        read_manifest(write(tmp_path, text))
    assert words in str(raised.value)


def test_age_and_sex_are_read_where_they_are_known(tmp_path: Path) -> None:
    text = "id,bus,ceus,label,age,sex\na,b,c,0,41,F\nb,b,c,1,,male\nc,b,c,0,0,\n"
    found = [(case.age, case.sex) for case in read_manifest(write(tmp_path, text))]
    assert found == [(41, "F"), (None, "M"), (0, None)]


def test_all_problems_are_found_at_once(tmp_path: Path) -> None:
    text = "id,bus,ceus,label,lable\na,b,c,x,\nb,,c,0,\nc,b,c,0,\nc,b,c,0,\nd,b,c,1\n"
    cases, problems = parse_manifest(write(tmp_path, text))
    assert [case.id for case in cases] == ["c", "c"]
    errors = [str(problem) for problem in problems if problem.error]
    assert len(errors) == 4 and [str(p) for p in problems if not p.error] == [
        "m.csv: the column lable is not known and ignored"
    ]
    with pytest.raises(ValueError, match=r"and 3 more: see asycmst check"):
        read_manifest(tmp_path / "m.csv")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no manifest at"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="holds no CSV"):
        read_manifest(tmp_path)


def released(folder: Path, folds: int = 1) -> None:
    header = "id,bus_vid,ceus_vid,label\n"
    for fold in range(1, folds + 1):
        write(folder, header + "1,A_b.mp4,A_c.mp4,0\n", f"train_{fold}.csv")
        write(folder, header + "2,B_b.mp4,B_c.mp4,1\n", f"valid_{fold}.csv")
        write(folder, header + "3,C_b.mp4,C_c.mp4,1\n", f"test_{fold}.csv")


def test_the_released_layout(tmp_path: Path) -> None:
    """DA6: names are those of videos, frames lie in folders of the same stem."""
    released(tmp_path)
    write(tmp_path, b"", "videos/1.mal/bus/C_b.mp4")
    images = tmp_path / "images"
    assert sorted(read_manifest(tmp_path), key=lambda case: case.id) == [
        Case("1", images / "0.ben/bus/A_b", images / "0.ben/ceus/A_c", 0, split="train"),
        Case("2", images / "1.mal/bus/B_b", images / "1.mal/ceus/B_c", 1, split="validation"),
        Case(
            "3", tmp_path / "videos/1.mal/bus/C_b.mp4", images / "1.mal/ceus/C_c", 1, split="test"
        ),
    ]
    (alone,) = read_manifest(tmp_path / "train_1.csv")
    assert (alone.bus, alone.split) == (images / "0.ben/bus/A_b", None)


def test_several_folds_list_each_case_once_and_give_no_split(tmp_path: Path) -> None:
    released(tmp_path, folds=3)
    cases = read_manifest(tmp_path)
    assert sorted(case.id for case in cases) == ["1", "2", "3"]
    assert {case.split for case in cases} == {None}


def test_a_case_in_two_parts_of_a_fold_is_an_error(tmp_path: Path) -> None:
    released(tmp_path)
    write(tmp_path, (tmp_path / "train_1.csv").read_bytes(), "test_1.csv")
    with pytest.raises(ValueError, match="case 1: stands in several splits"):
        read_manifest(tmp_path)
