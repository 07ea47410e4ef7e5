"""An exported model in a script of NumPy and onnxruntime."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from asycmst.analysis.predict import Prediction, predict
from asycmst.config import AsyCMSTConfig
from asycmst.export.export import export
from asycmst.model import AsyCMST
from asycmst.training.checkpoint import save_checkpoint

SCRIPT = Path(__file__).parent.parent / "examples" / "onnx_clip.py"
CONFIG = replace(
    AsyCMSTConfig.demo(),
    frames=3,
    image_size=(32, 48),
    dim=16,
    layers=1,
    ffn_dim=24,
    decoder_channels=(8, 8),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and its ONNX file."""
    out = tmp_path_factory.mktemp("example")
    torch.manual_seed(3)
    save_checkpoint(out / "model.ckpt", AsyCMST(CONFIG), {})
    export(out / "model.ckpt", out, ["onnx"])
    return out


def answers(folder: Path, bus: Path, ceus: Path) -> tuple[dict[str, Any], Prediction]:
    """Of the script, in a process that has neither torch nor this package, and of `predict`."""
    code = (
        "import runpy, sys\n"
        "for name in ('torch', 'asycmst', 'asycmst_ops'): sys.modules[name] = None\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(bus), str(ceus)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout), predict(folder / "model.ckpt", bus, ceus)


def check(found: dict[str, Any], prediction: Prediction, tolerance: float) -> None:
    assert found["probability_malignant"] == pytest.approx(
        prediction.probability_malignant, abs=tolerance
    )
    assert found["frame_scores"] == pytest.approx(prediction.frame_scores, abs=tolerance)
    pixels = tolerance * 32 * 48 / 2
    assert found["mask_area_fraction"] == pytest.approx(
        prediction.mask_area_fraction, abs=max(pixels, 1) / (32 * 48)
    )


def test_arrays_of_the_model_s_size_give_its_answer(folder: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    bus, ceus = tmp_path / "bus.npy", tmp_path / "ceus.npy"
    np.save(bus, generator.integers(0, 256, (9, 32, 48), dtype=np.uint8))
    np.save(ceus, generator.integers(0, 256, (4, 32, 48, 3), dtype=np.uint8))
    check(*answers(folder, bus, ceus), tolerance=1e-5)


def test_folders_of_larger_and_smaller_images_give_it_to_the_rounding_of_a_pixel(
    folder: Path, tmp_path: Path
) -> None:
    """Frame 10 follows frame 9; bilinear with antialiasing, as the package resizes."""
    generator = np.random.default_rng(1)
    for name, size in (("bus", (75, 90)), ("ceus", (20, 30))):
        (tmp_path / name).mkdir()
        for number in range(8, 12):
            frame = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(frame).save(tmp_path / name / f"frame_{number}.png")
    check(*answers(folder, tmp_path / "bus", tmp_path / "ceus"), tolerance=3e-3)
