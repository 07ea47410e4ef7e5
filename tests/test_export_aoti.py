"""A compiled package that runs without this package, from Python and from C++."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from asycmst.config import AsyCMSTConfig
from asycmst.data.clips import clip_to_tensor, load_clip
from asycmst.export.export import export_model
from asycmst.export.graph import random_clips
from asycmst.jobs import JobError
from asycmst.model import AsyCMST

SOURCE = Path(__file__).parent.parent / "examples" / "aoti_clip.cpp"
CONFIG = replace(
    AsyCMSTConfig.demo(), frames=3, image_size=32, dim=16, layers=1, ffn_dim=24, bus_task=None
)
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on this machine")


def make_model() -> nn.Module:
    torch.manual_seed(2)
    return AsyCMST(CONFIG).eval()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a compiled package; compiling is the slow part."""
    out = tmp_path_factory.mktemp("aoti")
    export_model(make_model(), out, ["aoti"])
    return out


@needs_compiler
def test_the_package_runs_where_this_package_is_not(written: Path, tmp_path: Path) -> None:
    model = make_model()
    for batch in (1, 4):
        clips = random_clips(model, batch, lengths=False, seed=5)
        np.savez(tmp_path / f"{batch}.npz", *(clip.numpy() for clip in clips))
    script = f"""
import sys
sys.modules["asycmst"] = sys.modules["asycmst_ops"] = None
import numpy as np, torch
run = torch._inductor.aoti_load_package({str(written / "model.aoti.pt2")!r})
for batch in (1, 4):
    found = run(*map(torch.from_numpy, np.load(f"{{batch}}.npz").values()))
    np.savez(f"found{{batch}}.npz", **{{name: x.numpy() for name, x in found.items()}})
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    described = json.loads((written / "model.json").read_text())
    for batch in (1, 4):
        found = dict(np.load(tmp_path / f"found{batch}.npz"))
        assert list(found) == [output["name"] for output in described["outputs"]]
        with torch.no_grad():
            output = model(*random_clips(model, batch, lengths=False, seed=5))
        np.testing.assert_allclose(found["logits"], output.logits, atol=1e-5)
        np.testing.assert_allclose(found["probability"], output.logits.softmax(1)[:, 1], atol=1e-5)
        np.testing.assert_allclose(found["frame_scores"], output.frame_scores, atol=1e-5)
    assert described["files"]["model.aoti.pt2"]["format"] == "aoti"


@needs_compiler
def test_the_example_in_cpp_answers_as_the_model(written: Path, tmp_path: Path) -> None:
    home = Path(torch.__file__).parent
    build = ["g++", "-std=c++20", SOURCE, "-o", "aoti_clip", f"-I{home}/include"]
    build += [f"-L{home}/lib", f"-Wl,-rpath,{home}/lib", "-ltorch", "-ltorch_cpu", "-lc10"]
    subprocess.run([*map(str, build)], check=True, timeout=300)
    generator = np.random.default_rng(3)
    tensors = []
    for name in ("bus", "ceus"):
        clip = generator.integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
        np.save(f"{name}.npy", clip)
        clip.tofile(f"{name}.rgb")
        tensors.append(clip_to_tensor(load_clip(f"{name}.npy", 3, 32))[None])
    with torch.no_grad():
        probability = make_model()(*tensors).logits.softmax(1)[0, 1].item()
    package = str(written / "model.aoti.pt2")
    call = ["./aoti_clip", package, "bus.rgb", "ceus.rgb", "3", "32", "32"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=True)
    word, value = done.stdout.split()
    assert word == "probability_malignant"
    assert float(value) == pytest.approx(probability, abs=1e-5)
    call[2] = "none.rgb"
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "aoti_clip: cannot open none.rgb\n")


def test_a_torch_without_its_parts_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asycmst.export.export.clip_graph", lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "torch._inductor.cpp_builder", None)
    monkeypatch.delitem(sys.modules, "asycmst.export.aoti_package", raising=False)
    version = re.escape(torch.__version__)
    with pytest.raises(JobError, match=f"aoti needs .* torch {version} lacks") as raised:
        export_model(make_model(), tmp_path / "out", ["aoti"])
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_without_a_compiler_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config, cpp_builder

    monkeypatch.setattr("asycmst.export.export.clip_graph", lambda *_, **__: None)
    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    cpp_builder.cpp_compiler_search.cache_clear()
    with pytest.raises(JobError, match="aoti needs a C") as raised:
        export_model(make_model(), tmp_path / "out", ["aoti"])
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()
    cpp_builder.cpp_compiler_search.cache_clear()
