"""The static audit: real kernels pass, deliberately bad ones are reported as such.

The audit compiles, so it runs in a process of its own without the interpreter that tests use.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed")


def python(*arguments: str, interpret: bool = False) -> "subprocess.CompletedProcess[str]":
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True
    )


def measure(script: str) -> Any:
    """What `print(json.dumps(...))` of a script says."""
    done = python(
        "-c", "import json, torch\nfrom asycmst_ops import audit, audit_cases\n" + script
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_shipped_kernels_are_sound() -> None:
    done = python("-m", "asycmst_ops.audit", "--arch", "86", "90", "--only", "16x16 d=64 bf16")
    assert done.returncode == 0, done.stdout + done.stderr
    title, *rows, total = done.stdout.splitlines()
    assert title.split()[:3] == ["kernel", "shape", "arch"]
    assert len(rows) == 8 and all(row.endswith(" ok") for row in rows), done.stdout
    assert total.startswith("8 of 8 kernels are sound")


def test_every_kernel_appears_once_per_configuration() -> None:
    names = measure("print(json.dumps([c[:2] for c in audit_cases.shipped_cases()]))")
    assert {kernel for kernel, _ in names} == {"forward", "backward", "ranking"}
    assert len(names) == len({tuple(name) for name in names})


def test_bad_kernels_are_reported() -> None:
    script = """
def report(case):
    r = audit.audit(case, 86)
    return {"faults": r.faults(), **r._asdict()}

def launch(case, **changes):
    return case._replace(keywords={**case.keywords, **changes})

good = audit_cases.attention_case("forward", 49, 49, 64)
print(json.dumps({
    "good": report(good),
    "starved": report(launch(audit_cases.attention_case("backward", 49, 49, 64), num_warps=1)),
    "unaligned": report(launch(good, UNIT=1)),
    "no tensor cores": report(audit_cases.attention_case(
        "forward", 16, 16, 64, torch.float32)._replace(products=True)),
}))
"""
    found = measure(script)
    assert (
        found["good"]["faults"] == []
        and found["good"]["wide_accesses"] > 0
        and found["good"]["matrix_instructions"] > 0
    )
    assert found["starved"]["spills"] > 0 and found["starved"]["registers"] == 255
    assert any("spills" in fault for fault in found["starved"]["faults"])
    assert (
        found["unaligned"]["wide_accesses"] == 0
        and "narrow accesses" in found["unaligned"]["faults"]
    )
    assert found["no tensor cores"]["faults"] == ["no tensor cores"]


def test_a_bad_kernel_fails_the_command() -> None:
    script = """
case = audit_cases.attention_case("forward", 16, 16, 16)
case = case._replace(keywords={**case.keywords, "UNIT": 1})
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as text:
    code = audit.main(["--arch", "86"], [case])
print(json.dumps([code, text.getvalue()]))
"""
    code, text = measure(script)
    assert code == 1 and "narrow accesses" in text and "0 of 1 kernels" in text


def test_what_selects_a_compiled_kernel_and_how_offsets_are_formed() -> None:
    """No length or stride compiles anew, and no offset is multiplied in 32 bits."""
    script = """
import re, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from asycmst_ops._triton import axial_kernels, ranking
kernels = axial_kernels.forward_kernel, axial_kernels.backward_kernel, ranking.ranking_kernel
loose = [p.name for k in kernels for p in k.params if not (p.is_constexpr or p.do_not_specialize)]
narrow = []
masked = audit_cases.attention_case("backward", 16, 16, 16, has_mask=True)
for case in (masked, audit_cases.ranking_case(64)):
    text = audit.compiled(case, 90).asm["ttir"]
    narrow += re.findall(r"arith.muli .*i32.*", text)
print(json.dumps([loose, narrow]))
"""
    assert measure(script) == [[], []]


def test_the_interpreter_and_unknown_rows_are_refused_in_one_line() -> None:
    refused = python("-m", "asycmst_ops.audit", interpret=True)
    assert refused.returncode == 2 and refused.stdout == ""
    assert "TRITON_INTERPRET" in refused.stderr and refused.stderr.count("\n") == 1
    nothing = python("-m", "asycmst_ops.audit", "--only", "d=7")
    assert nothing.returncode == 2 and "d=7" in nothing.stderr
