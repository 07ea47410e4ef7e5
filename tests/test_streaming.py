"""A pair of clips that grows: each estimate is that of the clip so far."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pydicom.examples
import pytest
import torch
from PIL import Image
from torch import Tensor

from asycmst.config import AsyCMSTConfig, Branch
from asycmst.data import pairs
from asycmst.data.clips import clip_to_tensor
from asycmst.data.dicom import open_dicom
from asycmst.data.pairs import load_pair
from asycmst.data.sampling import Choose, Frames, FrameSize, Opened, Source, fit_frame
from asycmst.inference.parts import FoldedEncoders
from asycmst.inference.streaming import ClipStream
from asycmst.model import AsyCMST, AsyCMSTOutput

TINY = replace(AsyCMSTConfig.demo(), frames=4, image_size=32)


def model_of(**changes: Any) -> AsyCMST:
    torch.manual_seed(0)
    model = AsyCMST(replace(TINY, **changes))
    for module in model.modules():  # running statistics of a trained model are not 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def pictures(count: int, seed: int, size: tuple[int, int] = (24, 36)) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return list(generator.integers(0, 256, (count, *size, 3), dtype=np.uint8))


def write_folder(folder: Path, frames: list[np.ndarray]) -> Path:
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return folder


def offline(model: AsyCMST, bus: Path, ceus: Path, **views: Any) -> AsyCMSTOutput:
    config = model.config
    pair = load_pair(bus, ceus, config.frames, config.frame_size, **views)
    with torch.no_grad():
        output: AsyCMSTOutput = model(*(clip_to_tensor(clip)[None] for clip in pair[:2]))
    return output


def assert_equal(stream: ClipStream, output: AsyCMSTOutput) -> None:
    found = stream.estimate()
    wanted = output.logits.double().softmax(1)[0, 1].item()
    assert found.probability_malignant == pytest.approx(wanted, abs=1e-5)
    assert output.frame_scores is not None and output.mask_logits is not None
    assert found.frame_scores == pytest.approx(output.frame_scores[0].tolist(), abs=1e-5)
    logits = output.mask_logits[0, -1].numpy()
    assert found.mask is not None and found.mask.shape == (32, 32)
    clear = np.abs(logits) > 1e-5
    assert (found.mask == (logits > 0))[clear].all() and clear.mean() > 0.9


def test_every_prefix_is_the_clip_so_far(tmp_path: Path) -> None:
    """Two frames of BUS for each of CEUS, without times; fewer than T frames repeat (IN2)."""
    model = model_of()
    bus, ceus = pictures(9, 0), pictures(5, 1)
    stream = ClipStream(model)
    seen = set()
    for number in range(9):
        stream.push("bus", bus[number])
        if number % 2 == 0:
            stream.push("ceus", ceus[number // 2])
        here = tmp_path / str(number)
        here.mkdir()
        b = write_folder(here / "b", bus[: number + 1])
        c = write_folder(here / "c", ceus[: number // 2 + 1])
        assert_equal(stream, offline(model, b, c))
        seen.add(round(stream.estimate().probability_malignant, 7))
    assert len(seen) > 4, "the estimate moves with the clip"
    estimate = stream.estimate()
    assert (estimate.bus_frames, estimate.ceus_frames, estimate.seconds) == (9, 5, None)


def opened(frames: Sequence[np.ndarray], times: Sequence[float]) -> Opened:
    """A finished clip of frames at times after the first."""
    source = Source(len(frames), np.array(times) - times[0], frames[0].shape[:2])

    def read(choose: Choose, size: FrameSize) -> Frames:
        indices = choose(source.frames, source.times)
        kept = np.stack([fit_frame(frames[index], size) for index in indices])
        return Frames(kept, indices, source.times[indices])

    return Opened(source, read)


def test_every_prefix_is_the_clip_so_far_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Irregular BUS frames in bursts beside slower CEUS frames that begin at another moment."""
    model = model_of()
    bus, ceus = pictures(12, 0), pictures(5, 1)
    bus_times = np.cumsum([3.0, 0.1, 0.1, 0.9, 0.0, 0.4, 0.1, 0.1, 1.2, 0.1, 0.1, 0.1]).tolist()
    ceus_times = [7.0, 7.6, 8.9, 9.0, 12.0]
    clips: dict[Any, Opened] = {}
    monkeypatch.setattr(pairs, "open_clip", lambda path, view: clips[path])
    stream = ClipStream(model)
    arrived = 0
    for number in range(12):
        stream.push("bus", bus[number], bus_times[number])
        if number in (0, 3, 4, 9, 11):
            stream.push("ceus", ceus[arrived], ceus_times[arrived])
            arrived += 1
        clips[Path("b")] = opened(bus[: number + 1], bus_times[: number + 1])
        clips[Path("c")] = opened(ceus[:arrived], ceus_times[:arrived])
        assert_equal(stream, offline(model, Path("b"), Path("c")))
        lasted = min(bus_times[number] - 3, ceus_times[arrived - 1] - 7)
        assert stream.estimate().seconds == pytest.approx(lasted)


