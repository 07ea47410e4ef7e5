"""The cache: what is kept, what is read anew, and what happens when things go wrong."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asycmst.data import cache, cache_entry
from asycmst.data.cache import Prepared, Step, prepare, read_cache
from asycmst.data.manifest import Case


def make_cases(folder: Path, count: int, **fields: Any) -> list[Case]:
    folder.mkdir(exist_ok=True)
    cases = []
    for index in range(count):
        generator = np.random.default_rng(index)
        paths = [folder / f"{name}{index}.npy" for name in ("bus", "ceus")]
        np.save(paths[0], generator.integers(0, 256, (9, 12, 16), dtype=np.uint8))
        np.save(paths[1], generator.integers(0, 256, (9, 12, 16, 3), dtype=np.uint8))
        cases.append(Case(f"c{index}", *paths, index % 2, **fields))
    return cases


def run(cases: list[Case], folder: Path, **options: Any) -> Prepared:
    return prepare(cases, folder, **{"frames": 4, "size": 8, **options})


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.read_bytes()) for f in files}


def test_a_second_call_reads_nothing_again(tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "in", 3)
    steps: list[Any] = []
    first = run(cases, tmp_path / "c", report=steps.append)
    assert (first.made, first.kept, first.problems) == (3, 0, ())
    assert steps == [Step(1, 3, None), Step(2, 3, None), Step(3, 3, None)]
    before = snapshot(tmp_path / "c" / "cases")
    second = run(cases, tmp_path / "c")
    assert (second.made, second.kept, second.bytes) == (0, 3, first.bytes)
    assert snapshot(tmp_path / "c" / "cases") == before
    found = read_cache(tmp_path / "c")
    assert (found.frames, found.frame_size) == (4, (8, 8))
    assert [case.id for case in found.cases] == ["c0", "c1", "c2"]


def test_a_changed_source_is_read_again_and_the_old_entry_goes(tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "in", 3)
    run(cases, tmp_path / "c")
    before = snapshot(tmp_path / "c" / "cases")
    os.utime(cases[1].ceus, ns=(1, 1))
    assert (lambda p: (p.made, p.kept))(run(cases, tmp_path / "c")) == (1, 2)
    after = snapshot(tmp_path / "c" / "cases")
    assert len(after) == len(before) and len(before.keys() & after.keys()) == len(before) * 2 // 3


def test_a_label_a_split_or_a_patient_needs_no_reading(tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "in", 2, patient="P", split="train")
    run(cases, tmp_path / "c")
    changed = [Case(c.id, c.bus, c.ceus, 1, "Q" + c.id, "test", age=50, sex="F") for c in cases]
    assert run(changed, tmp_path / "c").made == 0
    found = read_cache(tmp_path / "c").cases
    assert [tuple(case) for case in found] == [
        ("c0", 1, "p00001", "test", 50, "F"),
        ("c1", 1, "p00002", "test", 50, "F"),
    ]
    index = tmp_path / "c" / "index.json"
    rows = json.loads(index.read_text())["cases"]
    for row in rows:
        del row["age"], row["sex"]  # as caches were before these were kept
    index.write_text(json.dumps({"cases": rows}))
    assert [case.age for case in read_cache(tmp_path / "c").cases] == [None, None]


def test_patients_are_numbers(tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "in", 5)
    names = ["DOE", "ROE", None, "DOE", None]
    cases = [
        Case(c.id, c.bus, c.ceus, c.label, name) for c, name in zip(cases, names, strict=True)
    ]
    run(cases, tmp_path / "c")
    groups = [case.patient for case in read_cache(tmp_path / "c").cases]
    assert groups == ["p00001", "p00002", "p00003", "p00001", "p00004"]


def test_other_settings_and_other_folders_are_refused(tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "in", 1)
    run(cases, tmp_path / "c")
    with pytest.raises(
        ValueError, match="made with 4 frames of 8 x 8, sampled by 'time', not with"
    ):
        run(cases, tmp_path / "c", frames=5)
    with pytest.raises(ValueError, match="sampled by 'released': give another folder"):
        run(cases, tmp_path / "c", sampling="released")
    with pytest.raises(ValueError, match="holds files that are no cache"):
        run(cases, tmp_path / "in")
    with pytest.raises(ValueError, match="is a file"):
        run(cases, cases[0].bus)
    with pytest.raises(ValueError, match="no case"):
        run([], tmp_path / "d")
    with pytest.raises(ValueError, match="all must be at least 1"):
        run(cases, tmp_path / "d", size=0)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_cases_are_named_and_the_rest_go_on(tmp_path: Path, workers: int) -> None:
    cases = make_cases(tmp_path / "in", 6)
    cases[0].bus.write_bytes(b"")
    cases[1].ceus.unlink()
    cases[2].bus.write_bytes(cases[2].bus.read_bytes()[:-5])
    np.save(cases[3].bus, np.zeros((4, 4, 4)))
    np.save(cases[4].ceus, np.zeros((1, 4, 4), np.uint8))
    found = run(cases, tmp_path / "c", workers=workers)
    texts = [str(problem) for problem in found.problems]
    assert [text.partition(":")[0] for text in texts] == [f"case c{i}" for i in range(5)]
    for text, words in zip(
        texts,
        ["BUS clip is empty (0 bytes)", "CEUS clip", "BUS clip cannot be read as a NumPy array",
         "BUS clip holds float64", "CEUS clip holds one frame"],
        strict=True,
    ):  # fmt: skip
        assert words in text and "npy" not in text.replace("numpy", "") and "\n" not in text
    assert [case.id for case in read_cache(tmp_path / "c").cases] == ["c5"]
    make_cases(tmp_path / "in", 1)
    assert run(cases, tmp_path / "c").made == 1, "a repaired case is read"


def test_object_arrays_are_not_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "boom",))

    cases = make_cases(tmp_path / "in", 1)
    np.save(cases[0].bus, np.array([Bomb()], dtype=object), allow_pickle=True)
    assert "holds Python objects" in str(run(cases, tmp_path / "c").problems[0])
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_in_one_line_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    cases = make_cases(tmp_path / "in", 4)
    written = 0

    def write(file: Any, array: Any, **_: Any) -> None:
        nonlocal written
        written += 1
        file.write(b"some")
        if written == 6:
            raise OSError(number, os.strerror(number))

    real = np.lib.format.write_array
    monkeypatch.setattr(np.lib.format, "write_array", write)
    with pytest.raises(OSError, match=r"no space left for .*: 2 of 4 cases are done and kept"):
        run(cases, tmp_path / "c")
    assert len(list((tmp_path / "c" / "cases").iterdir())) == 2
    with pytest.raises(ValueError, match="is not finished: run the same asycmst prepare again"):
        read_cache(tmp_path / "c")
    monkeypatch.setattr(np.lib.format, "write_array", real)
    assert (lambda p: (p.made, p.kept))(run(cases, tmp_path / "c")) == (2, 2)


def test_an_entry_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = cache_entry.CacheSettings(4, (8, 8), "time")
    entry = cache_entry.make_entry(make_cases(tmp_path / "in", 1)[0], settings)
    (tmp_path / "cases").mkdir()

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        cache_entry.write_entry(entry, tmp_path / "cases", "name")
    assert not list((tmp_path / "cases").iterdir())


def test_a_damaged_entry_is_read_again(tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "in", 2)
    run(cases, tmp_path / "c")
    store = read_cache(tmp_path / "c").entries
    (store[0] / "bus.npy").write_bytes(b"cut")
    shutil.rmtree(store[1])
    assert run(cases, tmp_path / "c").made == 2


PREPARE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_cache as t
from asycmst.data import cache
slow, real = float(sys.argv[3]), cache.write_entry
def write(*arguments):
    time.sleep(slow)
    (Path(sys.argv[2]) / "writes").open("a").write("x")
    real(*arguments)
    print("written", flush=True)
cache.write_entry = write
cases = t.make_cases(Path(sys.argv[2]) / "in", 4) if sys.argv[4] == "make" else [
    t.Case(f"c{i}", *(Path(sys.argv[2]) / "in" / f"{n}{i}.npy" for n in ("bus", "ceus")), i % 2)
    for i in range(4)]
found = t.run(cases, Path(sys.argv[2]) / "c", report=lambda s: print(s, flush=True))
print("made", found.made, "kept", found.kept, flush=True)
"""


