"""Table 2 and Fig 6: the methods of the paper on each data set, those that can be trained here."""

from dataclasses import replace
from pathlib import Path

from asycmst.experiments.curves import roc_figure
from asycmst.experiments.grid import Overrides, Place, Study, Trial, grid_of
from asycmst.experiments.methods import METHODS, Method
from asycmst.experiments.score_table import score_table
from asycmst.experiments.scores import Results
from asycmst.experiments.tables import Table
from asycmst.experiments.writers import write_table
from asycmst.network_config import NetworkConfig
from asycmst.training.settings_file import NETWORK

OURS = "AsyCMST"
SCORES = ("accuracy", "recall", "precision", "f1")


def made_methods(study: Study) -> dict[str, Overrides]:
    """The methods that can be trained, in the order of Table 2, with clips as the study has."""
    networks = {method.name: method.network for method in METHODS}
    rows: dict[str, Overrides] = {}
    for name, config in method_configs(study).items():
        start = study.base.model
        if type(config) is not type(start):
            start = type(config).paper()
        usual = start.to_dict()
        model = {key: value for key, value in config.to_dict().items() if value != usual[key]}
        rows[name] = {"model": {NETWORK: networks[name], **model}}
    return rows


def method_configs(study: Study) -> dict[str, NetworkConfig]:
    """The networks of the methods that can be trained, in the size of the study."""
    return {name: config for name, config in _tried(study).items() if not isinstance(config, str)}


def refused_methods(study: Study) -> dict[str, str]:
    """The methods that are here but do not take the study's clips, and why."""
    return {
        name: f"does not take these clips: {reason}"
        for name, reason in _tried(study).items()
        if isinstance(reason, str)
    }


def _tried(study: Study) -> dict[str, NetworkConfig | str]:
    """The network of each method that is here, or why there is none for the study's clips."""
    found: dict[str, NetworkConfig | str] = {}
    for method in METHODS:
        if method.network is not None:
            try:
                found[method.name] = _config(study, method)
            except ValueError as error:
                found[method.name] = str(error)
    return found


def _config(study: Study, method: Method) -> NetworkConfig:
    kind, base = method.config, study.base.model
    assert kind is not None
    if isinstance(base, kind) or issubclass(kind, type(base)):
        # The full model itself, or one that is described by it.
        return kind.from_dict(base.to_dict())
    size = kind.paper() if study.size == "paper" else kind.demo()
    return replace(size, frames=base.frames, image_size=base.image_size)


def unmade_methods(study: Study) -> dict[str, str]:
    """The methods that are not trained, as a table names them, and why."""
    refused = refused_methods(study)
    return {
        _label(method): refused.get(method.name, method.note)
        for method in METHODS
        if method.network is None or method.name in refused
    }


def labels(study: Study) -> dict[str, tuple[str, str]]:
    """What a table says of the methods that can be trained."""
    made = method_configs(study)
    return {
        method.name: (_label(method), method.note) for method in METHODS if method.name in made
    }


def _label(method: Method) -> str:
    return method.name if method.source is None else f"{method.name} ({method.source})"


def grid(study: Study) -> dict[Place, Trial]:
    """The runs of Table 2."""
    return grid_of(study, made_methods(study))


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write Table 2 and Fig 6."""
    table = score_table(
        "Table 2: methods on each data set",
        study,
        results,
        ["Method", "What is here"],
        labels(study),
        scores=SCORES,
        baseline=OURS,
        unmade=unmade_methods(study),
    )
    table = in_order(table)
    panels = {source.name: (source.name, list(made_methods(study))) for source in study.sources}
    return [
        *write_table(table, folder, "table-2"),
        *roc_figure(results, panels, folder, "fig-6"),
    ]


def in_order(table: Table) -> Table:
    """The table with its methods in the order of Table 2, and what is no method below."""
    order = {_label(method): place for place, method in enumerate(METHODS)}
    rows = sorted(table.rows, key=lambda cells: order.get(cells[0].text, len(order)))
    return replace(table, rows=tuple(rows))
