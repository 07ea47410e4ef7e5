"""Builds `asycmst_ops._C`; all metadata lives in pyproject.toml.

Each instruction set is one source with its own flags, left out where the compiler does not know
them. A machine without a C++ compiler still gets the package, without this extension, unless the
environment has ASYCMST_REQUIRE_CPP=1.
"""

from __future__ import annotations

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, CompileError, ExecError, LinkError, PlatformError

COMMON_FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-fvisibility=hidden",
    # Products and sums fuse even in strict ISO mode; NaN and infinity keep their meaning.
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    "-Wno-psabi",
    # GCC's own AVX-512 header trips this one.
    "-Wno-maybe-uninitialized",
]
# By the name under which the compilers ask the processor for it.
ISA_FEATURE = {"avx2": "avx2", "avx512": "avx512f", "avx512bf16": "avx512bf16"}
AVX512_FLAGS = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"]
ISA_FLAGS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": AVX512_FLAGS,
    "avx512bf16": [*AVX512_FLAGS, "-mavx512bf16"],
}
SOURCES = [
    "axial.cpp",
    "binding.cpp",
    "gates.cpp",
    "isa.cpp",
    "isa_baseline.cpp",
    "parallel.cpp",
    "ranking.cpp",
    "saliency_losses.cpp",
    "union.cpp",
]
BUILD_ERRORS = (CCompilerError, CompileError, ExecError, LinkError, PlatformError, OSError)


class BuildKernels(build_ext):
    """Compiles every source with its own flags, two at a time."""

    def build_extension(self, ext: Extension) -> None:
        try:
            self.build_kernels(ext)
        except BUILD_ERRORS as error:
            reason = " ".join(str(error).split())
            if os.environ.get("ASYCMST_REQUIRE_CPP") == "1":
                raise SystemExit(
                    "asycmst: ASYCMST_REQUIRE_CPP=1, but the C++ kernels did not build"
                    f" ({reason}); install a C++17 compiler or unset the variable"
                ) from None
            print(
                "asycmst: built without the C++ kernels; CPU calls will use the slower reference"
                f" ({reason})",
                file=sys.stderr,
            )

    def build_kernels(self, ext: Extension) -> None:
        import pybind11

        with tempfile.TemporaryDirectory() as folder:
            if not self.compiles(folder, []):
                raise PlatformError("no working C++17 compiler")
            isas = [
                isa
                for isa, flags in ISA_FLAGS.items()
                # Some compilers know a set's instructions and cannot ask the processor for it.
                if self.compiles(folder, flags, f'__builtin_cpu_supports("{ISA_FEATURE[isa]}")')
            ]
            openmp = ["-fopenmp"] if self.compiles(folder, ["-fopenmp"]) else []

        flags = {f"csrc/{name}": openmp for name in SOURCES}
        flags |= {f"csrc/isa_{isa}.cpp": ISA_FLAGS[isa] for isa in reversed(isas)}
        macros = [(f"ASYCMST_{isa.upper()}", None) for isa in isas]
        Path(self.build_temp, "csrc").mkdir(parents=True, exist_ok=True)

        def compile_source(source: str) -> list[str]:
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=macros,
                include_dirs=[pybind11.get_include()],
                depends=ext.depends,
                extra_postargs=COMMON_FLAGS + flags[source],
            )

        with ThreadPoolExecutor(max_workers=2) as pool:
            compiled = list(pool.map(compile_source, sorted(flags, key=compile_order)))
        self.compiler.link_shared_object(
            [path for paths in compiled for path in paths],
            self.get_ext_fullpath(ext.name),
            extra_postargs=openmp,
            target_lang="c++",
        )

    def compiles(self, folder: str, flags: list[str], expression: str = "0") -> bool:
        """Whether the compiler builds a C++17 file with these flags, OpenMP linked included."""
        source = Path(folder, "probe.cpp")
        source.write_text(
            f"#include <cstdint>\nint main() {{ return [] {{ return {expression}; }}(); }}\n"
        )
        try:
            objects = self.compiler.compile(
                [str(source)], output_dir=folder, extra_postargs=["-std=c++17", *flags]
            )
            if "-fopenmp" in flags:
                self.compiler.link_shared_object(
                    objects, str(Path(folder, "probe.so")), extra_postargs=flags
                )
        except BUILD_ERRORS:
            return False
        return True


def compile_order(source: str) -> int:
    """Vector kernels and the binding take longest."""
    return 0 if "isa_" in source else 1 if "binding" in source else 2


headers = [str(path) for path in sorted(Path("csrc").glob("*.h"))]
setup(
    ext_modules=[
        # `optional` lets an editable install accept that no file was made.
        Extension(
            "asycmst_ops._C",
            sources=[f"csrc/{name}" for name in SOURCES]
            + [f"csrc/isa_{isa}.cpp" for isa in ISA_FLAGS],
            depends=headers,
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
)
