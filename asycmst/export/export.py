"""A checkpoint to files that run without this package, each held against the model."""

import importlib
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast, get_args

import torch
from torch import nn
from torch.export import ExportedProgram

from asycmst.export import description
from asycmst.export.graph import (
    INPUTS,
    NamedOutputs,
    clip_graph,
    random_clips,
    without_norms,
    without_remarks_of_torch,
)
from asycmst.export.results import Runner, largest_differences
from asycmst.files import replacing_together
from asycmst.training.checkpoint import load_checkpoint
from asycmst.training.networks import BUILT_IN, Network, config_of

Format = Literal["torch-export", "aoti", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)


class _Writer(Protocol):
    """What the module of a format offers."""

    def write(self, program: ExportedProgram, path: Path) -> None: ...

    def load(self, path: Path) -> Runner: ...


# File and module; a module is imported when asked for, because it may need an extra.
_WRITERS: dict[Format, tuple[str, str]] = {
    "torch-export": ("model.pt2", "asycmst.export.torch_program"),
    "aoti": ("model.aoti.pt2", "asycmst.export.aoti_package"),
    "onnx": ("model.onnx", "asycmst.export.onnx_file"),
}


class Exported(NamedTuple):
    """One file that was written.

    Attributes:
        path: Where it lies.
        format: Which of `FORMATS`.
        differences: For each output, by name, the largest absolute difference to the model.
    """

    path: Path
    format: Format
    differences: dict[str, float]


def export(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    formats: Sequence[Format],
    *,
    lengths: bool = False,
    networks: Mapping[str, Network] = BUILT_IN,
    stage: Callable[[str], None] = lambda text: None,
) -> list[Exported]:
    """Write the model of a checkpoint to `out`, as :func:`export_model` does.

    `networks` are those that the checkpoint may hold.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ImportError, JobError, TypeError, ValueError: As :func:`export_model` does, and
            ValueError if the checkpoint cannot be read.
    """
    writers = _writers(formats)
    model, meta = load_checkpoint(checkpoint, networks)
    return _export(model, meta, out, writers, lengths=lengths, stage=stage)


def export_model(
    model: nn.Module,
    out: str | os.PathLike[str],
    formats: Sequence[Format],
    *,
    meta: Mapping[str, Any] | None = None,
    lengths: bool = False,
    stage: Callable[[str], None] = lambda text: None,
) -> list[Exported]:
    """Write a model as files that run without this package.

    Every file takes clips (B, 3, T, H', W') of the model's T and size in batches of any size, and
    answers "logits", "probability" and, where the model has them, "frame_scores" and
    "mask_logits". Each is loaded back and compared with the model on random clips before any file
    appears; model.json beside them describes inputs, outputs and preprocessing.

    Args:
        model: An AsyCMST or another network (:mod:`asycmst.training.networks`), in evaluation
            mode, float32, on the CPU.
        out: A folder, made when missing. Files of an earlier export that are not written anew are
            removed from it, so that what lies there is one model.
        formats: "torch-export" (model.pt2, run by `torch.export.load`), "aoti" (model.aoti.pt2,
            compiled for processors such as this one, with paths of this machine in its compiled
            code; minutes for the paper's model) and "onnx" (model.onnx).
        meta: The plain facts of its checkpoint. A decoder that was trained without masks
            ("has_masks" is False) is left out.
        lengths: Add a third input, "frame_lengths" (B,), for padded clips.
        stage: Called with a few words about what takes a while.

    Returns:
        The files, in the order of `formats`.

    Raises:
        ImportError: A library of the `[export]` extra is missing.
        JobError: The model cannot be traced or compiled, or what was written answers otherwise.
        TypeError: The model is not float32.
        ValueError: The model is in training mode, not on the CPU, takes no frame lengths, or
            answers NaN; no format or an unknown one is given.
    """
    writers = _writers(formats)
    return _export(model, meta or {}, out, writers, lengths=lengths, stage=stage)


def _writers(formats: Sequence[Format]) -> dict[Format, _Writer]:
    if not formats:
        raise ValueError(f"no format is given; choose of {', '.join(FORMATS)}")
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"format {name!r} is not known; choose of {', '.join(FORMATS)}")
    return {name: cast(_Writer, importlib.import_module(_WRITERS[name][1])) for name in formats}


def _export(
    model: nn.Module,
    meta: Mapping[str, Any],
    out: str | os.PathLike[str],
    writers: Mapping[Format, _Writer],
    *,
    lengths: bool,
    stage: Callable[[str], None],
) -> list[Exported]:
    _check(model, lengths=lengths)
    untrained = config_of(model).learns_masks and meta.get("has_masks") is False
    named = NamedOutputs(model, segments=not untrained).eval()
    example = random_clips(model, 2, lengths=lengths)
    with torch.no_grad():
        outputs = named(*example)  # what the model refuses, it refuses here and in its own words
    stage("tracing the model")
    folded = NamedOutputs(without_norms(model), named.segments)
    program = clip_graph(folded, lengths=lengths)
    names = [description.FILE, *(file for file, _ in _WRITERS.values())]
    found: list[Exported] = []
    with replacing_together(out, names) as files:
        for name, writer in writers.items():
            stage(f"writing and comparing {name}")
            file = _WRITERS[name][0]
            with without_remarks_of_torch():
                writer.write(program, files[file])
                differences = largest_differences(
                    name, writer.load(files[file]), named, lengths=lengths
                )
            found.append(Exported(Path(out) / file, name, differences))
        facts = {
            written.path.name: {
                "format": written.format,
                "largest_difference": written.differences,
            }
            for written in found
        }
        content = description.description(model, meta, example, outputs, facts)
        files[description.FILE].write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return found


def _check(model: nn.Module, *, lengths: bool) -> None:
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() before writing it")
    for name, weight in model.named_parameters():
        if weight.dtype != torch.float32:
            raise TypeError(
                f"{name} is {weight.dtype}; models are written in float32, call model.float()"
            )
        if weight.device.type != "cpu":
            raise ValueError(f"{name} is on {weight.device}; call model.cpu() before writing it")
    if lengths and INPUTS[2] not in inspect.signature(model.forward).parameters:
        raise ValueError(
            f"{type(model).__name__} takes no frame lengths; write it without --frame-lengths"
        )
