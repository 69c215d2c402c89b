"""`make demo`: trains both stages and early fusion on `shapes`, evaluates, and writes everything to `runs/demo/`."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import torch
from PIL import Image

from trex2_lightning.config import Config, load
from trex2_lightning.data.images.image_files import read_image
from trex2_lightning.data.records import ImageRecord, Records
from trex2_lightning.evaluation import costs
from trex2_lightning.evaluation.after_training import fit_scores
from trex2_lightning.evaluation.curves import curve
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.evaluation.history import read_history
from trex2_lightning.evaluation.report import EvaluationReport, write_results
from trex2_lightning.evaluation.tables import ap_table, console
from trex2_lightning.inference.pictures import contact_sheet, draw_boxes
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.inference.sheets import NUM_PICTURES, some_images, write_text_sheet
from trex2_lightning.prompting.prompt_set import PromptSet
from trex2_lightning.prompting.protocol_names import PROTOCOLS, TEXT_CONTROLS
from trex2_lightning.structures import Box
from trex2_lightning.training.build import build_datamodule, build_module
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule

NUM_REFERENCES = 4  # pictured references of a generic prompt
THRESHOLD = 0.3  # lowest score of a name that is drawn; exemplars have the checkpoint's own

Latency = dict[str, dict[str, dict[str, float]]]  # milliseconds by detector, number of names and step


def demo(overrides: list[str]) -> None:
    """Everything anew, with `key=value` overrides of all files in experiments/demo/.

    Raises:
        InputError: a setting is wrong, or the package of the frozen network's weights is not installed.
    """
    started = time.monotonic()
    stage1 = load("experiments/demo/stage1.yaml", [*overrides, "name=demo/stage1"])
    start = f"train.init_from={stage1.folder / 'checkpoints' / 'last.ckpt'}"
    stage2 = load("experiments/demo/stage2.yaml", [*overrides, "name=demo/stage2", start])
    early = load("experiments/demo/word_early.yaml", [*overrides, "name=demo/word_early"])
    build_module(stage2)  # what is missing for it ends the demo here, not after stage 1
    output = Path(stage1.output) / "demo"
    shutil.rmtree(output, ignore_errors=True)

    named = trained(stage1)
    text = evaluate(stage1, named, "test")
    write_results(text, output)
    write_text_sheet(text, output / "detections_text.png", THRESHOLD)
    write_curve(stage1, output / "ap_curve.png")
    stage1_minutes = minutes_since(started)

    module = trained(stage2)
    all_ways = evaluate(stage2, module, "test", [way for way in PROTOCOLS if way not in TEXT_CONTROLS])
    all_ways.rows["text_after_stage2"] = all_ways.rows.pop("text")
    write_results(all_ways, output)
    write_visual_sheets(stage2, Predictor(stage2, module), all_ways.records, output)
    stage2_minutes = minutes_since(started)

    words, latency = train_early_fusion(early, named, output)
    whole = EvaluationReport(text.rows | all_ways.rows | words.rows, all_ways.regions, text.records)
    figures = whole.summary()
    summary = {
        **figures,
        "latency": latency,
        "steps": stage1.train.max_steps,
        "stage2_steps": stage2.train.max_steps,
        "word_early_steps": early.train.max_steps,
        "stage1_minutes": stage1_minutes,  # from the start, like the next two
        "stage2_minutes": stage2_minutes,
        "minutes": minutes_since(started),
        "ground_truth": str(text.records.annotations),
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    console.print(ap_table(figures))
    phrases, joined = (with_cached_prompts(latency[name][costs.NUM_NAMES]) for name in ("phrase_late", "word_early"))
    console.print(
        f"text is T-Rex2's way, phrases and late fusion, after {stage1.train.max_steps} steps; text_word_early is "
        f"Grounding DINO's, words and early fusion, after {early.train.max_steps} steps only. A picture asked for "
        f"{costs.NUM_NAMES} cached names takes {phrases:.0f} ms with the former and {joined:.0f} ms with the latter."
    )
    console.print(
        f"{stage1.train.max_steps} steps of stage 1, {stage2.train.max_steps} of stage 2 and {early.train.max_steps} "
        f"of words and early fusion in {summary['minutes']} minutes. Look at {output}:"
    )
    for path in sorted(output.iterdir()):
        console.print(f"  {path.name}")


def trained(config: Config) -> DetectionModule:
    """Trained, with scores that are fitted to val, as `trex2 train` does."""
    train(config)
    fit_scores(config)
    return load_checkpoint(config.folder / "checkpoints" / "last.ckpt")[1]


def train_early_fusion(config: Config, late: DetectionModule, folder: Path) -> tuple[EvaluationReport, Latency]:
    """Train words with early fusion; their AP by text, and both detectors' latency by number of names, plotted too."""
    module = trained(config)
    report = evaluate(config, module, "test", ["text"])
    report.rows["text_word_early"] = report.rows.pop("text")
    write_results(report, folder)
    latency: Latency = {}
    for name, detector in (("phrase_late", late.detector), ("word_early", module.detector)):
        latency[name] = {}
        for count in costs.VOCABULARIES:
            asked = costs.vocabulary(report.records.names, count)
            latency[name][str(count)] = costs.latency(detector, asked, config.data.size)._asdict()
    series = {
        name: [(int(count), with_cached_prompts(steps)) for count, steps in rows.items()]
        for name, rows in latency.items()
    }
    ylabel = "milliseconds a picture, prompts cached"
    curve(series, folder / "latency.png", ylabel, "number of names", logarithmic=True)
    return report, latency


