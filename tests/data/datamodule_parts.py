"""A datamodule on a small folder, the same values in every test, and what tests do to its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trex2_lightning.config import AugmentConfig, DataConfig, NegativesConfig, RhythmConfig
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.structures import IMAGENET_PIXELS, Batch

TEXT = RhythmConfig()
MIXED = RhythmConfig(visual=2, text=1)
VISUAL = RhythmConfig(visual=1, text=0)
ALL_AUGMENTATIONS = AugmentConfig(vertical_flip=0.5, color_jitter=0.3, crop=0.5)


def datamodule(
    root: Path, stage: str = "fit", steps: int = 6, accumulate: int = 1, rhythm: RhythmConfig = TEXT, **values: Any
) -> DetectionDataModule:
    settings = {"batch_size": 2, "num_workers": 0, "negatives": NegativesConfig(count=1, foreign=0), **values}
    config = DataConfig(root=str(root), size=48, max_size=96, train_sizes=[32, 48], **settings)
    module = DetectionDataModule(
        config,
        statistics=IMAGENET_PIXELS,
        seed=3,
        total_steps=steps,
        accumulate=accumulate,
        rhythm=rhythm,
        eval_batch_size=2,
    )
    module.setup(stage)
    return module


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fingerprint(batch: Batch) -> tuple[Any, ...]:
    ids = tuple(target.image_id for target in batch.targets)
    boxes = [target.boxes.tolist() for target in batch.targets]
    exemplars = batch.prompts.exemplars
    shown = None if exemplars is None else (exemplars.kind, exemplars.boxes.tolist())
    return ids, batch.images.pixels.sum().item(), batch.prompts.phrases, boxes, shown


def named_and_nameless(root: Path) -> None:
    """Every object of `nameless.json` is a category of its own; the images are those of the training split."""
    content = json.loads((root / "train.json").read_text())
    objects = [item | {"category_id": item["id"]} for item in content["annotations"]]
    names = [{"id": item["id"], "name": f"thing {item['id']}"} for item in objects]
    (root / "nameless.json").write_text(json.dumps(content | {"annotations": objects, "categories": names}))
