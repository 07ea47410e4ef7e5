"""What the Triton kernels compile to, without a GPU: `python -m asycmst_ops.audit`.

Compiles the launches that the operators make for the usual shapes, disassembles them and prints
registers, shared memory, how many CTAs of a multiprocessor and how many of their bytes are under
way at once, 128-bit accesses, tensor-core instructions and the number of instructions. The audit
fails where a kernel spills, uses atomics (whose order is not fixed), reads aligned grids by narrow
accesses, computes 16-bit products without tensor cores, or exceeds the ceilings of
`audit_limits`. It needs neither a GPU nor a driver, and it says nothing about time.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from asycmst_ops import audit_assembly, audit_limits
from asycmst_ops.audit_assembly import Assembly
from asycmst_ops.audit_cases import Case, kernel_of, shipped_cases

ARCHITECTURES = tuple(audit_limits.MULTIPROCESSORS)

_OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
_GROWTH = 1.2  # of the recorded number of instructions
_ROW = "{:<9} {:<28} {:>4} {:>9} {:>6} {:>4} {:>9} {:>8} {:>4} {:>12}  {}"
_TITLES = ("kernel", "shape", "arch", "registers", "shared", "CTAs", "in-flight", "128-bit", "mma")


class Report(NamedTuple):
    """What one case compiled to for one architecture."""

    case: Case
    architecture: int
    assembly: Assembly
    shared_memory: int

    def faults(self) -> list[str]:
        """What is wrong with the kernel; empty when nothing is."""
        return audit_limits.faults(*self._subject())

    def remarks(self) -> list[str]:
        """What is worth knowing about the kernel and no fault."""
        return audit_limits.remarks(*self._subject())

    def columns(self) -> list[object]:
        """The numbers of its row."""
        assembly = self.assembly
        return [
            assembly.registers,
            self.shared_memory,
            audit_limits.ctas_per_multiprocessor(
                self.architecture,
                assembly.registers,
                self.shared_memory,
                int(self.case.keywords["num_warps"]),
            ),
            f"{audit_limits.bytes_in_flight(*self._subject()) // audit_limits.KILOBYTE} KB",
            f"{assembly.access_bytes.count(16)}/{len(assembly.access_bytes)}",
            assembly.warp_products + assembly.group_products,
            assembly.instructions,
        ]

    def _subject(self) -> tuple[Case, int, Assembly, int]:
        return self.case, self.architecture, self.assembly, self.shared_memory


def compiled(case: Case, architecture: int, kernel: Any = None) -> Any:
    """Triton's compiled kernel of a case for one architecture (86: compute capability 8.6).

    `kernel` stands in for the one that the case names, with the same arguments.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = kernel or kernel_of(case)
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


def audit(case: Case, architecture: int, kernel: Any = None) -> Report:
    """Compile and disassemble one case for one architecture; `kernel` as for `compiled`."""
    import triton

    binary = compiled(case, architecture, kernel)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage = _run(triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name)
        # Without dataflow analysis, which finds branch targets that nothing here asks for.
        text = _run(triton.knobs.nvidia.nvdisasm.path, "-c", "-ndf", file.name)
    assembly = audit_assembly.read(usage, text)
    return Report(case, architecture, assembly, int(binary.metadata.shared))


def main(arguments: Sequence[str] | None = None, cases: Sequence[Case] | None = None) -> int:
    """Print the table; 0 when every kernel is sound, 1 when one is not, 2 when none can be read.

    Args:
        arguments: Command line, `sys.argv` by default.
        cases: What to audit, `shipped_cases()` by default.
    """
    options = _parser().parse_args(arguments)
    obstacle = _obstacle(options.record, options.instructions)
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
    recorded = {} if options.record else _recorded(options.instructions)
    counts: dict[str, dict[str, int]] = {}
    faulty = unrecorded = 0
    print(_ROW.format(*_TITLES, "instructions", ""))
    for report in _reports(chosen, options.arch, options.processes):
        name, arch = f"{report.case.kernel} {report.case.configuration}", str(report.architecture)
        found, many = report.faults(), report.assembly.instructions
        counts.setdefault(name, {})[arch] = many
        before = recorded.get(name, {}).get(arch)
        unrecorded += before is None
        if before is not None and many > _GROWTH * before:
            found.append(f"over {_GROWTH} x the recorded {before} instructions")
        faulty += bool(found)
        verdict = ", ".join(found) or "ok" + "".join(f"; {each}" for each in report.remarks())
        row = _ROW.format(*report.case[:2], arch, *report.columns(), verdict)
        print(row, flush=True)
    total = len(chosen) * len(options.arch)
    if options.record:
        _record(options.instructions, counts)
    elif options.instructions:
        print(f"{total - unrecorded} of {total} instruction counts were compared with the record")
    print(f"{total - faulty} of {total} kernels are sound; this says nothing about their speed")
    return 1 if faulty else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m asycmst_ops.audit", description=__doc__)
    parser.add_argument(
        "--arch",
        type=int,
        nargs="+",
        choices=ARCHITECTURES,
        default=ARCHITECTURES,
        metavar="CC",
        help="compute capabilities without the dot, by default "
        + ", ".join(map(str, ARCHITECTURES)),
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="the rows whose kernel and shape contain TEXT"
    )
    parser.add_argument(
        "--instructions",
        type=Path,
        metavar="FILE",
        help=f"JSON record of instruction counts; {_GROWTH} times as many are a fault",
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="write the counts of this version of Triton into --instructions, not compare them",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        help="how many compile at once (default: the number of processors, %(default)s)",
    )
    return parser


def _obstacle(record: bool, instructions: Path | None) -> str | None:
    """Why the audit cannot run, in one line."""
    if importlib.util.find_spec("triton") is None:
        return "the audit needs triton: pip install triton"
    import triton

    if triton.knobs.runtime.interpret:
        return "TRITON_INTERPRET is set, so nothing is compiled; unset it and run the audit again"
    if record and instructions is None:
        return "--record needs --instructions FILE to write to"
    if instructions is not None and not record and not instructions.is_file():
        return f"there is no record {instructions}; make it with --record"
    return None


def _reports(
    cases: Sequence[Case], architectures: Sequence[int], processes: int
) -> Iterator[Report]:
    """All reports in order, compiled in `processes` processes."""
    work = list(product(cases, architectures))
    if processes == 1 or len(work) == 1:
        yield from (audit(*each) for each in work)
        return
    # Not forked: this process may have threads already.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        yield from pool.map(audit, *zip(*work, strict=True))


def _recorded(file: Path | None) -> dict[str, dict[str, int]]:
    """Kernel and shape -> architecture -> instructions, of the version of Triton at hand."""
    if file is None:
        return {}
    import triton

    versions: dict[str, dict[str, dict[str, int]]] = json.loads(file.read_text())
    return versions.get(triton.__version__, {})


def _record(file: Path, counts: dict[str, dict[str, int]]) -> None:
    """Put the counts among those of the same version of Triton; one line a kernel."""
    import triton

    versions = json.loads(file.read_text()) if file.is_file() else {}
    recorded = versions.setdefault(triton.__version__, {})
    for name, row in counts.items():
        recorded[name] = recorded.get(name, {}) | row
    blocks = [
        f"{json.dumps(version)}: {{\n"
        + ",\n".join(f" {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        + "\n}"
        for version, rows in versions.items()
    ]
    file.write_text("{" + ",\n".join(blocks) + "}\n")


def _run(program: str, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
