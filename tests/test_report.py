"""The report of an evaluation: figures right, one page, nothing from elsewhere, no patient."""

import base64
import csv
import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from asycmst.analysis.evaluate import Evaluated, Fold
from asycmst.analysis.predict_dataset import Predictions
from asycmst.analysis.report import FILES, write_report
from asycmst.analysis.statistics import Scored
from asycmst.analysis.summary import summarise
from asycmst.analysis.thresholds import RULES, choose_threshold
from asycmst.config import AsyCMSTConfig
from asycmst.data.splits import Split

VOID = {"meta", "img", "br", "link", "input", "hr"}


def predictions(first: int, size: int, skill: float, seed: int) -> Predictions:
    generator = np.random.default_rng(seed)
    labels = np.arange(size) % 2
    shared = np.random.default_rng(first).normal(size=size)  # the same cases are hard for all
    values = 1 / (1 + np.exp(-(shared + generator.normal(size=size) + skill * (labels - 0.4))))
    ids = [f"case-{first + i}" for i in range(size)]
    dice = np.where(np.arange(size) % 5 == 0, np.nan, 0.8)
    return Predictions(
        ids, labels.tolist(), values.tolist(), dice.tolist(), np.linspace(-1, 1, size).tolist()
    )


def fold(number: int, skill: float, seed: int, meta: dict[str, Any], watched: int = 20) -> Fold:
    validation = predictions(1000 * number, watched, skill, seed + 50)
    test = predictions(1000 * number + 500, 40, skill, seed)
    return Fold(
        checkpoint_sha256=f"{seed:02d}" * 32,
        config=AsyCMSTConfig.demo(),
        parameters=123456,
        meta=meta,
        validation=validation,
        test=test,
        scored=Scored(
            np.array(test.labels),
            np.array(test.probabilities),
            1000 * number + np.arange(40) // 2,
            np.array(test.dice),
            np.array(test.frame_order),
        ),
        thresholds={
            rule: choose_threshold(validation.labels, validation.probabilities, rule)
            for rule in RULES
            if watched
        },
    )


def evaluated(splits: int = 3, watched: int = 20, names: str = "ab") -> Evaluated:
    meta = {
        "trained_on": "<thyroid> & more",
        "train_ids": ["case-1", "MRN-77"],
        "label_noise": {"fraction": 0.5, "inverted_ids": ["MRN-77"]},
    }
    folds = {
        name: [fold(k, 2.0 - place, 10 * place + k, meta, watched) for k in range(1, splits + 1)]
        for place, name in enumerate(names)
    }
    first = next(iter(folds.values()))
    parts = tuple(Split((), tuple(one.validation.ids), tuple(one.test.ids)) for one in first)
    numbers = {"cases": 40, "patients": 20, "benign": 20, "malignant": 20}
    counts = [{part: numbers for part in Split._fields} for _ in first]
    return Evaluated(folds, parts, counts, 0.9)


