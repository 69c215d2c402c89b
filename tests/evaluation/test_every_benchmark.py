"""Every file of experiments/eval/ evaluates a checkpoint as it ships, on tiny data in the layout that it names."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from benchmark_folders import (
    cdfsod,
    coco2017,
    coco_fsod,
    fsc147,
    fscd_lvis,
    lvis,
    lvis_fsod,
    lvis_minival,
    odinw,
    roboflow100,
)

from trex2_lightning.commands.evaluate import main as evaluate_command
from trex2_lightning.config import Config, for_benchmark, load

EVAL = Path(__file__).parents[2] / "experiments" / "eval"
BENCHMARKS = sorted(path.stem for path in EVAL.glob("*.yaml"))


def write_odinw(name: str, root: Path) -> None:
    config = for_benchmark(Config(), EVAL / f"{name}.yaml")
    data = config.data
    odinw(
        root,
        (
            (
                task.folder or own,
                task.test.annotations or data.test.annotations,
                task.reference.annotations or data.reference.annotations,
            )
            for own, task in config.eval.tasks.items()
        ),
    )


FOLDERS: dict[str, Callable[[Path], None]] = {
    **{f"cdfsod_{shots}shot": cdfsod for shots in (1, 5, 10)},
    "coco": coco2017,
    **{f"coco_fsod_{shots}shot{which}": coco_fsod for shots in (10, 30) for which in ("", "_novel", "_seeds")},
    "fsc147": fsc147,
    "fscd_lvis": fscd_lvis,
    "lvis_fsod_10shot": lvis_fsod,
    "lvis_minival": lvis_minival,
    "lvis_val": lvis,
    "odinw13": partial(write_odinw, "odinw13"),
    "odinw35": partial(write_odinw, "odinw35"),
    "roboflow100": roboflow100,
}


@pytest.mark.ci
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_evaluates_by_all_of_its_protocols(name: str, visual_checkpoint: Path, tmp_path: Path) -> None:
    root = tmp_path / "benchmark"
    FOLDERS[name](root)
    asked = ["--protocol", "text"] if name == "odinw35" else []  # in which all of odinw13 is, with all protocols
    evaluate_command(["--ckpt", str(visual_checkpoint), str(EVAL / f"{name}.yaml"), f"data.root={root}", *asked])
    folder = visual_checkpoint.parent.parent / "eval" / "-".join([name, *asked[1:]])
    written = json.loads((folder / "evaluation.json").read_text())
    shipped = for_benchmark(load(visual_checkpoint.parent.parent / "config.yaml"), EVAL / f"{name}.yaml").eval
    generic = f"generic_{shipped.references[0]}"
    rows = {generic if row == "generic" else row for row in asked[1:] or shipped.protocols}
    assert {row for row in written["ap"] if "/" not in row} | written.get("top1", {}).keys() == rows
    assert written.get("num_tasks", 0) == (2 if name == "roboflow100" else len(shipped.tasks))
