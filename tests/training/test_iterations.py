"""What an iteration of either kind trains, on one process and on two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from iteration_parts import asked, batch_of, module_of
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from trex2_lightning.data.sampling.rhythm import ImageSource, PromptKind
from trex2_lightning.structures import Batch, NoisedQueries
from trex2_lightning.training.module import DetectionModule


def trained_by(module: DetectionModule, batch: Batch) -> set[str]:
    """Parts of the detector that an optimizer step on the batch changes; the step before it was on other prompts."""
    optimizer = module.configure_optimizers()["optimizer"]
    for kind in ("point", "box", "text"):  # so that there is momentum to move what has no gradient
        if batch.prompts.exemplars is None or kind == "text":
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


@pytest.mark.parametrize("kind", ["box", "point"])
@pytest.mark.parametrize("scope", ["image", "batch", "world"])
def test_alignment_may_train_both_prompt_encoders(kind: PromptKind, scope: str) -> None:
    for aligned in ("{scope: step, detach_text: false}", "{scope: image, detach_text: false}"):
        module = module_of(f"train.prompt_scope={scope}", f"loss.alignment={aligned}")
        changed = trained_by(module, batch_of(kind, [[0, 1], [1, 2, 2]]))
        assert {"text_encoder", "visual_encoder", "backbone", "decoder", "noised_content"} <= changed


@pytest.mark.parametrize("aligned", ["{}", "{relation: 1}", "{scope: image}", "{weight: 0, detach_text: false}"])
def test_the_text_encoder_learns_from_text_iterations_alone(aligned: str) -> None:
    module = module_of(f"loss.alignment={aligned}")
    changed = trained_by(module, batch_of("box", [[0, 1], [1, 2, 2]]))
    assert "text_encoder" not in changed
    assert {"visual_encoder", "backbone", "decoder"} <= changed
    module.zero_grad()
    module.training_step(batch_of("box", [[0, 1], [1, 2, 2]]), 0).backward()
    assert all(parameter.grad is None for parameter in module.detector.text_encoder.parameters())
    module.training_step(batch_of("text", [[0, 1], [1, 2, 2]]), 0).backward()
    untrained = [name for name, x in module.detector.text_encoder.named_parameters() if x.grad is None]
    assert untrained == []


def test_alignment_tells_the_only_category_of_a_batch_from_its_negatives() -> None:
    """As where every image shows the same thing."""
    module, terms = module_of(), {}
    module.log_dict = terms.update  # type: ignore[assignment]
    batch = batch_of("box", [[0], [0]])
    assert len(batch.negatives) == 1
    for negatives, told in ((batch.negatives, True), ((), False)):
        module.training_step(batch._replace(negatives=negatives), 0)
        assert bool(terms["visual_loss/alignment"]) is told


def test_a_text_iteration_leaves_the_visual_prompt_encoder_alone() -> None:
    changed = trained_by(module_of(), batch_of("text", [[0, 1], [1, 2, 2]]))
    assert "visual_encoder" not in changed
    assert {"text_encoder", "backbone", "decoder"} <= changed


def test_a_nameless_iteration_trains_all_but_the_text_encoder_and_has_no_alignment() -> None:
    batch = batch_of("box", [[700, 4, 700], [9]], source="nameless")
    changed = trained_by(module_of(), batch)
    assert "text_encoder" not in changed
    assert {"visual_encoder", "backbone", "decoder", "noised_content"} <= changed
    module, terms = module_of("loss.alignment.relation=1"), {}
    module.log_dict = terms.update  # type: ignore[assignment]
    assert module.training_step(batch, 0).isfinite()
    assert {name.split("/")[0] for name in terms} == {"nameless_loss"}
    assert not {name for name in terms if "alignment" in name or "relation" in name}


@pytest.mark.parametrize("scope", ["image", "batch", "world"])
def test_a_cross_image_iteration_asks_with_the_other_image_s_exemplars(scope: str) -> None:
    module = module_of(f"train.prompt_scope={scope}").eval()
    batch = batch_of("box", [[0, 1], [1, 2, 2]], source="cross_image")
    own = module.detector.encode_prompts(batch.prompts, module.detector.encode_image(batch.images))
    found = asked(module, batch)
    names = sorted(batch.prompts.phrases) if scope == "world" else batch.prompts.phrases
    for image, other in ((0, 1), (1, 0)):
        for name, holder in (("blue ring", other), ("red star", 0), ("green moon", 1)):
            expected = own.embed[holder, batch.prompts.phrases.index(name)]
            torch.testing.assert_close(found.embed[image, names.index(name)], expected, rtol=1e-4, atol=1e-4)


def test_the_memory_bank_adds_categories_that_the_batch_does_not_hold() -> None:
    module = module_of("train.memory_bank.size=2").eval()
    first, second = batch_of("box", [[0, 1], [1]]), batch_of("box", [[2], [1]])
    own = module.detector.encode_prompts(first.prompts, module.detector.encode_image(first.images))
    assert asked(module, first).embed.shape[1] == 2  # nothing is remembered yet
    found = asked(module, second)
    assert found.valid.tolist() == [[True] * 3] * 2
    torch.testing.assert_close(found.embed[0, 2], own.embed[0, first.prompts.phrases.index("red star")])
    assert found.embed[0, 2].equal(found.embed[1, 2])
    nameless = batch_of("box", [[0], [1]], source="nameless")
    assert asked(module, nameless).embed.shape[1] == 2
    assert asked(module, batch_of("text", [[0], [0]])).embed.shape[1] == 2  # one of them the negative of the batch
    assert asked(module, second._replace(data_set="another")).embed.shape[1] == 2
    unsure = second._replace(prompts=second.prompts._replace(judged=torch.ones(2, 2, dtype=torch.bool)))
    assert asked(module, unsure).embed.shape[1] == 2


def test_nameless_exemplars_are_negatives_of_named_iterations_where_the_user_says_so() -> None:
    module = module_of("train.memory_bank={size: 2, foreign: true}").eval()
    nameless, named = batch_of("box", [[5], [9]], source="nameless"), batch_of("box", [[0], [1]])
    own = module.detector.encode_prompts(nameless.prompts, module.detector.encode_image(nameless.images))
    assert [asked(module, batch).embed.shape[1] for batch in (nameless, nameless, named)] == [2, 2, 2 + 4]
    found = asked(module, named).embed[0]
    assert all(((found - vector).abs().amax(-1) < 1e-4).any() for vector in own.embed[own.valid])


@pytest.mark.parametrize("scope", ["image", "world"])
def test_early_fusion_leaves_out_what_it_has_no_room_for_in_visual_iterations_too(scope: str) -> None:
    module = module_of("model.fusion=early", "model.max_tokens=2", f"train.prompt_scope={scope}")
    batch = batch_of("box", [[0, 1], [1, 2]])
    assert asked(module, batch).embed.shape[1] == 2
    assert module.left_out_categories == 1
    module.training_step(batch, 0).backward()


@pytest.mark.parametrize("source", ["any", "cross_image"])
@pytest.mark.parametrize("scope", ["image", "batch", "world"])
@pytest.mark.parametrize("labels", [[[], []], [[], [1]], [[2], [2]]])
def test_batches_with_little_in_them_train(scope: str, labels: list[list[int]], source: ImageSource) -> None:
    aligned = "loss.alignment={relation: 1, detach_text: false}"
    module = module_of(f"train.prompt_scope={scope}", aligned, "train.memory_bank.size=2")
    loss = module.training_step(batch_of("box", labels, source=source), 0)
    loss.backward()
    assert loss.isfinite()
    for name, parameter in module.detector.named_parameters():
        if "point_embedding" in name:
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_own_exemplars_and_the_batch_s_differ_where_a_category_is_in_two_images() -> None:
    for batch, same in ((batch_of("box", [[0, 1], [1, 2]]), False), (batch_of("box", [[0], [1]]), True)):
        losses = [module_of(f"train.prompt_scope={scope}").training_step(batch, 0) for scope in ("image", "batch")]
        assert torch.allclose(*losses, rtol=1e-5) == same


def noise(rank: int, number: int, *overrides: str) -> Tensor:
    """The boxes that a rank, of two, denoises in a batch; its images are the same in all of them."""
    module = module_of(*overrides, world=2, rank=rank)
    seen: list[Tensor] = []

    def noised(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.extend(given.boxes for given in (*args, *kwargs.values()) if isinstance(given, NoisedQueries))

    module.criterion.register_forward_pre_hook(noised, with_kwargs=True)
    module.training_step(batch_of("text", [[0, 1], [1, 2, 2]]), number)
    return seen[0]


def test_the_noise_of_the_denoising_is_another_for_every_rank_batch_and_run_and_the_same_after_a_restart() -> None:
    places = [(0, 0), (1, 0), (0, 1), (1, 1)]
    drawn = [noise(*place) for place in places] + [noise(0, 0, "seed=1")]
    assert [some for i, some in enumerate(drawn) if any(some.equal(other) for other in drawn[:i])] == []
    assert all(noise(*place).equal(some) for place, some in zip(places, drawn, strict=False))


class Steps(nn.Module):
    """With the forward that DistributedDataParallel wants."""

    def __init__(self, module: DetectionModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Batch, number: int) -> Tensor:
        return self.module.training_step(batch, number)


def one_rank(rank: int, folder: str, scope: str, steps: int, aligned: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    settings = (f"train.prompt_scope={scope}", f"loss.alignment={aligned}", "train.memory_bank.size=2")
    module = module_of(*settings, world=2, rank=rank)
    parallel = DistributedDataParallel(Steps(module), find_unused_parameters=True)
    optimizer = module.configure_optimizers()["optimizer"]
    labels: list[Any] = [[[0, 1], [1, 2, 2]], [[], []], [[2], [0, 2]], [[1], []]]
    for number in range(steps):
        kind: PromptKind = ("box", "point", "box", "text")[number % 4]
        source: ImageSource = ("any", "nameless", "cross_image", "any")[number % 4]
        batch = batch_of(kind, labels[(number // 4 + rank) % len(labels)], seed=2 * number + rank, source=source)
        loss = parallel(batch, number)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(module.state_dict(), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("scope", "steps", "aligned"),
    [
        pytest.param("image", 20, "{scope: image, detach_text: false}", marks=pytest.mark.slow),
        pytest.param("world", 20, "{detach_text: false}", marks=pytest.mark.slow),
        pytest.param("world", 5, "{relation: 1, learned_temperature: true}", marks=pytest.mark.ci),
    ],
)
def test_two_ranks_stay_equal_over_mixed_steps(tmp_path: Path, scope: str, steps: int, aligned: str) -> None:
    """Also where one of them has no box, the vocabularies differ, and images come from different sources."""
    multiprocessing.spawn(one_rank, args=(str(tmp_path), scope, steps, aligned), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, value in first.items():
        if name.startswith(("detector.", "criterion.")) and "running_" not in name:
            assert value.equal(second[name]), name
    assert ("criterion.log_scale" in first) == ("learned" in aligned)


@pytest.mark.parametrize("scope", ["batch", "world"])
def test_what_is_judged_goes_with_its_category_into_the_shared_vocabulary(scope: str) -> None:
    module = module_of(f"train.prompt_scope={scope}").eval()
    batch = batch_of("box", [[0, 1], [1, 2]])
    seen: list[Tensor] = []
    module.criterion.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    phrases = list(batch.prompts.phrases)
    judged = torch.tensor([[phrase != "green moon" for phrase in phrases], [True] * len(phrases)])
    module.training_step(batch._replace(prompts=batch.prompts._replace(judged=judged)), 0)
    order = sorted(phrases) if scope == "world" else phrases
    assert seen[0].tolist() == [[phrase != "green moon" for phrase in order], [True] * len(phrases)]


def test_every_rank_drops_other_things_and_a_resumed_step_the_same() -> None:
    losses = {}
    for rank, world in ((0, 2), (1, 2), (0, 2)):
        module = module_of("model.transformer.dropout=0.5", "loss.denoising.queries=0", world=world, rank=rank)
        torch.manual_seed(7)  # whatever was drawn before
        loss = module.training_step(batch_of("text", [[0, 1], [1, 2]]), 3).item()
        assert losses.setdefault(rank, loss) == loss
    assert losses[0] != losses[1]
