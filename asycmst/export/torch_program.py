"""A graph as a torch.export program."""

from pathlib import Path

import torch
from torch.export import ExportedProgram

from asycmst.export.results import Runner


def write(program: ExportedProgram, path: Path) -> None:
    """Write the program; `torch.export.load(path).module()` runs it."""
    torch.export.save(program, path)


def load(path: Path) -> Runner:
    """The file as a function of clips."""
    runner: Runner = torch.export.load(path).module()
    return runner
