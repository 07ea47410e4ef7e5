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
    rows: dict[str, Overrides] = {}
    for method in METHODS:
        if method.network is None:
            continue
        config = method_config(study, method)
        start = study.base.model
        if type(config) is not type(start):
            start = type(config).paper()
        usual = start.to_dict()
        model = {key: value for key, value in config.to_dict().items() if value != usual[key]}
        rows[method.name] = {"model": {NETWORK: method.network, **model}}
    return rows


def method_config(study: Study, method: Method) -> NetworkConfig:
    """The network of a method in the size of the study.

    Raises:
        ValueError: it does not take the study's clips.
    """
    kind, base = method.config, study.base.model
    assert kind is not None
    if isinstance(base, kind) or issubclass(kind, type(base)):
        # The full model itself, or one that is described by it.
        return kind.from_dict(base.to_dict())
    size = kind.paper() if study.size == "paper" else kind.demo()
    return replace(size, frames=base.frames, image_size=base.image_size)


def unmade_methods() -> dict[str, str]:
    """The methods that are not here, and why."""
    return {_label(method): method.note for method in METHODS if method.network is None}


def labels() -> dict[str, tuple[str, str]]:
    """What a table says of the methods that are here."""
    return {
        method.name: (_label(method), method.note)
        for method in METHODS
        if method.network is not None
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
        labels(),
        scores=SCORES,
        baseline=OURS,
        unmade=unmade_methods(),
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
