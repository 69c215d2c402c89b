"""A small stage 2, batches of it, and what its detector is asked with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from trex2_lightning.config import load
from trex2_lightning.data.sampling.collate import Example, collate_train
from trex2_lightning.data.sampling.rhythm import ImageSource, PromptKind
from trex2_lightning.structures import Batch, PromptTokens
from trex2_lightning.training.build import build_module
from trex2_lightning.training.module import DetectionModule

DEMO = Path(__file__).parents[2] / "experiments" / "demo" / "stage2.yaml"
NAMES = ("red star", "blue ring", "green moon")


def module_of(*overrides: str, world: int = 1, rank: int = 0) -> DetectionModule:
    torch.manual_seed(0)
    alone = "model.appearance={name: ''}"  # no step sees it
    config = load(DEMO, ["model.width=32", "model.num_queries=12", "train.init_from=''", alone, *overrides])
    module = build_module(config)
    module._trainer = SimpleNamespace(world_size=world, global_rank=rank, max_steps=100)  # type: ignore[assignment]
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[assignment]
    return module


def batch_of(kind: PromptKind, labels: list[list[int]], seed: int = 0, source: ImageSource = "any") -> Batch:
    generator = torch.Generator().manual_seed(seed)
    examples = [
        Example(
            pixels=torch.randn(3, 64, 64, generator=generator),
            boxes=torch.rand(len(some), 4, generator=generator) * 0.3 + 0.3,
            labels=torch.tensor(some, dtype=torch.int64),
            size=(64, 64),
            image_id=number,
            seed=seed,
            kind=kind,
            source=source,
        )
        for number, some in enumerate(labels)
    ]
    return collate_train(examples, NAMES, NAMES, 1, 16)


def asked(module: DetectionModule, batch: Batch, number: int = 0) -> PromptTokens:
    """What the detector is asked with in a training step."""
    prompts: list[PromptTokens] = []
    decode = module.detector.decode

    def recording(features: Any, tokens: PromptTokens, noised: Any) -> Any:
        prompts.append(tokens)
        return decode(features, tokens, noised)

    module.detector.decode = recording  # type: ignore[method-assign]
    module.training_step(batch, number)
    module.detector.decode = decode  # type: ignore[method-assign]
    return prompts[0]
