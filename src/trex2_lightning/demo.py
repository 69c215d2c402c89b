"""`make demo`: trains on `shapes`, evaluates, and writes figures and pictures to `runs/demo/`."""

from __future__ import annotations

import csv
import json
import random
import shutil
import time
from pathlib import Path

from rich.console import Console

from trex2_lightning import run
from trex2_lightning.cli import ap_table
from trex2_lightning.config import Config, load
from trex2_lightning.data.transforms import read_image
from trex2_lightning.pictures import contact_sheet, curve, draw

NUM_PICTURES = 12
THRESHOLD = 0.3  # lowest score that is drawn
console = Console()


def demo(arguments: list[str]) -> None:
    """Everything anew, with `key=value` overrides of experiments/demo/stage1.yaml."""
    started = time.monotonic()
    config = load("experiments/demo/stage1.yaml", [*arguments, "name=demo/stage1"])
    output = Path(config.output) / "demo"
    shutil.rmtree(output, ignore_errors=True)
    module = run.train(config)

    text = run.evaluate(config, module, "test")
    control = run.evaluate(config, module, "test", run.permuted(text.records.names, config.seed))
    run.write_results(text, output / "results_text.json")
    ap = {"text": run.by_group(text.figures), "random_phrases": run.by_group(control.figures)}
    ap50 = {"text": run.by_group(text.figures, "ap50"), "random_phrases": run.by_group(control.figures, "ap50")}
    summary = {
        "ap": ap,
        "ap50": ap50,
        "steps": config.train.max_steps,
        "minutes": round((time.monotonic() - started) / 60, 2),
        "ground_truth": str(text.records.annotations),
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    write_sheet(text, output / "detections_text.png")
    write_curve(config, output / "ap_curve.png")

    console.print(ap_table({"AP": ap, "AP50": ap50}))
    console.print(f"{summary['steps']} steps in {summary['minutes']} minutes. Look at:")
    for name in ("summary.json", "results_text.json", "detections_text.png", "ap_curve.png"):
        console.print(f"  {output / name}", soft_wrap=True)


def write_sheet(evaluation: run.Evaluation, path: Path) -> None:
    """Pictures of the split drawn at random, true boxes beside detections."""
    records = evaluation.records
    by_id = {result.image_id: result for result in evaluation.results}
    pictures, titles = [], []
    for image in random.Random(0).sample(records.images, min(NUM_PICTURES, len(records.images))):
        result = by_id[image.id]
        kept = result.scores >= THRESHOLD
        pixels = read_image(image.path)
        pictures.append(draw(pixels, image.boxes, [records.names[label] for label in image.labels]))
        titles.append("truth")
        labels = [records.names[label] for label in result.labels[kept]]
        pictures.append(draw(pixels, result.boxes[kept], labels, result.scores[kept]))
        titles.append("detected")
    contact_sheet(pictures, titles, path, columns=6)


def write_curve(config: Config, path: Path) -> None:
    """AP on the val split against the step, from the run's CSV."""
    series: dict[str, list[float]] = {}
    steps: list[int] = []
    for file in sorted((config.folder / "csv").glob("*/metrics.csv")):
        with file.open() as stream:
            for row in csv.DictReader(stream):
                if row.get("val/ap"):
                    steps.append(int(row["step"]))
                    for name in ("seen", "frequent", "common", "rare", "composed", "novel"):
                        series.setdefault(name, []).append(float(row[f"val/ap/{name}"]))
    curve(steps, series, path, ylabel="AP on val")
