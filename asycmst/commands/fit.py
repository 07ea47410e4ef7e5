"""`asycmst fit`."""

import argparse
from pathlib import Path

_EXAMPLES = """\
examples:
  asycmst fit --config demo --out runs/demo            a small model on the synthetic phantom
  asycmst fit --config paper --out runs/a data.cache=cache data.splits=splits data.fold=1
  asycmst fit --config mine.yaml --out runs/b recipe.learning_rate=3e-4 run.seed=1
  asycmst fit --model early-fusion --config demo --out runs/early
  asycmst fit --model saliency --config paper --out runs/c data.images=images.csv
  asycmst fit --resume runs/a                          go on, or give the first command again
  asycmst fit --config paper --print-config            every setting with its value, as YAML
  torchrun --nproc-per-node 4 $(which asycmst) fit ... on four GPUs

sections of the settings: model (the network), recipe (the optimisation), data (the samples),
run (seed, precision, devices). A YAML file holds any part of them; the rest is as in "paper".
A run's folder holds config.yaml, run.json, log.csv, tensorboard/, last.ckpt and best.ckpt.
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "fit",
        help="train a model on prepared clips or on the phantom",
        description="Trains a model into a folder. A run that was interrupted goes on where it "
        "stopped, with the same result, when the same command is given again.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", metavar="NAME", help="paper, demo, or a YAML file")
    source.add_argument("--resume", type=Path, metavar="FOLDER", help="go on with this run")
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="the network: asycmst, early-fusion, r2plus1d, vivit, saliency, or MODULE:NAME of "
        "your own, whose code then runs (what the file names, or asycmst)",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the run")
    parser.add_argument(
        "--print-config", action="store_true", help="print the settings as YAML and end"
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings to change")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from asycmst.training.settings_file import read_settings, to_yaml

    if options.resume is not None:
        if options.out is not None or options.settings:
            raise ValueError("--resume takes the settings of its folder; leave out all others")
        from asycmst.training.networks import known, name_of, network_named
        from asycmst.training.run_folder import stored_settings

        names = () if options.model is None else (options.model,)
        settings = stored_settings(options.resume, known(*names)).in_folder(options.resume)
        if any(type(settings.model) is not network_named(name).config for name in names):
            raise ValueError(
                f"{options.resume} is a run of {name_of(settings.model)}, not {options.model}; "
                "leave out --model"
            )
    else:
        settings = read_settings(options.config, options.settings, options.model)
        if options.out is not None:
            settings = settings.in_folder(options.out)
    if options.print_config:
        print(to_yaml(settings), end="")
        return
    from asycmst.experiments.training import train_in_sight

    train_in_sight(settings)
