"""What is installed here and which kernel serves which device."""

import importlib.metadata
import importlib.util
import os
import platform
from typing import Any, NamedTuple

# Import names by extra. A module that several extras bring is listed with the first.
EXTRAS: dict[str, tuple[str, ...]] = {
    "train": (
        "monai",
        "lightning",
        "jsonargparse",
        "torchmetrics",
        "sklearn",
        "matplotlib",
        "av",
        "pydicom",
        "PIL",
        "tensorboard",
        "rich",
        "yaml",
    ),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "test": ("pytest", "pytest_benchmark", "hypothesis", "ruff", "mypy"),
}


class Extra(NamedTuple):
    """An optional set of packages; empty `missing` means it is complete."""

    name: str
    missing: list[str]

    @property
    def command(self) -> str:
        """The shell command that completes it."""
        return install_command(self.name)


def install_command(extra: str) -> str:
    """The shell command that installs an extra, run in a checkout of the repository."""
    return f"pip install '.[{extra}]'"


def extra_of(module: str | None) -> str | None:
    """The extra that brings `module` ("sklearn.metrics" counts as "sklearn"), or None."""
    root = (module or "").partition(".")[0]
    return next((name for name, modules in EXTRAS.items() if root in modules), None)


def extras() -> list[Extra]:
    """Every extra with what it lacks, found without importing anything."""
    return [
        Extra(name, [module for module in modules if importlib.util.find_spec(module) is None])
        for name, modules in EXTRAS.items()
    ]


def version() -> str:
    """Version of the installed distribution, or a remark that there is none."""
    try:
        return importlib.metadata.version("asycmst")
    except importlib.metadata.PackageNotFoundError:
        return "not installed (run from a source folder)"


def usable_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def report() -> str:
    """Versions, kernels and extras in a few lines."""
    import asycmst_ops  # needs torch, which `asycmst --help` must not

    facts = asycmst_ops.info()
    lines = [
        f"asycmst   {version()}",
        f"python    {platform.python_version()} on {platform.platform()}",
        f"torch     {facts['torch']}",
    ]
    for device in ("cpu", "cuda", "other"):
        lines.append(f"{device:<9} {_kernel(facts[device])}")
    for extra in extras():
        lacks = f"lacks {', '.join(extra.missing)}: {extra.command}"
        lines.append(f"[{extra.name}]".ljust(10) + (lacks if extra.missing else "complete"))
    return "\n".join(lines)


def _kernel(facts: dict[str, Any]) -> str:
    more = [f"{key} {value}" for key, value in facts.items() if key not in ("kernel", "why")]
    return "; ".join([f"{facts['kernel']}: {facts['why']}", *more])
