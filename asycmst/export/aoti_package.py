"""A graph as an AOTInductor package: compiled for this machine's kind of processor, on the CPU."""

from pathlib import Path

import torch
from torch.export import ExportedProgram

from asycmst.export.results import Runner
from asycmst.jobs import JobError


def write(program: ExportedProgram, path: Path) -> None:
    """Compile the program; `torch._inductor.aoti_load_package(path)` or C++ runs it.

    The compiler leaves names of its temporary folder and of torch's in the package.

    Raises:
        JobError: There is no C++ compiler, it fails, or this version of torch has other names for
            what is needed.
    """
    try:
        from torch._inductor import aoti_compile_and_package
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler
    except ImportError as error:
        raise JobError(
            f"aoti needs parts of torch that torch {torch.__version__} lacks or has elsewhere "
            f"({error}); choose another format or another version of torch"
        ) from error
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise JobError(
            "aoti needs a C++ compiler, such as g++, and finds none; install one or set CXX"
        ) from error
    try:
        aoti_compile_and_package(program, package_path=str(path))
    except InductorError as error:
        if not isinstance(error.inner_exception, CppCompileError):
            raise
        raise JobError(
            "aoti: the C++ compiler fails on the code of torch; try another one by CXX"
        ) from error


def load(path: Path) -> Runner:
    """The package as a function of clips."""
    runner: Runner = torch._inductor.aoti_load_package(str(path))
    return runner
