"""A table of validation pictures with predicted and true boxes in Weights & Biases' own box format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from trex2_lightning.data.images.image_files import read_image
from trex2_lightning.data.records import ImageRecord
from trex2_lightning.metrics.detection import ImageResult

MIN_SCORE = 0.3
MAX_BOXES = 50  # per picture


class PredictionTable(Callback):
    """Logs `val/pictures` after each validation, if one of the loggers is W&B.

    It needs a `validation_step` that returns the batch's `ImageResult`s and `trainer.datamodule.val_records`.

    Args:
        num_pictures: how many; the first ones that rank 0 evaluates, so the same ones each time.
    """

    def __init__(self, num_pictures: int = 8) -> None:
        self._num_pictures = num_pictures
        self._results: list[ImageResult] = []

    def on_validation_epoch_start(self, *_: Any) -> None:
        self._results = []

    def on_validation_batch_end(self, _trainer: Trainer, _module: LightningModule, outputs: Any, *_: Any) -> None:
        self._results += outputs[: self._num_pictures - len(self._results)]

    def on_validation_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        if trainer.sanity_checking or not trainer.is_global_zero or not loggers:
            return
        records = trainer.datamodule.val_records  # type: ignore[attr-defined]
        record_of = {record.id: record for record in records.images}
        rows = [_row(record_of[result.image_id], result, records.names) for result in self._results]
        for logger in loggers:
            logger.log_table("val/pictures", columns=["file", "picture"], data=rows, step=trainer.global_step)


def wandb_boxes(record: ImageRecord, result: ImageResult, names: Sequence[str]) -> dict[str, Any]:
    """`boxes` of a `wandb.Image`: the best detections as `predictions`, the annotations as `ground_truth`."""
    best = result.scores.argsort(descending=True)[:MAX_BOXES]
    best = best[result.scores[best] > MIN_SCORE]
    predictions = [
        _box(corners, label, f"{names[label]} {score:.2f}") | {"scores": {"score": score}}
        for corners, label, score in zip(
            result.boxes[best].tolist(), result.labels[best].tolist(), result.scores[best].tolist(), strict=True
        )
    ]
    truth = [
        _box(corners, label, names[label])
        for corners, label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
    ]
    class_labels = dict(enumerate(names))
    return {
        "predictions": {"box_data": predictions, "class_labels": class_labels},
        "ground_truth": {"box_data": truth, "class_labels": class_labels},
    }


def _row(record: ImageRecord, result: ImageResult, names: Sequence[str]) -> list[Any]:
    import wandb  # only where a run logs to it

    return [
        record.path.name,
        wandb.Image(read_image(record.path, (record.height, record.width)), boxes=wandb_boxes(record, result, names)),
    ]


def _box(corners: list[float], label: int, caption: str) -> dict[str, Any]:
    position = dict(zip(("minX", "minY", "maxX", "maxY"), corners, strict=True))
    return {"position": position, "domain": "pixel", "class_id": label, "box_caption": caption}
