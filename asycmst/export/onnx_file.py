"""A graph as an ONNX file, run by onnxruntime."""

import logging
from pathlib import Path

import onnx
import onnxruntime
import onnxscript  # noqa: F401  torch.onnx needs it and would name it less clearly
import torch
from torch import Tensor
from torch.export import ExportedProgram

from asycmst.export.graph import INPUTS
from asycmst.export.results import Runner
from asycmst.jobs import JobError

OPSET = 20
"""Served by onnxruntime since 1.17."""


def write(program: ExportedProgram, path: Path) -> None:
    """Write one file, weights included, with named inputs and outputs and an open batch."""
    inputs = INPUTS[: len(program.graph_signature.user_inputs)]
    outputs = program.call_spec.out_spec.context  # the keys of a dictionary
    logger = logging.getLogger("torch.onnx")  # says that torchvision's operators are not there
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        written = torch.onnx.export(
            program,
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=inputs,
            output_names=list(outputs),
            dynamic_shapes=({0: "batch"},) * len(inputs),
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().partition("\n")[0]
        raise JobError(f"onnx: torch cannot express the model: {reason}") from error
    finally:
        logger.setLevel(level)
    assert written is not None
    written.save(path)
    onnx.checker.check_model(path)


def load(path: Path) -> Runner:
    """The file as a function of clips, on the CPU."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = [entry.name for entry in session.get_inputs()]
    outputs = [entry.name for entry in session.get_outputs()]

    def run(*clips: Tensor) -> dict[str, Tensor]:
        feed = {name: clip.numpy() for name, clip in zip(inputs, clips, strict=True)}
        found = session.run(outputs, feed)
        return {name: torch.from_numpy(x) for name, x in zip(outputs, found, strict=True)}

    return run
