"""What the audit demands: occupancy, products a tile needs, ceilings and bytes in flight."""

from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from asycmst_ops import audit_cases, audit_limits
from asycmst_ops.audit_assembly import Assembly

FORWARD = audit_cases.attention_case("forward", 49, 49, 64)
BACKWARD = audit_cases.attention_case("backward", 49, 49, 64)
TF32 = audit_cases.attention_case("forward", 49, 49, 64, torch.float32, precision="tf32")
SHARED = 24 * 1024


def assembly(**facts: Any) -> Assembly:
    sound = Assembly(70, 0, 0, 0, (16,) * 16, 12 * 16, 64, 0, 900)
    return sound._replace(**facts)


@pytest.mark.parametrize(
    ("architecture", "registers", "shared", "warps", "ctas"),
    [
        (86, 74, 4096, 1, 16),  # the number of CTAs
        (89, 62, 4096, 1, 20),  # shared memory, a kilobyte of it the system's
        (90, 79, 0, 1, 24),  # registers in whole warps of each of four files
        (80, 32, 0, 16, 4),  # warps
        (86, 168, 32768, 4, 3),
        (86, 169, 32768, 4, 2),
    ],
)
def test_ctas_of_a_multiprocessor(
    architecture: int, registers: int, shared: int, warps: int, ctas: int
) -> None:
    found = audit_limits.ctas_per_multiprocessor(architecture, registers, shared, warps)
    assert found == ctas


@pytest.mark.parametrize(
    ("kernel", "length", "d", "of_a_warp"),
    # 16 x 16 x 64 is 8 instructions of 16 x 8 x 16; two products forward, five backward. The two
    # pieces of 16 x 16 x 128 are too few for four warps: each does one of them, 8 deep.
    [
        ("forward", 16, 64, 16),
        ("backward", 16, 64, 40),
        ("forward", 16, 128, 12),
        ("forward", 49, 64, 64),
        ("backward", 49, 64, 160),
    ],
)
def test_products_that_the_tiles_need(kernel: str, length: int, d: int, of_a_warp: int) -> None:
    case = audit_cases.attention_case(kernel, length, length, d)
    found = audit_limits.products_expected(case)
    assert found is not None and found[0] == of_a_warp
    if length == 49:  # a group of four warps works on 64 rows at once
        assert found[1] == of_a_warp // 8


def test_products_are_not_foretold_for_chunks_of_channels() -> None:
    case = audit_cases.attention_case("forward", 49, 49, 256)
    assert audit_limits.products_expected(case) is None


def test_a_sound_kernel_has_no_fault() -> None:
    assert audit_limits.faults(FORWARD, 86, assembly(), SHARED) == []
    assert audit_limits.remarks(FORWARD, 86, assembly(), SHARED) == []


@pytest.mark.parametrize(
    ("facts", "shared", "fault"),
    [
        ({"spills": 2}, SHARED, "2 spills, 0 bytes of stack"),
        ({"stack": 8}, SHARED, "0 spills, 8 bytes of stack"),
        ({"atomics": 1}, SHARED, "1 atomics"),
        ({"access_bytes": (16, 8)}, SHARED, "1 narrow accesses"),
        ({"access_bytes": ()}, SHARED, "0 narrow accesses"),
        ({"registers": 121}, SHARED, "over 120 registers"),
        ({}, 48 * 1024 + 1, "over 48 KB shared memory"),
        ({"bytes_before_wait": 16}, SHARED, "too few bytes in flight"),
        ({"warp_products": 0}, SHARED, "no tensor cores"),
        ({"warp_products": 65}, SHARED, "more products than the tiles need"),
    ],
)
def test_each_fault_is_named(facts: dict[str, Any], shared: int, fault: str) -> None:
    assert audit_limits.faults(FORWARD, 86, assembly(**facts), shared) == [fault]


def test_warpgroups_are_asked_for_on_sm_90_alone() -> None:
    facts = assembly(bytes_before_wait=12 * 16)
    assert audit_limits.faults(FORWARD, 90, facts, SHARED) == ["no warpgroup products"]
    good = facts._replace(warp_products=0, group_products=8)
    assert audit_limits.faults(FORWARD, 90, good, SHARED) == []
    assert audit_limits.faults(FORWARD, 90, good._replace(group_products=9), SHARED)


def test_ceilings_are_of_the_kind_of_launch() -> None:
    masked = audit_cases.attention_case("backward", 16, 16, 64, has_mask=True)
    plain = audit_cases.attention_case("backward", 16, 16, 64)
    assert audit_limits.ceiling(masked, 86).registers > audit_limits.ceiling(plain, 86).registers
    assert audit_limits.ceiling(BACKWARD, 90).registers < audit_limits.ceiling(BACKWARD, 86)[0]
    # The ranking loss has none of its own: what the hardware bears.
    assert audit_limits.ceiling(audit_cases.ranking_case(16), 86) == (255, 99)


def test_row_statistics_may_be_narrow_and_nothing_else() -> None:
    facts = assembly(access_bytes=(16, 4, 2))
    assert audit_limits.narrow_accesses(FORWARD, facts) == 2
    with_statistics = FORWARD._replace(scalars=True)
    assert audit_limits.narrow_accesses(with_statistics, facts) == 1


def test_launches_without_a_goal_are_remarked_on_only() -> None:
    few = assembly(bytes_before_wait=16, registers=84)
    assert audit_limits.faults(TF32, 80, few, 16 * 1024) == []
    assert audit_limits.remarks(TF32, 80, few, 16 * 1024) == ["few bytes in flight"]
    many = assembly(registers=180, warp_products=160)
    assert audit_limits.remarks(BACKWARD, 86, many, SHARED) == ["under 3 CTAs by registers"]
