"""What the static audit demands of a kernel, and why.

All numbers are ceilings with room above what the kernels compile to, never equalities: registers
and instructions belong to a version of Triton and of its assembler as much as to a kernel.
"""

from typing import NamedTuple

from asycmst_ops.audit_assembly import Assembly
from asycmst_ops.audit_cases import Case

KILOBYTE = 1024


class Multiprocessor(NamedTuple):
    """What the CTAs of one multiprocessor share, and what keeps its memory busy."""

    warps: int
    ctas: int
    shared_kilobytes: int
    needed_kilobytes: int


# The last column is Little's law, bandwidth of one multiprocessor x 0.65 us of latency, for the
# most demanding card: A100, RTX 3090, RTX 4090, H200, RTX 5090. The latency is an estimate.
MULTIPROCESSORS = {
    80: Multiprocessor(64, 32, 164, 12),
    86: Multiprocessor(48, 16, 100, 7),
    89: Multiprocessor(48, 24, 100, 5),
    90: Multiprocessor(64, 32, 228, 21),
    120: Multiprocessor(48, 24, 100, 7),
}
_IN_FLIGHT_MARGIN = 1.3
_LARGEST_SHARED = 99  # kilobytes a CTA may have on every one of these architectures
_THREE_CTAS = 170  # registers up to which three CTAs of four warps fit


class Ceiling(NamedTuple):
    """Registers a thread and kilobytes of shared memory a CTA."""

    registers: int
    shared_kilobytes: float


_HARD = Ceiling(255, _LARGEST_SHARED)
# By kind of launch and rows of the larger tile: forward, backward.
_CEILINGS = {
    ("plain", 16): (Ceiling(84, 8), Ceiling(104, 8)),
    ("plain", 32): (Ceiling(84, 16), Ceiling(128, 16)),
    ("plain", 64): (Ceiling(120, 48), Ceiling(200, 48)),
    ("masked", 16): (Ceiling(104, 8), Ceiling(152, 8)),
    ("masked", 64): (Ceiling(120, 48), Ceiling(200, 48)),
    ("over 64 channels", 16): (Ceiling(64, 16), Ceiling(84, 24)),
    ("over 64 channels", 32): (Ceiling(120, 32), Ceiling(200, 48)),
    ("over 64 channels", 64): (Ceiling(170, 64), Ceiling(208, 99)),
    ("unaligned", 64): (Ceiling(168, 16), Ceiling(168, 32)),
    ("ieee", 16): (Ceiling(64, 16), Ceiling(84, 24)),
    ("ieee", 32): (Ceiling(64, 16), Ceiling(128, 16)),
    ("ieee", 64): (Ceiling(104, 32), Ceiling(240, 48)),
    ("tf32", 32): (Ceiling(64, 16), Ceiling(128, 16)),
    ("tf32", 64): (Ceiling(84, 32), Ceiling(212, 64)),
}
# Warpgroup products let the tiles of the backward pass stay in shared memory.
_WARPGROUP_BACKWARD = Ceiling(144, 48)

# The kernels of the gates: forward, backward.
_GATES_CEILINGS = {
    "collect": (Ceiling(112, 8), Ceiling(128, 8)),
    "settle": (Ceiling(96, 8), Ceiling(104, 8)),
    "write": (Ceiling(144, 8), Ceiling(112, 8)),
}

_SALIENCY_LOSSES_CEILINGS = {
    "losses collect": Ceiling(168, 8),
    "losses settle": Ceiling(64, 8),
    "losses write": Ceiling(96, 8),
}


def ceiling(case: Case, architecture: int) -> Ceiling:
    """The case's row of the table; what the hardware bears for a kernel that has none."""
    if case.kernel in _GATES_CEILINGS:
        return _GATES_CEILINGS[case.kernel][case.keywords["BACKWARD"]]
    if case.kernel in _SALIENCY_LOSSES_CEILINGS:
        return _SALIENCY_LOSSES_CEILINGS[case.kernel]
    if case.kernel not in ("forward", "backward"):
        return _HARD
    kind, rows = _kind(case), _rows(case)
    backward = case.kernel == "backward"
    if architecture == 90 and backward and rows == 64 and kind in ("plain", "masked"):
        return _WARPGROUP_BACKWARD
    return _CEILINGS.get((kind, rows), (_HARD, _HARD))[backward]


def _kind(case: Case) -> str:
    words = case.keywords
    if case.pointers[""] == "*fp32":
        return str(words["PRECISION"])
    if words["UNIT"] == 1:
        return "unaligned"
    if words["BLOCK_D"] > 64 or words["D"] > 64:
        return "over 64 channels"
    return "masked" if words["HAS_MASK"] else "plain"


def _rows(case: Case) -> int:
    return max(int(case.keywords["BLOCK_Q"]), int(case.keywords["BLOCK_K"]))


