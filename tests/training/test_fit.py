"""What a run writes, and which of its weights are evaluated and saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from recorded_runs import assert_same, last_of, read, rows
from torch import Tensor

from trex2_lightning.config import Config, load
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule

TinyConfig = Callable[..., Config]


def test_a_run_writes_checkpoints_config_and_curves(tiny_config: TinyConfig) -> None:
    config = tiny_config()
    train(config)
    assert {path.name for path in (config.folder / "checkpoints").iterdir()} == {
        *("best.ckpt", "last.ckpt", "previous.ckpt")
    }
    assert load(config.folder / "config.yaml") == config
    columns = {name for row in rows(config) for name, value in row.items() if value}
    expected = {"loss", "loss/queries/giou", "loss/noised/l1", "val/ap", "val/ap50", "lr-AdamW/rest", "lr-AdamW/text"}
    assert expected | {"resources/images_per_second", "data/skipped_images"} <= columns
    assert [row["step"] for row in rows(config) if row["val/ap"]] == ["1", "3"]  # counted from 0


def test_the_last_step_is_evaluated_and_saved_whatever_val_every_is(tiny_config: TinyConfig) -> None:
    config = tiny_config("train.max_steps=5", "train.val_every=3")
    train(config)
    assert read(last_of(config))["global_step"] == 5
    assert [row["step"] for row in rows(config) if row["val/ap"]] == ["2", "4"]


def test_a_checkpoint_alone_rebuilds_the_detector(tiny_config: TinyConfig) -> None:
    config = tiny_config()
    trained = train(config).eval()
    loaded_config, loaded = load_checkpoint(last_of(config))
    assert loaded_config == config
    assert not loaded.training
    assert_same(dict(trained.state_dict()), dict(loaded.state_dict()))
    one, other = (evaluate(config, module, "test").rows["text"] for module in (trained, loaded))
    assert_same([tuple(result) for result in one.results], [tuple(result) for result in other.results])
    assert one.figures.keys() >= {"ap", "ap50", "ap75"}


def test_averaged_weights_are_what_is_evaluated_and_saved(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """w <- d w + (1 - d) v after every step, started at the first step's weights; d grows to what is asked for."""
    history: list[Tensor] = []
    evaluated: list[Tensor] = []

    def content(module: DetectionModule) -> Tensor:
        return module.detector.selection.content.detach().clone()

    end, start = DetectionModule.on_train_batch_end, DetectionModule.on_validation_epoch_start

    def stepped(self: DetectionModule, *arguments: Any) -> None:
        history.append(content(self))
        end(self, *arguments)

    def starting(self: DetectionModule) -> None:
        if not self.trainer.sanity_checking:
            evaluated.append(content(self))
        start(self)

    monkeypatch.setattr(DetectionModule, "on_train_batch_end", stepped)
    monkeypatch.setattr(DetectionModule, "on_validation_epoch_start", starting)
    config = tiny_config("train.ema_decay=0.5", "train.total_batch=2", "train.val_every=4")
    returned = train(config)
    average = history[0]
    for number, weights in enumerate(history[1:], start=1):
        decay = min(0.5, number / (number + 9))
        average = decay * average + (1 - decay) * weights
    checkpoint = read(last_of(config))
    torch.testing.assert_close(evaluated[-1], average)
    torch.testing.assert_close(checkpoint["state_dict"]["detector.selection.content"], average)
    torch.testing.assert_close(content(returned), average)
    assert all(buffer.isfinite().all() for buffer in returned.buffers()), "as infinities, averaged, are not"
    assert torch.equal(checkpoint["current_model_state"]["detector.selection.content"], history[-1])
    assert not torch.allclose(history[-1], average, atol=1e-5)


def test_without_averaging_the_weights_themselves_are_saved(tiny_config: TinyConfig) -> None:
    config = tiny_config("train.ema_decay=0", "train.max_steps=2")
    module = train(config)
    assert "current_model_state" not in read(last_of(config))
    assert_same(dict(module.state_dict()), read(last_of(config))["state_dict"])


def test_a_run_that_diverges_says_what_to_lower(tiny_config: TinyConfig) -> None:
    with pytest.raises(InputError, match=r"not finite.*lower optim\.lr") as error:
        train(tiny_config("optim.lr=1e30", "optim.warmup_steps=0"))
    assert "\n" not in str(error.value)
