"""What the machine code of one kernel says: the facts that the static audit judges."""

import re
from typing import NamedTuple

# One line of nvdisasm: offset, perhaps a predicate, the instruction with its modifiers.
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
_ACCESS_BYTES = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
_LOADS = {"LDG", "LDGSTS"}
_STORES = {"STG"}
# What needs a loaded value: products, writing a tile to shared memory, waiting for copies.
_WAITS = {"HMMA", "HGMMA", "QGMMA", "UTCHMMA", "STS", "STSM", "DEPBAR"}


class Assembly(NamedTuple):
    """One kernel for one architecture, counted."""

    registers: int
    stack: int  # bytes a thread
    spills: int  # loads and stores of local memory
    atomics: int
    access_bytes: tuple[int, ...]  # of each load or store of elements, for one lane
    bytes_before_wait: int  # of each lane, loaded from the first load to the first wait
    warp_products: int  # tensor-core instructions of one warp
    group_products: int  # of a group of four warps
    instructions: int


def read(usage: str, text: str) -> Assembly:
    """The facts in what cuobjdump -res-usage and nvdisasm -c print.

    Byte accesses are those of masks and not of elements.

    Raises:
        ValueError: The tools printed something else.
    """
    resources = {name: int(value) for name, value in re.findall(r"\b(REG|STACK):(\d+)", usage)}
    operations = [found.split(".") for found in _INSTRUCTION.findall(text)]
    if resources.keys() != {"REG", "STACK"} or not operations:
        raise ValueError(
            f"the CUDA tools printed no resources or no code: {usage!r}, {text[:99]!r}"
        )
    moved = [
        size
        for name, *modifiers in operations
        if name in _LOADS | _STORES and (size := _bytes(modifiers)) > 1
    ]
    return Assembly(
        resources["REG"],
        resources["STACK"],
        _count(operations, "LDL", "STL"),
        _count(operations, "ATOM", "ATOMG", "ATOMS", "RED", "REDG"),
        tuple(moved),
        _before_wait(operations),
        _count(operations, "HMMA"),
        _count(operations, "HGMMA", "QGMMA", "UTCHMMA"),
        len(operations) - _count(operations, "NOP"),
    )


def _bytes(modifiers: list[str]) -> int:
    """How many bytes a lane moves; 4 where the instruction names no width."""
    return next((_ACCESS_BYTES[m] for m in modifiers if m in _ACCESS_BYTES), 4)


def _before_wait(operations: list[list[str]]) -> int:
    total = 0
    for name, *modifiers in operations:
        size = _bytes(modifiers)
        if name in _LOADS and size > 1:
            total += size
        elif name in _WAITS and total:
            break
    return total


def _count(operations: list[list[str]], *names: str) -> int:
    return sum(operation[0] in names for operation in operations)
