"""The pooled features of test cases in two dimensions, model beside model (t-SNE, Fig 8)."""

import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asycmst.analysis.canvas import COLOURS, MARKERS, new_figure, save_both

PERPLEXITY = 30.0
_CLASSES = ("benign", "malignant")


class Embedded(NamedTuple):
    """Cases of one model on one data set.

    Attributes:
        points: float64 (n, 2), where t-SNE puts the cases; neither axis has a unit.
        labels: int64 (n,), 1 = malignant.
        separation: the mean silhouette of the classes among the features themselves, in [-1, 1]:
            how much nearer a case is to its own class than to the other. It does not depend on
            the embedding, whose distances say little.
    """

    points: NDArray[np.float64]
    labels: NDArray[np.int64]
    separation: float


def embed(features: ArrayLike, labels: ArrayLike, seed: int = 0) -> Embedded:
    """Embed features in the plane by t-SNE, from their first two principal components.

    The perplexity is 30, less where a third of the cases are fewer.

    Args:
        features: shape (n, D), such as `asycmst.analysis.predict_dataset.Predictions.features`.
        labels: shape (n,), 1 = malignant.
        seed: of what t-SNE draws; the same seed gives the same points.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: the shapes do not fit, a feature is not finite, there are fewer than four
            cases, or fewer than two of a class.
    """
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score

    values = np.asarray(features, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.int64)
    if values.ndim != 2 or truth.shape != values.shape[:1]:
        raise ValueError(
            f"features of shape {values.shape} and labels of shape {truth.shape}: give (n, D) and "
            "(n,)"
        )
    counts = [int((truth == label).sum()) for label in (0, 1)]
    if min(counts) < 2 or sum(counts) != len(truth):
        raise ValueError(
            f"{counts[0]} benign and {counts[1]} malignant of {len(truth)} cases: give at least "
            "two of each, labelled 0 and 1"
        )
    if not np.isfinite(values).all():
        raise ValueError("a feature is not finite: the model's training diverged, use another one")
    tsne = TSNE(
        n_components=2,
        perplexity=min(PERPLEXITY, (len(values) - 1) / 3),
        init="pca",
        random_state=seed,
    )
    points = tsne.fit_transform(values).astype(np.float64)
    return Embedded(points, truth, float(silhouette_score(values, truth)))


def embedding_figure(
    path: str | os.PathLike[str], rows: Mapping[str, Mapping[str, Embedded]]
) -> None:
    """Draw embeddings, a row of models for each data set, with their separation in the headings.

    Args:
        path: the figure without suffix; PATH.png and PATH.svg are written.
        rows: by data set and model; all data sets have the same models.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: the folder of `path` does not exist.
        ValueError: there is nothing to draw, or the models of the data sets differ.
    """
    models = [list(row) for row in rows.values()]
    if not models or not models[0] or any(names != models[0] for names in models):
        raise ValueError(f"models {models}: give at least one, the same ones for each data set")
    columns = len(models[0])
    figure = new_figure(max(2.9 * columns, 4.2), 3.5 * len(rows) + 0.5)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, row) in zip(grid, rows.items(), strict=True):
        for axes, (model, embedded) in zip(line, row.items(), strict=True):
            for label, kind in enumerate(_CLASSES):
                x, y = embedded.points[embedded.labels == label].T
                axes.scatter(
                    x,
                    y,
                    s=22,
                    color=COLOURS[label],
                    marker=MARKERS[label],
                    alpha=0.75,
                    linewidths=0.4,
                    edgecolors="white",
                    label=kind,
                )
            axes.set(xticks=[], yticks=[], box_aspect=1)
            axes.set_title(f"{model}\nsilhouette {embedded.separation:.2f}", fontsize=10)
        line[0].set_ylabel(name, fontsize=11)
    handles, kinds = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, kinds, loc="outside lower center", ncols=2, frameon=False)
    save_both(figure, path)
