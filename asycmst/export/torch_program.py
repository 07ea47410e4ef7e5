"""A graph as a torch.export program."""

import copy
from pathlib import Path

import torch
from torch.export import ExportedProgram

from asycmst.export.results import Runner


def write(program: ExportedProgram, path: Path) -> None:
    """Write the program; `torch.export.load(path).module()` runs it."""
    alone = copy.copy(program)
    alone.example_inputs = None  # else two pairs of clips lie in the file, and nothing reads them
    torch.export.save(alone, path)


def load(path: Path) -> Runner:
    """The file as a function of clips."""
    runner: Runner = torch.export.load(path).module()
    return runner
