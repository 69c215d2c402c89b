"""First in, first out, bounded, and the same after a checkpoint and on all ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from trex2_lightning.config import MemoryBankConfig
from trex2_lightning.ops.prompt_tokens import from_vectors
from trex2_lightning.prompting.memory_bank import MemoryBank

PHRASES = ("dog", "cat", "cow")
VALID = torch.tensor([[True, True, False], [True, False, False]])


def bank(size: int = 2, negatives: int = 40) -> MemoryBank:
    return MemoryBank(MemoryBankConfig(size, negatives))


def filled(steps: int, size: int = 2, negatives: int = 40) -> MemoryBank:
    """In step s the dogs of the two images are 10 s and 10 s + 1, and the cat is 100 s."""
    filled = bank(size, negatives)
    for step in range(steps):
        vectors = torch.tensor([[[10.0 * step], [100.0 * step], [torch.nan]], [[10.0 * step + 1], [-1], [-1]]])
        filled.add(PHRASES, from_vectors(vectors.requires_grad_(), VALID))
    return filled


def drawn(bank: MemoryBank, present: tuple[str, ...] = (), seed: int = 0) -> list[float]:
    return [vector.item() for vector in bank.draw(present, torch.Generator().manual_seed(seed))]


def test_the_last_vectors_of_each_category_are_kept() -> None:
    state = filled(steps=5, size=3).state_dict()[""]
    assert {name: vectors.flatten().tolist() for name, vectors in state.items()} == {
        "dog": [31, 40, 41],
        "cat": [200, 300, 400],
    }


def test_what_is_drawn_is_the_mean_of_a_category_that_is_not_there() -> None:
    assert sorted(drawn(filled(steps=3))) == [20.5, 150]
    assert drawn(filled(steps=3), present=("cat", "ant")) == [20.5]
    assert drawn(filled(steps=3), present=PHRASES) == []
    assert drawn(bank()) == []


def test_another_data_set_s_categories_are_no_negatives() -> None:
    some = filled(steps=3)
    some.add(("person",), from_vectors(torch.full((1, 1, 1), 5.0)), data_set="crowds")
    generator = torch.Generator().manual_seed(0)
    assert sorted(drawn(some)) == [20.5, 150]
    assert [vector.item() for vector in some.draw((), generator, "crowds")] == [5]
    assert some.draw((), generator, "others") == []


def test_the_number_is_limited_and_every_category_has_its_turn() -> None:
    some = filled(steps=3, negatives=1)
    assert {len(drawn(some, seed=seed)) for seed in range(20)} == {1}
    assert {drawn(some, seed=seed)[0] for seed in range(20)} == {20.5, 150}


def test_vectors_are_detached_and_own_their_memory() -> None:
    vectors = torch.ones(1, 3, 1, requires_grad=True)
    full = bank()
    full.add(PHRASES, from_vectors(vectors))
    with torch.no_grad():
        vectors.fill_(9)
    assert drawn(full) == [1, 1, 1]
    assert not any(vector.requires_grad for vector in full.draw((), torch.Generator()))


def test_a_checkpoint_goes_on_where_it_was(tmp_path: Path) -> None:
    torch.save(filled(steps=2).state_dict(), tmp_path / "bank.pt")
    resumed = bank()
    resumed.load_state_dict(torch.load(tmp_path / "bank.pt", weights_only=True))
    for some in (whole := filled(steps=2), resumed):
        some.add(PHRASES, from_vectors(torch.full((2, 3, 1), 7.0), VALID))
    for seed in range(5):
        assert drawn(resumed, seed=seed) == drawn(whole, seed=seed)
    assert resumed.state_dict()[""]["cat"].tolist() == [[100], [7]]


def test_a_smaller_bank_takes_the_last_vectors_of_a_larger_one() -> None:
    smaller = bank(size=1)
    smaller.load_state_dict(filled(steps=3, size=16).state_dict())
    assert smaller.state_dict()[""]["dog"].tolist() == [[21]]


def one_rank(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    shared = bank(size=3)
    for step in range(2):
        value: Tensor = torch.full((1, 1, 1), 10.0 * step + rank)
        shared.add((("dog", "cat")[rank] if step else "dog",), from_vectors(value))
    torch.save(shared.state_dict(), f"{folder}/{rank}")
    distributed.destroy_process_group()


@pytest.mark.ci
def test_all_ranks_have_the_same_bank(tmp_path: Path) -> None:
    """So that the checkpoint of one resumes all."""
    multiprocessing.spawn(one_rank, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        state = torch.load(tmp_path / str(rank))[""]
        assert {name: vectors.flatten().tolist() for name, vectors in state.items()} == {
            "dog": [0, 1, 10],
            "cat": [11],
        }


# Foreign ones


def mixed(foreign: bool = True, negatives: int = 4) -> MemoryBank:
    """Dogs and a cat, another set's person, hot dog and hen, and nameless things of both sets' steps."""
    some = MemoryBank(MemoryBankConfig(2, negatives, foreign))
    some.add(PHRASES, from_vectors(torch.tensor([[[1.0], [2], [3]]]), VALID[:1]))
    some.add(("person", "hot dog", "hen"), from_vectors(torch.tensor([[[5.0], [6], [7]]])), data_set="others")
    for number in range(6):
        some.add((), from_vectors(torch.full((1, 1, 1), 10.0 + number)), data_set="things" if number % 2 else "")
    return some


def test_of_other_sets_and_of_nameless_pictures_nothing_is_drawn_unless_the_user_says_so() -> None:
    apart = mixed(foreign=False)
    assert sorted(drawn(apart, ("dog",))) == [2]
    assert "" not in apart.state_dict()[""]
    once_on = MemoryBank(MemoryBankConfig(2, 4))
    once_on.load_state_dict(mixed().state_dict())
    assert sorted(drawn(once_on, ("dog",))) == [2]


def test_foreign_categories_are_those_with_names_far_from_the_set_s_and_every_nameless_vector() -> None:
    some = mixed(negatives=40)
    assert sorted(drawn(some, ("dog",))) == [2, 5, 7, 10, 11, 12, 13, 14, 15]  # no hot dog: there may be dogs
    generator = torch.Generator().manual_seed(0)
    mine = [vector.item() for vector in some.draw(("person", "hen"), generator, "others")]
    assert sorted(mine) == [2, 6, 10, 11, 12, 13, 14, 15]  # nor dogs where there are hot dogs
    assert len(drawn(mixed(negatives=3), ("dog",))) == 3


def test_as_many_nameless_vectors_are_kept_as_are_asked_for_and_resume(tmp_path: Path) -> None:
    some = mixed(negatives=2)
    torch.save(some.state_dict(), tmp_path / "bank.pt")
    resumed = MemoryBank(MemoryBankConfig(2, 2, foreign=True))
    resumed.load_state_dict(torch.load(tmp_path / "bank.pt", weights_only=True))
    for bank in (some, resumed):
        assert {name: kept[""].flatten().tolist() for name, kept in bank.state_dict().items() if "" in kept} == {
            "": [12, 14],
            "things": [13, 15],
        }
    for seed in range(5):
        assert drawn(resumed, seed=seed) == drawn(some, seed=seed)


# As positives


def test_a_share_of_the_categories_is_asked_for_by_the_mean_of_what_is_kept() -> None:
    some = filled(steps=3)
    some.config.positives = 0.5
    own = from_vectors(torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]]), VALID)
    seen = set()
    for seed in range(40):
        found = some.recalled(own, PHRASES, torch.Generator().manual_seed(seed))
        dog, cat, cow = found.embed[..., 0].T.tolist()
        seen |= {("dog", *dog), ("cat", *cat), ("cow", *cow)}
        assert found.valid[:, 0].all()
        assert found.valid[:, 1].tolist() == ([True, True] if cat[0] == 150 else [True, False])
    assert seen == {("dog", 1, 4), ("dog", 20.5, 20.5), ("cat", 2, 5), ("cat", 150, 150), ("cow", 3, 6)}
    assert own.embed[0, 0] == 1  # the given ones stay as they are


def test_nothing_is_recalled_of_another_set_or_without_names() -> None:
    some = filled(steps=3)
    some.config.positives = 1.0
    own = from_vectors(torch.ones(1, 3, 1))
    assert some.recalled(own, PHRASES, torch.Generator(), "another") is own
    assert some.recalled(own, (), torch.Generator()) is own
