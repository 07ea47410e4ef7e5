"""Table 4: what each of the three modules is worth, all eight combinations."""

from itertools import product
from pathlib import Path

from asycmst.experiments.grid import Overrides, Place, Study, Trial, grid_of
from asycmst.experiments.score_table import check_mark, score_table
from asycmst.experiments.scores import Results
from asycmst.experiments.writers import write_table

_MODULES = ("ACMST", "FSS", "NS")
_OFF: dict[str, dict[str, None]] = {
    "ACMST": {"cross_attention": None},
    "FSS": {"ceus_task": None},
    "NS": {"bus_task": None},
}


def _combination(on: tuple[bool, ...]) -> tuple[str, Overrides]:
    names = [name for name, is_on in zip(_MODULES, on, strict=True) if is_on]
    off = [_OFF[name] for name in _MODULES if name not in names]
    model = {key: value for one in off for key, value in one.items()}
    return "+".join(names) or "none", {"model": model}


# None first and everything last, as in the paper.
_COMBINATIONS = sorted(product((False, True), repeat=3), key=lambda on: (sum(on), not on[0]))
ROWS: dict[str, Overrides] = dict(map(_combination, _COMBINATIONS))


def grid(study: Study) -> dict[Place, Trial]:
    """The runs of Table 4."""
    return grid_of(study, ROWS)


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write Table 4."""
    rows = {
        name: [check_mark(module in name) for module in _MODULES]
        if name != "none"
        else ["none", "", ""]
        for name in ROWS
    }
    table = score_table(
        "Table 4: ablation of cross-attention (ACMST), frame self-sorting (FSS) and nodule "
        "segmentation (NS)",
        study,
        results,
        _MODULES,
        rows,
        baseline="none",
    )
    return write_table(table, folder, "table-4")