def with_cached_prompts(milliseconds: dict[str, float]) -> float:
    """Milliseconds for an image whose prompts were encoded before."""
    return milliseconds["image"] + milliseconds["decode"]


def minutes_since(started: float) -> float:
    return round((time.monotonic() - started) / 60, 2)


def write_visual_sheets(config: Config, predictor: Predictor, records: Records, folder: Path) -> None:
    """Prompts beside what they find: one box on the same picture, and boxes on pictures of the reference split.

    Each picture is asked for the category that it has most of.
    """
    data = build_datamodule(config)
    data.setup("predict")
    references = data.reference_records
    interactive: list[Image.Image] = []
    generic: list[Image.Image] = []
    for image in some_images(records, NUM_PICTURES):
        label = int(image.labels.mode().values)
        name = records.names[label]
        exemplar = {name: [Box(*box) for box in image.boxes[image.labels == label][:1].tolist()]}
        prompts = predictor.interactive(image.path, exemplar)
        interactive += [
            draw_boxes(read_image(image.path), torch.empty(0, 4), [], exemplars=exemplar),
            found(predictor, image, prompts),
        ]

        shown = [
            (other.path, {name: [Box(*box) for box in other.boxes[other.labels == label].tolist()]})
            for other in references.images
            if label in other.labels
        ][:NUM_REFERENCES]
        generic += [draw_boxes(read_image(path), torch.empty(0, 4), [], exemplars=marked) for path, marked in shown]
        generic.append(found(predictor, image, predictor.generic(shown)))
    contact_sheet(interactive, ["prompt", "detected"] * NUM_PICTURES, folder / "detections_interactive.png", columns=6)
    titles = [*[f"reference {number + 1}" for number in range(NUM_REFERENCES)], "detected"] * NUM_PICTURES
    contact_sheet(generic, titles, folder / "detections_generic.png", columns=NUM_REFERENCES + 1)


def found(predictor: Predictor, image: ImageRecord, prompts: PromptSet) -> Image.Image:
    """The picture with what the prompts find in it."""
    detections = predictor.detect(image.path, prompts)
    return draw_boxes(
        read_image(image.path),
        torch.tensor([detection.box for detection in detections]).reshape(-1, 4),
        [detection.name for detection in detections],
        torch.tensor([detection.score for detection in detections]),
    )


def write_curve(config: Config, path: Path) -> None:
    """AP on the val split against the step."""
    groups = ("seen", "frequent", "common", "rare", "composed", "novel")
    history = read_history(config.folder)
    curve({group: history[f"val/ap/{group}"] for group in groups}, path, "AP on val")
