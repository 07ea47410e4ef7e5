"""How large the trainings of an experiment are, and on what data they run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from asycmst.config import AsyCMSTConfig
from asycmst.data.cache import read_cache
from asycmst.experiments.grid import Source, Study
from asycmst.training.recipe import Recipe
from asycmst.training.settings import FitSettings, PhantomSplits, RunSettings

Size = Literal["smoke", "demo", "paper"]
Domain = Literal["thyroid", "breast"]


class CaseFolder(NamedTuple):
    """Own data: a cache of `asycmst prepare` and the splits of `asycmst split`."""

    cache: Path
    splits: Path


class _Scale(NamedTuple):
    model: AsyCMSTConfig
    recipe: Recipe
    train: int
    validation: int
    test: int
    loss_weights: tuple[float, ...]
    threads: int | None


def make_study(
    size: Size,
    out: Path,
    *,
    repeats: int | None = None,
    jobs: int = 1,
    domains: Sequence[Domain] = ("thyroid", "breast"),
    folders: Sequence[CaseFolder] = (),
) -> Study:
    """The study of a size on phantoms, or on one's own data.

    Args:
        size: "smoke" shows that everything runs and is no result; "demo" has the model and the
            phantoms of `asycmst demo`; "paper" the paper's model and training.
        out: folder of everything.
        repeats: None is 3, 1 for "smoke", or as many as the splits of the own data have.
        jobs: how many trainings run side by side.
        domains: of the phantoms, where there is no data of one's own.
        folders: own data, one set or two; none is the phantoms.

    Raises:
        FileNotFoundError, ValueError: a cache or its splits are missing or do not go together, or
            the folders of two data sets cannot be told apart by their names.
    """
    scale = _scale(size)
    if folders:
        caches = [one.cache.resolve() for one in folders]
        sources = tuple(
            Source(name, cache=cache, splits=one.splits.resolve())
            for name, cache, one in zip(_names(caches), caches, folders, strict=True)
        )
        frames, frame_size = _shape(folders)
        model = replace(scale.model, frames=frames, image_size=frame_size)
    else:
        sources = tuple(
            Source(domain.capitalize(), _phantoms(domain, scale), scale.test) for domain in domains
        )
        model = scale.model
    threads = scale.threads
    if threads is None and jobs > 1:
        threads = 1
    run = RunSettings(threads=threads, save_minutes=2.0)
    return Study(
        size,
        FitSettings(model=model, recipe=scale.recipe, run=run),
        sources,
        _repeats(sources, repeats, 1 if size == "smoke" else 3),
        out,
        scale.loss_weights,
    )


def _scale(size: Size) -> _Scale:
    weights = (0.1, 0.2, 0.4, 0.8, 1.6)
    if size == "paper":
        # The shares 5:2:3 of Section 4.1.2, of a data set of the size of the thyroid's.
        return _Scale(AsyCMSTConfig.paper(), Recipe.paper(), 1455, 582, 873, weights, None)
    if size == "demo":
        return _Scale(AsyCMSTConfig.demo(), Recipe.demo(), 1600, 200, 400, weights, 1)
    small = replace(
        AsyCMSTConfig.demo(),
        frames=4,
        image_size=32,
        dim=16,
        ffn_dim=32,
        decoder_channels=(8, 8),
    )
    recipe = replace(Recipe.demo(), epochs=1, batch_size=8)
    return _Scale(small, recipe, 24, 12, 24, (0.4, 0.8), 1)


def _phantoms(domain: Domain, scale: _Scale) -> PhantomSplits:
    return PhantomSplits(
        frames=scale.model.frames,
        size=scale.model.frame_size[0],
        domain=domain,
        train=scale.train,
        validation=scale.validation,
    )


def _names(caches: Sequence[Path]) -> list[str]:
    """What tables and files call the data sets; upper and lower case make no two files."""
    names = [cache.name for cache in caches]
    if _are_alike(names):
        names = [f"{cache.parent.name}/{cache.name}" for cache in caches]
    if _are_alike(names):
        raise ValueError(
            f"{' and '.join(map(str, caches))} are two data sets of one name, {names[0]}; give "
            "two different ones, or rename a folder"
        )
    return names


def _are_alike(names: Sequence[str]) -> bool:
    return len({name.lower() for name in names}) < len(names)


def _shape(folders: Sequence[CaseFolder]) -> tuple[int, tuple[int, int]]:
    shapes = []
    for one in folders:
        cache = read_cache(one.cache)
        shapes.append((cache.frames, cache.frame_size))
    if len(set(shapes)) > 1:
        raise ValueError(
            f"{folders[0].cache} has {_words(*shapes[0])}, {folders[1].cache} "
            f"{_words(*shapes[1])}; prepare both alike"
        )
    return shapes[0]


def _words(frames: int, frame_size: tuple[int, int]) -> str:
    return f"{frames} frames of {frame_size[0]} x {frame_size[1]}"


def _repeats(sources: Sequence[Source], wanted: int | None, usual: int) -> int:
    limits = [limit for source in sources if (limit := source.most_repeats()) is not None]
    if not limits:
        return usual if wanted is None else wanted
    if wanted is None:
        return min(limits)
    if wanted > min(limits):
        raise ValueError(
            f"--seeds {wanted}: the splits have {min(limits)} folds; give no more than these, or "
            "draw more by `asycmst split --folds`"
        )
    return wanted
