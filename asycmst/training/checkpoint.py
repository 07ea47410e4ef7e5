"""One file holds a trained model: its configuration, its weights and plain facts about its run."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from asycmst.files import replacing
from asycmst.training.networks import BUILT_IN, Network, build, choose, config_of, name_of

_FORMAT = 1
_KEYS = frozenset({"format", "model", "config", "state_dict", "meta"})
_PLAIN = (str, int, float, bool, type(None))


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; use string keys only")
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif type(value) not in _PLAIN:
        raise TypeError(
            f"{where} is a {type(value).__name__}; a checkpoint stores str, int, float, bool, "
            "None, lists and dicts only: convert it first"
        )


def save_checkpoint(path: str | os.PathLike[str], model: nn.Module, meta: dict[str, Any]) -> None:
    """Write `model` and `meta` to `path`; the file appears whole or not at all.

    Args:
        path: the file to write; an existing one is replaced at the end.
        model: of any network that keeps its configuration as `config`, on any device, in any
            mode; weights are stored as CPU tensors in their own dtype.
        meta: facts to keep beside the weights; plain types only (str, int, float, bool, None,
            lists and string-keyed dicts of these).

    Raises:
        TypeError: `meta` holds something that is not plain, or `model` has no configuration.
        ValueError: `model` is of no network (:mod:`asycmst.training.networks`).
        FileNotFoundError: the folder of `path` does not exist.
    """
    _check_plain(meta, "meta")
    config = config_of(model)
    content = {
        "format": _FORMAT,
        "model": name_of(config),
        "config": config.to_dict(),
        "state_dict": {key: value.detach().cpu() for key, value in model.state_dict().items()},
        "meta": meta,
    }
    with replacing(path) as temporary, temporary.open("wb") as stream:
        torch.save(content, stream)


def load_checkpoint(
    path: str | os.PathLike[str], networks: Mapping[str, Network] = BUILT_IN
) -> tuple[nn.Module, dict[str, Any]]:
    """Read a file of :func:`save_checkpoint`; nothing in it is executed.

    Args:
        path: the file.
        networks: those it may hold, with a plug-in among them from
            :func:`asycmst.training.networks.known`. A file never makes a plug-in's code run.

    Returns:
        The model on the CPU in evaluation mode, and the meta data as stored.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is damaged, is no checkpoint of this package, is of a newer format or
            none of `networks`, or its weights do not fit its configuration.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {source}; give a file such as the best.ckpt of `asycmst demo`"
        )
    if not zipfile.is_zipfile(source):
        raise ValueError(
            f"{source} is truncated or no checkpoint; give a file such as the best.ckpt of "
            "`asycmst demo`"
        )
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{source} cannot be read as a checkpoint of plain tensors; it is damaged or was "
            "written by another program: give the best.ckpt of a training run"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), str):
        raise ValueError(
            f"{source} is no asycmst checkpoint; give a file written by save_checkpoint, such as "
            "the best.ckpt of `asycmst demo`"
        )
    if content.get("format") != _FORMAT:
        raise ValueError(
            f"{source} has checkpoint format {content.get('format')!r}, this version reads "
            f"{_FORMAT}: update asycmst"
        )
    if set(content) != _KEYS:
        wrong = ", ".join(sorted(map(str, set(content) ^ _KEYS)))
        raise ValueError(f"{source} lacks or adds the keys {wrong}; write the checkpoint again")
    try:
        network = choose(content["model"], networks)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    model = build(network.config.from_dict(content["config"]))
    _check_fit(source, model, content["state_dict"])
    model.load_state_dict(content["state_dict"])
    return model.eval(), content["meta"]


def _check_fit(source: Path, model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    expected = {key: value.shape for key, value in model.state_dict().items()}
    found = {key: value.shape for key, value in weights.items()}
    keys = expected.keys() | found.keys()
    wrong = sorted(key for key in keys if expected.get(key) != found.get(key))
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ValueError(
            f"{source}: weight {wrong[0]!r}{more} does not fit the stored configuration "
            f"(file {found.get(wrong[0])}, model {expected.get(wrong[0])}); write it again"
        )
