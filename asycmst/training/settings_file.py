"""Settings from YAML files and `key=value` words, and back."""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from asycmst.config import AsyCMSTConfig
from asycmst.network_config import NetworkConfig
from asycmst.training.networks import BUILT_IN, Network, choose, known, name_of, network_named
from asycmst.training.settings import PRESETS, FitSettings

NETWORK = "network"
"""The key of the section model that names the network."""


def read_settings(
    config: str | os.PathLike[str], words: Sequence[str] = (), network: str | None = None
) -> FitSettings:
    """The settings of a preset or file, changed by `words`.

    Args:
        config: "paper", "demo", or a YAML file of the sections model, recipe, data and run; what a
            file leaves out is as in "paper".
        words: "section.key=value" each, later ones over earlier ones. A data.cache among them
            takes the place of the phantoms of the preset or file.
        network: a built-in network, or a plug-in "MODULE:NAME"; None is what the file names, or
            else "asycmst".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key is unknown, a value of the wrong type or out of range, or the file is of
            another network.
    """
    kind = AsyCMSTConfig if network is None else network_named(network).config
    networks = BUILT_IN if network is None else known(network)
    if str(config) in PRESETS:
        settings = PRESETS[str(config)]()
        settings = replace(settings, model=getattr(kind, str(config))())
    else:
        settings = replace(FitSettings.paper(), model=kind.paper())
        settings = change(settings, _read(Path(config)), networks)
        if network is not None and type(settings.model) is not kind:
            raise ValueError(
                f"{config} is of the network {name_of(settings.model)}, not {network}; leave out "
                "--model, or give another file"
            )
    given: dict[str, Any] = {}
    for word in words:
        _put(given, word)
    if isinstance(model := given.get("model"), dict) and NETWORK in model:
        raise ValueError(f"model.{NETWORK} is chosen by --model {model[NETWORK]}")
    data = given.get("data")
    if isinstance(data, dict) and {"cache", "images"} & set(data):
        data.setdefault("phantom", None)
    return change(settings, given, networks)


def change(
    settings: FitSettings, given: Mapping[str, Any], networks: Mapping[str, Network] = BUILT_IN
) -> FitSettings:
    """Settings with the values of nested plain mappings in place of their own.

    Args:
        settings: what to change.
        given: may name another network, whose other choices then start from its defaults.
        networks: those it may name; no code is imported.

    Raises:
        ValueError: as `read_settings`.
    """
    model = given.get("model")
    if isinstance(model, Mapping) and NETWORK in model:
        kind = choose(str(model[NETWORK]), networks).config
        if type(settings.model) is not kind:
            settings = replace(settings, model=kind.paper())
        choices = {key: value for key, value in model.items() if key != NETWORK}
        given = {**given, "model": choices}
    changed: FitSettings = _changed(FitSettings, settings, given, "")
    return changed


def to_plain(settings: FitSettings) -> dict[str, Any]:
    """Settings as nested plain values, which `change` takes."""
    plain: dict[str, Any] = _plain(asdict(settings))
    return {**plain, "model": {NETWORK: name_of(settings.model), **plain["model"]}}


def to_yaml(settings: FitSettings) -> str:
    """Settings as the text of a file that `read_settings` takes."""
    text: str = yaml.safe_dump(to_plain(settings), sort_keys=False)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {path}; give --config a YAML file or one of {', '.join(PRESETS)}"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no sections; write model:, recipe:, data: or run: in it")
    return content


def _put(given: dict[str, Any], word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ValueError(f"{word!r} is no setting; write section.key=value")
    *sections, name = key.split(".")
    place = given
    for section in sections:
        inner = place.setdefault(section, {})
        if not isinstance(inner, dict):
            inner = place[section] = {}
        place = inner
    place[name] = text


def _changed(kind: Any, current: Any, given: Mapping[str, Any], path: str) -> Any:
    """An instance of the dataclass `kind`: `current`, or its defaults, with `given` in place."""
    hints = get_type_hints(kind)
    values = {}
    for entry in fields(kind):
        key = f"{path}.{entry.name}".lstrip(".")
        now = getattr(current, entry.name)
        if entry.name not in given:
            values[entry.name] = now
        elif kinds := _sections(hints[entry.name]):
            values[entry.name] = _section(kinds, now, given[entry.name], key)
        else:
            values[entry.name] = _leaf(hints[entry.name], given[entry.name], key)
    for name in given:
        if name not in values:
            at_hand = kind if issubclass(kind, NetworkConfig) else AsyCMSTConfig
            raise ValueError(_unknown(f"{path}.{name}".lstrip("."), at_hand))
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}" if path else str(error)) from error


def _sections(hint: Any) -> list[Any]:
    """The dataclasses that a field's type allows; none for plain values."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return [option for option in options if is_dataclass(option)]


def _section(kinds: list[Any], current: Any, given: Any, key: str) -> Any:
    if isinstance(given, str):
        given = yaml.safe_load(given)
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ValueError(f"{key}={given!r} is no section; give {key}.NAME=value, or null")
    # The kind at hand where it has all the keys, else the first that has.
    kinds = [type(current), *kinds] if isinstance(current, tuple(kinds)) else kinds
    for kind in kinds:
        if set(given) <= {entry.name for entry in fields(kind)}:
            break
    else:
        kind = kinds[0]
    return _changed(kind, current if type(current) is kind else kind(), given, key)


def _leaf(hint: Any, value: Any, key: str) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        return parser.parse_object({"value": value}).value
    except ArgumentError as error:
        raise ValueError(f"{key}={value!r} is not allowed; use {_words(hint)}") from error


def _words(hint: Any) -> str:
    """A type in words: int, [int, int], one of 'a', 'b', null."""
    if hint is type(None):
        return "null"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_words, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"[{', '.join('...' if x is Ellipsis else _words(x) for x in get_args(hint))}]"
    if get_args(hint):
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    return {"float": "a number", "int": "a whole number", "bool": "true or false"}.get(
        hint.__name__, "a path" if hint is Path else hint.__name__
    )


def known_keys(model: type[NetworkConfig] = AsyCMSTConfig) -> list[str]:
    """Every key of every kind of section, dotted, for a network of configuration `model`."""
    return list(dict.fromkeys(_keys(FitSettings, "", model)))


def _keys(kind: Any, path: str, model: type[NetworkConfig]) -> list[str]:
    kind = model if kind is NetworkConfig else kind
    hints = get_type_hints(kind)
    found = []
    for entry in fields(kind):
        key = f"{path}.{entry.name}".lstrip(".")
        sections = _sections(hints[entry.name])
        found += [x for section in sections for x in _keys(section, key, model)] or [key]
    return found


def _unknown(key: str, model: type[NetworkConfig]) -> str:
    keys = known_keys(model)
    name = key.rpartition(".")[2]
    near = [k for k in keys if k.rpartition(".")[2] == name]
    near += difflib.get_close_matches(key, keys, n=3)
    by_name = {k.rpartition(".")[2]: k for k in keys}
    near += [by_name[n] for n in difflib.get_close_matches(name, by_name, n=2)]
    meant = ", ".join(list(dict.fromkeys(near))[:3])
    hint = f"did you mean {meant}?" if meant else "see asycmst fit --config demo --print-config"
    return f"there is no setting {key}; {hint}"
