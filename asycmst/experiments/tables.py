"""Tables of results, with the best and the second of each column known."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Best = Literal["highest", "lowest"]


@dataclass(frozen=True)
class Cell:
    """One entry.

    Attributes:
        text: as it is read.
        value: what ranks it in its column; None takes no part.
        numbers: for the CSV file, by the name of what they are.
    """

    text: str
    value: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: its heading.
        group: a heading that it shares with its neighbours; empty for none.
        best: which values win; None is not ranked.
    """

    name: str
    group: str = ""
    best: Best | None = None

    @property
    def heading(self) -> str:
        """Its name, and an arrow that says which way is better."""
        return self.name + {"highest": " ↑", "lowest": " ↓", None: ""}[self.best]


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns.

    Attributes:
        title: one line.
        columns: from left to right.
        rows: a cell for each column.
        notes: what a reader must know, one line each.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def rank(self, row: int, column: int) -> int | None:
        """1 for the best of its column, 2 for the second; None for others.

        Equal values have equal rank. A column needs two different values for a best one.
        """
        best, own = self.columns[column].best, self.rows[row][column].value
        if best is None or own is None:
            return None
        values = {cells[column].value for cells in self.rows} - {None}
        order = sorted((v for v in values if v is not None), reverse=best == "highest")
        place = order.index(own) + 1
        return place if place <= 2 and len(order) > 1 else None
