"""Table 1 and Fig 5: what the data sets consist of. Nothing is trained."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from asycmst.analysis.dataset_report import DescribedCase, age_figure, count_cases, table
from asycmst.data.cache import read_cache
from asycmst.data.phantom import make_phantom
from asycmst.data.phantom_files import age_and_sex
from asycmst.data.samples import split_seed
from asycmst.experiments.curves import figure_files
from asycmst.experiments.grid import Place, Source, Study, Trial
from asycmst.experiments.scores import Results
from asycmst.experiments.tables import Cell, Column, Table
from asycmst.experiments.writers import write_table


class _Phantom(NamedTuple):
    label: int
    age: int | None
    sex: str | None


def grid(study: Study) -> dict[Place, Trial]:
    """No runs."""
    return {}


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write Table 1 and Fig 5."""
    found = {source.name: _cases(source) for source in study.sources}
    header, *lines = table({name: count_cases(cases) for name, cases in found.items()})
    notes: tuple[str, ...] = ()
    if study.sources[0].phantom is not None:
        notes = (
            "Synthetic phantoms of seed 0, training, validation and test together. Nobody was "
            "examined: ages and sexes are drawn at random, apart from everything else.",
        )
    shown = Table(
        "Table 1: the data sets",
        tuple(map(Column, header)),
        tuple(tuple(map(Cell, line)) for line in lines),
        notes,
    )
    age_figure(folder / "fig-5", found)
    return [*write_table(shown, folder, "table-1"), *figure_files(folder, "fig-5")]


def _cases(source: Source) -> Sequence[DescribedCase]:
    if source.cache is not None:
        return read_cache(source.cache).cases
    assert source.phantom is not None
    # Class, age and sex of a phantom do not depend on its size, and small ones are quick to draw.
    small = replace(source.phantom, frames=2, size=32)
    cases = []
    for seed, number in (
        (split_seed(0, "train"), small.train),
        (split_seed(0, "validation"), small.validation),
        (split_seed(0, "test"), source.test_samples),
    ):
        for index in range(number):
            age, sex = age_and_sex(small, seed, index)
            cases.append(_Phantom(make_phantom(small, seed, index).label, age, sex))
    return cases
