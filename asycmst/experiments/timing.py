"""Table 6: accuracy, and the time that a trained method takes for one sample.

Batch of one, evaluation mode, no gradients; 20 samples to warm up, then the median of 100, each
waited for. The paper does not say how it measured.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from asycmst.experiments.claims import Claims
from asycmst.experiments.comparison import (
    in_order,
    labels,
    made_methods,
    method_configs,
    unmade_methods,
)
from asycmst.experiments.grid import Place, Study, Trial, grid_of
from asycmst.experiments.machine import describe
from asycmst.experiments.score_table import EMPTY, score_table
from asycmst.experiments.scores import MISSING, Results
from asycmst.experiments.tables import Cell, Column, Table
from asycmst.experiments.writers import write_table
from asycmst.files import write_text
from asycmst.network_config import NetworkConfig
from asycmst.training.networks import build

WARM_UP, MEASURED = 20, 100
_FILE = "times.json"
_LOOK_AGAIN_S = 2.0


def grid(study: Study) -> dict[Place, Trial]:
    """The runs of Table 2, for the accuracies."""
    return grid_of(study, made_methods(study))


def report(study: Study, results: Results, folder: Path) -> list[Path]:
    """Measure, unless these networks were measured on this machine before, and write Table 6."""
    times = _times(study, folder)
    table = score_table(
        "Table 6: accuracy and time per sample",
        study,
        results,
        ["Method", "What is here"],
        labels(study),
        unmade=unmade_methods(study),
    )
    names = {label: name for name, (label, _) in labels(study).items()}
    rows = []
    for cells in table.rows:
        label = cells[0].text
        if label in names:
            found = times["milliseconds"][names[label]]
            numbers = {key: found[key] for key in ("median", "low", "high")}
            cell = Cell(f"{found['median']:.1f}", found["median"], numbers)
        else:
            cell = MISSING if label in unmade_methods(study) else EMPTY
        rows.append((*cells, cell))
    where = times["machine"]
    model = study.base.model
    height, width = model.frame_size
    note = (
        f"t: median of {MEASURED} samples of 2 x {model.frames} x {height} x {width} after "
        f"{WARM_UP} to warm up, batch of 1, evaluation, on {where['device']} "
        f"({where['threads']} thread(s), torch {where['torch']}); low and high in the CSV are the "
        "quartiles. The paper measured on an RTX 3090 and does not say how."
    )
    timed = Table(
        table.title,
        (*table.columns, Column("t (ms)", best="lowest")),
        tuple(rows),
        (*table.notes, note),
    )
    return [*write_table(in_order(timed), folder, "table-6"), folder / _FILE]


def milliseconds(config: NetworkConfig) -> dict[str, float]:
    """Median and quartiles of the time of one sample; weights do not matter, so fresh ones do.

    Args:
        config: of the network.

    Returns:
        "median", "low" and "high" in milliseconds.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(config).eval().to(device)
        clip = torch.rand(1, 3, config.frames, *config.frame_size).to(device)
    seconds = []
    with torch.no_grad():
        for number in range(WARM_UP + MEASURED):
            start = time.perf_counter()
            model(clip, clip)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= WARM_UP:
                seconds.append(time.perf_counter() - start)
    low, median, high = statistics.quantiles(seconds, n=4)
    return {"median": 1e3 * median, "low": 1e3 * low, "high": 1e3 * high}


def _times(study: Study, folder: Path) -> dict[str, Any]:
    machine = describe() | {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }
    machine["device"] = machine["device"] or machine["processor"]
    configs = method_configs(study)
    facts = {
        "machine": machine,
        "networks": {name: config.to_dict() for name, config in configs.items()},
    }
    file, claims = folder / _FILE, Claims()
    while (stored := _stored(file, facts)) is None:
        # Processes that share the folder would slow each other down, so one of them measures.
        with claims.holding(folder) as claim:
            if claim is not None and _stored(file, facts) is None:
                times = {name: milliseconds(config) for name, config in configs.items()}
                if not claim.is_lost:
                    write_text(file, json.dumps(facts | {"milliseconds": times}, indent=1) + "\n")
        if claim is None:
            time.sleep(_LOOK_AGAIN_S)
    return stored


def _stored(file: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """What was measured before, of these networks on this machine."""
    if not file.is_file():
        return None
    try:
        stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged; delete it to measure again") from error
    is_same = {key: stored.get(key) for key in facts} == json.loads(json.dumps(facts))
    return stored if is_same else None