def process(folder: Path, slow: float) -> "subprocess.Popen[str]":
    arguments = [str(Path(__file__).parent), str(folder), str(slow), "reuse"]
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE, *arguments], stdout=subprocess.PIPE, text=True
    )


def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "in", 4)
    child = process(tmp_path, slow=0.5)
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("written"):
            break
    os.kill(child.pid, signal.SIGKILL)
    child.communicate(timeout=20)
    done = [path for path in (tmp_path / "c" / "cases").iterdir() if path.name[0] != "."]
    assert 1 <= len(done) < 4
    (tmp_path / "c" / "cases" / f"{cache_entry.PART}left").mkdir(exist_ok=True)
    found = run(cases, tmp_path / "c")
    assert found.kept == len(done) and found.made == 4 - len(done)
    assert not list((tmp_path / "c" / "cases").glob(".*"))


def test_two_processes_take_turns(tmp_path: Path) -> None:
    make_cases(tmp_path / "in", 4)
    children = [process(tmp_path, slow=0.3) for _ in range(2)]
    outputs = [child.communicate(timeout=50)[0] for child in children]
    assert all(child.returncode == 0 for child in children)
    assert (tmp_path / "writes").read_text() == "xxxx", "no case is read twice"
    ends = sorted(output.splitlines()[-1] for output in outputs)
    assert ends == ["made 0 kept 4", "made 4 kept 0"]
    assert len(read_cache(tmp_path / "c").cases) == 4


