"""Whose vectors an image is asked with, on paper and over two processes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from trex2_lightning.config import AlignmentConfig
from trex2_lightning.losses.alignment import alignment_loss, relation_loss
from trex2_lightning.ops.prompt_tokens import from_vectors, with_vectors
from trex2_lightning.prompting.scope import SharedPrompts, share_appearance, share_prompts, vectors_of_step
from trex2_lightning.structures import ExemplarAppearance, PromptTokens

PHRASES = ("dog", "cat", "cow")
VALID = torch.tensor([[True, True, False], [True, False, False]])
VECTORS = torch.tensor([[[1.0], [5.0], [7.0]], [[3.0], [9.0], [8.0]]])  # (B, C, D) = (2, 3, 1)


def prompts(vectors: Tensor = VECTORS, valid: Tensor = VALID) -> PromptTokens:
    return from_vectors(vectors, valid)


def test_own_vectors_and_those_of_other_images_as_negatives() -> None:
    shared = share_prompts(prompts(), PHRASES, "image")
    assert shared.prompts.embed[..., 0].tolist() == [[1, 5, 0], [3, 5, 0]]
    assert shared.prompts.valid.tolist() == [[True, True, False]] * 2
    assert shared.phrases == PHRASES
    assert shared.places.tolist() == [0, 1, 2]


def test_one_prototype_for_all_images_of_the_batch() -> None:
    shared = share_prompts(prompts(), PHRASES, "batch")
    assert shared.prompts.embed[..., 0].tolist() == [[2, 5, 0]]
    assert shared.prompts.valid.tolist() == [[True, True, False]]
    assert shared.places.tolist() == [0, 1, 2]


def test_a_world_of_one_process_is_the_batch() -> None:
    shared = share_prompts(prompts(), PHRASES, "world")
    assert shared.phrases == ("cat", "cow", "dog")
    assert shared.places.tolist() == [2, 0, 1]
    assert shared.prompts.embed[..., 0].tolist() == [[5, 0, 2]]
    assert shared.prompts.valid.tolist() == [[True, False, True]]
    assert shared.prompts.category.tolist() == [0, 1, 2]
    assert shared.prompts.attend.shape == (3, 3)


def test_an_image_is_compared_with_other_images_where_they_have_the_category() -> None:
    shown = ExemplarAppearance(
        torch.arange(8.0).reshape(2, 4, 1),
        torch.tensor([[True, False, True, False], [True, True, False, False]]),
        torch.tensor([0, 0, 1, 2]),
    )
    found = share_appearance(prompts()._replace(appearance=shown), torch.tensor([2, 0, 1]))
    assert found is not None
    assert found.vectors[..., 0].tolist() == [[*range(8)]] * 2
    # Of the first category the other's; of the second that of the first image, which has no other either.
    assert [found.vectors[i, found.valid[i], 0].tolist() for i in range(2)] == [[2, 4, 5], [0, 2]]
    assert found.category.tolist() == [2, 2, 0, 1] * 2
    assert share_appearance(prompts(), torch.arange(3)) is None


@pytest.mark.parametrize("scope", ["image", "batch", "world"])
def test_what_is_not_valid_changes_nothing_even_if_it_is_not_a_number(scope) -> None:
    vectors = VECTORS.masked_fill(~VALID[..., None], torch.nan).requires_grad_()
    embed = share_prompts(prompts(vectors), PHRASES, scope).prompts.embed
    assert embed.equal(share_prompts(prompts(), PHRASES, scope).prompts.embed)
    (gradient,) = torch.autograd.grad(embed.sum(), vectors)
    assert gradient[..., 0].bool().equal(VALID)


def slowly(vectors: Tensor, valid: Tensor) -> tuple[list[list[float]], list[list[bool]]]:
    """Of each image and category the mean of the others' vectors, its own where no other image has the category."""
    embed, known = [], []
    for image in range(len(vectors)):
        row, asked = [], []
        for category in range(vectors.shape[1]):
            holders = [other for other in range(len(vectors)) if valid[other, category]]
            others = [other for other in holders if other != image] or holders
            row.append(sum(vectors[other, category, 0].item() for other in others) / max(len(others), 1))
            asked.append(bool(others))
        embed.append(row)
        known.append(asked)
    return embed, known


