"""Weights of the authors' released code: their forward, and ours with the same weights."""

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets.resnet import resnet18
from torch import Tensor, nn

from asycmst import load_authors_state_dict
from asycmst.config import AsyCMSTConfig
from asycmst.model import AsyCMST

Weights = dict[str, Tensor]
T, SIDE, DIM, HEADS, LAYERS, FFN = 4, 64, 24, 2, 2, 32
N = (SIDE // 32) ** 2


def small(emulate_layout: bool = True, **fields: Any) -> AsyCMSTConfig:
    sizes: dict[str, Any] = {
        "frames": T,
        "image_size": SIDE,
        "dim": DIM,
        "heads": HEADS,
        "layers": LAYERS,
        "ffn_dim": FFN,
    }
    return dataclasses.replace(AsyCMSTConfig.authors(emulate_layout), **(sizes | fields))


def trunk() -> nn.Sequential:
    """ResNet-18 as a list of its stages, the numbers being those in the published keys."""
    network = resnet18(
        spatial_dims=2,
        n_input_channels=3,
        conv1_t_size=7,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
        feed_forward=False,
    )
    names = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return nn.Sequential(*(getattr(network, name) for name in names))


@pytest.fixture(scope="module", name="weights")
def published() -> dict[str, Tensor]:
    """Random weights under the published keys."""
    weights = {
        f"frame_encoder.encoder.{key}": value for key, value in trunk().state_dict().items()
    }
    for key, value in weights.items():
        if "running_var" in key:
            weights[key] = torch.rand_like(value) + 0.5
        elif value.is_floating_point() and value.ndim == 1:
            weights[key] = value + 0.1 * torch.randn_like(value)

    def linear(name: str, out: int, width: int) -> None:
        weights[f"{name}weight"] = torch.randn(out, width) / math.sqrt(width)
        weights[f"{name}bias"] = 0.1 * torch.randn(out)

    linear("frame_encoder.conv1x1.", DIM, 512)
    weights["frame_encoder.conv1x1.weight"] = weights["frame_encoder.conv1x1.weight"][
        ..., None, None
    ]
    weights["dual_stream.pos_embed"] = torch.randn(1, T * N, DIM)
    for branch in ("branch1", "branch2"):
        for layer in range(LAYERS):
            name = f"dual_stream.{branch}.{layer}."
            linear(f"{name}self_attn.in_proj_", 3 * DIM, DIM)
            for part in (
                "self_attn.out",
                "cross_attn.q",
                "cross_attn.k",
                "cross_attn.v",
                "cross_attn.out",
            ):
                linear(f"{name}{part}_proj.", DIM, DIM)
            for norm in (1, 2, 3):
                weights[f"{name}norm{norm}.weight"] = 1 + 0.1 * torch.randn(DIM)
                weights[f"{name}norm{norm}.bias"] = 0.1 * torch.randn(DIM)
            linear(f"{name}ff.0.", FFN, DIM)
            linear(f"{name}ff.3.", DIM, FFN)
    linear("classifier.", 2, DIM)
    return weights


def released_forward(weights: dict[str, Tensor], bus: Tensor, ceus: Tensor) -> Tensor:
    """What the released code computes in evaluation, its two reinterpreted layouts included."""

    def affine(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}weight"], weights[f"{name}bias"])

    def normed(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (DIM,), weights[f"{name}weight"], weights[f"{name}bias"])

    network = trunk().eval()
    prefix = "frame_encoder.encoder."
    network.load_state_dict(
        {key.removeprefix(prefix): v for key, v in weights.items() if key.startswith(prefix)}
    )

    def tokens(clip: Tensor) -> Tensor:
        memory = clip.contiguous().view(-1, 3, SIDE, SIDE)
        maps = F.conv2d(
            network(memory),
            weights["frame_encoder.conv1x1.weight"],
            weights["frame_encoder.conv1x1.bias"],
        )
        columns = maps.contiguous().view(len(clip), DIM, T * N)
        return columns.transpose(1, 2) + weights["dual_stream.pos_embed"]

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, -1))

    def mixed(name: str, x: Tensor) -> Tensor:
        q, k, v = (heads(part) for part in affine(f"{name}in_proj_", x).chunk(3, -1))
        logits = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(DIM // HEADS)
        read = torch.einsum("bhij,bjhd->bihd", logits.softmax(-1), v)
        return affine(f"{name}out_proj.", read.flatten(-2))

    def crossed(name: str, x: Tensor, other: Tensor, equation: tuple[str, str]) -> Tensor:
        grid = (T, N)
        q = heads(affine(f"{name}q_proj.", x)).unflatten(1, grid)
        k = heads(affine(f"{name}k_proj.", other)).unflatten(1, grid)
        v = heads(affine(f"{name}v_proj.", other)).unflatten(1, grid)
        logits = torch.einsum(equation[0], q, k) / math.sqrt(DIM // HEADS)
        read = torch.einsum(equation[1], logits.softmax(-1), v)
        return affine(f"{name}out_proj.", read.flatten(-2).flatten(1, 2))

    def block(name: str, x: Tensor, other: Tensor, equation: tuple[str, str]) -> Tensor:
        x = normed(f"{name}norm1.", x + mixed(f"{name}self_attn.", x))
        x = normed(f"{name}norm2.", x + crossed(f"{name}cross_attn.", x, other, equation))
        return normed(
            f"{name}norm3.", x + affine(f"{name}ff.3.", affine(f"{name}ff.0.", x).relu())
        )

    along_time = ("btnhd,bunhd->bnhtu", "bnhtu,bunhd->btnhd")
    over_space = ("btnhd,btmhd->bthnm", "bthnm,btmhd->btnhd")
    one, two = tokens(bus), tokens(ceus)
    for layer in range(LAYERS):
        one = block(f"dual_stream.branch1.{layer}.", one, two, along_time)
        two = block(f"dual_stream.branch2.{layer}.", two, one, over_space)
    return affine("classifier.", ((one + two) / 2).mean(1))


def clips(batch: int = 2) -> tuple[Tensor, Tensor]:
    bus, ceus = torch.rand(2, batch, 3, T, SIDE, SIDE)
    return bus, ceus


def loaded(config: AsyCMSTConfig, weights: dict[str, Tensor]) -> AsyCMST:
    model = AsyCMST(config).eval()
    load_authors_state_dict(model, weights)
    return model


@torch.no_grad()
def test_the_released_forward_is_reproduced_with_its_layout(weights: Weights) -> None:
    bus, ceus = clips()
    expected = released_forward(weights, bus, ceus)
    logits = loaded(small(), weights)(bus, ceus).logits
    assert (logits - expected).abs().max() < 1e-4
    strided = torch.rand(2, 2, T, SIDE, SIDE, 3).permute(0, 1, 5, 2, 3, 4)
    expected = released_forward(weights, *strided)
    assert (loaded(small(), weights)(*strided).logits - expected).abs().max() < 1e-4


@torch.no_grad()
def test_the_papers_layout_is_another_function_of_the_same_weights(
    weights: dict[str, Tensor],
) -> None:
    bus, ceus = clips()
    as_released, as_described = loaded(small(), weights), loaded(small(False), weights)
    assert not torch.allclose(as_described(bus, ceus).logits, as_released(bus, ceus).logits)
    for (name, a), (other, b) in zip(
        as_released.state_dict().items(), as_described.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(a, b)


@torch.no_grad()
def test_in_the_papers_layout_a_token_is_its_frame_and_place(weights: Weights) -> None:
    """In the released layout it holds channels of all frames."""
    bus, ceus = clips(1)
    other = bus.clone()
    other[:, :, 2] = torch.rand(3, SIDE, SIDE)
    for emulate_layout, changed in ((False, [2]), (True, [0, 1, 2, 3])):
        encoders = loaded(small(emulate_layout), weights).encoders
        difference = (encoders(bus, ceus)[0] - encoders(other, ceus)[0]).abs().amax((0, 2, 3, 4))
        assert difference.nonzero().flatten().tolist() == changed


@torch.no_grad()
def test_copies_and_the_sum_give_what_sharing_and_the_mean_give(
    weights: dict[str, Tensor],
) -> None:
    bus, ceus = clips()
    shared = loaded(small(False), weights)
    own = loaded(small(False, share_encoder=False, share_positions=False, fuse="sum"), weights)
    assert own.encoders.bus is not own.encoders.ceus
    torch.testing.assert_close(own(bus, ceus).logits, shared(bus, ceus).logits)


@torch.no_grad()
def test_the_weights_fit_the_papers_model_and_leave_its_other_heads(
    weights: dict[str, Tensor],
) -> None:
    fields = dataclasses.asdict(small(False)) | {"ceus_task": "fss", "bus_task": "dice"}
    config = AsyCMSTConfig(
        **(fields | {"update": "parallel", "kv": "stsa", "share_encoder": False})
    )
    model = AsyCMST(config).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    load_authors_state_dict(model, weights)
    kept = {
        key.split(".")[0] for key, v in model.state_dict().items() if torch.equal(v, before[key])
    }
    assert kept >= {"frame_sorting", "mask_decoder"}
    assert not kept & {"embed_bus", "embed_ceus", "classifier"}
    assert model(*clips()).logits.isfinite().all()


def test_the_released_model_has_as_many_parameters() -> None:
    with torch.device("meta"):
        model = AsyCMST(AsyCMSTConfig.authors())
    count = sum(p.numel() for p in model.parameters())
    assert count == 11_373_504 + 301_056 + 12 * 2_760_320 + 770 == 44_799_170


def test_older_weights_without_counters_fit(weights: Weights) -> None:
    older = {k: v for k, v in weights.items() if "num_batches_tracked" not in k}
    loaded(small(), older)


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"stsa": "factorised"}, "stsa 'joint'"),
        ({"encoder": "tiny"}, "encoder 'resnet18'"),
        ({"norm": "pre"}, "norm 'post'"),
        ({"bias": False}, "bias True"),
        ({"acmst_layers": (1,)}, "cross_attention_layers"),
        ({"layers": 3}, r"44 keys .* missing"),
        ({"layers": 1}, "44 keys .* unexpected"),
        ({"frames": 8}, "shape .* frames"),
        ({"ffn_dim": 16}, "ffn_dim"),
    ],
    ids=str,
)
def test_a_model_that_does_not_fit_is_named(
    fields: dict[str, Any], hint: str, weights: dict[str, Tensor]
) -> None:
    with torch.device("meta"):
        model = AsyCMST(small(False, **fields))
    with pytest.raises(ValueError, match=hint) as caught:
        load_authors_state_dict(model, weights)
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_fit_stays_as_it_was(weights: Weights) -> None:
    model = AsyCMST(small(False, ffn_dim=16))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="ffn_dim"):
        load_authors_state_dict(model, weights)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_layout_that_mixes_frames_takes_no_lengths() -> None:
    with pytest.raises(ValueError, match="frame_lengths"):
        AsyCMST(small())(*clips(), torch.tensor([2, 3]))
