"""What data sets consist of: sexes, ages and classes (Table 1, Fig 5), with checked sums."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from asycmst.analysis.canvas import COLOURS, new_figure, save_both

HEADER = [
    "Dataset",
    "F",
    "M",
    "Unknown sex",
    "Age range",
    "Unknown age",
    "Benign",
    "Malignant",
    "Overall",
]
TOTAL = "Total"

BIN_YEARS = 5


class DescribedCase(Protocol):
    """A case whose data set may say how old and of which sex its patient is."""

    @property
    def label(self) -> int:
        """1 = malignant."""

    @property
    def age(self) -> int | None:
        """Whole years."""

    @property
    def sex(self) -> str | None:
        """ "F" or "M"."""


class Counts(NamedTuple):
    """A line of the table.

    Attributes:
        female: cases of women.
        male: cases of men.
        sex_unknown: cases of which the data set does not say.
        youngest: years; None where no age is known.
        oldest: years; None where no age is known.
        age_unknown: cases of which the data set does not say.
        benign: cases.
        malignant: cases.
        overall: cases.
    """

    female: int
    male: int
    sex_unknown: int
    youngest: int | None
    oldest: int | None
    age_unknown: int
    benign: int
    malignant: int
    overall: int


def count_cases(cases: Sequence[DescribedCase]) -> Counts:
    """The line of one data set."""
    ages = _ages(cases)
    sexes = [case.sex for case in cases]
    labels = [case.label for case in cases]
    return Counts(
        female=sexes.count("F"),
        male=sexes.count("M"),
        sex_unknown=sexes.count(None),
        youngest=min(ages, default=None),
        oldest=max(ages, default=None),
        age_unknown=len(cases) - len(ages),
        benign=labels.count(0),
        malignant=labels.count(1),
        overall=len(cases),
    )


def add_up(rows: Sequence[Counts]) -> Counts:
    """The line below several data sets."""
    young = [row.youngest for row in rows if row.youngest is not None]
    old = [row.oldest for row in rows if row.oldest is not None]
    return Counts(
        female=sum(row.female for row in rows),
        male=sum(row.male for row in rows),
        sex_unknown=sum(row.sex_unknown for row in rows),
        youngest=min(young, default=None),
        oldest=max(old, default=None),
        age_unknown=sum(row.age_unknown for row in rows),
        benign=sum(row.benign for row in rows),
        malignant=sum(row.malignant for row in rows),
        overall=sum(row.overall for row in rows),
    )


def wrong_sums(rows: Mapping[str, Counts], total: Counts) -> list[str]:
    """What does not add up in a table, along its lines and down its columns; empty if all does.

    Args:
        rows: by name of the data set.
        total: the line below them.

    Returns:
        One line each: what it should be, and what it is.
    """
    found = []
    for name, row in (*rows.items(), (TOTAL, total)):
        for what, parts in (
            ("F, M and unknown sex", (row.female, row.male, row.sex_unknown)),
            ("benign and malignant", (row.benign, row.malignant)),
        ):
            if sum(parts) != row.overall:
                sums = " + ".join(map(str, parts))
                found.append(
                    f"{name}: {what} are {sums} = {sum(parts)}, overall there are {row.overall}"
                )
    expected = add_up(list(rows.values()))
    for field in Counts._fields:
        right, given = getattr(expected, field), getattr(total, field)
        if right != given:
            found.append(
                f"{TOTAL}: {field.replace('_', ' ')} is {given}, the data sets give {right}"
            )
    return found


def table(rows: Mapping[str, Counts]) -> list[list[str]]:
    """Table 1: a header, a line for each data set and, below several, their total.

    Columns about what is unknown are there only if something is.

    Raises:
        ValueError: a line or a column does not add up.
    """
    total = add_up(list(rows.values()))
    wrong = wrong_sums(rows, total)
    if wrong:
        raise ValueError("; ".join(wrong))
    lines = list(rows.items())
    if len(rows) > 1:
        lines.append((TOTAL, total))
    cells = [HEADER, *(_line(name, row) for name, row in lines)]
    unknown = {"Unknown sex": total.sex_unknown, "Unknown age": total.age_unknown}
    kept = [place for place, name in enumerate(HEADER) if unknown.get(name, 1)]
    return [[line[place] for place in kept] for line in cells]


def age_histogram(ages: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cases per five years of age.

    Args:
        ages: whole years, at least one.

    Returns:
        The edges (n + 1,), multiples of five, and the cases (n,) from each edge to below the next.
    """
    low = min(ages) // BIN_YEARS * BIN_YEARS
    high = (max(ages) // BIN_YEARS + 1) * BIN_YEARS
    edges = np.arange(low, high + 1, BIN_YEARS)
    counts, _ = np.histogram(ages, edges)
    # The last bin of NumPy includes its right edge, which no age here reaches.
    return edges, counts


def age_figure(
    path: str | os.PathLike[str], data_sets: Mapping[str, Sequence[DescribedCase]]
) -> None:
    """Draw how ages are distributed, a panel for each data set (Fig 5).

    Args:
        path: the figure without suffix; PATH.png and PATH.svg are written.
        data_sets: their cases by name.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: the folder of `path` does not exist.
        ValueError: no data set is given.
    """
    if not data_sets:
        raise ValueError("no data set is given: give at least one")
    figure = new_figure(4.6 * len(data_sets), 3.4)
    grid = figure.subplots(1, len(data_sets), squeeze=False)[0]
    for axes, (name, cases) in zip(grid, data_sets.items(), strict=True):
        ages = _ages(cases)
        unknown = len(cases) - len(ages)
        words = f"{len(ages)} cases" + (f", {unknown} of unknown age" if unknown else "")
        axes.set(title=f"{name} ({words})", xlabel="Age (years)", ylabel="Cases")
        axes.yaxis.get_major_locator().set_params(integer=True)
        if ages:
            edges, counts = age_histogram(ages)
            look = {"color": COLOURS[0], "edgecolor": "white"}
            axes.bar(edges[:-1], counts, width=BIN_YEARS, align="edge", **look)
        else:
            axes.text(0.5, 0.5, "no age is known", ha="center", transform=axes.transAxes)
    save_both(figure, path)


def _ages(cases: Sequence[DescribedCase]) -> list[int]:
    return [case.age for case in cases if case.age is not None]


def _line(name: str, row: Counts) -> list[str]:
    ages = "unknown" if row.youngest is None else f"{row.youngest}-{row.oldest}"
    return [
        name,
        *map(str, (row.female, row.male, row.sex_unknown)),
        ages,
        *map(str, (row.age_unknown, row.benign, row.malignant, row.overall)),
    ]
