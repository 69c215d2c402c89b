"""What an iteration of either kind trains, on one process and on two."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from trex2_lightning import build
from trex2_lightning.config import load
from trex2_lightning.data.collate import Example, collate_train
from trex2_lightning.data.stream import Kind
from trex2_lightning.module import DetectionModule
from trex2_lightning.structures import Batch

DEMO = Path(__file__).parents[1] / "experiments" / "demo" / "stage2.yaml"
NAMES = ("red star", "blue ring", "green moon")


def module_of(*overrides: str, world: int = 1, rank: int = 0) -> DetectionModule:
    torch.manual_seed(0)
    config = load(DEMO, ["model.width=32", "model.num_queries=12", "train.init_from=''", *overrides])
    module = build.module(config)
    module._trainer = SimpleNamespace(world_size=world, global_rank=rank, max_steps=100)  # type: ignore[assignment]
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[assignment]
    return module


def batch_of(kind: Kind, labels: list[list[int]], seed: int = 0) -> Batch:
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
        )
        for number, some in enumerate(labels)
    ]
    return collate_train(examples, NAMES, NAMES, 1, 16)


def trained_by(module: DetectionModule, batch: Batch) -> set[str]:
    """Parts of the detector that an optimizer step on the batch changes; the step before it was on other prompts."""
    optimizer = module.configure_optimizers()["optimizer"]
    for kind in ("points", "boxes", "text"):  # so that there is momentum to move what has no gradient
        if batch.prompts.boxes is None or kind == "text":
            step(module, optimizer, batch_of(kind, [[0, 1], [1, 2, 2]]))
    before = {name: parameter.detach().clone() for name, parameter in module.detector.named_parameters()}
    step(module, optimizer, batch)
    changed = {name for name, value in module.detector.named_parameters() if not value.equal(before[name])}
    return {name.split(".")[0] for name in changed}


def step(module: DetectionModule, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
    loss = module.training_step(batch, 0)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("kind", ["boxes", "points"])
@pytest.mark.parametrize("scope", ["image", "batch", "world"])
def test_alignment_trains_both_prompt_encoders(kind: Kind, scope: str) -> None:
    changed = trained_by(module_of(f"train.prompt_scope={scope}"), batch_of(kind, [[0, 1], [1, 2, 2]]))
    assert {"text_encoder", "visual_encoder", "backbone", "decoder", "noised_content"} <= changed


def test_without_alignment_a_visual_iteration_leaves_the_text_encoder_alone() -> None:
    changed = trained_by(module_of("loss.alignment.weight=0"), batch_of("boxes", [[0, 1], [1, 2, 2]]))
    assert "text_encoder" not in changed
    assert {"visual_encoder", "backbone", "decoder"} <= changed


def test_a_text_iteration_leaves_the_visual_prompt_encoder_alone() -> None:
    changed = trained_by(module_of(), batch_of("text", [[0, 1], [1, 2, 2]]))
    assert "visual_encoder" not in changed
    assert {"text_encoder", "backbone", "decoder"} <= changed


@pytest.mark.parametrize("scope", ["image", "batch", "world"])
@pytest.mark.parametrize("labels", [[[], []], [[], [1]], [[2], [2]]])
def test_batches_with_little_in_them_train(scope: str, labels: list[list[int]]) -> None:
    module = module_of(f"train.prompt_scope={scope}", "loss.alignment.relation=1")
    loss = module.training_step(batch_of("boxes", labels), 0)
    loss.backward()
    assert loss.isfinite()
    for name, parameter in module.detector.named_parameters():
        if "point_embedding" in name:
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_own_exemplars_and_the_batch_s_differ_where_a_category_is_in_two_images() -> None:
    shared, apart = batch_of("boxes", [[0, 1], [1, 2]]), batch_of("boxes", [[0], [1]])
    for batch, same in ((shared, False), (apart, True)):
        losses = [module_of(f"train.prompt_scope={scope}").training_step(batch, 0) for scope in ("image", "batch")]
        assert torch.allclose(*losses, rtol=1e-5) == same


def test_a_stage_1_checkpoint_fits_stage_2() -> None:
    stage1 = module_of("train.rhythm.visual=0")
    module_of().load_state_dict(stage1.state_dict(), strict=True)
    frozen = {name.split(".")[0] for name, value in stage1.detector.named_parameters() if not value.requires_grad}
    assert frozen == {"visual_encoder"}
    assert all(parameter.requires_grad for parameter in module_of().parameters())


class Steps(nn.Module):
    """What DistributedDataParallel wants: a forward."""

    def __init__(self, module: DetectionModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Batch, number: int) -> Tensor:
        return self.module.training_step(batch, number)


def one_rank(rank: int, folder: str, scope: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    module = module_of(f"train.prompt_scope={scope}", world=2, rank=rank)
    parallel = DistributedDataParallel(Steps(module), find_unused_parameters=True)
    optimizer = module.configure_optimizers()["optimizer"]
    labels: list[Any] = [[[0, 1], [1, 2, 2]], [[], []], [[2], [0, 2]], [[1], []]]
    for number in range(20):
        kind: Kind = ("boxes", "points", "boxes", "text")[number % 4]
        loss = parallel(batch_of(kind, labels[(number + rank) % 3], seed=2 * number + rank), number)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(module.state_dict(), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["image", "world"])
def test_two_ranks_stay_equal_over_mixed_steps(tmp_path: Path, scope: str) -> None:
    """Also where one of them has no box, and the vocabularies differ."""
    multiprocessing.spawn(one_rank, args=(str(tmp_path), scope), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, value in first.items():
        if name.startswith("detector.") and "running_" not in name:
            assert value.equal(second[name]), name
