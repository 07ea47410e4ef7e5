"""Everything that is wrong with a study's data, found in one pass before anyone trains."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asycmst.data.clips import View, open_clip
from asycmst.data.manifest import Case, Problem, parse_manifest
from asycmst.data.masks import read_masks
from asycmst.data.pairs import common_duration, duration_note
from asycmst.data.privacy import without_names
from asycmst.data.sampling import FloatArray, IntArray, Source

_THUMBNAIL = 8  # pixels of a frame that is decoded only to see that it can be


@dataclass
class Checked:
    """What a check found.

    Attributes:
        cases: the cases of the manifest that could be understood.
        problems: all of them, errors first, in the manifest's order.
        sources: what is known of each readable case's BUS and CEUS clip, by case id.
        annotated: annotated BUS frames by case id, of cases with readable masks.
    """

    cases: tuple[Case, ...]
    problems: list[Problem] = field(default_factory=list)
    sources: dict[str, tuple[Source, Source]] = field(default_factory=dict)
    annotated: dict[str, int] = field(default_factory=dict)

    @property
    def errors(self) -> int:
        """How many problems must be repaired."""
        return sum(problem.error for problem in self.problems)


def check(
    manifest: str | os.PathLike[str],
    *,
    deep: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Checked:
    """Look at a manifest and at every file it names.

    Args:
        manifest: as for `asycmst.data.manifest.read_manifest`.
        deep: decode every frame and mask; otherwise files are opened and their frames counted,
            and the first and last frame are decoded.
        report: called with the cases dealt with and their number.

    Raises:
        FileNotFoundError, ValueError: there is no manifest at all.
        ImportError: a library that reads one of the kinds of clip is missing.
    """
    cases, problems = parse_manifest(manifest)
    found = Checked(cases, problems)
    found.problems.extend(leaks(cases))
    found.problems.extend(_patients(cases))
    for number, case in enumerate(cases, start=1):
        found.problems.extend(_check_case(case, deep, found))
        report(number, len(cases))
    found.problems.extend(_twins(cases))
    found.problems.extend(_classes(cases))
    order = {case.id: place for place, case in enumerate(cases)}
    found.problems.sort(key=lambda one: (not one.error, order.get(one.case or "", -1)))
    return found


def leaks(cases: Sequence[Case]) -> Iterator[Problem]:
    """Cases whose patient is in several parts of the study: what a model learns, it is asked."""
    parts: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        if case.patient is not None and case.split is not None:
            parts[case.patient].add(case.split)
    for case in cases:
        if case.patient is not None and len(parts[case.patient]) > 1:
            where = " and ".join(sorted(parts[case.patient]))
            yield Problem(case.id, f"its patient is in {where}: keep a patient in one split")


def _patients(cases: Sequence[Case]) -> Iterator[Problem]:
    by_patient: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.patient is not None:
            by_patient[case.patient].append(case)
    for same in by_patient.values():
        if len({case.label for case in same}) > 1:
            names = ", ".join(case.id for case in same)
            text = f"cases {names} are of one patient and have different labels: correct one"
            yield Problem(same[0].id, text)
    if any(case.patient is not None for case in cases):
        missing = [case.id for case in cases if case.patient is None]
        if missing:
            yield Problem(
                missing[0],
                f"{len(missing)} cases have no patient and others do: each counts as a patient of "
                "its own",
                error=False,
            )
    named = [case.id for case in cases if case.id == case.patient]
    if named:
        yield Problem(
            named[0],
            f"the id of {len(named)} cases is their patient's identifier, and ids appear in "
            "results: give ids of their own",
            error=False,
        )


def _check_case(case: Case, deep: bool, found: Checked) -> Iterator[Problem]:
    if (case.bus, case.bus_view) == (case.ceus, case.ceus_view):
        yield Problem(case.id, "BUS and CEUS are the same clip: give two, or the view of each")
    bus = yield from _check_clip(case, "BUS", case.bus, case.bus_view, deep)
    ceus = yield from _check_clip(case, "CEUS", case.ceus, case.ceus_view, deep)
    if bus is not None and ceus is not None:
        found.sources[case.id] = bus, ceus
        unequal = duration_note(bus, ceus)
        if unequal is not None:
            yield Problem(case.id, f"{unequal}; what both cover is used", error=False)
        shapes = _shown(bus), _shown(ceus)
        if shapes[0] != shapes[1]:
            text = (
                f"BUS frames are {shapes[0][1]} x {shapes[0][0]} and CEUS frames {shapes[1][1]} x "
                f"{shapes[1][0]} pixels: a place must mean the same in both"
            )
            yield Problem(case.id, text, error=False)
    if case.mask is not None:
        yield from _check_mask(case, bus, ceus, deep, found)


def _check_clip(
    case: Case, kind: str, path: Path, view: View | None, deep: bool
) -> Generator[Problem, None, Source | None]:
    try:
        opened = open_clip(path, view)
        if opened.source.frames < 2:
            text = f"the {kind} clip holds one frame: a clip needs at least two"
            yield Problem(case.id, text)
            return None
        read = opened.read(_every if deep else _ends, _THUMBNAIL)
    except ImportError:
        raise
    except Exception as error:  # one odd file must not hide what is wrong with the others
        yield Problem(case.id, without_names(error, case))
        return None
    for note in read.notes:
        yield Problem(case.id, f"{kind}: {note}", error=False)
    return opened.source


def _every(available: int, times: FloatArray | None) -> IntArray:
    return np.arange(available, dtype=np.int64)


def _ends(available: int, times: FloatArray | None) -> IntArray:
    return np.array([0, available - 1], dtype=np.int64)


def _shown(source: Source) -> tuple[int, int]:
    box = source.box
    return source.size if box is None else (box.bottom - box.top, box.right - box.left)


def _check_mask(
    case: Case, bus: Source | None, ceus: Source | None, deep: bool, found: Checked
) -> Iterator[Problem]:
    assert case.mask is not None
    try:
        masks = read_masks(case.mask)
        if bus is None:
            return
        places = masks.indices(bus)
        for number in masks.frames if deep else masks.frames[:1]:
            masks.at(number, *bus.size)
    except Exception as error:  # as for clips
        yield Problem(case.id, without_names(error, case))
        return
    found.annotated[case.id] = len(places)
    common = None if ceus is None else common_duration(bus, ceus)
    if common is not None and bus.times is not None and bus.times[min(places)] > common:
        text = "all masks lie after the end of the CEUS clip and are not used"
        yield Problem(case.id, text, error=False)


def _twins(cases: Sequence[Case]) -> Iterator[Problem]:
    """Files with the same content under several cases; equal sizes are compared first."""
    by_size: dict[int, dict[Path, list[str]]] = defaultdict(lambda: defaultdict(list))
    for case in cases:
        for path in {case.bus, case.ceus}:
            files = _files(path)
            if files:
                by_size[sum(file.stat().st_size for file in files)][path].append(case.id)
    for paths in by_size.values():
        if sum(len(ids) for ids in paths.values()) < 2:
            continue
        by_content: dict[str, list[str]] = defaultdict(list)
        for path, ids in paths.items():
            by_content[_digest(path)].extend(ids)
        for ids in by_content.values():
            if len(ids) > 1:
                names = ", ".join(dict.fromkeys(ids))
                yield Problem(ids[0], f"the same clip stands {len(ids)} times: cases {names}")


def _files(path: Path) -> list[Path]:
    try:
        if path.is_dir():
            return sorted(file for file in path.iterdir() if file.is_file())
        return [path] if path.stat().st_size else []
    except OSError:
        return []


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for file in _files(path):
        try:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError:
            return f"unreadable {path}"
    return digest.hexdigest()


def _classes(cases: Sequence[Case]) -> Iterator[Problem]:
    parts: dict[str | None, set[int]] = defaultdict(set)
    for case in cases:
        parts[case.split].add(case.label)
    for part, labels in parts.items():
        if len(labels) == 1:
            where = "the manifest" if part is None else f"the split {part}"
            name = "malignant" if labels == {1} else "benign"
            text = f"all cases of {where} are {name}: there is nothing to tell apart"
            yield Problem(None, text, error=False)
