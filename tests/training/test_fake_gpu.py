"""A training step on a GPU that is not there: fake tensors have a device, a type and a shape, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from trex2_lightning.config import load
from trex2_lightning.losses.matcher import HungarianMatcher
from trex2_lightning.prompting import training_prompts
from trex2_lightning.prompting.memory_bank import MemoryBank
from trex2_lightning.structures import Batch, Exemplars, Images, Prompts, Targets
from trex2_lightning.studies.gpu_memory import bfloat16_of_a_gpu, first_queries, to_fake_gpu
from trex2_lightning.training.build import build_module
from trex2_lightning.training.optim import adamw

TINY = Path(__file__).parents[1] / "tiny.yaml"
CUDA = torch.device("cuda")
STAGE_2 = (
    "train.rhythm={visual: 1, text: 1}",
    "train.prompt_scope=world",
    "train.memory_bank.size=4",
    "loss.alignment={weight: 1, relation: 1}",
    "model.presence=true",
)
# What makes the host wait until the device has come to it.
ASKS = ("item", "_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "bincount", "equal")


class Waits(TorchDispatchMode):
    """Counts the calls for which a host waits for the GPU, by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.name().split("::")[1].split(".")[0], kwargs or {}
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        out = func(*args, **kwargs)
        on_gpu = any(x.device.type == "cuda" for x in tensors)
        moved = isinstance(out, Tensor) and tensors and tensors[-1].device != out.device
        copied = (
            name in ("_to_copy", "copy_") and moved and not kwargs.get("non_blocking", "copy_" in name and args[2:])
        )
        masked = name in ("index", "index_put", "index_put_") and any(
            x is not None and x.dtype == torch.bool for x in args[1]
        )
        if copied or masked or (on_gpu and name in ASKS):
            self.found[name] += 1
        return out


def a_batch(*, visual: bool) -> Batch:
    targets = tuple(Targets(torch.arange(n) % 3, torch.rand(n, 4), n) for n in (2, 3))
    exemplars = Exemplars(torch.rand(2, 3, 2, 4), torch.ones(2, 3, 2, dtype=torch.bool)) if visual else None
    judged = torch.ones(2, 3, dtype=torch.bool)
    prompts = Prompts(("red block", "green block", "blue thing"), exemplars, judged)
    images = Images(torch.rand(2, 3, 64, 96), torch.ones(2, 64, 96, dtype=torch.bool), torch.tensor([[64, 96]] * 2))
    return Batch(images, prompts, targets)


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["text", "box"])
def test_a_step_without_room_for_all_prompts_waits_once_more(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three categories two stay."""

    def numbers(sent: Tensor, sizes: Sequence[int]) -> list[np.ndarray]:
        return [np.arange(size) % 3 for size in sizes]

    def first_two(owner: np.ndarray, *_: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.flatnonzero(owner < 2), np.array([0, 1, -1, -1])

    monkeypatch.setattr(training_prompts, "_numbers", numbers)
    monkeypatch.setattr(training_prompts, "fitting", first_two)
    waits = waits_of_a_step(("model.fusion=early", "model.max_tokens=2"), kind, monkeypatch)
    assert waits == {"_to_copy": 3 if kind == "box" else 2}


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["text", "box"])
@pytest.mark.parametrize("fusion", ["late", "early"])
@pytest.mark.parametrize("granularity", ["phrase", "word"])
def test_a_step_of_every_cell_waits_for_the_gpu_at_the_matcher_alone(
    granularity: str, fusion: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A visual step's vectors go to the memory bank too."""
    waits = waits_of_a_step((f"model.granularity={granularity}", f"model.fusion={fusion}"), kind, monkeypatch)
    assert waits == {"_to_copy": 2 if kind == "box" else 1}


@pytest.mark.ci
@pytest.mark.parametrize("fusion", ["late", "early"])
def test_frozen_parts_make_nobody_wait(fusion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ["backbone", "neck", "text_encoder", "encoder", "selection", "decoder", "heads", "noised_content"]
    parts += ["fusions"] if fusion == "early" else []
    alone = (f"model.fusion={fusion}", f"train.frozen=[{', '.join(parts)}]", "loss.denoising.queries=0")
    waits = waits_of_a_step((*alone, "model.granularity=word"), "box", monkeypatch, "train.rhythm.text=0")
    assert waits == {"_to_copy": 2}


def waits_of_a_step(cell: tuple[str, ...], kind: str, monkeypatch: pytest.MonkeyPatch, *more: str) -> Counter[str]:
    """Clipping and optimizer included, but no backward pass, which cannot run without a driver."""
    config = load(TINY, [*cell, *STAGE_2, *more])
    module = build_module(config)
    monkeypatch.setattr(HungarianMatcher, "_assign", first_queries)
    monkeypatch.setattr(MemoryBank, "_keep", lambda *_: None)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    with FakeTensorMode():
        to_fake_gpu(module)
        batch = move_data_to_device(a_batch(visual=kind == "box"), CUDA)
        optimizer = adamw(module.detector, config.optim)
        module._trainer = SimpleNamespace(world_size=1, global_rank=0)
        with Waits() as waits:
            with bfloat16_of_a_gpu():
                loss = module.training_step(batch, 0)
            for parameter in module.parameters():
                parameter.grad = torch.empty_like(parameter)
            module.configure_gradient_clipping(optimizer, 0.1)
            optimizer.step()
    assert loss.device.type == "cuda"
    return waits.found
