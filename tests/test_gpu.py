"""`make gpu`: what it does without a card, and that no part loses what another has found."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import gpu
import gpu_cases

ROOT = Path(__file__).parent.parent


def bench(folder: Path, seconds: float = 60.0) -> gpu.Bench:
    made = gpu.Bench(folder / "out", folder, gpu.Deadline(seconds), "NVIDIA H200")
    made.environment["PYTHONPATH"] = str(ROOT)
    return made


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_one_line_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu.py", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "CUDA device" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_make_target_calls_the_command() -> None:
    command = ["make", "-n", "-C", str(ROOT), "gpu", "OUT=there", "PYTHON=python"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "python benchmarks/gpu.py --out there" in done.stdout, done.stderr


def test_what_runs_on_the_card_needs_the_promised_packages_only() -> None:
    allowed = {"pytest", "torch", "triton", "asycmst_ops", "numpy", *sys.stdlib_module_names}
    stems = [f"test_{stem}" for stem in gpu.ON_THE_CARD]
    stems += [path.stem for path in (ROOT / "tests").glob("test_triton_*.py")]
    files = [ROOT / "tests" / f"{stem}.py" for stem in ["conftest", *stems]]
    files += [path for path in (ROOT / "benchmarks").glob("gpu*.py")]
    files += [ROOT / "benchmarks" / "providers.py"]
    own = {path.stem for path in [*files, *(ROOT / "tests").glob("*.py")]}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in allowed | own, f"{path.name} imports {name}"


def test_tests_are_counted_also_when_they_do_not_end(tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(
        "import time, pytest\n"
        "@pytest.mark.parametrize('x', ['a b', 'c'])\n"
        "def test_good(x): pass\n"
        "def test_bad(): assert False\n"
        "@pytest.mark.skip\n"
        "def test_none(): pass\n"
        "@pytest.fixture\n"
        "def late():\n"
        "    yield\n"
        "    raise ValueError\n"
        "def test_late(late): pass\n"
        "def test_long(): time.sleep(60)\n"
    )
    made, log = bench(tmp_path), tmp_path / "log"
    process = gpu.spawn(made._pytest(file), log, tmp_path, made.environment)
    while process.poll() is None and "test_long" not in log.read_text():
        pass
    found = gpu.outcome("some", log, gpu.finish(process, 0.5))
    assert (found["passed"], found["failed"], found["skipped"]) == (2, 2, 1)
    assert not found["complete"] and "its time was up" in found["remark"]
    assert "test_bad" in found["remark"] and "test_late" in found["remark"]


def test_a_process_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    made, log = bench(tmp_path), tmp_path / "log"
    command = [sys.executable, "-c", "import os; print('last words', flush=True); os.abort()"]
    status = gpu.finish(gpu.spawn(command, log, tmp_path, made.environment), 30.0)
    found = gpu.outcome("it", log, status)
    assert not found["complete"] and "last words" in found["remark"]


def test_the_lines_of_a_timing_process_that_died_are_kept() -> None:
    row = gpu_cases.Row("time", "forward", 32)
    done = {"row": row.key, **row._asdict(), "times": {}}
    lines = [
        {"info": {"torch": "2.11"}},
        {"facts": {"copy_gb_per_s": 1.0}},
        {"begin": row.key},
        done,
        {"begin": "another"},
        {"dropped": "late"},
    ]
    result: dict[str, Any] = {"machine": {"python": "3"}}
    begun = gpu.take("\n".join(map(json.dumps, lines)) + '\n{"row": "cut o', result)
    assert begun == [row.key, "another"]
    assert result["rows"] == [done] and result["lost"] == ["another"]
    assert result["dropped"] == ["late"] and result["facts"] == {"copy_gb_per_s": 1.0}
    assert result["machine"] == {"python": "3", "info": {"torch": "2.11"}}


def test_timing_starts_again_behind_a_row_that_killed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the timing process dies at its second row and goes on at the third."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "gpu_measure.py").write_text(
        "import json, os, sys\n"
        "out = open(sys.argv[sys.argv.index('--out') + 1], 'a')\n"
        "skip = sys.argv[sys.argv.index('--skip') + 1:]\n"
        "for key in ('one a', 'two', 'three'):\n"
        "    if key in skip: continue\n"
        "    print(json.dumps({'begin': key}), file=out, flush=True)\n"
        "    if key == 'two': os.abort()\n"
        "    print(json.dumps({'row': key}), file=out, flush=True)\n"
    )
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    made = bench(tmp_path, 300.0)
    made.timings()
    assert [row["row"] for row in made.result["rows"]] == ["one a", "three"]
    assert made.result["lost"] == ["two"]
    (note,) = made.result["notes"]
    assert "died" in note


def test_the_verdict_of_the_command() -> None:
    good = {
        "checks": [{"passed": 3, "failed": 0, "complete": True}],
        "rows": [{"times": {"ours": {}}}],
        "lost": [],
    }
    assert gpu.sound(good)
    for worse in ({"passed": 0}, {"failed": 1}, {"complete": False}):
        assert not gpu.sound(good | {"checks": [{**good["checks"][0], **worse}]})
    assert not gpu.sound(good | {"rows": [{"times": {"einsum": {}}}]})
    assert not gpu.sound(good | {"rows": []})
    assert not gpu.sound(good | {"lost": ["two"]})


def test_a_build_that_fails_leaves_the_sources_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    made = bench(tmp_path)
    made.build()
    assert len(made.result["notes"]) == 2
    assert made.environment["PYTHONPATH"] == str(tmp_path)
