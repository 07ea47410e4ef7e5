"""The arithmetic limits of this processor, measured: what a kernel's speed is a share of."""

import ctypes
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_ROUNDS = 1_000_000
_MEMORY = ctypes.c_float * 256


def peak_gflops(threads: int) -> dict[str, float]:
    """GFLOP/s of fused multiply-adds from registers on `threads` cores, by dtype.

    "float32", and "bfloat16" where the processor multiplies pairs of them. Empty without a C++
    compiler. The best of several tries: a limit is not a mean.
    """
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        return {}
    source = Path(__file__).with_name("peak.cpp")
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder, "peak.so"))
        flags = ["-std=c++17", "-O3", "-march=native", "-shared", "-fPIC"]
        subprocess.run([compiler, *flags, str(source), "-o", library], check=True)
        functions = ctypes.CDLL(library)
        found = {}
        for dtype, name in (("float32", "fma_float32"), ("bfloat16", "dot_bfloat16")):
            function = getattr(functions, name)
            function.restype = ctypes.c_double
            function.argtypes = [ctypes.c_int64, ctypes.c_void_p]
            if function(1, _MEMORY()):
                found[dtype] = max(_rate(function, threads) for _ in range(10)) / 1e9
        return found


def _rate(function: ctypes._CFuncPtr, threads: int) -> float:
    memory = [_MEMORY() for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:  # ctypes lets go of the interpreter's lock
        start = time.perf_counter()
        work = sum(pool.map(lambda one: function(_ROUNDS, one), memory))
        return float(work) / (time.perf_counter() - start)
