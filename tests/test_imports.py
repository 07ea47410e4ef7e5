"""What importing and calling needs: no Triton, no GPU, no compiled part."""

import subprocess
import sys
import textwrap

import pytest


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_operators_loads_neither_triton_nor_the_model() -> None:
    run(
        """
        import sys, asycmst_ops
        loaded = {name.split(".")[0] for name in sys.modules}
        assert not loaded & {"triton", "asycmst", "monai", "lightning"}, loaded
        """
    )


def test_the_operators_run_where_triton_is_missing() -> None:
    run(
        """
        import sys
        sys.modules["triton"] = None
        import torch, asycmst_ops
        x = torch.randn(1, 2, 3, 1, 4, requires_grad=True)
        asycmst_ops.axial_attention(x, x, x, axis="time").sum().backward()
        """
    )


def test_without_the_compiled_part_the_first_call_says_so_once() -> None:
    run(
        """
        import sys, warnings
        sys.modules["asycmst_ops._C"] = None
        import torch, asycmst_ops
        assert asycmst_ops.info()["cpu"]["kernel"] == "reference"
        x = torch.randn(1, 2, 3, 1, 4, requires_grad=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                out = asycmst_ops.axial_attention(x, x, x, axis="time")
        assert [w.category for w in caught] == [UserWarning], caught
        assert "compiler" in str(caught[0].message)
        expected = asycmst_ops.reference.axial_attention(x, x, x, axis="time")
        torch.testing.assert_close(out, expected)
        out.sum().backward()
        loss = asycmst_ops.fss_ranking_loss(torch.zeros(2, 4, requires_grad=True))
        loss.backward()
        """
    )


def test_here_the_compiled_part_serves() -> None:
    out = run("import asycmst_ops; print(asycmst_ops.info()['cpu']['kernel'])")
    assert out.strip() == "csrc"


def test_importing_the_model_package_is_light() -> None:
    run(
        """
        import sys, asycmst
        assert asycmst.__version__
        assert "torch" not in sys.modules
        """
    )


@pytest.mark.parametrize("counter_first", [True, False])
def test_flop_formulas_register_in_either_import_order(counter_first: bool) -> None:
    counter = "import torch.utils.flop_counter"
    first, second = (counter, "import asycmst_ops")[:: 1 if counter_first else -1]
    run(
        f"""
        {first}
        {second}
        import torch
        assert torch.ops.asycmst.axial in torch.utils.flop_counter.flop_registry
        """
    )
