"""`predict --follow`: phantom clips that are being written end in the offline prediction."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from asycmst import cli
from asycmst.analysis.follow import Update, follow
from asycmst.analysis.predict import predict
from asycmst.baselines.early_fusion import EarlyFusion, EarlyFusionConfig
from asycmst.config import AsyCMSTConfig
from asycmst.data.phantom import PhantomConfig
from asycmst.data.phantom_files import write_phantom
from asycmst.inference.streaming import Estimate
from asycmst.model import AsyCMST
from asycmst.training.checkpoint import save_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = AsyCMST(replace(AsyCMSTConfig.demo(), frames=4, image_size=32)).eval()
    save_checkpoint(tmp_path / "model.ckpt", model, {"trained_on": "clinical clips"})
    return tmp_path / "model.ckpt"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A finished phantom case as folders of frames, CEUS of half the rate."""
    config = PhantomConfig(frames=12, size=32)
    write_phantom(tmp_path / "phantom", 1, "frames", config, seed=0)
    for number in range(1, 12, 2):
        (tmp_path / "phantom" / "ceus" / "case0000" / f"{number:05d}.png").unlink()
    return tmp_path / "phantom"


@contextmanager
def recording(written: Path, live: Path) -> Iterator[tuple[Path, Path]]:
    """A scanner: the frames of a case appear one after the other, each in two pieces."""
    folders = live / "bus", live / "ceus"
    for folder in folders:
        folder.mkdir(parents=True)

    def write() -> None:
        for number in range(12):
            for folder in folders:
                source = written / folder.name / "case0000" / f"{number:05d}.png"
                if source.exists():
                    content = source.read_bytes()
                    with (folder / source.name).open("wb") as file:
                        file.write(content[:200])
                        file.flush()
                        time.sleep(0.01)
                        file.write(content[200:])
            time.sleep(0.03)

    scanner = threading.Thread(target=write)
    scanner.start()
    yield folders
    scanner.join()


def test_a_recorded_case_ends_in_the_offline_prediction(
    tmp_path: Path, checkpoint: Path, written: Path
) -> None:
    updates: list[Update] = []
    with recording(written, tmp_path / "live") as (bus, ceus):
        found = follow(checkpoint, bus, ceus, interval=0.05, until=1.0, show=updates.append)
    offline = predict(checkpoint, bus, ceus)
    assert found == offline
    counts = [(u.estimate.bus_frames, u.estimate.ceus_frames) for u in updates]
    assert len(counts) >= 3 and counts == sorted(set(counts)) and counts[-1] == (12, 6)
    last = updates[-1].estimate.probability_malignant
    assert last == pytest.approx(offline.probability_malignant, abs=1e-6)
    assert updates[0].change is None
    moved = sum(update.change or 0 for update in updates)
    assert moved == pytest.approx(last - updates[0].estimate.probability_malignant)
    assert moved != 0


