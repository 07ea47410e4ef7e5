"""What a study consists of: the cases of a manifest CSV, or of the released data's folder."""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from asycmst.data.clips import View

Split = Literal["train", "validation", "test"]
Sex = Literal["F", "M"]

_NEEDED = ("id", "bus", "ceus", "label")
_OPTIONAL = ("patient", "split", "mask", "bus_view", "ceus_view", "age", "sex")
_RELEASED = ("id", "bus_vid", "ceus_vid", "label")
LABELS = {"0": 0, "1": 1, "benign": 0, "malignant": 1}
_SPLITS: dict[str, Split] = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_SEXES: dict[str, Sex] = {"f": "F", "female": "F", "m": "M", "male": "M"}
_OLDEST = 120
_CLASS_FOLDERS = ("0.ben", "1.mal")
_RELEASED_CSV = re.compile(r"(train|valid|test)_(\d+)\.csv")


@dataclass(frozen=True)
class Case:
    """One nodule: a paired BUS and CEUS clip with its diagnosis.

    Attributes:
        id: names the case in every message and result.
        bus: the B-mode clip, any kind that :func:`asycmst.data.clips.load_clip` reads.
        ceus: the contrast clip.
        label: 1 malignant, 0 benign.
        patient: whose nodule it is; never written anywhere. None where the manifest has no such
            column: then every case counts as a patient of its own.
        split: part of the study, None where the manifest does not say.
        mask: annotated masks of the BUS clip, as :func:`asycmst.data.masks.read_masks` takes.
        bus_view: which half of a side-by-side recording the B-mode image is, None for all of it.
        ceus_view: the same of the contrast image.
        age: of the patient in whole years, None where the manifest does not say.
        sex: of the patient, None where the manifest does not say.
    """

    id: str
    bus: Path
    ceus: Path
    label: int
    patient: str | None = None
    split: Split | None = None
    mask: Path | None = None
    bus_view: View | None = None
    ceus_view: View | None = None
    age: int | None = None
    sex: Sex | None = None


class Problem(NamedTuple):
    """Something about the data that a user should know.

    Attributes:
        case: the id of the case, None where it concerns the whole manifest.
        text: one line: what it is and what to do. It holds no patient identifier.
        error: True where it must be repaired, False where it is worth a look.
    """

    case: str | None
    text: str
    error: bool = True

    def __str__(self) -> str:
        return self.text if self.case is None else f"case {self.case}: {self.text}"


def read_manifest(path: str | os.PathLike[str]) -> tuple[Case, ...]:
    """The cases of a manifest; the files they name are not looked at.

    A manifest is a CSV with the columns id, bus, ceus and label, and optionally patient, split,
    mask, bus_view, ceus_view, age and sex. Paths are relative to the CSV; a label is 0, 1, benign
    or malignant; a split is train, validation (or valid) or test; a view is left or right; an age
    is in whole years; a sex is F, M, female or male. Commas, semicolons and tabs may separate the
    columns.

    Or it is the folder of the paper's released data, or one CSV of it: columns id, bus_vid,
    ceus_vid and label, frames in images/{0.ben,1.mal}/{bus,ceus}/NAME/00000.jpg, where that folder
    is missing the video in videos/{0.ben,1.mal}/{bus,ceus}/NAME.mp4. Of a folder all CSVs are
    read; they give the splits if they are those of one fold.

    Raises:
        FileNotFoundError: nothing exists at `path`.
        ValueError: anything is wrong with it; the message tells the first thing and how many more.
    """
    cases, problems = parse_manifest(path)
    errors = [problem for problem in problems if problem.error]
    if errors:
        more = f" (and {len(errors) - 1} more: see asycmst check)" if len(errors) > 1 else ""
        raise ValueError(f"{path}: {errors[0]}{more}")
    return cases


