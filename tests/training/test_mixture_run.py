"""What a training on three data sets takes from each, also where it was killed and resumed."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hanging import finished

from trex2_lightning.config import Config, save

pytestmark = pytest.mark.ci

TinyConfig = Callable[..., Config]
# Trains as scripts/train.py does; every batch that the model has got is a line of TAKEN, and batch KILL_AT kills.
SCRIPT = """
import json, os, signal
from trex2_lightning.commands import train
from trex2_lightning.commands.terminal import command
from trex2_lightning.training.module import DetectionModule

step = DetectionModule.training_step

def training_step(self, batch, batch_idx):
    if batch_idx == int(os.environ["KILL_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    loss = step(self, batch, batch_idx)
    images = [
        (target.image_id, pixels.double().square().sum().item(), target.boxes.sum().item())
        for target, pixels in zip(batch.targets, batch.images.pixels)
    ]
    with open(os.environ["TAKEN"], "a") as file:
        print(json.dumps([batch_idx, batch.prompts.exemplars is not None, images]), file=file)
    return loss

if __name__ == "__main__":  # workers import this file
    DetectionModule.training_step = training_step
    command(train.main)
"""
SETS = {"boxes": ("train", 0), "captions": ("val", 100), "things": ("test", 200)}  # split, what its image ids begin at
SIZES = {"boxes": 6, "captions": 3, "things": 3}
BATCHES_PER_STEP, CHECKPOINT_STEP, LAST_STEP = 2, 7, 12
STREAMS = [("boxes", False), ("captions", False), ("boxes", True), ("things", True)]  # set, and whether asked visually


class Taken(NamedTuple):
    """One image as the model got it."""

    image: int
    visual: bool
    content: tuple[float, float]  # of its pixels and boxes: tells one augmentation from another

    @property
    def stream(self) -> tuple[str, bool]:
        return [name for name, (_, first) in SETS.items() if self.image > first][-1], self.visual


def test_a_mixture_that_was_killed_amid_an_epoch_sees_every_sample_once(
    tiny_coco: Path, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    """Killed between the two batches of a step, which a worker had fetched ahead of, behind the last checkpoint."""
    settings = mixture(tiny_coco)
    whole = train(tiny_config("name=whole", *settings), tmp_path / "whole")
    broken = tiny_config("name=broken", *settings)
    resumed_at = CHECKPOINT_STEP * BATCHES_PER_STEP
    killed = train(broken, tmp_path / "killed", kill_at=resumed_at + 5)
    last = broken.folder / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == CHECKPOINT_STEP
    assert sorted(killed) == list(range(resumed_at + 5))
    resumed = train(broken, tmp_path / "resumed", "--resume")
    assert sorted(resumed) == list(range(resumed_at, LAST_STEP * BATCHES_PER_STEP))

    survived = {number: batch for number, batch in killed.items() if number < resumed_at} | resumed
    assert survived == whole
    before = Counter(image.stream for number, batch in survived.items() if number < resumed_at for image in batch)
    assert all(before[name, visual] % SIZES[name] for name, visual in STREAMS), "not in the middle of every epoch"
    images = [image for number in sorted(survived) for image in survived[number]]
    for name, visual in STREAMS:
        own = [taken.image - SETS[name][1] for taken in images if taken.stream == (name, visual)]
        assert len(own) == len(images) / len(STREAMS)
        for start in range(0, len(own), SIZES[name]):
            assert sorted(own[start : start + SIZES[name]]) == list(range(1, SIZES[name] + 1))
    contents = [taken.content for taken in images if taken.content[1]]  # without boxes they are plain grey
    assert len(set(contents)) == len(contents), "an augmentation was used twice"


def mixture(root: Path) -> list[str]:
    """Overrides that train on three sets whose image ids differ, two of them with text and two visually."""
    for name, (split, first) in SETS.items():
        content = json.loads((root / f"{split}.json").read_text())
        for image in content["images"]:
            image["id"] += first
        for annotation in content["annotations"]:
            annotation["image_id"] += first
        (root / f"{name}.json").write_text(json.dumps(content))
    weights = {
        "boxes": "text: 1, visual: 1",
        "captions": "text: 1, kind: grounding",
        "things": "visual: 1, kind: nameless",
    }
    sets = (
        f"data.sets.{name}={{annotations: {name}.json, images: {split}, {weights[name]}}}"
        for name, (split, _) in SETS.items()
    )
    return [
        *sets,
        "train.rhythm={visual: 1, text: 1}",
        f"train.max_steps={LAST_STEP}",
        f"train.val_every={CHECKPOINT_STEP}",
        "data.train_sizes=[48, 56, 64, 72]",
        "data.augment={crop: 0.5, color_jitter: 0.3}",
        "data.num_workers=1",
    ]


def train(config: Config, folder: Path, *options: str, kill_at: int = -1) -> dict[int, list[Taken]]:
    """What a training process of its own has taken, by batch."""
    folder.mkdir()
    script, experiment, taken = folder / "train.py", folder / "experiment.yaml", folder / "taken.jsonl"
    script.write_text(SCRIPT)
    save(config, experiment)
    environment = {"OMP_NUM_THREADS": "1", "KILL_AT": str(kill_at), "TAKEN": str(taken)}
    command = [sys.executable, str(script), str(experiment), *options]
    process = finished(command, environment, seconds=240)
    assert process.returncode == (-signal.SIGKILL if kill_at >= 0 else 0), process.stderr[-3000:]
    lines = [json.loads(line) for line in taken.read_text().splitlines()]
    batches = {
        number: [Taken(image, visual, (pixels, boxes)) for image, pixels, boxes in images]
        for number, visual, images in lines
    }
    assert len(batches) == len(lines), "a batch was taken twice"
    return batches