class Page(HTMLParser):
    """Checks nesting, and keeps what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.outside: list[str] = []
        self.headings: list[str] = []
        self.tables: list[set[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "table":
            self.tables.append(set())
        if tag == "th":
            assert dict(attrs)["scope"] in ("row", "col")
        if self.tables and tag in ("caption", "th", "thead"):
            self.tables[-1].add(tag)
        if tag in ("script", "link", "iframe", "object", "base"):
            self.outside.append(tag)
        self.outside += [
            value
            for name, value in attrs
            if name in ("src", "href", "srcset") and value and not value.startswith("data:")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)
        if "style" not in self.open:
            self.text += data


def report(folder: Path, content: Evaluated, **options: Any) -> tuple[Page, dict[str, Any], str]:
    summary = summarise(content, resamples=50, **options)
    write_report(folder, content, summary, command="asycmst evaluate")
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)
    text = (folder / "report.html").read_text(encoding="utf-8")
    return Page(text), json.loads((folder / "metrics.json").read_text()), text


def test_the_page_stands_alone_and_can_be_read_by_all(tmp_path: Path) -> None:
    page, _, text = report(tmp_path, evaluated())
    assert not page.outside and "@import" not in text and "url(" not in text
    assert len(page.images) == 7 and all(len(image["alt"] or "") > 40 for image in page.images)
    for image in page.images:
        kind, _, coded = (image["src"] or "").partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert ET.fromstring(base64.b64decode(coded)).tag.endswith("svg")
    assert len(page.tables) > 12
    assert all(table == {"caption", "th", "thead"} for table in page.tables)
    for words in ("Scores", "What was evaluated", "a", "b", "Comparison", "a against b"):
        assert words in page.headings
    assert 'lang="en"' in text and "prefers-color-scheme: dark" in text and "@media print" in text
    assert "not a medical device" in page.text
    assert "<thyroid> & more" in page.text and "<thyroid>" not in text
    assert "MRN-77" not in "".join(file.read_text() for file in tmp_path.iterdir())


def test_the_figures_of_the_report_are_those_of_the_predictions(tmp_path: Path) -> None:
    content = evaluated()
    page, metrics, _ = report(tmp_path, content)
    folds = content.folds["a"]
    areas = [roc_auc_score(one.test.labels, one.test.probabilities) for one in folds]
    point = metrics["models"]["a"]["operating_points"]["0.5"]
    assert [one["auc"] for one in point["per_split"]] == pytest.approx(areas)
    mean, std = np.mean(areas), np.std(areas, ddof=1)
    assert point["over_splits"]["auc"] == pytest.approx({"mean": mean, "std": std, "n": 3})
    assert f"{100 * mean:.1f} ± {100 * std:.1f}" in page.text
    auc = point["scores"]["auc"]
    assert auc["value"] == pytest.approx(mean) and auc["low"] < mean < auc["high"]
    assert f"{mean:.3f} ({auc['low']:.3f} to {auc['high']:.3f})" in page.text
    assert point["scores"]["dice"]["value"] == pytest.approx(0.8)

    youden = metrics["models"]["a"]["operating_points"]["youden"]
    assert youden["thresholds"] == [one.thresholds["youden"] for one in folds]
    labels = np.concatenate([one.test.labels for one in folds])
    called = np.concatenate(
        [np.array(one.test.probabilities) > one.thresholds["youden"] for one in folds]
    )
    (tn, fp), (fn, tp) = confusion_matrix(labels, called)
    assert youden["confusion"] == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
    assert f"{fn} ({100 * fn / (fn + tp):.1f} %)" in page.text


def test_worst_errors_are_the_surest_wrong_answers(tmp_path: Path) -> None:
    content = evaluated()
    page, metrics, _ = report(tmp_path, content, rule="f1")
    assert metrics["chosen_point"] == "f1"
    wrong = []
    for k, one in enumerate(content.folds["b"], 1):
        threshold = one.thresholds["f1"]
        for id_, label, value in zip(*one.test[:3], strict=True):
            if (value > threshold) != bool(label):
                wrong.append((abs(value - threshold), k, id_))
    expected = [(k, id_) for _, k, id_ in sorted(wrong, reverse=True)[:10]]
    found = metrics["models"]["b"]["worst_errors"]
    assert [(error["split"], error["id"]) for error in found] == expected
    assert expected[0][1] in page.text


def test_models_are_compared_on_the_same_patients(tmp_path: Path) -> None:
    content = evaluated(names="abc")
    _, metrics, text = report(tmp_path, content)
    pairs = [(pair["first"], pair["second"]) for pair in metrics["comparisons"]]
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c")]
    assert "not corrected for the 3 pairs" in text
    first = metrics["comparisons"][0]
    models = [metrics["models"][name]["operating_points"]["0.5"] for name in "ab"]
    apart = [a["auc"] - b["auc"] for a, b in zip(*(m["per_split"] for m in models), strict=True)]
    found = first["differences"]["0.5"]["auc"]
    assert found["value"] == pytest.approx(np.mean(apart))
    alone = [model["scores"]["auc"] for model in models]
    assert found["high"] - found["low"] < sum(one["high"] - one["low"] for one in alone)
    assert [test["difference"] for test in first["delong"]] == pytest.approx(apart)
    test = first["paired_t"]["0.5"]["auc"]
    assert test["n"] == 3
    assert test["t"] == pytest.approx(np.mean(apart) / np.std(apart, ddof=1) * 3**0.5)
    per_split, together = first["mcnemar"]["0.5"], first["mcnemar_all"]["0.5"]
    for key in ("only_first", "only_second"):
        assert together[key] == sum(one[key] for one in per_split)


def test_test_sets_that_share_cases_are_not_added_up(tmp_path: Path) -> None:
    content = evaluated(splits=2)
    folds = {name: [found[0], found[0]] for name, found in content.folds.items()}
    content = content._replace(folds=folds, splits=(content.splits[0],) * 2)
    page, metrics, _ = report(tmp_path, content)
    assert not metrics["tests_disjoint"] and "mcnemar_all" not in metrics["comparisons"][0]
    assert "The test parts share cases" in page.text


def test_one_model_without_validation(tmp_path: Path) -> None:
    page, metrics, _ = report(tmp_path, evaluated(splits=1, watched=0, names="a"))
    assert metrics["chosen_point"] == "0.5" and not metrics["comparisons"]
    assert list(metrics["models"]["a"]["operating_points"]) == ["0.5"]
    assert "0.5 is the only threshold" in page.text and "Comparison" not in page.headings
    assert metrics["models"]["a"]["operating_points"]["0.5"]["over_splits"]["auc"]["std"] is None
    assert len(page.images) == 3


def test_tasks_that_are_off_leave_no_empty_column(tmp_path: Path) -> None:
    content = evaluated(names="a")
    nothing = np.full(40, np.nan)
    folds = [
        one._replace(scored=one.scored._replace(dice=nothing, frame_order=nothing))
        for one in content.folds["a"]
    ]
    _, metrics, text = report(tmp_path, content._replace(folds={"a": folds}))
    point = metrics["models"]["a"]["operating_points"]["0.5"]
    assert point["scores"]["dice"] == {"value": None, "low": None, "high": None}
    assert '<th scope="row">Dice</th>' not in text and '<th scope="col">Dice</th>' not in text


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"trained_on": "synthetic breast phantom"}, "its figures are no evidence"),
        ({"trained_on": "mine"}, "could not be checked"),
        ({"trained_on": "mine", "train_ids": []}, None),
    ],
)
def test_what_to_know_first_stands_first(
    tmp_path: Path, meta: dict[str, Any], words: str | None
) -> None:
    content = evaluated(names="a")
    folds = [one._replace(meta=meta) for one in content.folds["a"]]
    page, _, _ = report(tmp_path, content._replace(folds={"a": folds}))
    assert (words or "Before you read on") in page.text or words is None
    assert ("Before you read on" in page.text) == (words is not None)


def test_predictions_are_written_case_by_case(tmp_path: Path) -> None:
    content = evaluated(splits=2, names="a")
    report(tmp_path, content)
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * (20 + 40)
    mine = [row for row in rows if row["split"] == "2" and row["part"] == "test"]
    test = content.folds["a"][1].test
    assert [row["id"] for row in mine] == test.ids
    assert [float(row["probability_malignant"]) for row in mine] == pytest.approx(
        test.probabilities, abs=1e-6
    )
    assert [row["dice"] for row in mine[:2]] == ["", "0.8000"]
