"""An evaluation of many tasks that is broken off, and goes on."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from benchmark_folders import roboflow100

from trex2_lightning.commands.evaluate import main as evaluate_command
from trex2_lightning.config import Config
from trex2_lightning.evaluation import tasks
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.evaluation.report import EvaluationReport

BENCHMARK = Path(__file__).parents[2] / "experiments" / "eval" / "roboflow100.yaml"


def test_an_evaluation_that_breaks_off_goes_on_where_it_was(
    visual_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its files are those of one that did not; asked for something else, it begins anew."""
    root, protocols = tmp_path / "rf100", ("--protocol", "text", "--protocol", "generic")
    roboflow100(root)
    command = ["--ckpt", str(visual_checkpoint), str(BENCHMARK), f"data.root={root}", *protocols]
    evaluate_command(command)
    folder = visual_checkpoint.parent.parent / "eval" / "roboflow100-text-generic"
    files = {file.relative_to(folder): file.read_text() for file in folder.rglob("*.json")}
    shutil.rmtree(folder)
    asked: list[str] = []

    def breaking(config: Config, *arguments: Any, **options: Any) -> EvaluationReport:
        asked.append(Path(config.data.root).name)
        if asked == ["cells", "signs"]:
            raise RuntimeError("a damaged picture")
        return evaluate(config, *arguments, **options)

    monkeypatch.setattr(tasks, "evaluate", breaking)
    with pytest.raises(RuntimeError, match="a damaged picture"):
        evaluate_command(command)
    assert (folder / "cells" / "results_text.json").is_file()
    with caplog.at_level(logging.INFO):
        evaluate_command(command)
    assert asked == ["cells", "signs", "signs"]
    assert "task 1 of 2: cells, which was done before" in caplog.messages
    assert {file.relative_to(folder): file.read_text() for file in folder.rglob("*.json")} == files
    asked.clear()
    with pytest.raises(RuntimeError, match="a damaged picture"):
        evaluate_command(command)
    evaluate_command([*command, "seed=1"])
    assert asked == ["cells", "signs", "cells", "signs"]
