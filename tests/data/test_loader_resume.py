"""A resumed run loads exactly the batches that are left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from datamodule_parts import ALL_AUGMENTATIONS, MIXED, datamodule, fingerprint
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from trex2_lightning.structures import Batch


class Recorder(lightning.LightningModule):
    """Trains one weight and notes every batch; at step `die_at` it fails."""

    def __init__(self, die_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.die_at = die_at
        self.seen: list[Any] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.global_step == self.die_at:
            raise RuntimeError("killed")
        self.seen.append(fingerprint(batch))
        return (self.weight - batch.images.pixels.mean()).square().sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(root: Path, folder: Path, model: Recorder, ckpt: Path | None = None, num_workers: int = 0) -> lightning.Trainer:
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=10,
        accumulate_grad_batches=2,
        val_check_interval=8,
        use_distributed_sampler=False,
        callbacks=[ModelCheckpoint(folder, filename="{step}", every_n_train_steps=5, save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = datamodule(root, steps=10, accumulate=2, rhythm=MIXED, augment=ALL_AUGMENTATIONS, num_workers=num_workers)
    trainer.fit(model, data, ckpt_path=ckpt)
    return trainer


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("error:You're resuming from a checkpoint")
def test_resume_sees_exactly_the_batches_that_are_left(tiny_coco: Path, tmp_path: Path, num_workers: int) -> None:
    whole = Recorder()
    fit(tiny_coco, tmp_path / "whole", whole)
    assert len(whole.seen) == 20

    killed, resumed = Recorder(die_at=7), Recorder()
    with pytest.raises(RuntimeError, match="killed"):
        fit(tiny_coco, tmp_path / "killed", killed)
    trainer = fit(tiny_coco, tmp_path / "killed", resumed, tmp_path / "killed" / "step=5.ckpt", num_workers)
    assert trainer.global_step == 10
    assert killed.seen == whole.seen[:14]
    assert resumed.seen == whole.seen[10:]
    assert resumed.weight.item() == whole.weight.item()
