"""Train a detector."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.terminal import among_ranks, console, if_stopped, parse
from trex2_lightning.errors import InputError


def main(arguments: list[str], prog: str = "train.py") -> None:
    """`train.py CONFIG|FOLDER [--stage 2] [--look] [--resume | --folder] key=value ...`"""
    parser = argparse.ArgumentParser(prog, description="Train a detector.")
    parser.add_argument(
        "config",
        type=Path,
        help="experiment file: one of yours, or experiments/... of the package; or the folder of a data set, which is "
        "looked at first",
    )
    parser.add_argument("--stage", type=int, choices=(1, 2), help="of a folder: 1, words; 2, exemplars too, after it")
    parser.add_argument("--look", action="store_true", help="of a folder: only write what is chosen, to config.yaml")
    parser.add_argument("--resume", action="store_true", help="go on from the run folder's last checkpoint")
    parser.add_argument("--folder", action="store_true", help="only print the run's folder, for job files")
    options, overrides = parse(parser, arguments)
    if options.config.is_dir():
        _train_folder(options, overrides, "trex2 {}" if prog.startswith("trex2") else "python scripts/{}.py")
        return
    if options.stage or options.look:
        raise InputError("--stage and --look are of a folder; an experiment file is one stage, and says all")

    from trex2_lightning.config import load

    if options.folder:  # in a job file: a single process, whatever SLURM says
        console.print(load(options.config, overrides).folder, soft_wrap=True, markup=False, highlight=False)
        return

    from trex2_lightning.evaluation.after_training import fit_scores
    from trex2_lightning.training.fit import kept_of, train

    with among_ranks():
        config = load(options.config, overrides)
    with among_ranks(), if_stopped(lambda: kept_of(config)):
        train(config, resume=options.resume)
        fit_scores(config)
    console.print(f"written to {config.folder}", soft_wrap=True)


def _train_folder(options: argparse.Namespace, overrides: list[str], command: str) -> None:
    from trex2_lightning.finetuning.stages import FolderRun, look, resumed, tell, train_and_show
    from trex2_lightning.training.fit import kept_of

    run = FolderRun(options.config, options.stage or 1, overrides, command.format)
    if options.folder:
        tell(str(run.config_file(run.stage).parent))
        return
    config = resumed(run) if options.resume else look(run)
    if not options.look:
        with among_ranks(), if_stopped(lambda: kept_of(config)):
            train_and_show(run, config, resume=options.resume)
    tell(f"written to {config.folder}")
