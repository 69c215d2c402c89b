"""Hard negatives: phrases that the text encoder takes for alike, found before a run and drawn in it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from trex2_lightning.config import Config
from trex2_lightning.ops.prompt_tokens import from_vectors
from trex2_lightning.training import hard_negatives
from trex2_lightning.training.build import build_datamodule, build_module
from trex2_lightning.training.hard_negatives import nearest_phrases

ANGLES = {"cat": 0.0, "lynx": 0.1, "dog": 0.5, "wolf": 0.55, "car": 3.0}


def detector() -> Any:
    """A phrase's vector has an angle and a length, which is of no matter."""

    def encode(phrases: tuple[str, ...]) -> Any:
        angles = torch.tensor([ANGLES[phrase] for phrase in phrases])
        lengths = torch.arange(1.0, len(phrases) + 1)[:, None]
        return from_vectors((lengths * torch.stack([angles.cos(), angles.sin()], -1))[None])

    return SimpleNamespace(text_encoder=encode, training=True, eval=lambda: None, train=lambda mode: None)


def test_the_nearest_come_first(monkeypatch: Any) -> None:
    for at_once in (2, 512):
        monkeypatch.setattr(hard_negatives, "AT_ONCE", at_once)
        found = nearest_phrases(detector(), [*ANGLES])
        assert found["cat"] == ("lynx", "dog", "wolf", "car")
        assert found["wolf"] == ("dog", "lynx", "cat", "car")
    monkeypatch.setattr(hard_negatives, "NEAREST", 1)
    assert nearest_phrases(detector(), [*ANGLES])["dog"] == ("wolf",)
    assert nearest_phrases(detector(), []) == {}


def test_batches_of_a_run_are_asked_for_them(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("data.negatives={count: 1, hard: 1, foreign: 0}")
    data = build_datamodule(config)
    data.setup("fit")
    names = data.train_names
    data.nearest = lambda pool: dict.fromkeys(pool, (pool[0],))
    seen = set()
    for batch in data.train_dataloader():
        present = {batch.prompts.phrases[label] for target in batch.targets for label in target.labels.tolist()}
        drawn = {*batch.prompts.phrases} - present
        assert drawn == {names[0]} or names[0] in present
        seen |= drawn
    assert names[0] in seen
    detector = build_module(config).detector.train()
    assert {*nearest_phrases(detector, names)} == {*names}
    assert detector.training
