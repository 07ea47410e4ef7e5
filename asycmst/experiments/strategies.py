"""Table 5: which keys of the other modality a query sees, and how many pairs that makes."""

import math
from dataclasses import replace
from pathlib import Path

from asycmst.analysis.complexity import cross_interactions
from asycmst.config import AsyCMSTConfig, Strategy
from asycmst.encoders import feature_grid
from asycmst.experiments.grid import Overrides, Place, Study, Trial, grid_of
from asycmst.experiments.score_table import EMPTY, score_table
from asycmst.experiments.scores import MISSING, Results
from asycmst.experiments.tables import Cell, Column, Table
from asycmst.experiments.writers import write_table

# Pairs of query and key per head and layer, both directions together (Section 4.6).
_FORMULAS = {
    "None": "-",
    "Global": "(NT)(2NT)",
    "Symmetric": "(NT)(2N + 2T - 2)",
    "Asymmetric": "(NT)(N + T)",
    "Spatial": "(NT)(2N)",
    "Temporal": "(NT)(2T)",
}
_STRATEGIES: dict[str, Strategy | None] = {
    "None": None,
    "Global": "global",
    "Symmetric": "symmetric",
    "Asymmetric": "asymmetric",
    "Spatial": "spatial",
    "Temporal": "temporal",
}
ROWS: dict[str, Overrides] = {
    name: {"model": {"cross_attention": strategy}} for name, strategy in _STRATEGIES.items()
}


def grid(study: Study) -> dict[Place, Trial]:
    """The runs of Table 5; "None" keeps the two auxiliary tasks."""
    return grid_of(study, ROWS)


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write Table 5."""
    table = score_table(
        "Table 5: strategies of the cross-attention",
        study,
        results,
        ["Strategy", "Interactions"],
        {name: [name, formula] for name, formula in _FORMULAS.items()},
        baseline="None",
    )
    model = study.base.model
    assert isinstance(model, AsyCMSTConfig)
    for config in dict.fromkeys((AsyCMSTConfig.paper(), model)):
        table = _with_interactions(table, config)
    return write_table(table, folder, "table-5")


def _with_interactions(table: Table, config: AsyCMSTConfig) -> Table:
    """The table with a column of the pairs of a model's size."""
    frames, places = config.frames, math.prod(feature_grid(config))
    column = Column(f"T = {frames}, N = {places}", best="lowest")
    if column in table.columns:
        return table
    rows = []
    for cells in table.rows:
        strategy = _STRATEGIES.get(cells[0].text)
        if strategy is not None:
            pairs = cross_interactions(strategy, frames, places)
            cell = Cell(f"{pairs:,}", pairs, {"pairs": pairs})
        else:
            cell = MISSING if cells[0].text in _STRATEGIES else EMPTY
        rows.append((*cells, cell))
    return replace(table, columns=(*table.columns, column), rows=tuple(rows))
