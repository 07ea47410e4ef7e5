"""t-SNE of the pooled features (Fig 8): seeded, separated where the features are, and drawn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import silhouette_score

from asycmst.analysis import embedding
from asycmst.analysis.embedding import embed, embedding_figure


def cases(distance: float, size: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = np.arange(size) % 2
    features = generator.normal(size=(size, 12))
    features[:, 0] += distance * labels
    return features, labels


def test_the_same_seed_gives_the_same_points() -> None:
    features, labels = cases(3)
    one, again = embed(features, labels, 1), embed(features, labels, 1)
    assert one.points.shape == (40, 2) and one.points.dtype == np.float64
    assert np.array_equal(one.points, again.points)


def test_separation_is_that_of_the_features() -> None:
    apart, mixed = embed(*cases(20)), embed(*cases(0))
    assert apart.separation == pytest.approx(silhouette_score(*cases(20)))
    assert apart.separation > 0.5 > 0.1 > mixed.separation
    near = silhouette_score(apart.points, apart.labels)
    assert near > 0.5, "classes that lie apart stay apart in the plane"


def test_few_cases_are_embedded_too() -> None:
    assert embed(*cases(1, size=4)).points.shape == (4, 2)


@pytest.mark.parametrize(
    ("features", "labels", "line"),
    [
        (np.zeros((4, 3)), [0, 0, 1], r"features of shape \(4, 3\) and labels of shape \(3,\)"),
        (np.zeros((4, 3)), [0, 0, 0, 1], "3 benign and 1 malignant of 4 cases: give at least two"),
        (np.zeros((4, 3)), [0, 0, 1, 2], "2 benign and 1 malignant of 4"),
        (np.full((4, 3), np.nan), [0, 0, 1, 1], "a feature is not finite"),
    ],
)
def test_what_cannot_be_embedded(features: np.ndarray, labels: list[int], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        embed(features, labels)


def test_a_panel_for_each_model_and_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    original = embedding.new_figure
    monkeypatch.setattr(
        embedding, "new_figure", lambda *size: made.append(original(*size)) or made[-1]
    )
    one = embed(*cases(20))
    rows = {name: {"none": one, "all": one} for name in ("Thyroid", "Breast")}
    embedding_figure(tmp_path / "tsne.v1", rows)
    panels = made[0].axes
    headings = [axes.get_title() for axes in panels]
    assert headings == [f"{m}\nsilhouette {one.separation:.2f}" for m in ("none", "all")] * 2
    assert [panels[0].get_ylabel(), panels[2].get_ylabel()] == ["Thyroid", "Breast"]
    benign, malignant = panels[0].collections
    assert np.array_equal(malignant.get_offsets(), one.points[one.labels == 1])
    assert not np.array_equal(benign.get_facecolor(), malignant.get_facecolor())
    shapes = [len(x.get_paths()[0].vertices) for x in (benign, malignant)]
    assert shapes[0] != shapes[1], "classes differ in marker too"
    with Image.open(tmp_path / "tsne.v1.png") as image:
        assert image.format == "PNG"
    assert "<svg" in (tmp_path / "tsne.v1.svg").read_text()[:500]
    with pytest.raises(ValueError, match="give at least one, the same ones for each data set"):
        embedding_figure(tmp_path / "x", {"Thyroid": {"none": one}, "Breast": {"all": one}})
    assert sorted(x.name for x in tmp_path.iterdir()) == ["tsne.v1.png", "tsne.v1.svg"]
