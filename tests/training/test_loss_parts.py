"""The gradient of each part of the loss, beside that of the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_iterations import batch_of, module_of
from torch import distributed, multiprocessing

from trex2_lightning.training.loss_parts import gradient_norms, part_of

LABELS = [[0, 1], [1, 2, 2]]
ALIGNED = "loss.alignment={relation: 1, learned_temperature: true}"


def norm_of(settings: tuple[str, ...], kind: str, *, without: str = "") -> float:
    """Of the gradient of all terms but some, as autograd leaves it in the parameters."""
    module = module_of(*settings)
    terms = module.loss_terms(batch_of(kind, LABELS), 0).terms  # type: ignore[arg-type]
    torch.stack([term for name, term in terms.items() if part_of(name) not in without.split()]).sum().backward()
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())


def test_each_part_has_the_gradient_of_its_terms_alone() -> None:
    module = module_of(ALIGNED)
    norms = gradient_norms(module, batch_of("box", LABELS))
    assert [*norms] == ["detection", "alignment", "relation"]
    for part, norm in norms.items():
        others = " ".join(norms.keys() - {part})
        assert norm == pytest.approx(norm_of((ALIGNED,), "box", without=others), rel=1e-4), part
    assert all(parameter.grad is None for parameter in module.parameters())


def test_with_text_there_is_detection_alone() -> None:
    norms = gradient_norms(module_of(), batch_of("text", LABELS))
    assert norms == {"detection": pytest.approx(norm_of((), "text"), rel=1e-4)}


@pytest.mark.parametrize(
    ("frozen", "idle"),
    [("visual_encoder", "alignment"), ("visual_encoder, selection, decoder, heads, noised_content", "detection")],
)
def test_a_part_that_moves_nothing_that_is_trained_pulls_with_nothing(frozen: str, idle: str) -> None:
    parts = f"train.frozen=[backbone, neck, encoder, text_encoder, {frozen}]"
    norms = gradient_norms(module_of("model.presence=true", parts, "loss.denoising.queries=0"), batch_of("box", LABELS))
    assert norms[idle] == 0
    assert norms["presence"] > 0


def test_a_term_of_a_new_kind_is_a_part_of_its_own() -> None:
    assert [part_of(name) for name in ("queries/l1", "noised/giou", "proposals/classification")] == ["detection"] * 3
    assert [part_of(name) for name in ("alignment", "other/l1")] == ["alignment", "other"]


def one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    module = module_of("loss.denoising.queries=0", world=2, rank=rank)
    torch.save(gradient_norms(module, batch_of("box", [LABELS, [[], []]][rank])), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.ci
def test_two_ranks_say_the_same_also_where_one_shows_nothing(tmp_path: Path) -> None:
    multiprocessing.spawn(one_rank, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first == second
    assert [*first] == ["detection", "alignment"]
    assert all(norm > 0 for norm in first.values())