def test_the_command(
    tmp_path: Path, checkpoint: Path, written: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with recording(written, tmp_path / "live") as (bus, ceus):
        options = ["--bus", str(bus), "--ceus", str(ceus), "--out", str(out)]
        options += ["--follow", "--interval", "0.05", "--until", "1"]
        assert cli.main(["predict", "--checkpoint", str(checkpoint), *options]) == 0
    printed = capfd.readouterr()
    offline = predict(checkpoint, bus, ceus, tmp_path / "offline")
    assert json.loads(printed.out) == json.loads(offline.to_json())
    for name in ("prediction.json", "attention.png"):
        assert (out / name).read_bytes() == (tmp_path / "offline" / name).read_bytes()
    notice, *lines = printed.err.splitlines()
    assert notice.startswith("research software, not a medical device")
    assert len(lines) >= 3
    assert lines[-1].startswith("12 BUS and 6 CEUS frames  probability of malignancy 0.")


def test_an_update_is_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    from asycmst.commands.following import following

    estimate = Estimate(0.634, None, None, 124, 62, 12.4)
    with following() as (show, _):
        show(Update(estimate, None))
        show(Update(estimate, 0.0123))
    line = "12.4 s  124 BUS and 62 CEUS frames  probability of malignancy 0.634"
    assert capfd.readouterr().err.splitlines()[1:] == [line, f"{line}  +0.012"]


def test_a_terminal_shows_one_line_that_changes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from asycmst.commands.following import following

    monkeypatch.setattr("rich.console.Console", lambda **k: Console(force_terminal=True, **k))
    estimate = Estimate(0.634, None, None, 124, 62, None)
    with following() as (show, _):
        show(Update(estimate, None))
        show(Update(estimate._replace(probability_malignant=0.7), 0.066))
    shown = capfd.readouterr().err
    assert shown.index("0.634") < shown.index("\x1b[2K") < shown.index("0.700  +0.066")


def test_ctrl_c_ends_with_the_prediction_so_far(
    checkpoint: Path, written: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The recording goes on; the second image of CEUS is being written."""
    folders = [written / name / "case0000" for name in ("bus", "ceus")]
    whole = predict(checkpoint, *folders)
    half = folders[1] / "00099.png"
    half.write_bytes((folders[1] / "00000.png").read_bytes()[:300])
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    before = signal.getsignal(signal.SIGINT)
    options = ["--bus", str(folders[0]), "--ceus", str(folders[1]), "--follow", "--until", "60"]
    started = time.monotonic()
    try:
        assert cli.main(["predict", "--checkpoint", str(checkpoint), *options]) == 0
    finally:
        timer.cancel()
    assert time.monotonic() - started < 30
    assert signal.getsignal(signal.SIGINT) is before
    assert json.loads(capfd.readouterr().out) == json.loads(whole.to_json())


def test_one_picture_with_both_sides_is_read_once(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = tmp_path / "both"
    both.mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(both / f"{number}.png")
    read: list[str] = []
    from asycmst.data import growing

    reader = growing.read_image
    monkeypatch.setattr(growing, "read_image", lambda p: read.append(p.name) or reader(p))
    found = follow(checkpoint, both, both, bus_view="left", ceus_view="right", until=0.3)
    assert sorted(read) == [f"{number}.png" for number in range(5)]
    assert found == predict(checkpoint, both, both, bus_view="left", ceus_view="right")
    same = follow(checkpoint, both, both, until=0.3)
    assert same == predict(checkpoint, both, both) and same.plumbing_check


def test_videos_of_different_rates(tmp_path: Path, checkpoint: Path) -> None:
    """Common time, the note on unequal durations and the names are those of the offline run."""
    import av

    paths = tmp_path / "b.ts", tmp_path / "c.mkv"
    for path, rate, count in zip(paths, (10, 4), (20, 14), strict=True):
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=rate)
            video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
            for number in range(count):
                pixels = np.random.default_rng(number).integers(0, 256, (32, 48, 3), np.uint8)
                container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(video.encode())
    updates: list[Update] = []
    found = follow(checkpoint, *paths, until=0.5, show=updates.append)
    assert found == predict(checkpoint, *paths)
    assert found.bus_times_s is not None and any("lasts" in line for line in found.warnings)
    assert updates[-1].estimate.seconds == pytest.approx(1.9)


def test_a_broken_last_image_is_a_warning(checkpoint: Path, written: Path) -> None:
    folders = [written / name / "case0000" for name in ("bus", "ceus")]
    (folders[0] / "00099.png").write_bytes(b"half")
    with pytest.warns(UserWarning, match="broken or half written"):
        found = follow(checkpoint, *folders, until=0.3)
    (folders[0] / "00099.png").unlink()
    whole = predict(checkpoint, *folders)
    note = "BUS: the image 00099.png is broken or half written: it is left out"
    assert found == replace(whole, warnings=[note, *whole.warnings])


def test_what_cannot_be_followed_is_one_line(
    tmp_path: Path, checkpoint: Path, written: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bus, empty, sizes = written / "bus" / "case0000", tmp_path / "empty", tmp_path / "sizes"
    empty.mkdir()
    shutil.copytree(bus, sizes)
    Image.new("RGB", (30, 20)).save(sizes / "00050.png")
    (tmp_path / "file").write_text("kept")

    def error(*options: object) -> str:
        arguments = ["predict", "--checkpoint", checkpoint, *options]
        assert cli.main([str(argument) for argument in arguments]) == 2
        line = capfd.readouterr().err.splitlines()[-1]
        assert line.startswith("asycmst: error: ")
        return line

    live = ("--follow", "--until", "0.3")
    assert "no frame of" in error("--bus", bus, "--ceus", empty, *live)
    assert "is 30 x 20 pixels and those before" in error("--bus", bus, "--ceus", sizes, *live)
    assert "no file or folder" in error("--bus", bus, "--ceus", tmp_path / "none", *live)
    out = ("--out", tmp_path / "file")
    assert "file is a file: give a folder" in error("--bus", bus, "--ceus", bus, *live, *out)
    words = "--interval and --until belong to --follow"
    assert words in error("--bus", bus, "--ceus", bus, "--until", "3")
    small = EarlyFusionConfig(frames=4, image_size=32, dim=16, layers=1, heads=2, encoder="tiny")
    with pytest.raises(ValueError, match="holds the network EarlyFusion, and only AsyCMST"):
        early = tmp_path / "early.ckpt"
        save_checkpoint(early, EarlyFusion(small), {})
        follow(early, bus, bus)
    for wrong in ("0", "x", "nan"):
        with pytest.raises(SystemExit):
            error("--bus", bus, "--ceus", bus, "--follow", "--until", wrong)
        assert "is not a number of seconds above 0" in capfd.readouterr().err
