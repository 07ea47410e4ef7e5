"""Figures: what is drawn, labelled and written, and that a failure leaves nothing behind."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from asycmst.analysis import figures
from asycmst.analysis.attention_maps import CrossAttentionMaps
from asycmst.analysis.gradcam import GradCAM

FRAMES, SIDE = 6, 24


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures made in a test, to look into."""
    made: list[Any] = []
    original = figures.new_figure

    def keep(width: float, height: float) -> Any:
        made.append(original(width, height))
        return made[-1]

    monkeypatch.setattr(figures, "new_figure", keep)
    return made


def clip_arguments(colour: bool = True) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    bus = generator.integers(0, 256, (FRAMES, SIDE, SIDE), dtype=np.uint8)
    ceus = generator.integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    maps = torch.rand(2, 1, FRAMES, SIDE, SIDE)
    return {"bus": bus, "ceus": ceus if colour else bus, "cam": GradCAM(maps[0], maps[1])}


def region(left: int) -> np.ndarray:
    mask = np.zeros((FRAMES, SIDE, SIDE), bool)
    mask[:, 5:12, left : left + 6] = True
    return mask


def attention() -> CrossAttentionMaps:
    return CrossAttentionMaps(
        torch.rand(1, 4, 4, FRAMES, FRAMES),
        torch.rand(1, FRAMES, FRAMES),
        torch.rand(1, FRAMES, 4, 4),
    )


def draw(kind: str, path: Path) -> None:
    if kind == "roc":
        figures.roc_figure(path, {"a": ([0, 1, 0, 1], [0.1, 0.9, 0.8, 0.7])}, {"BUS": 0.7})
    elif kind == "cam":
        figures.cam_figure(path, **clip_arguments(), mask=region(2), times=np.arange(FRAMES))
    else:
        figures.plumbing_figure(path, **clip_arguments(), attention=attention())