def ctas_per_multiprocessor(architecture: int, registers: int, shared: int, warps: int) -> int:
    """How many CTAs fit at once: by warps, by number, by registers and by shared memory (bytes).

    Registers go to warps in units of 256 from four files of 16384; the system keeps a kilobyte of
    shared memory for each CTA.
    """
    limits = MULTIPROCESSORS[architecture]
    of_a_warp = -(-registers * 32 // 256) * 256
    return min(
        limits.warps // warps,
        limits.ctas,
        16384 // of_a_warp * 4 // warps,
        limits.shared_kilobytes * KILOBYTE // (shared + KILOBYTE),
    )


def products_expected(case: Case) -> tuple[int, int] | None:
    """Tensor-core instructions that one warp and that a group of four warps needs at most.

    Each product of a (rows, depth) by a (depth, columns) tile is cut into instructions of 16 x 8
    (64 rows for a group) and 16 of depth, 8 for tf32, shared out among the warps; where there are
    fewer pieces than warps, several do the same. None where this is not simple: channels in
    chunks, and groups of more than four warps.
    """
    words = case.keywords
    if case.kernel not in ("forward", "backward") or words["BLOCK_D"] < words["D"]:
        return None
    queries, keys, channels = (int(words[f"BLOCK_{x}"]) for x in "QKD")
    products = [(queries, channels, keys), (queries, keys, channels)]
    if case.kernel == "backward":
        products += [(queries, channels, keys), (keys, queries, channels)]
        products += [(keys, queries, channels)]
    deep = 8 if case.pointers[""] == "*fp32" else 16
    warps = int(words["num_warps"])
    of_a_warp = sum(
        max(1, rows // 16 * (columns // 8) // warps) * (depth // deep)
        for rows, depth, columns in products
    )
    of_a_group = sum(-(-rows // 64) * (depth // deep) for rows, depth, _ in products)
    return of_a_warp, of_a_group if warps == 4 else 4 * of_a_group


def faults(case: Case, architecture: int, assembly: Assembly, shared: int) -> list[str]:
    """What is wrong with a compiled kernel; empty when nothing is.

    Args:
        case: What was compiled.
        architecture: 90 for compute capability 9.0.
        assembly: What it compiled to.
        shared: Bytes of shared memory of a CTA.
    """
    found = []
    if assembly.spills or assembly.stack:
        found.append(f"{assembly.spills} spills, {assembly.stack} bytes of stack")
    if assembly.atomics:
        found.append(f"{assembly.atomics} atomics")
    narrow = narrow_accesses(case, assembly)
    if case.wide and (narrow or 16 not in assembly.access_bytes):
        found.append(f"{narrow} narrow accesses")
    limit = ceiling(case, architecture)
    if assembly.registers > limit.registers:
        found.append(f"over {limit.registers} registers")
    if shared > limit.shared_kilobytes * KILOBYTE:
        found.append(f"over {limit.shared_kilobytes} KB shared memory")
    if _few_in_flight(case, architecture, assembly, shared) and _kind_has_goals(case):
        found.append("too few bytes in flight")
    return found + _product_faults(case, architecture, assembly)


def remarks(case: Case, architecture: int, assembly: Assembly, shared: int) -> list[str]:
    """What is worth knowing and no fault: launches whose speed has no goal are held to less."""
    found = []
    if assembly.registers > _THREE_CTAS and int(case.keywords["num_warps"]) >= 4:
        found.append("under 3 CTAs by registers")
    if _few_in_flight(case, architecture, assembly, shared) and not _kind_has_goals(case):
        found.append("few bytes in flight")
    return found


def narrow_accesses(case: Case, assembly: Assembly) -> int:
    """Accesses below 128 bits, but for the float32 row statistics that a kernel may have."""
    exempt = {4} if case.scalars else set()
    return sum(size < 16 and size not in exempt for size in assembly.access_bytes)


def bytes_in_flight(case: Case, architecture: int, assembly: Assembly, shared: int) -> int:
    """Bytes that the CTAs of one multiprocessor ask for before the first of them waits.

    Rows and channels that only fill a tile are counted, though they move no bytes.
    """
    warps = int(case.keywords["num_warps"])
    ctas = ctas_per_multiprocessor(architecture, assembly.registers, shared, warps)
    return ctas * warps * 32 * assembly.bytes_before_wait


def _few_in_flight(case: Case, architecture: int, assembly: Assembly, shared: int) -> bool:
    needed = MULTIPROCESSORS[architecture].needed_kilobytes * KILOBYTE * _IN_FLIGHT_MARGIN
    attention = "BLOCK_Q" in case.keywords  # the ranking loss moves next to nothing
    return attention and bytes_in_flight(case, architecture, assembly, shared) < needed


def _kind_has_goals(case: Case) -> bool:
    """Whether the speed of such launches has a goal: 16-bit grids of up to 64 channels."""
    known = case.kernel in ("forward", "backward")
    return known and _kind(case) in ("plain", "masked")


def _product_faults(case: Case, architecture: int, assembly: Assembly) -> list[str]:
    if not case.products:
        return []
    if not assembly.warp_products + assembly.group_products:
        return ["no tensor cores"]
    found = []
    tiles = {case.keywords.get("BLOCK_Q"), case.keywords.get("BLOCK_K")}
    if architecture == 90 and tiles == {64} and not assembly.group_products:
        found.append("no warpgroup products")
    expected = products_expected(case)
    if expected is not None:
        of_a_warp, of_a_group = expected
        if assembly.warp_products > of_a_warp or assembly.group_products > of_a_group:
            found.append("more products than the tiles need")
    return found
