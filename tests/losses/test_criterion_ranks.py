"""The criterion's normalisers are means over the ranks."""

from pathlib import Path

import pytest
import torch
from criterion_parts import CRITERION, predictions, random_batch
from torch import Tensor, distributed, multiprocessing

from trex2_lightning.structures import DetectorOutput, NoisedQueries, Targets


def test_the_normalisers_are_means_over_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rank has 4 boxes and 8 positives more than this one: the means are 2 and 4 more."""
    output, targets, noised = random_batch([3, 1])
    alone = CRITERION(output, targets, None, noised)
    positives = int((noised.target >= 0).sum())
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", lambda counts: counts.mul_(2).add_(torch.tensor([4.0, 8.0])))
    for name, loss in CRITERION(output, targets, None, noised).items():
        own, shared = (positives, positives + 4) if name.startswith("noised/") else (4, 6)
        torch.testing.assert_close(loss, alone[name] * own / shared)


@pytest.mark.ci
def test_two_ranks_share_one_normaliser(tmp_path: Path) -> None:
    """Ranks with 3 and 0 boxes divide by 1.5 each, so that DDP's mean is that of one process with both images."""
    multiprocessing.spawn(one_rank, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    output, targets, noised = random_batch([3], seed=0)
    torch.testing.assert_close(ranks[0], 2 * loss_and_gradient(output, targets, noised))
    output, targets, noised = random_batch([0], seed=1)
    torch.testing.assert_close(ranks[1], loss_and_gradient(output, targets, noised) / 1.5)


def one_rank(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    output, targets, noised = random_batch([[3], [0]][rank], seed=rank)
    torch.save(loss_and_gradient(output, targets, noised), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def loss_and_gradient(output: DetectorOutput, targets: list[Targets], noised: NoisedQueries) -> Tensor:
    """Total loss, followed by all gradients of the first image's predictions."""
    total = sum(CRITERION(output, targets, None, noised).values())
    gradients = torch.autograd.grad(total, predictions(output))
    return torch.cat([total.detach()[None], *(gradient[:, 0].flatten() for gradient in gradients)])
