"""`asycmst experiment`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from asycmst.commands.arguments import at_least

if TYPE_CHECKING:
    from asycmst.experiments.sizes import CaseFolder

STUDIES = {
    "dataset": "Table 1 and Fig 5: classes, sexes and ages of the data sets",
    "comparison": "Table 2 and Fig 6: the methods that can be trained here, on each data set",
    "transfer": "Table 3 and Fig 7: trained on one data set, tested on the other",
    "ablation": "Table 4: cross-attention, frame self-sorting, segmentation, all combinations",
    "tsne": "Fig 8: what the classifier sees of each case, in two dimensions",
    "swap": "Fig 9: each modality in each branch, and one in both",
    "gradcam": "Fig 10: where the model looks in benign and malignant cases",
    "strategies": "Table 5: which keys the cross-attention sees, and how many pairs that makes",
    "noise": "Figs 11 and 12: training with wrong labels, and with contours drawn otherwise",
    "placement": "Fig 13: cross-attention in the first n layers",
    "weights": "Fig 14: the weights of the auxiliary losses, each with each",
    "timing": "Table 6: accuracy and time per sample",
    "centres": "saliency-guided diagnosis of B-mode images, within centres and across",
    "without-masks": "the segmentation task with masks, with saliency instead, and left out",
    "registration": "the full model, its twin and early fusion, with and without misregistration",
}
_DESCRIPTION = (
    "Runs what the tables and figures of the paper show, on phantoms or on your own data. Runs "
    "are kept in OUT/runs and shared between experiments: one that is finished is never "
    "repeated, one that was interrupted goes on. Several processes, also of other machines that "
    "see OUT, can work on it at a time by the same command."
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "experiment",
        help="the paper's tables and figures, on phantoms or your own data",
        description=_DESCRIPTION,
    )
    studies = parser.add_subparsers(dest="study", required=True, metavar="STUDY")
    for name, words in STUDIES.items():
        _add_study(studies.add_parser(name, help=words, description=f"{words}. {_DESCRIPTION}"))
    _add_study(
        studies.add_parser("all", help="all of these", description=f"All of them. {_DESCRIPTION}")
    )


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and results")
    parser.add_argument(
        "--size",
        choices=("smoke", "demo", "paper"),
        default="demo",
        help="smoke: does it run; demo: a small model; paper: the paper's (demo)",
    )
    parser.add_argument(
        "--seeds",
        type=at_least(1),
        metavar="N",
        help="seeds 0 to N-1 of phantoms and training (3; 1 for smoke), or folds 1 to N of your "
        "splits (all)",
    )
    parser.add_argument(
        "--jobs", type=at_least(1), default=1, metavar="N", help="trainings side by side (1)"
    )
    data = parser.add_mutually_exclusive_group()
    data.add_argument(
        "--phantom",
        choices=("thyroid", "breast"),
        help="phantoms of one organ alone (both, as two data sets)",
    )
    data.add_argument(
        "--data", type=Path, metavar="CACHE", help="a cache of `asycmst prepare` (phantoms)"
    )
    parser.add_argument("--splits", type=Path, help="its splits, of `asycmst split`")
    parser.add_argument("--other-data", type=Path, metavar="CACHE", help="a second data set")
    parser.add_argument("--other-splits", type=Path, metavar="SPLITS", help="its splits")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from asycmst.experiments import centres
    from asycmst.experiments.catalogue import run_experiments
    from asycmst.experiments.sizes import make_study

    study = make_study(
        options.size,
        options.out,
        repeats=options.seeds,
        jobs=options.jobs,
        domains=("thyroid", "breast") if options.phantom is None else (options.phantom,),
        folders=_folders(options),
    )
    names = [options.study]
    if options.study == "all":
        # With own data not everything can be had.
        left_out = {"transfer"} if len(study.sources) < 2 else set()
        left_out |= set() if centres.fits(study) else {"centres"}
        names = [name for name in STUDIES if name not in left_out]
        if options.data is not None:
            names.remove("registration")
    run_experiments(names, study, jobs=options.jobs)


def _folders(options: argparse.Namespace) -> "list[CaseFolder]":
    from asycmst.experiments.sizes import CaseFolder

    found = []
    for data, splits, words in (
        (options.data, options.splits, "--data and --splits"),
        (options.other_data, options.other_splits, "--other-data and --other-splits"),
    ):
        if (data is None) != (splits is None):
            raise ValueError(f"give {words} together, or neither")
        if data is not None:
            found.append(CaseFolder(data, splits))
    if options.other_data is not None and options.data is None:
        raise ValueError("--other-data is a second data set: give --data and --splits as well")
    return found
