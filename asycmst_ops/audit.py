"""What the Triton kernels compile to, without a GPU: `python -m asycmst_ops.audit`.

Compiles the launches that the operators make for the usual shapes, disassembles them and prints
registers, shared memory, register spills, access widths and tensor-core instructions. The audit
fails where a kernel spills, uses atomics (whose order is not fixed), falls back to narrow accesses
on aligned grids, or computes 16-bit products without tensor cores. It says nothing about time.
"""

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from asycmst_ops.audit_cases import Case, shipped_cases

ARCHITECTURES = (86, 90)

_OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")


class Report(NamedTuple):
    """What one case compiled to for one architecture."""

    case: Case
    architecture: int
    registers: int
    shared_memory: int
    spills: int
    accesses: int
    wide_accesses: int
    matrix_instructions: int
    atomics: int

    def faults(self) -> list[str]:
        """What is wrong with the kernel; empty when nothing is."""
        faults = []
        if self.spills:
            faults.append(f"{self.spills} spills")
        if self.atomics:
            faults.append(f"{self.atomics} atomics")
        if self.case.wide and self.wide_accesses < self.accesses:
            faults.append("narrow accesses")
        if self.case.products and not self.matrix_instructions:
            faults.append("no tensor cores")
        return faults


def compiled(case: Case, architecture: int) -> Any:
    """Triton's compiled kernel of a case for one architecture (86: compute capability 8.6)."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from asycmst_ops._triton import axial_kernels, ranking

    kernel = {
        "forward": axial_kernels.forward_kernel,
        "backward": axial_kernels.backward_kernel,
        "ranking": ranking.ranking_kernel,
    }[case.kernel]
    signature, constants = {}, {}
    for index, parameter in enumerate(kernel.params):
        if parameter.is_constexpr:
            signature[parameter.name] = "constexpr"
            constants[(index,)] = case.keywords[parameter.name]
        else:
            pointer = case.pointers.get(parameter.name, case.pointers[""])
            signature[parameter.name] = parameter.annotation_type or pointer
    return triton.compile(
        ASTSource(kernel, signature, constants),
        target=GPUTarget("cuda", architecture, 32),
        options={name: case.keywords[name] for name in _OPTIONS},
    )


def audit(case: Case, architecture: int) -> Report:
    """Compile and disassemble one case for one architecture."""
    import triton

    binary = compiled(case, architecture)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage = _run(triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name)
        assembly = _run(triton.knobs.nvidia.nvdisasm.path, "-c", file.name)
    registers = re.search(r"REG:(\d+)", usage)
    if registers is None:
        raise RuntimeError(f"cuobjdump printed no register count: {usage!r}")
    # Masks are read byte by byte; every other access moves elements of the grids.
    accesses = re.findall(r"\b(?:LDG|STG|LDGSTS)\.(?!\S*[US]8)\S*", assembly)
    return Report(
        case,
        architecture,
        int(registers[1]),
        int(binary.metadata.shared),
        _count(r"LDL|STL", assembly),
        len(accesses),
        sum(".128" in access for access in accesses),
        _count(r"HMMA|HGMMA|QGMMA|UTCHMMA", assembly),
        _count(r"ATOM|ATOMG|ATOMS|RED|REDG", assembly),
    )


def main(arguments: Sequence[str] | None = None, cases: Sequence[Case] | None = None) -> int:
    """Print the table; 0 when every kernel is sound, 1 when one is not, 2 when none can be read.

    Args:
        arguments: Command line, `sys.argv` by default.
        cases: What to audit, `shipped_cases()` by default.
    """
    parser = argparse.ArgumentParser(prog="python -m asycmst_ops.audit", description=__doc__)
    parser.add_argument(
        "--arch",
        type=int,
        nargs="+",
        default=ARCHITECTURES,
        metavar="CC",
        help="compute capabilities without the dot, 86 and 90 by default",
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="the rows whose kernel and shape contain TEXT"
    )
    options = parser.parse_args(arguments)
    obstacle = _obstacle()
    if obstacle is not None:
        print(obstacle, file=sys.stderr)
        return 2
    chosen = [
        case
        for case in (shipped_cases() if cases is None else cases)
        if options.only in f"{case.kernel} {case.configuration}"
    ]
    if not chosen:
        print(f"no configuration contains {options.only!r}; leave --only away", file=sys.stderr)
        return 2
    row = "{:<9} {:<28} {:>4} {:>9} {:>7} {:>6} {:>9} {:>4}  {}"
    print(
        row.format(
            "kernel", "shape", "arch", "registers", "shared", "spills", "128-bit", "mma", ""
        )
    )
    faulty = 0
    for case in chosen:
        for architecture in options.arch:
            report = audit(case, architecture)
            faults = report.faults()
            faulty += bool(faults)
            print(
                row.format(
                    case.kernel,
                    case.configuration,
                    architecture,
                    report.registers,
                    report.shared_memory,
                    report.spills,
                    f"{report.wide_accesses}/{report.accesses}",
                    report.matrix_instructions,
                    ", ".join(faults) or "ok",
                ),
                flush=True,
            )
    total = len(chosen) * len(options.arch)
    print(f"{total - faulty} of {total} kernels are sound; this says nothing about their speed")
    return 1 if faulty else 0


def _obstacle() -> str | None:
    """Why kernels cannot be compiled here, in one line."""
    if importlib.util.find_spec("triton") is None:
        return "the audit needs triton: pip install triton"
    import triton

    if triton.knobs.runtime.interpret:
        return "TRITON_INTERPRET is set, so nothing is compiled; unset it and run the audit again"
    return None


def _run(program: str, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def _count(names: str, assembly: str) -> int:
    return len(re.findall(rf"\b(?:{names})\b", assembly))


if __name__ == "__main__":
    sys.exit(main())
