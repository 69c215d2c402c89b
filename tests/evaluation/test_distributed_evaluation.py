"""What two CPU processes write of an evaluation is, to the last digit, what one process writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmark_folders import fsc147, lvis, roboflow100
from hanging import finished

EVAL = Path(__file__).parents[2] / "experiments" / "eval"
TIMEOUT = 250  # seconds; a rank that waits for another one would wait for ever
SCRIPT = """
import os
from trex2_lightning.commands import evaluate
from trex2_lightning.commands.terminal import command
from trex2_lightning.evaluation import report

write = report.write_evaluation

def announced(*arguments):
    print("files of rank", os.environ.get("LOCAL_RANK", "0"))
    write(*arguments)

report.write_evaluation = announced
command(evaluate.main)
"""

Evaluated = Callable[..., dict[str, str]]


@pytest.fixture
def evaluated(visual_checkpoint: Path, tmp_path: Path) -> Evaluated:
    """`evaluated("argument", ..., ranks=2)`: the files written of a checkpoint with random weights, by name."""
    settings = ("eval.references=[1, 3]", "eval.batch_size=2")
    script = tmp_path / "evaluate.py"
    script.write_text(SCRIPT)
    command = (sys.executable, script, "--ckpt", visual_checkpoint)

    def evaluate(*arguments: str, ranks: int) -> dict[str, str]:
        folder = tmp_path / f"{ranks} ranks"
        options = [*arguments, *settings, "--output", folder, f"train.devices={ranks}"]
        process = finished([*command, *options], {"OMP_NUM_THREADS": "1"}, seconds=TIMEOUT)
        assert process.returncode == 0, process.stderr[-3000:]
        assert process.stdout.count("files of rank") == process.stdout.count("files of rank 0") == 1
        assert process.stdout.count("written to") == 1
        return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*.json")}

    return evaluate


@pytest.mark.ci
def test_every_protocol(evaluated: Evaluated, tiny_coco: Path) -> None:
    """Five images of different sizes, two to a batch: the last batch is short, and one rank does a batch twice.

    References are shared out between the ranks.
    """
    content = json.loads((tiny_coco / "train.json").read_text())
    content["images"] = content["images"][:5]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] in kept]
    (tiny_coco / "five.json").write_text(json.dumps(content))
    rows = ("text", "interactive_box", "interactive_point", "generic", "mixed", "mixed_mean", "region_classification")
    arguments = [*(f"--protocol={row}" for row in rows), "data.test={annotations: five.json, images: train}"]
    one = evaluated(*arguments, ranks=1)
    assert evaluated(*arguments, ranks=2) == one
    assert len(one) == 1 + 7
    assert {item["image_id"] for item in json.loads(one["results_text.json"])} == kept
    assert len(json.loads(one["results_text.json"])) > 50
    figures = json.loads(one["evaluation.json"])
    assert len(figures["ap"]) == 7
    assert "region_classification" in figures["top1"]


@pytest.mark.parametrize(
    ("benchmark", "layout"),
    [
        pytest.param("lvis_val", lvis, marks=pytest.mark.slow),
        pytest.param("fsc147", fsc147, marks=pytest.mark.slow),
        pytest.param("roboflow100", roboflow100, marks=pytest.mark.slow),
    ],
)
def test_benchmarks(evaluated: Evaluated, tmp_path: Path, benchmark: str, layout: Callable[[Path], None]) -> None:
    """Two images to a batch, of three in all; FSC-147 has one for val and two for test, Roboflow-100 two data sets."""
    layout(tmp_path / "data")
    arguments = (str(EVAL / f"{benchmark}.yaml"), f"data.root={tmp_path / 'data'}")
    one = evaluated(*arguments, ranks=1)
    assert evaluated(*arguments, ranks=2) == one
    assert len(one) > 1
