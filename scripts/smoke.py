"""Trains experiments/smoke.yaml, breaks off half way, resumes and evaluates; arguments are `key=value` overrides."""

import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

from trex2_lightning.commands.terminal import command, console
from trex2_lightning.config import Config, load
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.evaluation.report import write_results
from trex2_lightning.evaluation.tables import ap_table
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "smoke.yaml"


class CrashError(Exception):
    """Stands for a real one."""


def smoke(arguments: list[str]) -> None:
    config = load(EXPERIMENT, arguments)
    shutil.rmtree(config.folder, ignore_errors=True)
    train_until_interrupted(config, step=config.train.max_steps * 3 // 4)
    console.print("broke off on purpose; resuming from the last checkpoint")
    train(config, resume=True)
    checkpoint = config.folder / "checkpoints" / "last.ckpt"
    config, module = load_checkpoint(checkpoint)
    report = evaluate(config, module, "val", ["text"])
    write_results(report, config.folder)
    console.print(ap_table(report.summary()))
    console.print(f"trained, resumed and evaluated; written to {config.folder}", soft_wrap=True)


def train_until_interrupted(config: Config, step: int) -> None:
    def crash(module: DetectionModule, *_: Any) -> None:
        if module.trainer.global_step == step:
            raise CrashError

    with patch.object(DetectionModule, "on_train_batch_start", crash):
        try:
            train(config)
        except CrashError:
            return
    raise RuntimeError(f"the run was to be interrupted at step {step}, but ended before")


if __name__ == "__main__":
    command(smoke)