def parse_manifest(path: str | os.PathLike[str]) -> tuple[tuple[Case, ...], list[Problem]]:
    """The cases of a manifest that can be understood, and everything wrong with the others.

    Args:
        path: as for `read_manifest`.

    Raises:
        FileNotFoundError: nothing exists at `path`.
        ValueError: a folder without a CSV.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"no manifest at {source}: check the path and its spelling")
    problems: list[Problem] = []
    cases = _released_folder(source, problems) if source.is_dir() else _read_csv(source, problems)
    if not cases and not problems:
        problems.append(Problem(None, "holds no case: a header line is followed by one per case"))
    times = Counter(case.id for case in cases)
    problems.extend(
        Problem(name, f"the id stands on {count} lines: give every case an id of its own")
        for name, count in times.items()
        if count > 1
    )
    return tuple(cases), problems


def _released_folder(folder: Path, problems: list[Problem]) -> list[Case]:
    parts = sorted(path for path in folder.glob("*.csv") if path.is_file())
    if not parts:
        raise ValueError(
            f"{folder} holds no CSV: give a manifest CSV, or the folder of the released data with "
            "its train_1.csv, valid_1.csv and test_1.csv"
        )
    matches = {part: _RELEASED_CSV.fullmatch(part.name) for part in parts}
    one_fold = len({match[2] for match in matches.values() if match}) == 1
    cases: dict[tuple[str, Path, Path, int], Case] = {}
    for part, match in matches.items():
        split = _SPLITS[match[1]] if match and one_fold else None
        for case in _read_csv(part, problems, split):
            # Several folds list the same case again; in one fold that is a leak, kept to be found.
            key = (case.id, case.bus, case.ceus, case.label)
            if key in cases and one_fold and cases[key].split != case.split:
                problems.append(Problem(case.id, "stands in several splits of one fold"))
            cases.setdefault(key, case)
    return list(cases.values())


def _read_csv(path: Path, problems: list[Problem], split: Split | None = None) -> list[Case]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise ValueError
    except ValueError:
        problems.append(Problem(None, f"{path.name} is not UTF-8 text: save it as CSV UTF-8"))
        return []
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(lines.line_num, [cell.strip() for cell in row]) for row in lines]
    except csv.Error as error:
        problems.append(Problem(None, f"{path.name}, line {lines.line_num}: no CSV ({error})"))
        return []
    rows = [(number, row) for number, row in rows if any(row)]
    if not rows:
        problems.append(Problem(None, f"{path.name} is empty"))
        return []
    (_, names), *body = rows
    columns = [name.lower() for name in names]
    released = "bus_vid" in columns
    if not _check_columns(path, columns, _RELEASED if released else _NEEDED, released, problems):
        return []
    cases = []
    for number, row in body:
        where = f"{path.name}, line {number}"
        if len(row) != len(columns):
            problems.append(
                Problem(
                    None, f"{where}: {len(row)} cells for {len(columns)} columns; quote commas"
                )
            )
            continue
        cells = dict(zip(columns, row, strict=True))
        wrong = list(_wrong_cells(cells, _RELEASED if released else _NEEDED))
        problems.extend(Problem(cells["id"] or None, f"{where}: {text}") for text in wrong)
        if not wrong:
            make = _released_case if released else _case
            cases.append(make(path.parent, cells, split))
    return cases


def _check_columns(
    path: Path,
    columns: list[str],
    needed: tuple[str, ...],
    released: bool,
    problems: list[Problem],
) -> bool:
    missing = [name for name in needed if name not in columns]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if missing:
        text = f"{path.name} has no column {', '.join(missing)}; it has {', '.join(columns)}"
        problems.append(Problem(None, text))
    if twice:
        problems.append(Problem(None, f"{path.name} has the column {', '.join(twice)} twice"))
    known = needed if released else (*needed, *_OPTIONAL)
    unknown = [name or "(no name)" for name in columns if name not in known]
    if unknown and not missing:
        text = f"{path.name}: the column {', '.join(unknown)} is not known and ignored"
        problems.append(Problem(None, text, error=False))
    return not missing and not twice


def _wrong_cells(cells: dict[str, str], needed: tuple[str, ...]) -> Iterator[str]:
    for name in needed:
        if not cells[name]:
            yield f"the {name} is empty"
    if cells["label"] and cells["label"].lower() not in LABELS:
        yield f"the label is {cells['label']!r}: allowed are 0, 1, benign and malignant"
    split = cells.get("split", "")
    if split and split.lower() not in _SPLITS:
        yield f"the split is {split!r}: allowed are train, validation, test and nothing"
    for name in ("bus_view", "ceus_view"):
        view = cells.get(name, "")
        if view and view not in get_args(View):
            yield f"the {name} is {view!r}: allowed are left, right and nothing"
    age, sex = cells.get("age", ""), cells.get("sex", "")
    if age and not (age.isdecimal() and int(age) <= _OLDEST):
        yield f"the age is {age!r}: allowed are whole years from 0 to {_OLDEST} and nothing"
    if sex and sex.lower() not in _SEXES:
        yield f"the sex is {sex!r}: allowed are F, M, female, male and nothing"


def _case(folder: Path, cells: dict[str, str], split: Split | None) -> Case:
    mask = cells.get("mask")
    return Case(
        id=cells["id"],
        bus=folder / cells["bus"],
        ceus=folder / cells["ceus"],
        label=LABELS[cells["label"].lower()],
        patient=cells.get("patient") or None,
        split=split or _SPLITS.get(cells.get("split", "").lower()),
        mask=folder / mask if mask else None,
        bus_view=cast(View | None, cells.get("bus_view") or None),
        ceus_view=cast(View | None, cells.get("ceus_view") or None),
        age=int(cells["age"]) if cells.get("age") else None,
        sex=_SEXES.get(cells.get("sex", "").lower()),
    )


def _released_case(folder: Path, cells: dict[str, str], split: Split | None) -> Case:
    label = LABELS[cells["label"].lower()]

    def find(kind: str) -> Path:
        name = cells[f"{kind}_vid"]
        images = folder / "images" / _CLASS_FOLDERS[label] / kind / Path(name).stem
        video = folder / "videos" / _CLASS_FOLDERS[label] / kind / name
        return video if video.exists() and not images.exists() else images

    return Case(cells["id"], find("bus"), find("ceus"), label, split=split)
