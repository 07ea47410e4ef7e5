"""The frame encoders: torchvision's ResNet-18, frame by frame (Section 3.1)."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from asycmst.config import AsyCMSTConfig, EncoderKind
from asycmst.encoders import (
    FrameEncoder,
    PairedEncoders,
    feature_grid,
    load_imagenet_weights,
    pixel_norm,
)


def torchvision_names() -> Iterator[str]:
    """The keys of torchvision's resnet18, in order, by its rule."""

    def norm(name: str) -> Iterator[str]:
        for entry in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            yield f"{name}.{entry}"

    yield "conv1.weight"
    yield from norm("bn1")
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            for conv in (1, 2):
                yield f"{name}.conv{conv}.weight"
                yield from norm(f"{name}.bn{conv}")
            if stage > 1 and block == 0:
                yield f"{name}.downsample.0.weight"
                yield from norm(f"{name}.downsample.1")
    yield from ("fc.weight", "fc.bias")


def torchvision_trunk(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """ResNet-18 without its pooled classifier (He et al., 2016), in evaluation mode."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = F.conv2d(images, weights["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(norm(x, "bn1")), kernel_size=3, stride=2, padding=1)
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = F.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = F.conv2d(
                F.relu(norm(y, f"{name}.bn1")), weights[f"{name}.conv2.weight"], padding=1
            )
            if stride == 2:
                x = F.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=2)
                x = norm(x, f"{name}.downsample.1")
            x = F.relu(norm(y, f"{name}.bn2") + x)
    return x


@pytest.fixture(scope="module")
def resnet() -> FrameEncoder:
    """A ResNet-18 encoder in evaluation mode whose batch statistics are not the initial ones."""
    torch.manual_seed(1)
    encoder = FrameEncoder("resnet18", 24)
    for name, buffer in encoder.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return encoder.eval()


@pytest.fixture(scope="module")
def tiny() -> FrameEncoder:
    torch.manual_seed(1)
    return FrameEncoder("tiny", 24).eval()


def test_resnet18_keys_are_torchvisions_in_order(resnet: FrameEncoder) -> None:
    names = list(torchvision_names())
    assert len(names) == 122
    assert list(resnet.trunk.state_dict()) == [n for n in names if not n.startswith("fc.")]


def test_resnet18_is_bit_equal_to_the_published_network(resnet: FrameEncoder) -> None:
    images = torch.rand(2, 3, 65, 97).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = torchvision_trunk(resnet.trunk.state_dict(), images)
        assert torch.equal(resnet.trunk(images), expected)


def test_parameter_counts() -> None:
    encoder = FrameEncoder("resnet18", 384)
    assert sum(p.numel() for p in encoder.trunk.parameters()) == 11_176_512
    assert sum(p.numel() for p in encoder.parameters()) == 11_373_504
    assert sum(p.numel() for p in FrameEncoder("tiny", 48).parameters()) == 33_320


@pytest.mark.parametrize(
    ("kind", "size", "cells"),
    [
        ("resnet18", 224, 7),
        ("resnet18", 225, 8),
        ("resnet18", 96, 3),
        ("resnet18", 80, 3),
        ("resnet18", 32, 1),
        ("resnet18", 1, 1),
        ("tiny", 64, 4),
        ("tiny", 65, 5),
        ("tiny", 16, 1),
    ],
)
def test_any_frame_size_gives_the_ceiling_of_size_over_stride(
    kind: EncoderKind, size: int, cells: int, request: pytest.FixtureRequest
) -> None:
    encoder = request.getfixturevalue({"resnet18": "resnet", "tiny": "tiny"}[kind])
    with torch.no_grad():
        features = encoder(torch.rand(1, 3, 1, size, size + 32))
    config = AsyCMSTConfig(encoder=kind, image_size=(size, size + 32))
    assert feature_grid(config)[0] == cells
    assert features.shape == (1, 1, *feature_grid(config), 24)


@pytest.mark.parametrize("name", ["resnet", "tiny"])
def test_permuting_frames_permutes_features_and_nothing_else(
    name: str, request: pytest.FixtureRequest
) -> None:
    encoder = request.getfixturevalue(name)
    clip, order = torch.rand(2, 3, 4, 48, 48), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        assert torch.equal(encoder(clip[:, :, order]), encoder(clip)[:, order])


def test_a_feature_depends_on_its_own_frame_only(tiny: FrameEncoder) -> None:
    clip = torch.rand(2, 3, 3, 64, 64, requires_grad=True)
    tiny(clip)[1, 2, 1, 3].sum().backward()
    assert clip.grad is not None
    touched = clip.grad.abs().amax((1, 3, 4)) > 0
    assert touched.tolist() == [[False, False, False], [False, False, True]]


def test_features_keep_the_places_of_the_frame(tiny: FrameEncoder) -> None:
    dark = torch.zeros(1, 3, 2, 128, 192)
    lit = dark.clone()
    lit[:, :, 1, 96:112, 32:48] = 1  # the cell of row 6 and column 2
    with torch.no_grad():
        change = (tiny(lit) - tiny(dark)).abs().sum(-1)[0]
    assert change.shape == (2, 8, 12)
    assert change[0].max() == 0
    row, column = divmod(int(change[1].argmax()), 12)
    assert abs(row - 6) <= 1
    assert abs(column - 2) <= 1


@pytest.mark.parametrize("name", ["resnet", "tiny"])
def test_a_batch_of_one_equals_the_row_of_a_batch(
    name: str, request: pytest.FixtureRequest
) -> None:
    encoder = request.getfixturevalue(name)
    clips = torch.rand(3, 3, 2, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(encoder(clips[1:2]), encoder(clips)[1:2])


def test_non_contiguous_clips_give_equal_features(tiny: FrameEncoder) -> None:
    stored = torch.rand(2, 5, 64, 128, 3)  # frames first, channels last, twice as wide
    clip = stored[:, :, :, ::2].permute(0, 4, 1, 2, 3)
    assert not clip.is_contiguous()
    with torch.no_grad():
        assert torch.equal(tiny(clip), tiny(clip.contiguous()))


def test_the_trunks_output_is_the_last_map_with_gradients(tiny: FrameEncoder) -> None:
    seen: list[Tensor] = []
    handle = tiny.trunk.register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    features = tiny(torch.rand(2, 3, 3, 64, 48))
    handle.remove()
    (last_map,) = seen
    assert last_map.shape == (2 * 3, 32, 4, 3)
    (gradient,) = torch.autograd.grad(features[1, 2].sum(), last_map)
    assert (gradient.abs().amax((1, 2, 3)) > 0).tolist() == [False] * 5 + [True]
    expected = tiny.project(last_map).permute(0, 2, 3, 1).reshape(features.shape)
    assert torch.equal(features, expected)


def test_the_two_encoders_share_nothing() -> None:
    encoders = PairedEncoders(AsyCMSTConfig.demo())
    bus, ceus = encoders(torch.rand(1, 3, 2, 64, 64), torch.rand(1, 3, 2, 64, 64))
    bus.sum().backward()
    assert all(p.grad is not None for p in encoders.bus.parameters())
    assert all(p.grad is None for p in encoders.ceus.parameters())
    assert not torch.equal(encoders.bus.project.weight, encoders.ceus.project.weight)
    assert ceus.shape == (1, 2, 4, 4, 48)


def full_weights() -> dict[str, Tensor]:
    torch.manual_seed(2)
    donor = FrameEncoder("resnet18", 8).trunk.state_dict()
    return dict(donor) | {"fc.weight": torch.rand(1000, 512), "fc.bias": torch.rand(1000)}


def test_loads_torchvision_weights_and_leaves_the_projection(tmp_path: Path) -> None:
    weights = full_weights()
    torch.save(weights, tmp_path / "resnet18.pth")
    encoder = FrameEncoder("resnet18", 8)
    before = encoder.project.weight.clone()
    load_imagenet_weights(encoder, tmp_path / "resnet18.pth")
    for name, value in encoder.trunk.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert torch.equal(encoder.project.weight, before)


def test_loads_weights_written_before_batch_norm_had_counters(tmp_path: Path) -> None:
    weights = {k: v for k, v in full_weights().items() if not k.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "old.pth")
    encoder = FrameEncoder("resnet18", 8)
    load_imagenet_weights(encoder, str(tmp_path / "old.pth"))
    assert torch.equal(encoder.trunk.state_dict()["conv1.weight"], weights["conv1.weight"])


def rename(weights: dict[str, Tensor]) -> object:
    return {"module." + name: value for name, value in weights.items()}


def drop_a_key(weights: dict[str, Tensor]) -> object:
    return {name: value for name, value in weights.items() if name != "layer3.0.conv1.weight"}


def reshape_a_key(weights: dict[str, Tensor]) -> object:
    return weights | {"conv1.weight": torch.rand(64, 1, 7, 7)}


def only_a_tensor(weights: dict[str, Tensor]) -> object:
    return weights["conv1.weight"]


def a_whole_module(_weights: dict[str, Tensor]) -> object:
    return FrameEncoder("tiny", 8)


@pytest.mark.parametrize(
    ("spoil", "hint"),
    [
        (rename, "module.conv1.weight"),
        (drop_a_key, "layer3.0.conv1.weight"),
        (reshape_a_key, "conv1.weight"),
        (only_a_tensor, "Tensor"),
        (a_whole_module, "more than tensors"),
    ],
)
def test_unfit_weights_are_refused_in_one_line(spoil: object, hint: str, tmp_path: Path) -> None:
    assert callable(spoil)
    path = tmp_path / "weights.pth"
    torch.save(spoil(full_weights()), path)
    encoder = FrameEncoder("resnet18", 8)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(ValueError, match=hint) as caught:
        load_imagenet_weights(encoder, path)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_weights_that_are_no_torch_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Path("x"), protocol=2))
    with pytest.raises(ValueError, match="more than tensors"):
        load_imagenet_weights(FrameEncoder("tiny", 8), path)


def test_a_missing_weights_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights file .*absent\.pth"):
        load_imagenet_weights(FrameEncoder("tiny", 8), tmp_path / "absent.pth")


def test_the_papers_grids_are_16_frames_of_7_by_7_cells_and_384_channels() -> None:
    with torch.device("meta"):
        encoders = PairedEncoders(AsyCMSTConfig.paper()).eval()
        grids = encoders(*torch.empty(2, 2, 3, 16, 224, 224))
    assert [tuple(grid.shape) for grid in grids] == [(2, 16, 7, 7, 384)] * 2


def test_pixels_reach_the_encoder_as_they_come_unless_imagenet_is_asked_for() -> None:
    clip = torch.rand(2, 3, 4, 5, 6)
    assert torch.equal(pixel_norm(AsyCMSTConfig.paper().pixels)(clip), clip)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None, None]
    one_spread_apart = torch.cat((mean, mean + std), dim=-1)[None]
    normed = pixel_norm("imagenet")(one_spread_apart)
    torch.testing.assert_close(normed, torch.tensor([0.0, 1.0]).expand(1, 3, 1, 1, 2))
