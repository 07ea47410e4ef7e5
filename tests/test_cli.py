"""The command line: quick to help, one line for every error, nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asycmst import cli
from asycmst.jobs import JobError

RUN = "import sys; from asycmst.cli import main; sys.exit(main(sys.argv[1:]))"


def command(*arguments: str | Path, script: str = RUN) -> subprocess.CompletedProcess[str]:
    """`asycmst ARGUMENTS` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def status(*arguments: str | Path) -> int:
    """`asycmst ARGUMENTS` in this process."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        assert isinstance(leaving.code, int)
        return leaving.code


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom asycmst.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as leaving: assert leaving.code == 0\n"
        "heavy = {'torch', 'numpy', 'monai', 'lightning', 'rich', 'matplotlib', 'sklearn'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = command(script=script)
    assert (done.returncode, done.stderr) == (0, "")
    for words in (*cli._COMMANDS, "examples:"):
        assert words in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo",),
        ("fit",),
        ("split",),
        ("evaluate",),
        ("phantom",),
        ("check",),
        ("prepare",),
        ("explain",),
        ("predict",),
        ("export",),
        ("experiment",),
        ("experiment", "registration"),
    ],
)
def test_each_command_explains_itself(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert status(*arguments, "--help") == 0
    assert f"usage: asycmst {' '.join(arguments)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("dance",), "invalid choice: 'dance'"),
        (("demo",), "required: --out"),
        (("demo", "--out", "{folder}/o", "--threads", "0"), "'0' is not a whole number of at"),
        (("demo", "--out", "{folder}/o", "--seed", "x"), "'x' is not a whole number of at least"),
        (("experiment", "registration", "--out", "o", "--seeds", "0"), "'0' is not a whole"),
        (("split", "cache"), "required: --out"),
        (("split", "c", "--out", "o", "--cover", "some"), "argument --cover: invalid choice"),
        (("evaluate", "--out", "o"), "required: --checkpoint, --data"),
        (("fit",), "one of the arguments --config --resume is required"),
        (("fit", "--config", "demo"), "a run needs a folder; give --out FOLDER"),
        (("fit", "--config", "none.yaml", "--out", "o"), "no file none.yaml; give --config a"),
        (("fit", "--config", "paper", "--out", "{folder}/o"), "no data; give data.cache=FOLDER"),
        (
            ("fit", "--config", "demo", "--out", "o", "run.sed=1"),
            "no setting run.sed; did you mean",
        ),
        (("fit", "--config", "demo", "--out", "{folder}"), "holds files that are no run; give"),
        (("fit", "--resume", "{folder}"), "holds no run; a run's folder has a config.yaml"),
        (("fit", "--resume", "{folder}", "run.seed=1"), "--resume takes the settings of its"),
        (("demo", "--out", "{folder}/file"), "file is a file; give --out a folder"),
        (("demo", "--out", "{folder}"), "holds files that are not results of `asycmst demo`"),
        (
            ("predict", "--checkpoint", "{folder}/none", "--bus", "b", "--ceus", "c"),
            "no checkpoint at",
        ),
        (
            ("predict", "--checkpoint", "{folder}/file", "--bus", "b", "--ceus", "c"),
            "is truncated or no checkpoint",
        ),
        (("phantom", "--out", "{folder}"), "exists: give a new folder"),
        (("phantom", "--out", "o", "--format", "gif"), "invalid choice: 'gif'"),
        (("check", "{folder}/none.csv"), "no manifest at"),
        (("prepare", "{folder}/none.csv", "--out", "{folder}/o"), "no manifest at"),
        (
            ("prepare", "{folder}/file", "--out", "{folder}/o"),
            "has no column id, bus, ceus, label",
        ),
        (("prepare", "{folder}/file"), "required: --out"),
        (
            ("explain", "--checkpoint", "{folder}/none", "--out", "{folder}/o", "--bus", "b"),
            "no checkpoint at",
        ),
        (
            ("explain", "--checkpoint", "c", "--out", "o", "--data", "d", "--bus", "b"),
            "a case is --bus CLIP --ceus CLIP, --data CACHE --case ID, or --bus IMAGE",
        ),
        (
            ("explain", "--checkpoint", "c", "--out", "o", "--bus", "b", "--case", "1"),
            "a case is --bus CLIP --ceus CLIP, --data CACHE --case ID, or --bus IMAGE",
        ),
        (
            ("predict", "--checkpoint", "c", "--bus", "b", "--follow"),
            "--follow watches both clips: give --ceus as well",
        ),
        (
            ("export", "--checkpoint", "{folder}/none", "--out", "{folder}/o", "--format", "onnx"),
            "no checkpoint at",
        ),
        (("export", "--checkpoint", "c", "--out", "o", "--format", "pt"), "invalid choice: 'pt'"),
        (
            ("explain", "--checkpoint", "no", "--out", "o", "--data", "d", "--case", "1"),
            "no checkpoint at",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_errors_are_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    (tmp_path / "file").write_text("mine")
    assert status(*(part.format(folder=tmp_path) for part in arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("asycmst: error: ") and words in printed.err
    assert printed.err.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("two\n  lines"), 2, "asycmst: error: two lines\n"),
        (TypeError("kind"), 2, "asycmst: error: kind\n"),
        (PermissionError(13, "Permission denied", "x"), 2, "[Errno 13] Permission denied: 'x'"),
        (JobError("ValueError: x"), 1, "asycmst: error: ValueError: x\n"),
        (KeyboardInterrupt(), 130, "asycmst: error: interrupted\n"),
        (ImportError("reading needs av: pip install x"), 2, "error: reading needs av: pip"),
        (
            ModuleNotFoundError("No module named 'sklearn'", name="sklearn.metrics"),
            2,
            "`asycmst info` needs sklearn.metrics, not installed: pip install '.[train]'",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_failure_has_its_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    def fail(options: object) -> None:
        raise error

    monkeypatch.setitem(cli._COMMANDS, "info", fail)
    assert status("info") == code
    printed = capsys.readouterr().err
    assert line in printed and printed.count("\n") == 1


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: object) -> None:
        raise ModuleNotFoundError("No module named 'asycmst.lost'", name="asycmst.lost")

    monkeypatch.setitem(cli._COMMANDS, "info", fail)
    with pytest.raises(ModuleNotFoundError, match="lost"):
        cli.main(["info"])


def test_warnings_become_notes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import warnings

    def warn(options: object) -> None:
        warnings.simplefilter("always")
        warnings.warn("clip.mp4: only\n8 frames", UserWarning, stacklevel=1)

    monkeypatch.setitem(cli._COMMANDS, "info", warn)
    assert status("info") == 0
    assert capsys.readouterr().err == "asycmst: note: clip.mp4: only 8 frames\n"


def test_an_interrupted_demo_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo = subprocess.Popen(
        [sys.executable, "-c", RUN, "demo", "--fast", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "drawing phantoms" in line:
            break
    time.sleep(1)
    os.killpg(demo.pid, signal.SIGINT)  # as a terminal does, to every process
    _, errors = demo.communicate(timeout=50)
    assert demo.returncode == 130
    assert errors == "asycmst: error: interrupted\n"
    assert not list(tmp_path.iterdir())
