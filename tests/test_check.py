"""Everything wrong with a study's data, in one pass, on the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.examples
import pytest
from PIL import Image

from asycmst import cli
from asycmst.data.check import check

REAL = Path(pydicom.examples.get_path("ybr_color"))
HEADER = "id,bus,ceus,label,patient,split,mask\n"


def clip(folder: Path, name: str, frames: int = 5, size: tuple[int, int] = (12, 16)) -> str:
    generator = np.random.default_rng(list(name.encode()))
    np.save(folder / name, generator.integers(0, 256, (frames, *size), dtype=np.uint8))
    return name


def good(folder: Path) -> list[str]:
    rows = []
    for index, split in enumerate(("train", "train", "validation", "validation", "test", "test")):
        bus, ceus = clip(folder, f"b{index}.npy"), clip(folder, f"c{index}.npy")
        rows.append(f"n{index},{bus},{ceus},{index % 2},P{index},{split},")
    return rows


def write(folder: Path, rows: list[str]) -> Path:
    (folder / "m.csv").write_text(HEADER + "\n".join(rows) + "\n")
    return folder / "m.csv"


def status(*arguments: Any) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_good_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write(tmp_path, good(tmp_path))
    assert status("check", manifest, "--json", tmp_path / "out.json") == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert found == {
        "cases": 6,
        "benign": 3,
        "malignant": 3,
        "patients": 6,
        "splits": {"test": 2, "train": 2, "validation": 2},
        "cases_with_masks": 0,
        "annotated_frames": 0,
        "bus_frames": {"min": 5, "median": 5, "max": 5},
        "bus_seconds": None,
        "bus_sizes": {"16 x 12": 6},
        "ceus_frames": {"min": 5, "median": 5, "max": 5},
        "ceus_seconds": None,
        "ceus_sizes": {"16 x 12": 6},
        "problems": [],
    }
    printed = capsys.readouterr()
    assert "malignant" in printed.out and "error" not in printed.out and printed.err == ""


def test_every_problem_is_listed_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = good(tmp_path)
    clip(tmp_path, "one.npy", frames=1)
    clip(tmp_path, "wide.npy", size=(12, 20))
    (tmp_path / "zero.mp4").write_bytes(b"")
    np.save(tmp_path / "float.npy", np.full((3, 4, 4), np.nan))
    shutil.copy(tmp_path / "b0.npy", tmp_path / "copy.npy")
    shutil.copy(REAL, tmp_path / "cut.dcm")
    (tmp_path / "cut.dcm").write_bytes(REAL.read_bytes()[:150_000])
    (tmp_path / "masks").mkdir()
    Image.new("L", (16, 12)).save(tmp_path / "masks" / "00099.png")
    rows += [
        "missing,gone.mp4,c1.npy,0,A,,",
        "single,one.npy,d.npy,1,B,,",
        "wide,wide.npy,e.npy,0,C,,",
        "zero,zero.mp4,f.npy,1,D,,",
        "float,float.npy,g.npy,0,E,,",
        "copied,copy.npy,h.npy,1,F,,",
        "cut,cut.dcm,i.npy,0,G,,",
        "masked,j.npy,k.npy,1,H,,masks",
        "leak,l.npy,m.npy,1,P1,test,",
        "label,n.npy,o.npy,0,P3,validation,",
        "same,p.npy,p.npy,0,I,,",
        "word,q.npy,q.npy,cancer,J,,",
        "n5,r.npy,s.npy,1,P5,test,",
    ]
    for name in "defghijklmnopqrs":
        clip(tmp_path, f"{name}.npy")
    manifest = write(tmp_path, rows)
    assert status("check", manifest, "--json", tmp_path / "out.json") == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    for words in (
        "error: case missing: no file or folder at the BUS clip",
        "error: case single: the BUS clip holds one frame",
        "note: case wide: BUS frames are 20 x 12 and CEUS frames 16 x 12 pixels",
        "error: case zero: the BUS clip is empty (0 bytes)",
        "error: case float: the BUS clip holds float64",
        "error: case n0: the same clip stands 2 times: cases n0, copied",
        "error: case n1: the same clip stands 2 times: cases n1, missing",
        "error: case cut: the BUS clip cannot be read as a DICOM image",
        "error: case masked: 1 of 1 masks match no frame of the BUS clip (such as 99)",
        "error: case n1: its patient is in test and train",
        "error: case leak: its patient is in test and train",
        "error: case n3: cases n3, label are of one patient and have different labels",
        "error: case same: BUS and CEUS are the same clip",
        "error: case word: m.csv, line 19: the label is 'cancer'",
        "error: case n5: the id stands on 2 lines",
    ):
        assert any(line.startswith(words) for line in lines), words
    errors = sum(line.startswith("error: ") for line in lines)
    assert printed.err == f"asycmst: error: {errors} errors in 18 cases; see above\n"
    assert errors == 14
    stored = json.loads((tmp_path / "out.json").read_text())["problems"]
    assert sum(problem["error"] for problem in stored) == 14


def test_deep_finds_what_a_look_does_not(tmp_path: Path) -> None:
    rows = good(tmp_path)
    (tmp_path / "f").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    for number in range(4):
        Image.fromarray(noise + number).save(tmp_path / "f" / f"{number}.png")
    middle = tmp_path / "f" / "2.png"
    middle.write_bytes(middle.read_bytes()[:300])
    manifest = write(tmp_path, [*rows, f"x,f,{clip(tmp_path, 'y.npy')},0,Q,train,"])
    assert check(manifest).problems == []
    (problem,) = check(manifest, deep=True).problems
    assert str(problem).startswith("case x: image 2 of the BUS clip cannot be read as an image")


def test_durations_and_masks_after_the_common_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asycmst.data import check as module
    from asycmst.data.clips import open_clip

    def timed(path: Path, view: object) -> Any:
        opened = open_clip(path)
        step = 10.0 if path.name.startswith("b") else 1.0
        times = np.arange(opened.source.frames) * step
        return opened._replace(source=opened.source._replace(times=times))

    monkeypatch.setattr(module, "open_clip", timed)
    rows = good(tmp_path)
    (tmp_path / "masks").mkdir()
    Image.new("L", (16, 12)).save(tmp_path / "masks" / "3.png")
    found = check(write(tmp_path, [rows[0] + "masks", *rows[1:]]))
    texts = [str(problem) for problem in found.problems]
    assert sum("BUS lasts 40.0 s and CEUS 4.0 s" in text for text in texts) == 6
    assert "case n0: all masks lie after the end of the CEUS clip and are not used" in texts
    assert found.errors == 0 and found.annotated == {"n0": 1}


def test_a_patient_s_name_appears_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Planted in DICOM tags, the patient column and file names; looked for in every output."""
    secret = "Zaphod"
    data = pydicom.dcmread(REAL)
    data.PatientName, data.PatientID = f"{secret}^B", f"{secret}-42"
    for name in (f"{secret}.dcm", "other.dcm", f"{secret} cut.dcm"):
        data.save_as(tmp_path / name)
    whole = (tmp_path / f"{secret}.dcm").read_bytes()
    (tmp_path / f"{secret} cut.dcm").write_bytes(whole[: len(whole) // 2])
    clip(tmp_path, "c.npy")
    rows = [
        f"a,{secret}.dcm,c.npy,0,{secret},train,",
        f"b,{secret} cut.dcm,{secret}.mp4,1,{secret},train,",
        f"c,other.dcm,{secret},1,{secret},,",
    ]
    manifest = write(tmp_path, rows)
    assert status("check", manifest, "--deep", "--json", tmp_path / "out.json") == 1
    assert status("prepare", manifest, "--out", tmp_path / "cache", "--preset", "demo",
                  "--workers", "1") == 1  # fmt: skip
    printed = capsys.readouterr()
    assert "case b: the BUS clip cannot be read as a DICOM image" in printed.out
    assert "are of one patient and have different labels" in printed.out
    assert "2 of 3 cases could not be read and are left out" in printed.err
    outputs = [*(tmp_path / "cache").rglob("*"), tmp_path / "out.json"]
    content = b"".join(path.read_bytes() for path in outputs if path.is_file())
    for text in (
        printed.out,
        printed.err,
        caplog.text,
        content.decode("latin-1"),
        *(p.name for p in outputs),
    ):
        assert secret.lower() not in text.lower()
