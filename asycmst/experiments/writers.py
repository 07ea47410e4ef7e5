"""A table as text for the terminal, as Markdown and as CSV."""

import csv
import io
from pathlib import Path

from asycmst.experiments.tables import Cell, Table
from asycmst.files import write_text

_MARKS = {1: "*", 2: "+", None: " "}


def write_table(table: Table, folder: Path, name: str) -> list[Path]:
    """Write NAME.txt, NAME.md and NAME.csv.

    Args:
        table: what to write.
        folder: which exists.
        name: stem of the files.

    Returns:
        The files.
    """
    texts = {"txt": to_text(table), "md": to_markdown(table), "csv": to_csv(table)}
    files = []
    for suffix, text in texts.items():
        files.append(folder / f"{name}.{suffix}")
        write_text(files[-1], text)
    return files


def to_text(table: Table) -> str:
    """Aligned columns; an asterisk marks the best of a column, a plus the second."""
    marked = [
        [cell.text + _MARKS[table.rank(i, j)] for j, cell in enumerate(row)]
        for i, row in enumerate(table.rows)
    ]
    headings = [column.heading + " " for column in table.columns]
    widths = [max(len(line[j]) for line in (headings, *marked)) for j in range(len(headings))]
    groups = []
    for j, column in enumerate(table.columns):
        is_new = j == 0 or table.columns[j - 1].group != column.group
        groups.append(column.group if is_new else "")
    widths = [max(width, len(group)) for width, group in zip(widths, groups, strict=True)]

    def line(texts: list[str]) -> str:
        padded = (text.ljust(width) for text, width in zip(texts, widths, strict=True))
        return " ".join(padded).rstrip()

    rule = "-" * (sum(widths) + len(widths) - 1)
    lines = [table.title, rule, *([line(groups)] * any(groups)), line(headings), rule]
    lines += [*map(line, marked), rule]
    if any(column.best for column in table.columns):
        lines.append("* best of its column, + second")
    return "\n".join((*lines, *table.notes)) + "\n"


def to_markdown(table: Table) -> str:
    """The best of a column bold, the second underlined, as in the paper."""
    lines = [
        f"**{table.title}**",
        "",
        _markdown_row([f"{x.group} {x.heading}".strip() for x in table.columns]),
        "|" + "---|" * len(table.columns),
    ]
    for i, row in enumerate(table.rows):
        lines.append(
            _markdown_row([_marked(cell, table.rank(i, j)) for j, cell in enumerate(row)])
        )
    lines.append("")
    if any(column.best for column in table.columns):
        lines += ["Bold is the best of its column, underlined the second.  "]
    return "\n".join((*lines, *(note + "  " for note in table.notes))) + "\n"


def to_csv(table: Table) -> str:
    """One column for the text of each of the table's, one for each number behind it, one for rank.

    Empty where a cell has no such number.
    """
    names: list[list[str]] = [
        list(dict.fromkeys(key for row in table.rows for key in row[j].numbers))
        for j in range(len(table.columns))
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = []
    for column, keys in zip(table.columns, names, strict=True):
        heading = f"{column.group} {column.name}".strip()
        header += [heading, *(f"{heading}, {key}" for key in keys)]
        if column.best:
            header.append(f"{heading}, rank")
    writer.writerow(header)
    for i, row in enumerate(table.rows):
        entries: list[object] = []
        for j, cell in enumerate(row):
            entries += [cell.text, *(cell.numbers.get(key, "") for key in names[j])]
            if table.columns[j].best:
                entries.append(table.rank(i, j) or "")
        writer.writerow(entries)
    return text.getvalue()


def _markdown_row(texts: list[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _marked(cell: Cell, rank: int | None) -> str:
    return {1: f"**{cell.text}**", 2: f"<u>{cell.text}</u>", None: cell.text}[rank]