@pytest.mark.parametrize("scope", ["image", "batch", "world"])
def test_others_exemplars_wherever_another_image_has_the_category(scope) -> None:
    generator = torch.Generator().manual_seed(0)
    for seed in range(20):
        vectors = torch.rand(4, 3, 1, generator=generator)
        valid = torch.rand(4, 3, generator=generator) < 0.5
        shared = share_prompts(prompts(vectors, valid), PHRASES, scope, others=True)
        embed, known = slowly(vectors, valid)
        in_order = shared.prompts.embed[:, shared.places, 0]
        torch.testing.assert_close(in_order, torch.tensor(embed), msg=f"{seed}")
        assert shared.prompts.valid[:, shared.places].tolist() == known


@pytest.mark.parametrize("scope", ["image", "batch", "world"])
def test_an_image_asked_with_others_sends_no_gradient_to_its_own_exemplars(scope) -> None:
    vectors = VECTORS.clone().requires_grad_()
    shared = share_prompts(prompts(vectors), PHRASES, scope, others=True)
    dog, cat = shared.places[:2]
    (gradient,) = torch.autograd.grad(shared.prompts.embed[0, dog, 0], vectors, retain_graph=True)
    assert gradient[..., 0].tolist() == [[0, 0, 0], [1, 0, 0]]
    (gradient,) = torch.autograd.grad(shared.prompts.embed[0, cat, 0], vectors)
    assert gradient[..., 0].tolist() == [[0, 1, 0], [0, 0, 0]]  # no other image has a cat


@pytest.mark.parametrize("scope", ["image", "batch", "world"])
def test_categories_without_names_keep_their_order(scope) -> None:
    shared = share_prompts(prompts(), (), scope)
    assert shared.prompts.embed[:, shared.places, 0].tolist() == (
        [[1, 5, 0], [3, 5, 0]] if scope == "image" else [[2, 5, 0]]
    )


def test_further_negatives_stand_behind_the_others_and_are_asked_of_all_images() -> None:
    shared = share_prompts(prompts(), PHRASES, "image").prompts
    more = with_vectors(shared, [torch.tensor([20.0]), torch.tensor([30.0])])
    assert more.embed[..., 0].tolist() == [[1, 5, 0, 20, 30], [3, 5, 0, 20, 30]]
    assert more.valid.tolist() == [[True, True, False, True, True]] * 2
    assert more.category.tolist() == [0, 1, 2, 3, 4]
    assert more.attend.shape == (5, 5)
    assert with_vectors(shared, []) is shared


def test_a_step_has_a_mean_of_each_category_beside_all_phrases() -> None:
    """Also of those that nothing shows, whose vectors are not numbers."""
    vectors = VECTORS.masked_fill(~VALID[..., None], torch.nan)
    text = torch.tensor([[[10.0], [20.0], [30.0], [40.0]]])
    found = vectors_of_step(prompts(vectors), text, (*PHRASES, "ant"))
    assert found.text[..., 0].tolist() == [[40, 20, 30, 10]]  # ant, cat, cow, dog
    assert found.visual[..., 0].tolist() == [[0, 5, 0, 2]]
    assert found.shown.tolist() == [[False, True, False, True]]


RANKS = [
    (("dog", "cat"), torch.tensor([[[1.0], [5.0]]]), torch.tensor([[True, True]])),
    (("ant", "dog", "cow"), torch.tensor([[[2.0], [3.0], [8.0]]]), torch.tensor([[True, True, False]])),
]


def loss_of(shared: SharedPrompts) -> Tensor:
    """Another weight for each category, so that mixed-up gradients show."""
    return (shared.prompts.embed[0, :, 0] * torch.tensor([1.0, 10.0, 100.0, 1000.0])).sum()


