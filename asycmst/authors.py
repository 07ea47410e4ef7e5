"""Weights of the authors' released code (github.com/HongchengHan/AsyCMST) in our model.

There one encoder and one position table serve both streams, `branch1` is the BUS and `branch2` the
CEUS stream, and each branch owns the projections of its own attention: queries of its stream, keys
and values of the other. Here each stream owns what is made of it (Eq 6-7), so the keys and values
change places. The streams are averaged there, which our sum takes up in the classifier.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from asycmst.config import AsyCMSTConfig
from asycmst.encoders import feature_grid
from asycmst.model import AsyCMST

_COUNTER = "num_batches_tracked"  # absent from weights that older torch versions wrote
_STAGES = {
    "0": "conv1",
    "1": "bn1",
    "4": "layer1",
    "5": "layer2",
    "6": "layer3",
    "7": "layer4",
}
_BRANCHES = {"bus": ("branch1", "branch2"), "ceus": ("branch2", "branch1")}


def load_authors_state_dict(model: AsyCMST, state_dict: Mapping[str, Tensor]) -> None:
    """Loads published weights into a model, in place; nothing changes when they do not fit.

    A model of `AsyCMSTConfig.authors(emulate_layout=True)` then gives the released code's outputs;
    one of `AsyCMSTConfig.authors()` applies the same weights in the layout that the paper
    describes. Models with an encoder or a position table for each stream get copies, models that
    sum the streams half the classifier. Heads that the released code lacks keep their weights.

    Args:
        model: With the released code's layers: ResNet-18, joint self-attention, post-norm with
            feed-forward residuals, cross-attention in every layer, two logits, biases.
        state_dict: Keys as published.

    Raises:
        ValueError: The model has other layers, or keys or shapes do not fit.
    """
    _check_layers(model.config)
    _check_keys(model, state_dict)
    expected = model.state_dict()
    converted = _convert(model.config, state_dict)
    for key, value in converted.items():
        if value.shape != expected[key].shape:
            raise ValueError(
                f"the weights give {key} the shape {tuple(value.shape)}, the model has "
                f"{tuple(expected[key].shape)}; set frames, image_size, dim and ffn_dim to those "
                "of the weights"
            )
    model.load_state_dict(expected | converted)


def _check_layers(config: AsyCMSTConfig) -> None:
    wanted = {
        "encoder": "resnet18",
        "positions": "joint",
        "stsa": "joint",
        "norm": "post",
        "ffn": "residual",
        "bias": True,
        "diagnosis": "softmax",
        "cross_attention_layers": tuple(range(1, config.layers + 1)),
    }
    for name, value in wanted.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"the released weights need {name} {value!r}, the model has "
                f"{getattr(config, name)!r}; start from AsyCMSTConfig.authors()"
            )


def _check_keys(model: AsyCMST, state_dict: Mapping[str, Tensor]) -> None:
    layers = model.config.layers
    stages = {ours: theirs for theirs, ours in _STAGES.items()}
    keys = {"dual_stream.pos_embed"}
    for key in model.encoders.bus.trunk.state_dict():
        stage, _, rest = key.partition(".")
        keys.add(f"frame_encoder.encoder.{stages[stage]}.{rest}")
    for name in ("weight", "bias"):
        keys |= {f"frame_encoder.conv1x1.{name}", f"classifier.{name}"}
        for branch in ("branch1", "branch2"):
            for layer in range(layers):
                parts = ["self_attn.in_proj_", "self_attn.out_proj."]
                parts += [f"cross_attn.{part}_proj." for part in ("q", "k", "v", "out")]
                parts += ["norm1.", "norm2.", "norm3.", "ff.0.", "ff.3."]
                keys |= {f"dual_stream.{branch}.{layer}.{part}{name}" for part in parts}
    missing = sorted(key for key in keys - set(state_dict) if not key.endswith(_COUNTER))
    extra = sorted(set(state_dict) - keys)
    if missing or extra:
        raise ValueError(
            f"these are not the released weights of a model of {layers} layers: "
            f"{_first(missing)} missing, {_first(extra)} unexpected; give the published state "
            "dict as it is"
        )


def _first(keys: list[str]) -> str:
    return f"{len(keys)} keys ({keys[0]}, ...)" if keys else "no keys"


def _convert(config: AsyCMSTConfig, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under our names."""
    ours: dict[str, Tensor] = {}
    half = 0.5 if config.fuse == "sum" else 1.0
    ours["classifier.fc.weight"] = given["classifier.weight"] * half
    ours["classifier.fc.bias"] = given["classifier.bias"]
    places = math.prod(feature_grid(config))
    table = given["dual_stream.pos_embed"]
    if table.shape[1] == config.frames * places:
        table = table.unflatten(1, (config.frames, places))
    for stream, (own, other) in _BRANCHES.items():
        ours[f"embed_{stream}.positions.table"] = table
        for key, value in given.items():
            head, _, rest = key.removeprefix("frame_encoder.").partition(".")
            if key.startswith("frame_encoder.encoder."):
                stage, _, rest = rest.partition(".")
                ours[f"encoders.{stream}.trunk.{_STAGES[stage]}.{rest}"] = value
            elif head == "conv1x1":
                ours[f"encoders.{stream}.project.{rest}"] = value
        for layer in range(config.layers):
            mine, theirs = f"dual_stream.{own}.{layer}.", f"dual_stream.{other}.{layer}."
            to = f"layers.{layer}."
            for name in ("weight", "bias"):
                ours |= {
                    f"{to}self_{stream}.attention.qkv.{name}": given[
                        f"{mine}self_attn.in_proj_{name}"
                    ],
                    f"{to}self_{stream}.attention.output.{name}": given[
                        f"{mine}self_attn.out_proj.{name}"
                    ],
                    f"{to}self_{stream}.norm.{name}": given[f"{mine}norm1.{name}"],
                    f"{to}cross.attention.project_{stream}.{name}": torch.cat(
                        [
                            given[f"{mine}cross_attn.q_proj.{name}"],
                            given[f"{theirs}cross_attn.k_proj.{name}"],
                            given[f"{theirs}cross_attn.v_proj.{name}"],
                        ]
                    ),
                    f"{to}cross.attention.output_{stream}.{name}": given[
                        f"{mine}cross_attn.out_proj.{name}"
                    ],
                    f"{to}cross.norm_{stream}.{name}": given[f"{mine}norm2.{name}"],
                    f"{to}ffn_{stream}.network.0.{name}": given[f"{mine}ff.0.{name}"],
                    f"{to}ffn_{stream}.network.3.{name}": given[f"{mine}ff.3.{name}"],
                    f"{to}ffn_{stream}.norm.{name}": given[f"{mine}norm3.{name}"],
                }
    return ours
