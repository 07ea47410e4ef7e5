"""Reading machine code: every fact that the audit judges is found in the text, and only it."""

import pytest

from asycmst_ops.audit_assembly import read

USAGE = " Function forward_kernel:\n  REG:66 STACK:0 SHARED:0 LOCAL:0\n"


def code(*lines: str) -> str:
    return "\n".join(
        f"        /*{16 * i:04x}*/                   {line} ;" for i, line in enumerate(lines)
    )


def test_accesses_have_the_width_that_the_instruction_names() -> None:
    text = code(
        "LDG.E.128 R4, [R2.64]",
        "@P0 LDG.E.U8 R4, [R2.64]",
        "@!P1 LDG.E.U16 R4, [R2.64]",
        "LDGSTS.E.BYPASS.LTC128B.128 [R2], [R4.64]",
        "LDGDEPBAR",
        "STG.E.64 [R2.64], R4",
        "STG.E [R2.64], R4",
        "LDS.128 R4, [R2]",
    )
    assert read(USAGE, text).access_bytes == (16, 2, 16, 8, 4)


@pytest.mark.parametrize("wait", ["STS.128 [R2], R4", "HMMA.16816.F32 R4", "DEPBAR.LE SB0, 0x1"])
def test_bytes_before_the_wait_start_at_the_first_load_of_elements(wait: str) -> None:
    load = "LDG.E.128 R4, [R2.64]"
    text = code("LDG.E.U8 R4, [R2.64]", "STS [R2], R4", load, "LDGDEPBAR", load, wait, load)
    assert read(USAGE, text).bytes_before_wait == 32


def test_counts() -> None:
    text = code(
        "LDL R1, [R2]",
        "STL [R2], R1",
        "RED.E.ADD.F32 [R2], R1",
        "@P0 ATOMG.E.ADD R1, [R2]",
        "HMMA.16816.F32.BF16 R4, R8, R9, R4",
        "HGMMA.64x64x16.F32.BF16 R4, gdesc[UR4], R4",
        "@!UPT UIADD3 URZ, URZ, URZ, URZ",
        "NOP",
        "NOP",
    )
    found = read(" REG:255 STACK:16", text)
    assert (found.registers, found.stack, found.spills, found.atomics) == (255, 16, 2, 2)
    assert (found.warp_products, found.group_products, found.instructions) == (1, 1, 7)


@pytest.mark.parametrize(("usage", "text"), [("", code("NOP")), (USAGE, "fatal error")])
def test_other_output_is_refused(usage: str, text: str) -> None:
    with pytest.raises(ValueError, match="printed no resources or no code"):
        read(usage, text)
