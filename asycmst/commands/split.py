"""`asycmst split`."""

import argparse
from pathlib import Path

from asycmst.commands.arguments import at_least


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "split",
        help="draw who is trained on, watched and tested, by patient",
        description="Writes train_k.csv, valid_k.csv and test_k.csv for each split k, 5:2:3 by "
        "patient, and splits.json with how they were drawn.",
    )
    parser.add_argument("data", type=Path, help="a cache of `asycmst prepare`, or a manifest")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the splits")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the draw (0)")
    parser.add_argument(
        "--cover",
        choices=("disjoint", "exact"),
        default="disjoint",
        help="disjoint test sets of 30 %%, or test sets that hold every case exactly once "
        "(disjoint)",
    )
    parser.add_argument(
        "--stratified",
        action="store_true",
        help="the same share of malignant patients in every part, not plain random",
    )
    parser.add_argument("--folds", type=at_least(1), default=3, help="number of splits (3)")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from asycmst.commands.study_data import read_cases
    from asycmst.data.protocol import make_splits
    from asycmst.data.splits import count, write_splits

    cases = read_cases(options.data)
    splits = make_splits(
        cases,
        seed=options.seed,
        cover=options.cover,
        stratified=options.stratified,
        folds=options.folds,
    )
    protocol = {
        "seed": options.seed,
        "cover": options.cover,
        "stratified": options.stratified,
    }
    write_splits(options.out, splits, cases, protocol)
    for number, split in enumerate(splits, 1):
        parts = []
        for part, ids in split._asdict().items():
            found = count(ids, cases)
            parts.append(
                f"{part} {found['cases']} cases of {found['patients']} patients "
                f"({found['malignant']} malignant)"
            )
        print(f"split {number}: {', '.join(parts)}; SHA-256 {split.sha256[:12]}")
