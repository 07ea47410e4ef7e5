"""The folder of a training run: whose it is, and the facts beside its checkpoints."""

import csv
import importlib.metadata
import io
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import yaml

import asycmst_ops
from asycmst import info
from asycmst.files import write_text
from asycmst.training.networks import BUILT_IN, Network, name_of, network_of
from asycmst.training.settings import FitSettings
from asycmst.training.settings_file import change, to_plain, to_yaml
from asycmst.training.state import load_state, save_state

CONFIG, RECORD, LOG = "config.yaml", "run.json", "log.csv"
LAST, BEST = "last.ckpt", "best.ckpt"
TENSORBOARD = "tensorboard"

FREE = {
    "data": ("workers",),
    "run": (
        "out",
        "accelerator",
        "devices",
        "num_nodes",
        "threads",
        "save_minutes",
        "save_steps",
    ),
}
"""What may change when a run is resumed."""


def check(folder: Path, settings: FitSettings) -> bool:
    """Whether a run may take a folder: it is new or empty, or holds this very run.

    Returns:
        Whether there is a last.ckpt to go on from.

    Raises:
        ValueError: it is a file, holds something else or a run of other settings.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give --out a folder")
    config = folder / CONFIG
    if not config.is_file():
        if folder.exists() and any(not x.name.startswith(".") for x in folder.iterdir()):
            raise ValueError(f"{folder} holds files that are no run; give --out a new folder")
        return False
    difference = first_difference(stored_settings(folder, same_networks(settings)), settings)
    if difference is not None:
        raise ValueError(
            f"{folder} holds a run with {difference}; give --out a new folder, or the same "
            "settings to go on"
        )
    return (folder / LAST).is_file()


def claim(folder: Path, settings: FitSettings) -> None:
    """Make the folder of a run and say in it what run it is."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIG).is_file():
        write_text(folder / CONFIG, to_yaml(settings))


def follow_data(folder: Path, settings: FitSettings) -> None:
    """Let the run in a folder go on with its data where `settings` say that they lie now.

    Args:
        folder: of the run; nothing happens where it holds none.
        settings: of the same run. That the data are the same is for the caller to know.

    Raises:
        ValueError: the run's files are damaged.
    """
    if not (folder / CONFIG).is_file():
        return
    stored = stored_settings(folder, same_networks(settings))
    data = replace(stored.data, cache=settings.data.cache, splits=settings.data.splits)
    if data == stored.data:
        return
    moved = replace(stored, data=data)
    if (folder / LAST).is_file():
        state = load_state(folder / LAST)
        save_state(folder / LAST, replace(state, settings=to_plain(moved)))
    write_text(folder / CONFIG, to_yaml(moved))  # last, so that a broken call is repeated


def same_networks(settings: FitSettings) -> dict[str, Network]:
    """The networks that a file of this run may name: its own, and those of the package."""
    return {**BUILT_IN, name_of(settings.model): network_of(settings.model)}


def stored_settings(folder: Path, networks: Mapping[str, Network] = BUILT_IN) -> FitSettings:
    """The settings of the run in `folder`.

    Args:
        folder: of the run.
        networks: those it may be of.

    Raises:
        ValueError: there is no run, its settings cannot be read, or it is of another network.
    """
    config = folder / CONFIG
    if not config.is_file():
        raise ValueError(f"{folder} holds no run; a run's folder has a {CONFIG}")
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
        return change(FitSettings(), content, networks)
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{config} cannot be read: {error}; give --out a new folder") from error


def first_difference(stored: FitSettings, given: FitSettings) -> str | None:
    """The first setting that decides the outcome and differs, in words; None if none does."""
    old, new = (_flat(_decisive(settings)) for settings in (stored, given))
    for key in [*old, *new]:
        if old.get(key) != new.get(key):
            return f"{key}={old.get(key)}, not {new.get(key)}"
    return None


def _decisive(settings: FitSettings) -> dict[str, Any]:
    plain = to_plain(settings)
    for section, names in FREE.items():
        for name in names:
            del plain[section][name]
    return plain


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{path}{key}.")
        else:
            flat[path + key] = value
    return flat


def record_start(folder: Path, settings: FitSettings, step: int, data: Mapping[str, Any]) -> None:
    """Note a start of the run: command, versions, revision of the working folder, data."""
    file = folder / RECORD
    starts: list[Any] = []
    if file.is_file():
        starts = json.loads(file.read_text(encoding="utf-8"))["starts"]
    starts.append(
        {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "step": step,
            "command": sys.argv,
            "git": git_revision(Path.cwd()),
            "versions": _versions(),
            "cpu_kernel": asycmst_ops.info()["cpu"]["kernel"],
            "system": platform.platform(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        }
    )
    content = {"seed": settings.run.seed, "data": dict(data), "starts": starts}
    write_text(file, json.dumps(content, indent=1) + "\n")


def git_revision(folder: Path) -> dict[str, Any] | None:
    """Commit of the working folder and whether it has changes; None outside a repository."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _versions() -> dict[str, str]:
    names = ("torch", "lightning", "monai", "numpy")
    return {
        "asycmst": info.version(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
    }


def write_log(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One row for each epoch."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(folder / LOG, text.getvalue())
