"""The paper's kind of table: a row for each model, its scores on each data set, and tests."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from asycmst.data.ideal_observer import ideal_observer_auc
from asycmst.data.phantom import PhantomConfig
from asycmst.experiments.grid import Columns, Study, in_dataset
from asycmst.experiments.scores import MISSING, Difference, Results, p_text
from asycmst.experiments.tables import Cell, Column, Table

_SHORT = {
    "accuracy": "Acc (%)",
    "recall": "Rec (%)",
    "precision": "Pre (%)",
    "f1": "F1 (%)",
    "dice": "Dice (%)",
    "pointing": "Pointing (%)",
}
_OBSERVERS = {
    "bus": "BUS",
    "ceus": "CEUS",
    "late": "verdicts added",
    "gated": "CEUS where BUS shows the nodule",
}
EMPTY = Cell("")


def score_table(
    title: str,
    study: Study,
    results: Results,
    heads: Sequence[str],
    rows: Mapping[str, Sequence[str]],
    *,
    columns: Sequence[Columns] | None = None,
    scores: Sequence[str] = ("accuracy",),
    baseline: str | None = None,
    unmade: Mapping[str, str] | None = None,
) -> Table:
    """Scores in percent, AUC with interval and, against a baseline, p values and differences.

    Args:
        title: of the table.
        study: whose grid was run.
        results: of the grid.
        heads: headings of the columns that say what a row is.
        rows: per row of the grid the entries under `heads`.
        columns: None is each data set by itself.
        scores: of `asycmst.analysis.statistics.SCORES`, in percent.
        baseline: the row that the others are tested against; None is no tests.
        unmade: rows that have no run: entry of the first head, and what to say instead.
    """
    columns = in_dataset(study.sources) if columns is None else columns
    header = [Column(head) for head in heads]
    for name, _, _ in columns:
        header += [Column(_SHORT[score], name, "highest") for score in scores]
        header.append(Column("AUC [95 % CI]", name, "highest"))
        if baseline is not None:
            header += [Column(text, name) for text in ("p t", "p McNemar", "AUC difference")]
    body = []
    for row, entries in rows.items():
        cells = [Cell(entry) for entry in entries]
        for name, _, _ in columns:
            cells += [results.cell(row, name, score) for score in scores]
            cells.append(results.auc_cell(row, name))
            if baseline is not None:
                cells += _tests(results, row, baseline, name)
        body.append(tuple(cells))
    for row, text in (unmade or {}).items():
        blank = [MISSING] * (len(header) - len(heads))
        body.append((Cell(row), Cell(text), *[EMPTY] * (len(heads) - 2), *blank))
    observers = _observer_rows(header, heads, columns)
    body += observers
    notes = [*study_notes(study, results)]
    if observers:
        notes.append(
            "Each ideal observer reads the latents behind what it names: no reader of the same "
            "pixels does better."
        )
    if baseline is not None:
        notes.insert(
            1,
            f"Tests are against {baseline!r}: paired t-test of the accuracies over repeats, "
            "McNemar's exact test over all cases, mean difference of the AUCs with its bootstrap "
            "interval.",
        )
    return Table(title, tuple(header), tuple(body), tuple(notes))


def study_notes(study: Study, results: Results) -> list[str]:
    """How the numbers came about."""
    source = study.sources[0]
    what = "seed(s)" if source.phantom is not None else "split(s)"
    notes = [
        f"Mean ± standard deviation (n - 1) over {study.repeats} {what}; intervals by bootstrap "
        "over patients; a case is called malignant above probability 1/2."
    ]
    recipe = study.base.recipe
    if source.phantom is not None:
        sizes = source.phantom
        notes.append(
            f"Synthetic phantoms, not clinical evidence: {sizes.train} training, "
            f"{sizes.validation} validation and {source.test_samples} test samples of "
            f"{sizes.frames} x {sizes.size} x {sizes.size}, {recipe.epochs} epoch(s)."
        )
    if study.size == "smoke":
        notes.append("Size smoke shows that everything runs; its figures mean nothing.")
    return notes + [f"Failed: {line}." for line in results.failures()]


def check_mark(is_on: bool) -> str:
    """How a table says that a part is there."""
    return "✓" if is_on else ""


def _tests(results: Results, row: str, baseline: str, column: str) -> list[Cell]:
    found = None if row == baseline else results.difference(row, baseline, column)
    if found is None:
        return [MISSING] * 3
    gain = f"{found.auc:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    numbers = {"mean": found.auc, "low": found.low, "high": found.high}
    return [_p_cell(found, "t"), _p_cell(found, "mcnemar"), Cell(gain, numbers=numbers)]


def _p_cell(found: Difference, test: str) -> Cell:
    p = float(getattr(found, test))
    return Cell(p_text(p), numbers={"p": p})


def _observer_rows(
    header: Sequence[Column], heads: Sequence[str], columns: Sequence[Columns]
) -> list[tuple[Cell, ...]]:
    """The ideal observers of the phantoms that are tested on, with an AUC and nothing else."""
    if any(test.phantom is None for _, _, test in columns):
        return []
    rows = []
    for observer, words in _OBSERVERS.items():
        cells = [Cell(f"ideal: {words}"), *[EMPTY] * (len(heads) - 1)]
        for column in header[len(heads) :]:
            if not column.name.startswith("AUC ["):
                cells.append(EMPTY)
                continue
            test = next(test for name, _, test in columns if name == column.group)
            phantom = test.test(0).phantom
            assert phantom is not None
            area = _ideal(phantom)[observer]
            cells.append(Cell(f"{area:.3f}", numbers={"mean": area}))
        rows.append(tuple(cells))
    return rows


@lru_cache(maxsize=16)
def _ideal(phantom: PhantomConfig) -> dict[str, float]:
    return ideal_observer_auc(phantom)