def encode(path: Path, count: int, rate: int) -> Path:
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        for picture in pictures(count, 2, (32, 48)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
    return path


def test_frames_of_a_dicom_and_of_a_video(tmp_path: Path) -> None:
    """A real cine loop of a second at 30 Hz and a longer, slower video, one beside the other."""
    model = model_of()
    dicom, video = Path(pydicom.examples.get_path("ybr_color")), encode(tmp_path / "c.mp4", 40, 25)
    clip = open_dicom(dicom)
    read = clip.read(lambda n, _: np.arange(n), clip.source.size)
    assert read.times is not None
    stream = ClipStream(model)
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            stream.push("ceus", frame.to_ndarray(format="rgb24"), frame.time)
    assert not stream.ready
    stream.extend("bus", list(read.frames), (1000 + read.times).tolist())
    assert stream.ready
    assert_equal(stream, offline(model, dicom, video))
    estimate = stream.estimate()
    assert (estimate.bus_frames, estimate.ceus_frames) == (30, 40)
    assert estimate.seconds == pytest.approx(29 * 0.033333)


def test_halves_of_one_picture(tmp_path: Path) -> None:
    model = model_of()
    both = pictures(6, 3)
    stream = ClipStream(model, bus_view="right", ceus_view="left")
    for picture in both:
        stream.push("bus", picture)
        stream.push("ceus", picture)
    folder = write_folder(tmp_path / "both", both)
    assert_equal(stream, offline(model, folder, folder, bus_view="right", ceus_view="left"))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """The frames of each call of an encoder, by its branch."""
    calls: dict[str, list[int]] = {"lower": [], "upper": []}
    plain = FoldedEncoders.encode

    def encode(self: FoldedEncoders, clip: Tensor, branch: Branch) -> Tensor:
        calls[branch].append(clip.shape[2])
        return plain(self, clip, branch)

    monkeypatch.setattr(FoldedEncoders, "encode", encode)
    return calls


@pytest.mark.parametrize(
    ("changes", "frames"),
    [
        ({}, (7, 5)),
        ({"lower": "ceus", "upper": "bus"}, (5, 7)),
        ({"lower": "ceus", "upper": "ceus"}, (5, 5)),
        ({"share_encoder": True}, (7, 5)),
        ({"share_encoder": True, "lower": "bus", "upper": "bus"}, (7, 0)),
    ],
    ids=["paper", "swapped", "twice CEUS", "shared", "shared, twice BUS"],
)
def test_each_frame_is_encoded_once(
    tmp_path: Path,
    encoded: dict[str, list[int]],
    changes: dict[str, Any],
    frames: tuple[int, int],
) -> None:
    """Also with swapped modalities (Fig 9) and with one encoder for both; in any portions."""
    model = model_of(task_place="branch", **changes)
    bus, ceus = pictures(7, 0), pictures(5, 1)
    stream = ClipStream(model)
    for index in range(5):
        stream.push("bus", bus[index])
        stream.push("ceus", ceus[index])
        stream.estimate()
    stream.extend("bus", bus[5:])
    found = stream.estimate()
    assert (sum(encoded["lower"]), sum(encoded["upper"])) == frames
    b, c = write_folder(tmp_path / "b", bus), write_folder(tmp_path / "c", ceus)
    assert_equal(stream, offline(model, b, c))
    assert (found.bus_frames, found.ceus_frames) == (7, 5)


def test_many_frames_at_once_are_encoded_in_portions(encoded: dict[str, list[int]]) -> None:
    ClipStream(model_of()).extend("bus", pictures(10, 0))
    assert encoded == {"lower": [4, 4, 2], "upper": []}


def test_the_clips_of_an_estimate(tmp_path: Path) -> None:
    model = model_of()
    bus, ceus = pictures(9, 0), pictures(5, 1)
    stream = ClipStream(model, keep_pictures=True)
    stream.extend("bus", bus, [0.5 * index for index in range(9)])
    stream.extend("ceus", ceus)
    found = stream.clips("b", "c")
    b, c = write_folder(tmp_path / "b", bus), write_folder(tmp_path / "c", ceus)
    wanted = load_pair(b, c, 4, 32)
    for clip, other in zip(found, wanted, strict=False):
        assert (clip.frames == other.frames).all()
        assert clip.source_indices.tolist() == other.source_indices.tolist()
        assert clip.source == other.source
    assert found[0].times is not None and found[0].times.tolist() == [0, 1, 2.5, 4]
    assert found[1].times is None
    without = ClipStream(model)
    without.extend("bus", bus)
    without.extend("ceus", ceus)
    with pytest.raises(ValueError, match="keep_pictures=True"):
        without.clips("b", "c")


def test_tasks_that_are_off_are_none() -> None:
    stream = ClipStream(model_of(ceus_task=None, bus_task=None))
    stream.push("bus", pictures(1, 0)[0])
    stream.push("ceus", pictures(1, 1)[0][..., 0])
    estimate = stream.estimate()
    assert estimate.frame_scores is None and estimate.mask is None


@pytest.mark.parametrize(
    ("picture", "time", "words"),
    [
        (np.zeros((24, 30, 3), np.uint8), 1.0, "BUS: frame 2 is 30 x 24 pixels and those before"),
        (np.zeros((24, 36, 4), np.uint8), 1.0, "uint8 of shape"),
        (np.zeros((24, 36)), 1.0, "float64 of shape"),
        (np.zeros((24, 36), np.uint8), 0.2, "a frame at 0.2 s comes after one at 0.4 s"),
        (np.zeros((24, 36), np.uint8), float("nan"), "a frame at nan s"),
    ],
)
def test_a_wrong_frame_is_one_line_and_changes_nothing(
    picture: np.ndarray, time: float, words: str
) -> None:
    stream = ClipStream(model_of())
    stream.extend("bus", pictures(2, 0), [0, 0.4])
    stream.push("ceus", pictures(1, 1)[0], 0)
    before = stream.estimate()
    good = pictures(1, 5)[0]
    with pytest.raises(ValueError, match=words) as raised:
        stream.extend("bus", [good, picture], [0.4, time])
    assert "\n" not in str(raised.value)
    after = stream.estimate()
    assert (after.probability_malignant, after.bus_frames) == (before.probability_malignant, 2)
    with pytest.raises(ValueError, match="1 times for 2 frames"):
        stream.extend("bus", [good, good], [0.5])


def test_models_that_cannot_stream() -> None:
    with pytest.raises(ValueError, match="training mode"):
        ClipStream(model_of().train())
    tasks = {"ceus_task": None, "bus_task": None}
    with pytest.raises(ValueError, match="emulate_layout, which mixes the frames"):
        ClipStream(model_of(emulate_layout=True, **tasks))
    stream = ClipStream(model_of())
    stream.push("bus", pictures(1, 0)[0])
    with pytest.raises(ValueError, match="no CEUS frame has arrived"):
        stream.estimate()
    diverged = model_of()
    torch.nn.init.constant_(next(diverged.classifier.parameters()), float("nan"))
    stream = ClipStream(diverged)
    stream.push("bus", pictures(1, 0)[0])
    stream.push("ceus", pictures(1, 0)[0])
    with pytest.raises(ValueError, match="answers NaN"):
        stream.estimate()