def test_an_interrupt_keeps_what_is_done(tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "in", 4)

    def stop(step: Any) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cases, tmp_path / "c", report=stop)
    start = time.monotonic()
    assert run(cases, tmp_path / "c").kept == 2
    assert time.monotonic() - start < 20, "the lock was given back"


def test_names_of_files_stay_out_of_messages_and_cache(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    cases = make_cases(folder, 3)
    secret = "DOE_JANE"
    (cases[0].bus).rename(folder / f"{secret}_bus.npy")
    frames = folder / f"{secret} frames"
    frames.mkdir()
    for number in range(3):
        Image.new("L", (8 + number, 8)).save(frames / f"{secret}_{number}.png")
    (folder / f"{secret}.xyz").write_text("x")
    named = [
        Case("a", folder / f"{secret}_bus.npy", cases[0].ceus, 0, secret),
        Case("b", frames, cases[1].ceus, 0, secret),
        Case("c", cases[2].bus, folder / f"{secret}.xyz", 0, secret),
        Case("d", cases[2].bus, folder / secret / "gone.mp4", 0, secret),
        Case("e", cases[2].bus, cases[2].ceus, 0, secret, mask=folder / f"{secret}.xyz"),
    ]
    found = run(named, tmp_path / "c")
    texts = [str(problem) for problem in found.problems]
    assert len(texts) == 4 and not any(secret in text for text in texts), texts
    assert "image 1 of the BUS clip is 9 x 8 pixels and the first" in texts[0]
    for name, (_, content) in snapshot(tmp_path / "c").items():
        assert secret not in name and secret.encode() not in content


def test_reading_a_cache_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no cache at"):
        read_cache(tmp_path)
    run(make_cases(tmp_path / "in", 1), tmp_path / "c")
    (tmp_path / "c" / "index.json").write_text("{")
    with pytest.raises(ValueError, match=r"index\.json is damaged"):
        read_cache(tmp_path / "c")
    content = json.loads((tmp_path / "c" / "cache.json").read_text())
    (tmp_path / "c" / "cache.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(ValueError, match="not of this version"):
        read_cache(tmp_path / "c")


def test_a_missing_library_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ImportError("reading needs PyAV")

    monkeypatch.setattr(cache, "make_entry", fail)
    with pytest.raises(ImportError, match="PyAV"):
        run(make_cases(tmp_path / "in", 2), tmp_path / "c")
