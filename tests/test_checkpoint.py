"""Checkpoints: what goes in comes out, and nothing else gets in."""

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from asycmst.config import AsyCMSTConfig
from asycmst.model import AsyCMST
from asycmst.training.checkpoint import load_checkpoint, save_checkpoint

CONFIG = replace(AsyCMSTConfig.demo(), frames=2, image_size=32, dim=8, ffn_dim=8)
META = {"seed": 3, "nested": {"list": [1, 2.5, None, True, "x"]}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.ckpt"
    save_checkpoint(path, AsyCMST(CONFIG), META)
    return path


@pytest.mark.parametrize("cross_attention", ["asymmetric", None])
def test_round_trip_is_bitwise(tmp_path: Path, cross_attention: str | None) -> None:
    model = AsyCMST(replace(CONFIG, cross_attention=cross_attention))
    clips = torch.rand(3, 3, 2, 32, 32)
    model.train()(clips, clips)  # moves the batch statistics away from their start
    save_checkpoint(tmp_path / "a.ckpt", model, META)
    loaded, meta = load_checkpoint(tmp_path / "a.ckpt")
    assert not loaded.training
    assert meta == META
    assert loaded.config == model.config
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    with torch.no_grad():
        assert torch.equal(loaded(clips, clips).logits, model.eval()(clips, clips).logits)


def test_saving_leaves_only_the_file_and_replaces_an_old_one(saved: Path) -> None:
    model = AsyCMST(CONFIG)
    save_checkpoint(saved, model, {})
    loaded, meta = load_checkpoint(saved)
    assert torch.equal(loaded.classifier.fc.weight, model.classifier.fc.weight)
    assert meta == {}
    assert [entry.name for entry in saved.parent.iterdir()] == ["model.ckpt"]


def test_equal_models_give_equal_files(tmp_path: Path) -> None:
    model = AsyCMST(CONFIG)
    for name in ("a.ckpt", "b.ckpt"):
        save_checkpoint(tmp_path / name, model, META)
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "b.ckpt").read_bytes()


def test_a_failed_save_keeps_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(content: object, stream: object) -> None:
        stream.write(b"half")  # type: ignore[attr-defined]
        raise OSError("no space left")

    before = saved.read_bytes()
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(saved, AsyCMST(CONFIG), META)
    assert saved.read_bytes() == before
    assert [entry.name for entry in saved.parent.iterdir()] == ["model.ckpt"]


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"when": torch.zeros(1)}, r"meta\['when'\] is a Tensor"),
        ({"a": [{"b": {1, 2}}]}, r"meta\['a'\]\[0\]\['b'\] is a set"),
        ({1: "x"}, "meta has the key 1"),
    ],
    ids=["tensor", "nested set", "integer key"],
)
def test_meta_must_be_plain(tmp_path: Path, meta: dict, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        save_checkpoint(tmp_path / "a.ckpt", AsyCMST(CONFIG), meta)
    assert not list(tmp_path.iterdir())


def test_saving_to_a_missing_folder_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"folder .*none does not exist"):
        save_checkpoint(tmp_path / "none" / "a.ckpt", AsyCMST(CONFIG), META)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*a\.ckpt"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_clear_line(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="truncated or no checkpoint") as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_one_clear_line(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        pickled = next(entry for entry in archive.infolist() if entry.filename.endswith(".pkl"))
    start = pickled.header_offset + 100
    content[start : start + 300] = bytes(300)
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as a checkpoint") as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": "asycmst", "meta": Trap(tmp_path / "sprung")}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint of plain tensors"):
        load_checkpoint(tmp_path / "a.ckpt")
    assert not (tmp_path / "sprung").exists()


class Trap:
    """Pickles as a call that makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("model"), "no asycmst checkpoint"),
        (lambda c: c.update(model="other"), r"model\.ckpt: there is no network 'other'"),
        (lambda c: c.update(model={}), "no asycmst checkpoint"),
        (lambda c: c.update(format=2), "format 2, this version reads 1"),
        (lambda c: c.pop("meta"), "lacks or adds the keys meta"),
        (lambda c: c.update(extra=1), "lacks or adds the keys extra"),
        (lambda c: c["config"].update(colour=1), "colour"),
        (lambda c: c["config"].update(layers=1), "does not fit the stored configuration"),
        (lambda c: c["config"].update(dim=16), "does not fit the stored configuration"),
        (lambda c: c["state_dict"].pop("classifier.fc.bias"), r"'classifier\.fc\.bias' does not"),
    ],
    ids=[
        "no model",
        "other model",
        "no name",
        "newer format",
        "missing key",
        "extra key",
        "unknown choice",
        "fewer layers",
        "other width",
        "missing weight",
    ],
)
def test_wrong_content_is_one_clear_line(saved: Path, change: object, words: str) -> None:
    content = torch.load(saved, weights_only=True)
    change(content)  # type: ignore[operator]
    torch.save(content, saved)
    with pytest.raises(ValueError, match=words) as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


def test_another_programs_tensors_are_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="no asycmst checkpoint"):
        load_checkpoint(tmp_path / "a.ckpt")
