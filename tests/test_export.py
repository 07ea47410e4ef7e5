"""A checkpoint to files that run without this package and answer as the model does."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from asycmst import cli
from asycmst.baselines.early_fusion import EarlyFusionConfig
from asycmst.baselines.vivit import ViViTConfig
from asycmst.config import AsyCMSTConfig
from asycmst.export import torch_program
from asycmst.export.export import export_model
from asycmst.export.graph import NamedOutputs, clip_graph, random_clips
from asycmst.export.results import largest_differences
from asycmst.jobs import JobError
from asycmst.model import AsyCMSTOutput
from asycmst.network_config import NetworkConfig
from asycmst.saliency.config import SaliencyConfig
from asycmst.training.checkpoint import save_checkpoint
from asycmst.training.networks import build

FILES = ["model.json", "model.onnx", "model.pt2"]
META = {
    "trained_on": "clinical clips",
    "validation_auc": 0.75,
    "train_ids": ["case0007"],
    "train_ids_sha256": "f00d",
    "has_masks": True,
}
SMALL = replace(
    AsyCMSTConfig.demo(),
    frames=3,
    image_size=32,
    dim=16,
    layers=1,
    ffn_dim=24,
    decoder_channels=(8, 8),
)


def make_model(config: NetworkConfig = SMALL) -> nn.Module:
    """With weights and batch statistics that are nobody's defaults."""
    torch.manual_seed(1)
    model = build(config)
    with torch.no_grad():
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both files and their description, by the command."""
    folder = tmp_path_factory.mktemp("export")
    save_checkpoint(folder / "model.ckpt", make_model(), META)
    arguments = ["--checkpoint", folder / "model.ckpt", "--out", folder / "new" / "out"]
    options = ["--format", "torch-export", "onnx", "--frame-lengths"]
    assert cli.main(["export", *map(str, arguments), *options]) == 0
    return folder / "new" / "out"


def test_the_files_run_where_this_package_is_not(written: Path, tmp_path: Path) -> None:
    model = make_model()
    for batch in (1, 4):
        clips = random_clips(model, batch, lengths=True, seed=7)
        np.savez(tmp_path / f"{batch}.npz", *(clip.numpy() for clip in clips))
    script = f"""
import sys
sys.modules["asycmst"] = sys.modules["asycmst_ops"] = None
import numpy as np, onnxruntime, torch, warnings
warnings.simplefilter("ignore")
session = onnxruntime.InferenceSession({str(written / "model.onnx")!r})
names = [output.name for output in session.get_outputs()]
program = torch.export.load({str(written / "model.pt2")!r}).module()
for batch in (1, 4):
    clips = list(np.load(f"{{batch}}.npz").values())
    feed = dict(zip(["bus", "ceus", "frame_lengths"], clips, strict=True))
    np.savez(f"onnx{{batch}}.npz", **dict(zip(names, session.run(None, feed), strict=True)))
    found = program(*map(torch.from_numpy, clips))
    np.savez(f"torch{{batch}}.npz", **{{name: x.detach().numpy() for name, x in found.items()}})
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    for batch in (1, 4):
        with torch.no_grad():
            output = model(*random_clips(model, batch, lengths=True, seed=7))
        for kind in ("onnx", "torch"):
            found = dict(np.load(tmp_path / f"{kind}{batch}.npz"))
            probability = output.logits.softmax(1)[:, 1]
            for name, want in (output._asdict() | {"probability": probability}).items():
                if name != "features":
                    np.testing.assert_allclose(found.pop(name), want, atol=1e-5, rtol=1e-5)
            assert not found


