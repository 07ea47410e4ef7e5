"""The house: imports run one way, files keep to one idea, one stem finds a whole operator."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST = 400

# Rooms from the ground up. A room imports from lower rows only; a folder also from itself.
OPS = [
    {"_problem", "reference", "_checks"},
    {"_triton", "_eager"},
    {"_cpu", "_cuda", "_flops"},
    {"_library"},
    {"axial", "ranking", "gates", "saliency_losses", "decompositions"},
    {"acmst", "union"},
    {"strategies"},
    {"_info"},
    {"__init__"},
    {"audit_cases", "audit_assembly"},
    {"audit_limits"},
    {"testing", "audit"},
]
MODEL = [
    {"network_config"},
    {"config", "dropout", "files", "jobs"},
    {"encoders", "tokens", "residuals", "cross_attention", "self_supervision"},
    {"stsa"},
    {"fusion", "heads"},
    {"model"},
    {"losses", "authors", "baselines"},
    {"saliency"},
    {"data"},
    {"inference"},
    {"training"},
    {"analysis", "export"},
    {"experiments"},
    {"commands"},
    {"cli"},
]
FOLDERS = {
    "_triton",
    "baselines",
    "data",
    "inference",
    "saliency",
    "training",
    "analysis",
    "export",
    "experiments",
    "commands",
}


def sources(*folders: str) -> list[Path]:
    return sorted(p for f in folders for p in (ROOT / f).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Dotted names of everything a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[1].removesuffix(".py")


def floor(rows: list[set[str]], name: str) -> int:
    found = [i for i, row in enumerate(rows) if name in row]
    assert found, f"{name} has no place in the plan of the house"
    return found[0]


@pytest.mark.parametrize(("package", "rows"), [("asycmst_ops", OPS), ("asycmst", MODEL)])
def test_imports_run_one_way(package: str, rows: list[set[str]]) -> None:
    rooms = {name for row in rows for name in row}
    for path in sources(package):
        here = room(path)
        if package == "asycmst" and here == "__init__":
            continue  # names are looked up lazily from every room
        for name in imported(path):
            parts = name.split(".")
            if parts[0] != package or len(parts) < 2:
                continue
            there = parts[1] if parts[1] in rooms else "__init__"
            if there == here and here in FOLDERS:
                continue
            if there == "__init__" and package == "asycmst":
                continue  # the version, or a public name
            assert floor(rows, there) < floor(rows, here), (
                f"{path.relative_to(ROOT)} imports {name}, which is not below it"
            )


def test_the_model_uses_public_operators_only() -> None:
    for path in sources("asycmst"):
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "asycmst_ops":
                private = [p for p in parts if p.startswith("_")]
                assert not private, f"{path.relative_to(ROOT)} imports {name}"


def test_the_operators_know_nothing_of_the_model() -> None:
    for path in sources("asycmst_ops"):
        for name in imported(path):
            assert name.split(".")[0] != "asycmst", f"{path.relative_to(ROOT)} imports {name}"


def test_kernels_know_no_modality() -> None:
    """Below the public functions there are axes only, no BUS and no CEUS."""
    folders = ["csrc", "asycmst_ops/_triton"]
    files = [p for f in folders for p in (ROOT / f).iterdir() if p.is_file()]
    files += [ROOT / "asycmst_ops" / f"{n}.py" for n in ("_cpu", "_cuda", "_eager", "_problem")]
    for path in files:
        text = path.read_text().lower()
        assert "ceus" not in text and "bus_" not in text, path.relative_to(ROOT)


def test_rooms_are_small() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = listed.stdout.split() or [str(p) for p in ROOT.rglob("*")]
    for name in names:
        path = ROOT / name
        if path.suffix in {".py", ".cpp", ".h", ".inc"} and path.is_file():
            lines = len(path.read_text().splitlines())
            assert lines <= LONGEST, f"{name} has {lines} lines"


@pytest.mark.parametrize("stem", ["axial", "gates", "ranking", "saliency_losses", "union"])
def test_one_stem_finds_a_whole_operator(stem: str) -> None:
    for place in ("asycmst_ops", "asycmst_ops/_triton", "csrc", "tests", "benchmarks"):
        assert list((ROOT / place).glob(f"*{stem}*")), f"no {stem} in {place}"


def test_each_room_has_its_test() -> None:
    tests = " ".join(p.name for p in (ROOT / "tests").glob("test_*.py"))
    stems = {room(p) for p in sources("asycmst", "asycmst_ops")} - {"__init__"}
    own = {s for s in stems if not s.startswith("_") and s not in FOLDERS}
    own -= {"reference", "testing"}  # the oracle and its yardstick: used by every test
    own -= {"audit_cases"}  # compiled by the tests of the audit
    for stem in own:
        assert f"test_{stem}" in tests, f"no test file for {stem}"
