"""The networks that one trainer trains, stores and loads, by name and by configuration."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from asycmst.baselines.early_fusion import EarlyFusion, EarlyFusionConfig
from asycmst.baselines.r2plus1d import R2Plus1D, R2Plus1DConfig
from asycmst.baselines.vivit import ViViT, ViViTConfig
from asycmst.config import AsyCMSTConfig
from asycmst.losses import AsyCMSTLoss
from asycmst.model import AsyCMST
from asycmst.network_config import NetworkConfig
from asycmst.saliency.config import SaliencyConfig
from asycmst.saliency.loss import SaliencyLoss
from asycmst.saliency.model import SaliencyDualAttention
from asycmst.training.parts import DividedLoss
from asycmst.training.recipe import Recipe


def paper_loss(config: NetworkConfig, recipe: Recipe) -> AsyCMSTLoss:
    """Eq 14 with the weights of `config`, or the paper's where it has none.

    A task that a network lacks, its output being None, adds nothing.
    """
    weights = config if isinstance(config, AsyCMSTConfig) else None
    return AsyCMSTLoss(weights, recipe.class_weights)


def saliency_loss(config: SaliencyConfig, recipe: Recipe) -> SaliencyLoss:
    """Cross entropy and the saliency losses of `config`."""
    return SaliencyLoss(config, recipe.class_weights)


class Network(NamedTuple):
    """A kind of network: what it is configured by, built from and trained with.

    One of your own is a `Network` in the module that defines its configuration, and is called
    "MODULE:NAME" by what it is assigned to there.

    Attributes:
        config: its configuration, used by no other network.
        build: makes the network of a configuration, which it keeps as its attribute `config`. It
            takes bus and ceus, float (B, 3, T, H', W') in [0, 1], and returns an AsyCMSTOutput.
        objective: makes the loss, an nn.Module, of a configuration and a recipe.
    """

    config: type[NetworkConfig]
    build: Callable[[Any], nn.Module]
    objective: Callable[[Any, Recipe], DividedLoss] = paper_loss


BUILT_IN: Mapping[str, Network] = {
    "asycmst": Network(AsyCMSTConfig, AsyCMST),
    "early-fusion": Network(EarlyFusionConfig, EarlyFusion),
    "r2plus1d": Network(R2Plus1DConfig, R2Plus1D),
    "vivit": Network(ViViTConfig, ViViT),
    "saliency": Network(SaliencyConfig, SaliencyDualAttention, saliency_loss),
}


def name_of(config: NetworkConfig) -> str:
    """What run folders and checkpoints call the network of `config`.

    Raises:
        ValueError: it belongs to no network.
    """
    return _found(type(config))[0]


def network_of(config: NetworkConfig) -> Network:
    """The network that `config` is of.

    Raises:
        ValueError: it belongs to no network.
    """
    return _found(type(config))[1]


def build(config: NetworkConfig) -> nn.Module:
    """The network of `config` with fresh weights.

    Raises:
        TypeError: it does not keep its configuration, so that it could not be stored.
    """
    model = network_of(config).build(config)
    if config_of(model) != config:
        raise TypeError(f"{type(model).__name__} changes its configuration; keep what it is given")
    return model


def config_of(model: nn.Module) -> NetworkConfig:
    """The configuration that a network keeps as its attribute `config`.

    Raises:
        TypeError: it keeps none.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, NetworkConfig):
        raise TypeError(
            f"{type(model).__name__} does not keep its configuration; write self.config = config "
            "where it is made"
        )
    return config


def network_named(name: str) -> Network:
    """A network of the package, or a plug-in "MODULE:NAME", whose code is imported and runs.

    Only for a name that the user gave, never for one read from a file.

    Raises:
        ValueError: there is no such network.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        return choose(name, BUILT_IN)
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"--model {name}: there is no module {error.name}; install it or put its folder into "
            "PYTHONPATH"
        ) from error
    if not isinstance(found, Network):
        raise ValueError(
            f"--model {name}: {module} has no Network {attribute}; write {attribute} = "
            "Network(CONFIG, MODEL) in it"
        )
    _found(found.config)
    return found


def known(*names: str) -> dict[str, Network]:
    """The networks that files may name: the package's, and those that the user `names`.

    Raises:
        ValueError: there is no such network.
    """
    found = {_found(network.config)[0]: network for network in map(network_named, names)}
    return {**BUILT_IN, **found}


def choose(name: str, networks: Mapping[str, Network]) -> Network:
    """The network that a file calls `name`; no code is imported.

    Raises:
        ValueError: it is none of `networks`.
    """
    if name in networks:
        return networks[name]
    if ":" in name:
        raise ValueError(
            f"the network {name} is no part of asycmst, and no file makes its code run; if you "
            f"trust it, name it yourself: --model {name}"
        )
    raise ValueError(
        f"there is no network {name!r}; choose one of {', '.join(networks)}, or name one of "
        "your own as MODULE:NAME"
    )


def _found(kind: type[NetworkConfig]) -> tuple[str, Network]:
    for name, network in BUILT_IN.items():
        if network.config is kind:
            return name, network
    place = kind.__module__
    for name, value in vars(sys.modules[place]).items():
        if isinstance(value, Network) and value.config is kind:
            if place == "__main__":
                raise ValueError(
                    f"{kind.__name__} is of the script that runs, where no later run finds it; "
                    "put network and configuration into a module of their own"
                )
            return f"{place}:{name}", value
    raise ValueError(
        f"{kind.__name__} belongs to no network; write NAME = Network({kind.__name__}, MODEL) in "
        f"{place}"
    )