def test_the_description_is_what_the_files_take_and_give(written: Path) -> None:
    import onnxruntime

    assert sorted(path.name for path in written.iterdir()) == FILES
    described = json.loads((written / "model.json").read_text())
    session = onnxruntime.InferenceSession(written / "model.onnx")
    for kind, entries in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        dtypes = {"tensor(float)": "float32", "tensor(int64)": "int64"}
        assert [(x["name"], x["dtype"], x["shape"]) for x in described[kind]] == [
            (entry.name, dtypes[entry.type], entry.shape) for entry in entries
        ]
    assert [x["shape"] for x in described["inputs"]] == [
        *[["batch", 3, 3, 32, 32]] * 2,
        ["batch"],
    ]
    assert [x["name"] for x in described["outputs"]] == [
        *("logits", "probability", "frame_scores", "mask_logits")
    ]
    assert described["classes"][1] == "malignant"
    assert (described["model"], described["segmented"]) == ("asycmst", "bus")
    assert described["preprocessing"]["frames"] == 3
    assert AsyCMSTConfig.from_dict(described["config"]) == SMALL
    for name in FILES[1:]:
        differences = described["files"][name]["largest_difference"]
        assert all(0 <= x < 1e-4 for x in differences.values()) and len(differences) == 4


def test_the_program_carries_no_clips(written: Path) -> None:
    """Those that it was traced with are tens of megabytes at the paper's size."""
    assert torch.export.load(written / "model.pt2").example_inputs is None


def test_the_files_name_no_case_and_no_path(written: Path) -> None:
    described = json.loads((written / "model.json").read_text())
    assert described["checkpoint"] == {"trained_on": "clinical clips", "validation_auc": 0.75}
    for path in written.iterdir():
        content = path.read_bytes()
        for secret in (b"case0007", b"f00d", b"model.ckpt", b"asycmst/", b"site-packages"):
            assert secret not in content, (path.name, secret)


AUTHORS = replace(
    AsyCMSTConfig.authors(True), frames=3, image_size=32, dim=24, layers=1, ffn_dim=8
)
VIVIT = ViViTConfig(
    frames=4, image_size=32, dim=16, heads=2, layers=1, temporal_layers=1, ffn_dim=24
)
SALIENCY = SaliencyConfig(image_size=64, width=8, hidden=8)
EARLY = EarlyFusionConfig.from_dict(replace(SMALL, ceus_task=None).to_dict())


@pytest.mark.parametrize(
    "config",
    [
        replace(SMALL, cross_attention="symmetric", update="sequential", kv="raw", norm="pre"),
        replace(SMALL, cross_attention="spatial", stsa="joint", diagnosis="sigmoid"),
        replace(SMALL, cross_attention="temporal", frames=1),
        replace(SMALL, cross_attention="global", stsa="dot_product", pixels="imagenet"),
        AUTHORS,
        VIVIT,
        SALIENCY,
    ],
    ids=["symmetric", "spatial", "temporal, one frame", "global", "authors", "vivit", "saliency"],
)
def test_graphs_hold_none_of_our_operators_and_answer_as_the_model(config: NetworkConfig) -> None:
    """Strategies of Table 5, clips of one frame, the released model's layout, other networks."""
    named = NamedOutputs(make_model(config), segments=True)
    program = clip_graph(named, lengths=False)
    assert not any("asycmst" in str(node.target) for node in program.graph.nodes)
    found = largest_differences("graph", program.module(), named, lengths=False)
    assert ("frame_scores" in found) == config.sorts_frames


class Counting(nn.Module):
    """A network whose answer depends on the size of the batch in a way no graph can follow."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.fc = nn.Linear(3, 2)

    def forward(self, bus: torch.Tensor, ceus: torch.Tensor) -> AsyCMSTOutput:
        means = torch.stack([clip.mean(dim=(1, 2, 3)) for clip in bus])
        return AsyCMSTOutput(self.fc(means), None, None, means)


def test_a_network_that_cannot_be_traced_is_one_line(tmp_path: Path) -> None:
    model = Counting(NetworkConfig(frames=2, image_size=8)).eval()
    with pytest.raises(JobError, match="cannot trace Counting for any batch: ") as raised:
        export_model(model, tmp_path / "out", ["torch-export"])
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


class Traced(Exception):
    """Raised in place of tracing."""


@pytest.fixture
def short_cut(written: Path, monkeypatch: pytest.MonkeyPatch) -> NamedOutputs:
    """What the slow steps gave before: the written program, and the model's own answers."""
    program = (written / "model.pt2").read_bytes()
    named = NamedOutputs(make_model(), segments=True)
    monkeypatch.setattr("asycmst.export.export.clip_graph", lambda *_, **__: program)
    monkeypatch.setattr(torch_program, "write", lambda program, path: path.write_bytes(program))
    monkeypatch.setattr(torch_program, "load", lambda path: named)
    return named


