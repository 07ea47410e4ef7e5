"""`asycmst info`: what is installed and which kernel serves which device."""

import subprocess
import sys

import pytest

import asycmst_ops
from asycmst import cli, info


def test_info_needs_torch_alone() -> None:
    blocked = sorted({module for modules in info.EXTRAS.values() for module in modules})
    script = (
        f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
        "import importlib.util as u\n"
        "u.find_spec = lambda name: None\n"
        "from asycmst.cli import main\nsys.exit(main(['info']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("asycmst", "python", "torch", "cpu", "cuda", "other"),
        *("[train]", "[export]", "[test]"),
    ]
    assert "lacks monai, lightning" in lines[6]
    assert lines[6].endswith("pip install '.[train]'")


def test_info_says_which_kernel_serves_and_what_is_complete(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["info"]) == 0
    printed = capsys.readouterr().out
    for device in ("cpu", "cuda"):
        facts = asycmst_ops.info()[device]
        assert f"{device:<9} {facts['kernel']}: {facts['why']}" in printed
    assert "[train]   complete" in printed
