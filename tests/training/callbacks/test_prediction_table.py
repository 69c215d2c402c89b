"""What W&B gets to see of validation."""

from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from trex2_lightning.data.records import ImageRecord, Records
from trex2_lightning.metrics.detection import ImageResult
from trex2_lightning.training.callbacks.prediction_table import PredictionTable, wandb_boxes

NAMES = ("red star", "blue ring")


def record(folder: Path, image_id: int) -> ImageRecord:
    path = folder / f"{image_id}.png"
    Image.new("L", (40, 30), image_id).save(path)
    boxes = torch.tensor([[1.0, 2.0, 11.0, 22.0]])
    return ImageRecord(image_id, path, 40, 30, boxes, torch.tensor([1]), torch.tensor([False]), torch.tensor([200.0]))


def result(image_id: int, scores: list[float]) -> ImageResult:
    boxes = torch.arange(len(scores))[:, None] + torch.tensor([0.0, 1.0, 2.5, 3.0])
    return ImageResult(image_id, boxes, torch.tensor(scores), torch.arange(len(scores)) % 2)


def test_boxes_in_the_format_of_wandb(tmp_path: Path) -> None:
    boxes = wandb_boxes(record(tmp_path, 1), result(1, [0.25, 0.5, 0.75]), NAMES)
    predictions, truth = boxes["predictions"], boxes["ground_truth"]
    assert predictions["class_labels"] == truth["class_labels"] == {0: "red star", 1: "blue ring"}
    assert predictions["box_data"] == [
        {
            "position": {"minX": 2.0, "minY": 3.0, "maxX": 4.5, "maxY": 5.0},
            "domain": "pixel",
            "class_id": 0,
            "box_caption": "red star 0.75",
            "scores": {"score": 0.75},
        },
        {
            "position": {"minX": 1.0, "minY": 2.0, "maxX": 3.5, "maxY": 4.0},
            "domain": "pixel",
            "class_id": 1,
            "box_caption": "blue ring 0.50",
            "scores": {"score": 0.5},
        },
    ]
    assert truth["box_data"] == [
        {
            "position": {"minX": 1.0, "minY": 2.0, "maxX": 11.0, "maxY": 22.0},
            "domain": "pixel",
            "class_id": 1,
            "box_caption": "blue ring",
        }
    ]


def test_only_the_best_fifty_boxes(tmp_path: Path) -> None:
    scores = torch.linspace(0.31, 0.99, 80).tolist()
    shown = wandb_boxes(record(tmp_path, 1), result(1, scores), NAMES)["predictions"]["box_data"]
    assert [box["scores"]["score"] for box in shown] == pytest.approx(scores[:29:-1])


class Toy(LightningModule):
    """Finds one sure and one unsure object in every image; a batch is a tensor of image ids."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Tensor) -> Tensor:
        return self.layer(batch[:, None].float()).mean()

    def validation_step(self, batch: Tensor) -> list[ImageResult]:
        return [result(image_id, [0.9, 0.1]) for image_id in batch.tolist()]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class ToyData(LightningDataModule):
    """Five images: one batch in training, three in validation."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.ids = torch.arange(1, 6)
        images = [record(folder, image_id) for image_id in self.ids.tolist()]
        self.val_records = Records(images, NAMES, (1, 2), ("", ""), folder / "val.json")

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.ids, batch_size=5)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.ids, batch_size=2)


def fit(folder: Path, logger: Logger) -> None:
    """Two epochs of one step each, every one followed by validation."""
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=logger,
        callbacks=[PredictionTable(num_pictures=3)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(Toy(), ToyData(folder))


class RecordingLogger(WandbLogger):
    """Also keeps what it logs."""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        super().log_metrics(metrics, step)
        self.tables = [
            *getattr(self, "tables", []),
            *[(step, m) for m in metrics.values() if isinstance(m, wandb.Table)],
        ]


def test_a_table_of_the_first_pictures_after_each_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = RecordingLogger(save_dir=tmp_path, offline=True)
    fit(tmp_path, logger)
    run_folder = Path(logger.experiment.dir)
    logger.experiment.finish()

    assert [step for step, _ in logger.tables] == [1, 2]  # the sanity check leaves none
    for _, table in logger.tables:
        assert table.columns == ["file", "picture"]
        assert [file for file, _ in table.data] == ["1.png", "2.png", "3.png"]
        for number, (_, picture) in enumerate(table.data, 1):
            assert picture.image.size == (40, 30)
            assert picture.image.getpixel((0, 0)) == (number,) * 3
            boxes = {name: [box["box_caption"] for box in b._val] for name, b in picture._boxes.items()}
            assert boxes == {"predictions": ["red star 0.90"], "ground_truth": ["blue ring"]}
    assert len(list((run_folder / "media/table/val").glob("pictures_*.table.json"))) == 2


def test_without_wandb_nothing_happens(tmp_path: Path) -> None:
    fit(tmp_path, CSVLogger(tmp_path))
    assert not list(tmp_path.rglob("*.table.json"))