@pytest.mark.parametrize("flaw", ["value", "name", "shape"])
def test_a_wrong_answer_is_an_error_and_leaves_nothing(
    short_cut: NamedOutputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flaw: str
) -> None:
    def worse(*clips: torch.Tensor) -> dict[str, torch.Tensor]:
        found = short_cut(*clips)
        masks = found.pop("mask_logits")
        if flaw == "value":
            found["mask_logits"] = masks + 2e-4 * masks.abs().max().clamp(min=1)
        elif flaw == "shape":
            found["mask_logits"] = masks[:, :, :-1]
        return found

    monkeypatch.setattr(torch_program, "load", lambda path: worse)
    with pytest.raises(JobError, match=r"^torch-export answers .*mask_logits") as raised:
        export_model(make_model(), tmp_path / "out", ["torch-export"], lengths=True)
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


@pytest.mark.usefixtures("short_cut")
def test_files_of_an_earlier_export_go(tmp_path: Path) -> None:
    """What lies in the folder is one model; files of others stay."""
    for name in ("model.onnx", "notes.txt"):
        (tmp_path / name).write_text("old")
    (written,) = export_model(make_model(), tmp_path, ["torch-export"], lengths=True)
    assert written.path == tmp_path / "model.pt2" and written.format == "torch-export"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("model.json", "model.pt2", "notes.txt")
    ]


@pytest.mark.parametrize("has_masks", [True, False])
def test_a_decoder_that_never_saw_a_mask_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_masks: bool
) -> None:
    outputs: list[str] = []

    def trace(named: NamedOutputs, **_: bool) -> None:
        outputs.extend(named(*random_clips(named.model, 1, lengths=False)))
        raise Traced

    monkeypatch.setattr("asycmst.export.export.clip_graph", trace)
    with pytest.raises(Traced):
        export_model(make_model(), tmp_path, ["onnx"], meta={"has_masks": has_masks})
    assert ("mask_logits" in outputs) == has_masks


def diverged() -> nn.Module:
    model = make_model()
    torch.nn.init.constant_(model.classifier.fc.bias, float("nan"))
    return model


@pytest.mark.parametrize(
    ("model", "options", "error", "words"),
    [
        (make_model().bfloat16(), {}, TypeError, "bfloat16; models are written in float32"),
        (make_model().train(), {}, ValueError, "training mode"),
        (make_model(), {"formats": []}, ValueError, "no format is given; choose of torch-export"),
        (make_model(), {"formats": ["tflite"]}, ValueError, "'tflite' is not known; choose of"),
        (diverged(), {}, ValueError, "answers NaN or infinity: its training diverged"),
        (
            make_model(AUTHORS),
            {"lengths": True},
            ValueError,
            "frame_lengths are given to a model with emulate_layout",
        ),
        (make_model(EARLY), {"lengths": True}, ValueError, "EarlyFusion takes no frame lengths"),
    ],
    ids=[
        "bfloat16",
        "training",
        "no format",
        "unknown format",
        "diverged",
        "mixed frames",
        "no lengths",
    ],
)
@pytest.mark.usefixtures("short_cut")
def test_what_cannot_be_written_is_one_line(
    tmp_path: Path, model: nn.Module, options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=re.escape(words)) as raised:
        export_model(model, tmp_path / "out", **{"formats": ["torch-export"]} | options)
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "asycmst.export.onnx_file", raising=False)
    assert (
        cli.main(["export", "--checkpoint", "model.ckpt", "--out", "out", "--format", "onnx"]) == 2
    )
    assert capsys.readouterr().err == (
        "asycmst: error: `asycmst export` needs onnxruntime, not installed: "
        "pip install '.[export]'\n"
    )
    assert not (tmp_path / "out").exists()
