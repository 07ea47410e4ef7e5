"""Everything a run needs to go on from the middle of an epoch, in one file of plain tensors."""

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asycmst.files import replacing

_FORMAT = 1
_KIND = "asycmst training state"


@dataclass(frozen=True)
class TrainingState:
    """A run between two steps.

    Attributes:
        settings: of the run, plain.
        counters: what the module counts, plain.
        model: state dict.
        optimizer: state dict.
        scheduler: state dict.
        scaler: state dict of the loss scaling of float16, empty for other precisions.
    """

    settings: dict[str, Any]
    counters: dict[str, Any]
    model: Mapping[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    scaler: dict[str, Any]

    def is_finite(self) -> bool:
        """Whether all weights are; a diverged run must not replace a good file."""
        return all(bool(torch.isfinite(value).all()) for value in self.model.values())


def save_state(path: str | os.PathLike[str], state: TrainingState) -> None:
    """Write `state`; the file appears whole or not at all."""
    content = {"format": _FORMAT, "kind": _KIND, **vars(state)}
    with replacing(path) as temporary, temporary.open("wb") as stream:
        torch.save(content, stream)
        # A crash of the machine after the renaming must not leave an empty file.
        stream.flush()
        os.fsync(stream.fileno())


def load_state(path: str | os.PathLike[str]) -> TrainingState:
    """Read a file of :func:`save_state` to the CPU; nothing in it is executed.

    Raises:
        ValueError: it is damaged, or no training state of this version.
    """
    source = Path(path)
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{source} cannot be read as a training state; delete it to start the run again"
        ) from error
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise ValueError(f"{source} is no training state; delete it to start the run again")
    if content.get("format") != _FORMAT:
        raise ValueError(
            f"{source} has format {content.get('format')!r}, this version reads {_FORMAT}: "
            "use the version that began the run"
        )
    return TrainingState(**{name: content[name] for name in TrainingState.__annotations__})
