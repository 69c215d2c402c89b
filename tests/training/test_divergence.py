"""A run that diverges says with what, and leaves its good checkpoint as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from recorded_runs import last_of, read

from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.structures import Batch
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule, LossTerms

TinyConfig = Callable[..., Config]
SETTINGS = ("train.max_steps=6", "train.val_every=6", "train.save_every=1")
POISONED = 7  # batch: the second of step 4


def ids(batch: Batch) -> str:
    return f"images {', '.join(str(target.image_id) for target in batch.targets)} of data.train"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """The batches of a run."""
    found: list[Batch] = []
    terms = DetectionModule.loss_terms

    def recorded(self: DetectionModule, batch: Batch, batch_idx: int) -> LossTerms:
        found.append(batch)
        return terms(self, batch, batch_idx)

    monkeypatch.setattr(DetectionModule, "loss_terms", recorded)
    return found


def diverged(config: Config, *, accumulate: int) -> str:
    """What such a run ends with, whose last good step is the third."""
    assert config.accumulate == accumulate
    with pytest.raises(InputError) as error:
        train(config)
    last = last_of(config)
    assert f"{last} is from before it: go on from that by train.init_from=" in str(error.value)
    checkpoint = read(last)
    assert checkpoint["global_step"] == 3
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())
    assert sorted(file.name for file in last.parent.iterdir()) == ["last.ckpt", "previous.ckpt"]
    return str(error.value)


def test_a_poisoned_picture_ends_the_run_before_it_is_learned(
    tiny_config: TinyConfig, seen: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = DetectionModule.loss_terms

    def poisoned(self: DetectionModule, batch: Batch, batch_idx: int) -> LossTerms:
        if batch_idx == POISONED:
            batch = batch._replace(images=batch.images._replace(pixels=batch.images.pixels * torch.nan))
        return recorded(self, batch, batch_idx)

    monkeypatch.setattr(DetectionModule, "loss_terms", poisoned)
    message = diverged(tiny_config(*SETTINGS), accumulate=2)
    assert message.startswith(f"step 4, {ids(seen[POISONED])}: the matching cost of image ")


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_a_step_whose_loss_or_gradient_is_none_is_not_saved(
    tiny_config: TinyConfig, seen: list[Batch], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Its weights would be; of several batches the one is named whose loss it is, or all."""
    recorded = DetectionModule.loss_terms

    def spoilt(self: DetectionModule, batch: Batch, batch_idx: int) -> LossTerms:
        terms, left_out = recorded(self, batch, batch_idx)
        if batch_idx == POISONED:
            spoil: Any = {"loss": lambda x: x * torch.nan, "gradient": lambda x: (x - x.detach()).sqrt() + x}[part]
            terms = {name: spoil(term) for name, term in terms.items()}
        return LossTerms(terms, left_out)

    monkeypatch.setattr(DetectionModule, "loss_terms", spoilt)
    message = diverged(tiny_config(*SETTINGS), accumulate=2)
    wrong = [seen[POISONED]] if part == "loss" else seen[POISONED - 1 : POISONED + 1]
    assert message.startswith(f"step 4: the {part} is not finite with {'; '.join(map(ids, wrong))}; ")


def test_without_a_checkpoint_nothing_is_named(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    terms = DetectionModule.loss_terms

    def spoilt(self: DetectionModule, batch: Batch, batch_idx: int) -> LossTerms:
        return LossTerms({name: term * torch.inf for name, term in terms(self, batch, batch_idx).terms.items()}, 0)

    monkeypatch.setattr(DetectionModule, "loss_terms", spoilt)
    config = tiny_config("train.max_steps=2", "train.save_every=2")
    with pytest.raises(InputError, match=r"^step 1: the loss is not finite .*; nothing was saved before it: set a low"):
        train(config)
    assert not list(config.folder.rglob("*.ckpt"))