KINDS = ["roc", "cam", "plumbing"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_readable_png_and_nothing_else(tmp_path: Path, kind: str) -> None:
    draw(kind, tmp_path / "figure.png")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == [], "no global state"
    with Image.open(tmp_path / "figure.png") as image:
        assert image.format == "PNG" and min(image.size) > 300
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.std() > 10
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_leaves_the_old_file_and_no_other(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "figure.png"
    path.write_bytes(b"the old one")

    def broken(_figure: object, target: Path, **_: object) -> None:
        Path(target).write_bytes(b"half a pict")
        raise OSError("no space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", broken)
    with pytest.raises(OSError, match="no space"):
        draw(kind, path)
    assert path.read_bytes() == b"the old one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["figure.png"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'needs matplotlib.*pip install "\.\[train\]"'):
        draw(kind, tmp_path / "figure.png")
    assert list(tmp_path.iterdir()) == []


def test_roc_curves_and_legend(tmp_path: Path, drawn: list[Any]) -> None:
    labels, scores = [0, 0, 0, 1], [0.1, 0.2, 0.6, 0.5]
    curves = {"good": (labels, scores), "odd": ([1, 1], [0.2, 0.3])}
    figures.roc_figure(tmp_path / "roc.png", curves, {"late": 0.877})
    axes = drawn[0].axes[0]
    good = next(line for line in axes.lines if str(line.get_label()).startswith("good"))
    assert good.get_xdata() == pytest.approx([0, 1 / 3, 1 / 3, 1])
    assert good.get_ydata() == pytest.approx([0, 0, 1, 1])
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert texts[0].startswith("good: AUC 0.667 (95 % CI")
    assert texts[1] == "odd: AUC undefined, one class only"
    assert texts[2] == "ideal observer, late: AUC 0.877"
    assert "specificity" in axes.get_xlabel() and "Sensitivity" in axes.get_ylabel()


def test_roc_without_curves(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no curve is given"):
        figures.roc_figure(tmp_path / "roc.png", {})


def test_cam_figure_draws_frames_outlines_and_curves(tmp_path: Path, drawn: list[Any]) -> None:
    arguments = clip_arguments()
    arguments["ceus"] = np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
    nodule, decoy = region(2), region(14)
    for frame in range(FRAMES):
        arguments["ceus"][frame][nodule[frame]] = 51 * frame
        arguments["ceus"][frame][decoy[frame]] = 255 - 51 * frame
    times = np.array([0.0, 4, 8, 12, 16, 40])
    figures.cam_figure(
        tmp_path / "cam.png", **arguments, mask=nodule, times=times, decoy_mask=decoy
    )
    pictures = [axes for axes in drawn[0].axes if axes.images]
    (curves,) = (axes for axes in drawn[0].axes if axes.lines)
    assert [axes.get_title() for axes in pictures[:4]] == ["0.0 s", "4.0 s", "12.0 s", "40.0 s"]
    assert len(pictures) == 8 and all(len(axes.images) == 2 for axes in pictures)
    assert [axes.get_ylabel() for axes in pictures if axes.get_ylabel()] == ["BUS", "CEUS"]
    assert all(len(axes.collections) == 2 for axes in pictures), "nodule and decoy outlined"
    nodule_line, decoy_line = curves.lines
    assert nodule_line.get_xdata().tolist() == times.tolist()
    assert nodule_line.get_ydata() == pytest.approx(np.arange(FRAMES) / 5)
    assert decoy_line.get_ydata() == pytest.approx(1 - np.arange(FRAMES) / 5)
    assert "(s)" in curves.get_xlabel() and "brightness" in curves.get_ylabel()


def test_cam_figure_of_a_clip_without_decoy_or_with_an_empty_mask(
    tmp_path: Path, drawn: list[Any]
) -> None:
    mask = region(2)
    mask[0] = False
    mask[-1] = True
    figures.cam_figure(
        tmp_path / "cam.png",
        **clip_arguments(colour=False),
        mask=mask,
        times=np.arange(FRAMES),
        decoy_mask=np.zeros_like(mask),
    )
    assert len(drawn[0].axes[-1].lines) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": region(2)[:3]}, r"mask has shape \(3, 24, 24\)"),
        ({"times": np.arange(3)}, "times have shape"),
        ({"bus": np.zeros((FRAMES, SIDE, SIDE), np.float32)}, "give uint8"),
        ({"ceus": np.zeros((3, SIDE, SIDE, 3), np.uint8)}, "bus and ceus alike"),
        ({"cam": GradCAM(*torch.rand(2, 2, FRAMES, SIDE, SIDE))}, "cam.bus has shape"),
    ],
    ids=["mask", "times", "float", "frames", "two clips"],
)
def test_shapes_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arguments = {**clip_arguments(), "mask": region(2), "times": np.arange(FRAMES), **changes}
    with pytest.raises(ValueError, match=message):
        figures.cam_figure(tmp_path / "cam.png", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_plumbing_figure_says_so_and_shows_everything(tmp_path: Path, drawn: list[Any]) -> None:
    figures.plumbing_figure(
        tmp_path / "p.png", **clip_arguments(), attention=attention(), frame_scores=range(FRAMES)
    )
    assert drawn[0].get_suptitle() == "Plumbing check, no diagnosis"
    rows = [axes.get_ylabel() for axes in drawn[0].axes if axes.images and not axes.get_xlabel()]
    assert [name for name in rows if name] == [
        "BUS",
        "BUS\nGrad-CAM++",
        "CEUS",
        "CEUS\nGrad-CAM++",
        "Where CEUS\nlooks in BUS",
    ]
    titles = {axes.get_title() for axes in drawn[0].axes}
    assert {"frame 1 of 6", "frame 6 of 6", "When BUS looks in CEUS"} <= titles
    scores = next(axes for axes in drawn[0].axes if axes.lines)
    assert scores.lines[0].get_ydata().tolist() == list(range(FRAMES))


def test_attention_figure_of_a_model_without_cross_attention(
    tmp_path: Path, drawn: list[Any]
) -> None:
    figures.attention_figure(tmp_path / "a.png", **clip_arguments(), attention=None, title="x")
    assert not any("Where" in axes.get_ylabel() for axes in drawn[0].axes)


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_runs_into_another(tmp_path: Path, kind: str, drawn: list[Any]) -> None:
    draw(kind, tmp_path / "figure.png")
    renderer = FigureCanvasAgg(drawn[0]).get_renderer()
    boxes = []
    for axes in drawn[0].axes:
        texts = [axes.title, axes.xaxis.label, axes.yaxis.label]
        boxes += [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    boxes = [(text, box) for text, box in boxes if text]
    for index, (text, box) in enumerate(boxes):
        for other, rival in boxes[index + 1 :]:
            assert not box.overlaps(rival), f"{text!r} runs into {other!r}"
