"""Everything that a GPU can tell about the operators, in one command of under nine minutes.

    make gpu OUT=results/

Builds the package, runs the operators' tests on the card (outputs poisoned, float64 oracle,
repeatability) and some of them under compute-sanitizer, then times ours and its peers. Each part
is a process of its own with its own time; none that fails loses what the others found. Writes
gpu-CARD.json and gpu-CARD.md, again after every part. Needs a C++ compiler, setuptools, pybind11,
pytest, torch and triton, and no network.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gpu_report

ROOT = Path(__file__).resolve().parent.parent
# By name, because others need more packages than this command may ask for.
ON_THE_CARD = ("acmst", "axial", "gates", "library", "ranking", "strategies", "union")
SANITIZED = ("test_triton_axial.py", "match_the_reference and bfloat16")
BUILD_SECONDS, TEST_SECONDS, SANITIZER_SECONDS, SPARE_SECONDS = 90.0, 150.0, 75.0, 10.0
START_SECONDS = 20.0  # importing torch and meeting the device
MOST_RESTARTS = 3
_OUTCOME = re.compile(r"^(\S+?::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)\b", re.MULTILINE)


class Deadline:
    """When everything must have ended."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self, most: float = float("inf")) -> float:
        """Seconds that are left, `most` at the most, at least one."""
        return max(1.0, min(most, self._end - time.monotonic()))


def spawn(command: list[str], log: Path, folder: Path, environment: dict[str, str]) -> Any:
    """A process of a group of its own, so that it can be ended with all its children."""
    with log.open("w") as file:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(process: Any, seconds: float) -> int | None:
    """The exit status, or None for a process that had to be ended."""
    try:
        return int(process.wait(seconds))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def tail(log: Path, lines: int = 3) -> str:
    """The last words of a process."""
    found = [x.strip() for x in log.read_text(errors="replace").splitlines() if x.strip()]
    return " / ".join(found[-lines:])[-300:]


