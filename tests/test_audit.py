"""The static audit: real kernels pass, deliberately bad ones are reported as such.

The audit compiles, so it runs in a process of its own without the interpreter that tests use.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed")

TESTS = Path(__file__).parent


def python(*arguments: str, interpret: bool = False) -> "subprocess.CompletedProcess[str]":
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True
    )


def measure(script: str) -> Any:
    """What `print(json.dumps(...))` of a script says."""
    heading = f"""
import json, sys, torch
sys.path.insert(0, {str(TESTS)!r})
from asycmst_ops import audit, audit_cases

def launch(case, **changes):
    return case._replace(keywords={{**case.keywords, **changes}})

def report(*subject):
    r = audit.audit(*subject)
    return {{"faults": r.faults(), "remarks": r.remarks(), **r.assembly._asdict()}}
"""
    done = python("-c", heading + script)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_shipped_kernels_are_sound() -> None:
    done = python(
        "-m",
        "asycmst_ops.audit",
        "--arch",
        "86",
        "90",
        "--only",
        "ward 16x16 d=64 bf16 masked",
        "--processes",
        "2",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    title, *rows, total = done.stdout.splitlines()
    assert title.split()[:3] == ["kernel", "shape", "arch"]
    assert len(rows) == 4 and all(row.endswith(" ok") for row in rows), done.stdout
    assert total.startswith("4 of 4 kernels are sound; this says nothing about their speed")


def test_bad_kernels_are_reported() -> None:
    """Each of these has been tried for real and is why the shipped kernel is as it is."""
    script = """
import bad_kernels
good = audit_cases.attention_case("forward", 49, 49, 64)
backward = audit_cases.attention_case("backward", 49, 49, 64)
tf32 = audit_cases.attention_case("backward", 49, 49, 64, torch.float32, precision="tf32")
print(json.dumps({
    "good": report(good, 86),
    "query first": report(launch(backward, ATOMIC=False), 86, bad_kernels.query_first),
    "atomics": report(launch(backward, ATOMIC=True), 90, bad_kernels.query_first),
    "whole tf32": report(launch(tf32, BLOCK_D=64, num_warps=4), 80),
    "starved": report(launch(backward, num_warps=1), 86),
    "unaligned": report(launch(good, UNIT=1), 86),
    "no tensor cores": report(audit_cases.attention_case(
        "forward", 16, 16, 64, torch.float32)._replace(products=True), 86),
    "no warpgroups": report(launch(good, num_warps=2), 90),
}))
"""
    found = measure(script)
    faults = {name: "; ".join(each["faults"]) for name, each in found.items()}
    assert faults["good"] == "" and found["good"]["warp_products"] > 0
    assert "over 200 registers" in faults["query first"]
    assert "atomics" in faults["atomics"] and found["atomics"]["atomics"] > 0
    assert "registers" in faults["whole tf32"] and found["whole tf32"]["registers"] > 230
    assert "spills" in faults["starved"] and found["starved"]["registers"] == 255
    assert "narrow accesses" in faults["unaligned"]
    assert 16 not in found["unaligned"]["access_bytes"]
    assert faults["no tensor cores"] == "no tensor cores"
    assert "no warpgroup products" in faults["no warpgroups"]


def test_a_bad_kernel_fails_the_command() -> None:
    script = """
case = launch(audit_cases.attention_case("forward", 16, 16, 16), UNIT=1)
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as text:
    code = audit.main(["--arch", "86"], [case])
print(json.dumps([code, text.getvalue()]))
"""
    code, text = measure(script)
    assert code == 1 and "narrow accesses" in text and "0 of 1 kernels" in text


def test_growth_over_the_recorded_instructions_is_a_fault(tmp_path: Path) -> None:
    script = f"""
import contextlib, io, triton
from pathlib import Path
record = Path({str(tmp_path / "counts.json")!r})
case = audit_cases.attention_case("forward", 16, 16, 16)

def run(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        code = audit.main(["--arch", "86", "--instructions", str(record), *arguments], [case])
    return code, text.getvalue(), json.loads(record.read_text())

found = [run("--record"), run()]
counts = found[0][2][triton.__version__]
counts["forward 16x16 d=16 bf16"]["86"] = int(counts["forward 16x16 d=16 bf16"]["86"] / 1.25)
record.write_text(json.dumps({{triton.__version__: counts}}))
found.append(run())
# Counts of another version say nothing about this one; they and other kernels' counts are kept.
record.write_text(json.dumps({{"0.0": counts, triton.__version__: {{"other": {{"86": 9}}}}}}))
print(json.dumps([*found, run(), run("--record"), triton.__version__]))
"""
    made, same, grown, other, added, version = measure(script)
    assert made[0] == 0 and made[2].keys() == {version}
    assert same[0] == 0 and "1 of 1 instruction counts were compared" in same[1]
    assert grown[0] == 1 and "over 1.2 x the recorded" in grown[1]
    assert other[0] == 0 and "0 of 1 instruction counts were compared" in other[1]
    assert added[0] == 0 and added[2].keys() == {"0.0", version}
    assert added[2][version] == {"other": {"86": 9}} | same[2][version]


def test_what_selects_a_compiled_kernel_and_how_offsets_are_formed() -> None:
    """No length or stride compiles anew, and no offset of attention is multiplied in 32 bits.

    The gates and saliency losses count places of one map in 32 bits and refuse larger maps.
    """
    script = """
import re, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
kernels = {audit_cases.kernel_of(each) for each in audit_cases.shipped_cases()}
loose = [p.name for k in kernels for p in k.params if not (p.is_constexpr or p.do_not_specialize)]
narrow = []
for case in (
    audit_cases.attention_case("backward", 16, 16, 16, has_mask=True),
    audit_cases.block_case("axis fwd", 196, 16, has_mask=True),
    audit_cases.block_case("col dq", 16, 16, has_mask=True),
    audit_cases.block_case("frame dkv", 16, 16, has_mask=True),
    audit_cases.ranking_case(64),
):
    text = audit.compiled(case, 90).asm["ttir"]
    # The first row of a block, a number below the length, is the one product of 32 bits.
    narrow += [
        line for line in re.findall(r"arith.muli .*i32.*", text)
        if not re.search(r"%block\\w*, %\\w+ : i32", line)
    ]
print(json.dumps([len(kernels), loose, narrow]))
"""
    assert measure(script) == [12, [], []]


def test_what_cannot_be_audited_is_refused_in_one_line() -> None:
    refused = python("-m", "asycmst_ops.audit", interpret=True)
    assert refused.returncode == 2 and refused.stdout == ""
    assert "TRITON_INTERPRET" in refused.stderr and refused.stderr.count("\n") == 1
    script = """
import contextlib, io
found = []
for arguments in (["--only", "d=7"], ["--instructions", "nowhere.json"], ["--record"]):
    with contextlib.redirect_stderr(io.StringIO()) as text:
        found.append([audit.main(arguments), text.getvalue()])
print(json.dumps(found))
"""
    found = measure(script)
    for (code, text), word in zip(found, ("d=7", "nowhere.json", "--instructions"), strict=True):
        assert code == 2 and word in text and text.count("\n") == 1