def one_rank(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    phrases, vectors, valid = RANKS[rank]
    vectors.requires_grad_()
    shared = share_prompts(prompts(vectors, valid), phrases, "world")
    (gradient,) = torch.autograd.grad(loss_of(shared), vectors)
    torch.save(
        [shared.prompts.embed, shared.prompts.valid, shared.phrases, shared.places, gradient], f"{folder}/{rank}"
    )
    distributed.destroy_process_group()


def one_rank_of_others(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    phrases, vectors, valid = RANKS[rank]
    named = share_prompts(prompts(vectors, valid), phrases, "world", others=True)
    nameless = share_prompts(prompts(vectors, valid), (), "world")
    torch.save([named.prompts.embed, nameless.prompts.embed, nameless.places], f"{folder}/{rank}")
    distributed.destroy_process_group()


@pytest.mark.ci
def test_others_may_be_on_another_rank_and_nameless_categories_are_never_the_same(tmp_path: Path) -> None:
    multiprocessing.spawn(one_rank_of_others, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank)) for rank in range(2))
    assert first[0][..., 0].tolist() == [[2, 5, 0, 3]]  # ant, cat, cow, dog
    assert second[0][..., 0].tolist() == [[2, 5, 0, 1]]
    for _, embed, places in (first, second):
        assert embed[..., 0].tolist() == [[1, 5, 2, 3, 0]]
        assert places.tolist() in ([0, 1], [2, 3, 4])


@pytest.mark.ci
def test_two_ranks_share_vectors_vocabulary_and_gradients(tmp_path: Path) -> None:
    multiprocessing.spawn(one_rank, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / str(rank)) for rank in range(2)]
    for embed, valid, phrases, _, _ in ranks:
        assert phrases == ("ant", "cat", "cow", "dog")
        assert embed[..., 0].tolist() == [[2, 5, 0, 2]]
        assert valid.tolist() == [[True, True, False, True]]
    assert ranks[0][3].tolist() == [3, 1]
    assert ranks[1][3].tolist() == [0, 3, 2]
    # The losses of both ranks, each with half of the dog: 2 * 1000 / 2.
    assert ranks[0][4][..., 0].tolist() == [[1000, 20]]
    assert ranks[1][4][..., 0].tolist() == [[2, 1000, 0]]


def aligned(images: int, names: tuple[str, ...], first: int) -> list[Tensor]:
    """Losses and gradients of images that show categories out of `NAMES`, each image by its number, from `first` on."""
    generator = torch.Generator().manual_seed(0)
    everything = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)  # images, NAMES, D
    named = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    own = [NAMES.index(name) for name in names]
    vectors = everything[first : first + images, own[: len(names) - 1]].requires_grad_()
    text = named[own][None].requires_grad_()
    shown = torch.tensor(SHOWN)[first : first + images, own[: len(names) - 1]]
    step = vectors_of_step(prompts(vectors, shown), text, names)
    config = AlignmentConfig()
    loss = alignment_loss(step.visual, step.text, step.shown, config)
    loss = loss + relation_loss(step.visual, step.text, step.shown, config)
    return [loss.detach(), *torch.autograd.grad(loss, [vectors, text])]


NAMES = ("ant", "cat", "cow", "dog")
SHOWN = [[True, True, False, False], [False, True, True, False]]
VOCABULARIES = [("ant", "cat", "dog"), ("cow", "cat", "ant")]  # of two ranks with an image each; the last is negative


def one_rank_aligned(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save(aligned(1, VOCABULARIES[rank], rank), f"{folder}/{rank}")
    distributed.destroy_process_group()


@pytest.mark.ci
def test_two_ranks_are_aligned_as_one_with_all_images(tmp_path: Path) -> None:
    """The mean of the ranks' gradients, which DDP takes, is the gradient of one process; of text, summed over ranks."""
    multiprocessing.spawn(one_rank_aligned, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank)) for rank in range(2))
    loss, visual, text = aligned(2, NAMES, 0)
    torch.testing.assert_close(first[0], loss)
    torch.testing.assert_close(second[0], loss)
    ant, cat, cow, dog = range(4)
    torch.testing.assert_close(first[1][0] / 2, visual[0, [ant, cat]])
    torch.testing.assert_close(second[1][0] / 2, visual[1, [cow, cat]])
    found = torch.zeros_like(text)
    found.index_add_(1, torch.tensor([ant, cat, dog]), first[2] / 2)
    found.index_add_(1, torch.tensor([cow, cat, ant]), second[2] / 2)
    torch.testing.assert_close(found, text)