class Bench:
    """The parts of the run; each adds what it found to `result`, which is written after each."""

    def __init__(self, out: Path, work: Path, deadline: Deadline, card: str) -> None:
        self.out, self.work, self.deadline = out, work, deadline
        self.environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        self.environment["PYTHONUNBUFFERED"] = "1"
        self.result: dict[str, Any] = {
            "card": card,
            "machine": {},
            "facts": {},
            "notes": [],
            "checks": [],
            "rows": [],
            "dropped": [],
            "lost": [],
        }

    def save(self) -> tuple[Path, Path]:
        return gpu_report.write(self.result, self.out)

    def build(self) -> None:
        """The package in a folder of its own; in the sources where pip cannot; else as it is."""
        target, log = self.work / "package", self.work / "build.log"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation"]
        pip += ["--no-deps", "--no-index", "--target", str(target), str(ROOT)]
        place = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        for command, path in ((pip, target), (place, ROOT)):
            self.environment["PYTHONPATH"] = str(path)
            process = spawn(command, log, ROOT, self.environment)
            if finish(process, self.deadline.left(BUILD_SECONDS)) == 0:
                break
            self.result["notes"].append(f"{' '.join(command[1:4])} failed: {tail(log)}")

    def tests(self) -> None:
        """One process for each file, all at once: they mostly wait for compilers."""
        files = [ROOT / "tests" / f"test_{stem}.py" for stem in ON_THE_CARD]
        chosen = [(file, ["-m", "gpu"]) for file in files]
        chosen += [(file, []) for file in sorted((ROOT / "tests").glob("test_triton_*.py"))]
        started = []
        for file, selection in chosen:
            log = self.work / f"{file.stem}.log"
            command = [*self._pytest(file), *selection]
            started.append((file, log, spawn(command, log, self.work, self.environment)))
        end = time.monotonic() + self.deadline.left(TEST_SECONDS)
        for file, log, process in started:
            status = finish(process, max(0.1, end - time.monotonic()))
            self.result["checks"].append(outcome(file.name, log, status))

    def sanitizer(self) -> None:
        """Illegal and misaligned accesses, as far as a small set of launches shows them."""
        places = [shutil.which("compute-sanitizer"), "/usr/local/cuda/bin/compute-sanitizer"]
        tool = next((x for x in places if x and Path(x).is_file()), None)
        if tool is None:
            self.result["notes"].append("compute-sanitizer is not installed: not run")
            return
        name, words = SANITIZED
        log = self.work / "sanitizer.log"
        command = [tool, "--tool", "memcheck", "--error-exitcode", "9"]
        command += [*self._pytest(ROOT / "tests" / name), "-k", words]
        # Without the pool of the allocator every tensor has borders that the tool can see.
        environment = {**self.environment, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        process = spawn(command, log, self.work, environment)
        status = finish(process, self.deadline.left(SANITIZER_SECONDS))
        check = outcome("compute-sanitizer memcheck", log, status)
        if status == 9:
            check["failed"], check["remark"] = max(1, check["failed"]), tail(log)
        self.result["checks"].append(check)

    def timings(self) -> None:
        """Times, by as many processes as it takes: one that dies loses the row it was at."""
        lines, log = self.work / "rows.jsonl", self.work / "measure.log"
        lines.touch()
        for _ in range(1 + MOST_RESTARTS):
            done = take(lines.read_text(), self.result)
            left = self.deadline.left() - SPARE_SECONDS
            if left < 2 * START_SECONDS:
                self.result["notes"].append(f"timing stopped with {left:.0f} s left")
                break
            command = [sys.executable, str(ROOT / "benchmarks" / "gpu_measure.py")]
            command += [
                "--seconds",
                str(left - START_SECONDS),
                "--out",
                str(lines),
                "--skip",
                *done,
            ]
            process = spawn(command, log, self.work, self.environment)
            status = finish(process, left + SPARE_SECONDS / 2)
            if status == 0:
                break
            ended = "had to be ended" if status is None else f"died with status {status}"
            self.result["notes"].append(f"the timing process {ended}: {tail(log)}")
        take(lines.read_text(), self.result)

    def _pytest(self, file: Path) -> list[str]:
        # Warnings of versions other than the pinned ones are no faults of the kernels.
        options = ["-v", "--tb=short", "-W", "default", "-p", "no:cacheprovider"]
        options += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
        return [sys.executable, "-m", "pytest", *options, str(file)]


def outcome(name: str, log: Path, status: int | None) -> dict[str, Any]:
    """What a run of pytest said about each test, finished or not."""
    said = _OUTCOME.findall(log.read_text(errors="replace"))
    # A name comes once for each of its phases; a failure outweighs what came before.
    verdicts: dict[str, str] = {}
    for test, verdict in said:
        verdicts[test] = verdict
    failed = [test for test, verdict in verdicts.items() if verdict in ("FAILED", "ERROR")]
    remark = ", ".join(test.split("::", 1)[1] for test in failed[:5])
    if status is None:
        remark = f"ended when its time was up; {remark}"
    elif status not in (0, 1) or (status == 1 and not failed):
        remark = f"status {status}: {tail(log)}"
    return {
        "name": name,
        "passed": sum(verdict == "PASSED" for verdict in verdicts.values()),
        "failed": len(failed),
        "skipped": sum(verdict in ("SKIPPED", "XFAIL") for verdict in verdicts.values()),
        "remark": remark,
        "complete": status in (0, 1),
    }


def take(lines: str, result: dict[str, Any]) -> list[str]:
    """Put the lines of the timing processes into the result; the keys of all rows begun."""
    rows: dict[str, dict[str, Any]] = {}
    begun: list[str] = []
    dropped: list[str] = []
    for line in lines.splitlines():
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut off with the process that wrote it
        if "begin" in found:
            begun.append(found["begin"])
        elif "row" in found:
            rows[found["row"]] = found
        elif "dropped" in found:
            dropped.append(found["dropped"])
        elif "facts" in found:
            result["facts"] = found["facts"]
        else:
            result["machine"] |= found
    lost = [key for key in begun if key not in rows]
    result["rows"] = list(rows.values())
    result["dropped"] = [key for key in dict.fromkeys(dropped) if key not in rows]
    result["lost"] = lost
    return begun


def machine() -> dict[str, Any]:
    """Versions, and the driver's word on clocks and power where it can be asked."""
    import torch

    found: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    if importlib.util.find_spec("triton") is not None:
        import triton

        found["triton"] = triton.__version__
    found["compute capability"] = ".".join(map(str, torch.cuda.get_device_capability(0)))
    asked = "driver_version,clocks.max.sm,clocks.max.mem,power.limit"
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader", "-i", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        found["driver, clocks, power"] = done.stdout.strip()
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the two reports")
    parser.add_argument("--seconds", type=float, default=525.0, help="for all (%(default)s)")
    args = parser.parse_args(arguments)
    deadline, start = Deadline(args.seconds), time.monotonic()
    if importlib.util.find_spec("torch") is None:
        print("make gpu needs torch, and a CUDA device; nothing was run", file=sys.stderr)
        return 2
    import torch

    if not torch.cuda.is_available():
        print("make gpu needs a CUDA device and torch sees none; nothing was run", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(args.out, Path(work), deadline, torch.cuda.get_device_name(0))
        bench.result["machine"] = machine()
        for part in (bench.build, bench.tests, bench.sanitizer, bench.timings):
            try:
                part()
            except Exception as error:  # the other parts do not depend on it
                note = f"{part.__name__} failed: {type(error).__name__}: {error}"
                bench.result["notes"].append(note)
            bench.result["seconds"] = round(time.monotonic() - start)
            written = bench.save()
            print(f"{part.__name__}: done after {bench.result['seconds']} s", flush=True)
    print(written[1].read_text())
    print(f"wrote {written[0]} and {written[1]}")
    return 0 if sound(bench.result) else 1


def sound(result: dict[str, Any]) -> bool:
    """Whether no check failed and ours passed every gate."""
    right = all(
        check["failed"] == 0 and check["passed"] > 0 and check["complete"]
        for check in result["checks"]
    )
    timed = all("ours" in row.get("times", {}) for row in result["rows"])
    return right and timed and bool(result["rows"]) and not result["lost"]


if __name__ == "__main__":
    sys.exit(main())
