"""One case of a cache: two sampled clips and the masks of their annotated frames, as bytes.

An entry is a folder of NumPy files that hold plain uint8, and clip.json. Its name depends on the
case's id, on its views and on size and time of change of its source files, so that a changed
source makes another entry. No file name and no tag of a source is in it.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import IO, Any, NamedTuple, TypedDict, cast

import numpy as np

from asycmst.data.clips import Clip
from asycmst.data.manifest import Case
from asycmst.data.masks import read_masks, sampled_masks
from asycmst.data.pairs import Pair, Sampling, duration_note, load_pair
from asycmst.data.sampling import UInt8Array

PART = ".part-"
_FACTS = "clip.json"
_DIGITS = 16


class CacheSettings(NamedTuple):
    """What all entries of a cache share.

    Attributes:
        frames: T, frames of every clip.
        size: (height, width) of every frame in pixels.
        sampling: how `asycmst.data.pairs.load_pair` chose the frames.
    """

    frames: int
    size: tuple[int, int]
    sampling: Sampling


class Facts(TypedDict):
    """What is known of an entry without opening its arrays.

    Attributes:
        annotated: indices of the frames, from 0 to T - 1, that have a mask.
        nodule_share: share of nodule pixels in all T frames.
        bus_frames: T frame numbers taken from the BUS source, from 0.
        ceus_frames: the same of the CEUS source.
        bus_times_s: seconds of these frames after the source's first, None if unknown.
        ceus_times_s: the same of the CEUS frames.
        notes: one line each, what a user should know about how the sources were read.
    """

    annotated: list[int]
    nodule_share: float
    bus_frames: list[int]
    ceus_frames: list[int]
    bus_times_s: list[float] | None
    ceus_times_s: list[float] | None
    notes: list[str]


class Entry(NamedTuple):
    """A case ready to be written.

    Attributes:
        arrays: uint8 arrays by file name: bus.npy and ceus.npy (C, T, H, W) with C = 1 where the
            clip is grey and 3 else; mask.npy (A, ceil(H W / 8)), the bits of the A annotated
            frames' masks, only where there are any.
        facts: what clip.json holds.
    """

    arrays: dict[str, UInt8Array]
    facts: Facts


def entry_name(case: Case) -> str:
    """The folder name of a case's entry, from its id and the state of its sources.

    Raises:
        FileNotFoundError: a source does not exist.
    """
    sources = [path for path in (case.bus, case.ceus, case.mask) if path is not None]
    state = [case.bus_view, case.ceus_view, [_state(path) for path in sources]]
    return f"{entry_prefix(case.id)}{_digest(json.dumps(state))}"


def entry_prefix(case_id: str) -> str:
    """What the names of all entries of a case start with, whatever its sources were."""
    return f"{_digest(case_id)}-"


def make_entry(case: Case, settings: CacheSettings) -> Entry:
    """Read and sample the sources of a case.

    Raises:
        FileNotFoundError, ImportError, ValueError: a source cannot be used.
    """
    masks = None if case.mask is None else read_masks(case.mask)
    pair = load_pair(
        case.bus,
        case.ceus,
        settings.frames,
        settings.size,
        bus_view=case.bus_view,
        ceus_view=case.ceus_view,
        annotated=None if masks is None else masks.indices,
        sampling=settings.sampling,
    )
    for kind, source in (("BUS", pair.bus_source), ("CEUS", pair.ceus_source)):
        if source.frames < 2:
            raise ValueError(f"the {kind} clip holds one frame: a clip needs at least two")
    arrays = {"bus.npy": _planes(pair.bus), "ceus.npy": _planes(pair.ceus)}
    fitted = {} if masks is None else sampled_masks(masks, pair, settings.size)
    stacked = np.zeros((len(fitted), settings.size[0] * settings.size[1]), np.bool_)
    for row, mask in zip(stacked, fitted.values(), strict=True):
        row[:] = mask.ravel()
    if fitted:
        arrays["mask.npy"] = np.packbits(stacked, axis=1)
    facts = Facts(
        annotated=list(fitted),
        nodule_share=float(stacked.sum()) / (stacked.shape[1] * settings.frames),
        bus_frames=pair.bus.source_indices.tolist(),
        ceus_frames=pair.ceus.source_indices.tolist(),
        bus_times_s=_seconds(pair.bus),
        ceus_times_s=_seconds(pair.ceus),
        notes=_notes(pair, masks is not None and not fitted),
    )
    return Entry(arrays, facts)


def write_entry(entry: Entry, cases: Path, name: str) -> None:
    """Write an entry to the folder `cases`; it appears whole or not at all.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    part = cases / f"{PART}{name}"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        for file_name, array in entry.arrays.items():
            with (part / file_name).open("wb") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
                _to_disk(file)
        sizes = {file.name: file.stat().st_size for file in part.iterdir()}
        with (part / _FACTS).open("w", encoding="utf-8") as text:
            json.dump({"facts": entry.facts, "bytes": sizes}, text, allow_nan=False)
            _to_disk(text)
        damaged = cases / name
        if damaged.exists():
            shutil.rmtree(damaged)
        part.rename(cases / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def read_facts(entry: Path) -> Facts | None:
    """What clip.json says, or None where the entry is missing or not whole."""
    try:
        content = json.loads((entry / _FACTS).read_text(encoding="utf-8"))
        sizes = content["bytes"].items()
        whole = all((entry / name).stat().st_size == size for name, size in sizes)
        return cast(Facts, content["facts"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _state(path: Path) -> list[Any]:
    files = [path] if not path.is_dir() else sorted(f for f in path.iterdir() if f.is_file())
    stats = [(file.name, file.stat()) for file in files]
    return [(name if path.is_dir() else "", s.st_size, s.st_mtime_ns) for name, s in stats]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def _planes(clip: Clip) -> UInt8Array:
    grey = (clip.frames == clip.frames[..., :1]).all()
    kept = clip.frames[..., :1] if grey else clip.frames
    return np.ascontiguousarray(kept.transpose(3, 0, 1, 2))


def _notes(pair: Pair, no_mask_met: bool) -> list[str]:
    named = (("BUS", pair.bus), ("CEUS", pair.ceus))
    notes = [f"{name}: {note}" for name, clip in named for note in clip.notes]
    unequal = duration_note(pair.bus_source, pair.ceus_source)
    if unequal is not None:
        notes.append(unequal)
    if no_mask_met:
        notes.append("no annotated frame lies in the time that BUS and CEUS share")
    return notes


def _seconds(clip: Clip) -> list[float] | None:
    return None if clip.times is None else [round(float(time), 6) for time in clip.times]


def _to_disk(file: IO[Any]) -> None:
    # Before the rename: after a power cut an entry must not be there without its content.
    file.flush()
    os.fsync(file.fileno())
