"""Visual vectors of recent iterations: more categories to be told apart than one batch holds.

After PET-DINO's dynamic memory (arXiv 2604.00503), whose vectors also serve as positives; here they are negatives alone
(docs/deviations.md). B images, C categories of a rank's batch, D width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from trex2_lightning.config import MemoryBankConfig
from trex2_lightning.ops.distributed import from_every_rank
from trex2_lightning.structures import PromptTokens


class MemoryBank:
    """The last `size` vectors of each category by its data set and phrase, in CPU memory and the same on all ranks.

    Vectors are detached and as old as the iterations in which they were made. Those of another data set are no
    negatives: its categories may be in an image without being marked.
    """

    def __init__(self, config: MemoryBankConfig) -> None:
        self.config = config
        self._vectors: dict[str, dict[str, deque[Tensor]]] = {}

    def add(self, phrases: Sequence[str], prompts: PromptTokens, data_set: str = "") -> None:
        """Keep the valid vectors of all ranks' images, in the ranks' order; every rank must call this together.

        Args:
            phrases: C.
            prompts: of batch size B, with one vector per category, as the images gave them.
            data_set: that the images are of, on all ranks.
        """
        embed, valid = prompts.embed.detach().float(), prompts.valid[..., None].float()
        self._keep(phrases, torch.cat([embed, valid], -1).cpu(), data_set)  # the device is waited for once

    def _keep(self, phrases: Sequence[str], marked: Tensor, data_set: str) -> None:
        """Of vectors (B, C, D + 1) whose last number is 1 where they are valid, else 0."""
        shown = marked[..., -1] > 0
        own = [phrases[category] for category in shown.nonzero()[:, 1].tolist()], marked[shown][:, :-1]
        kept = self._vectors.setdefault(data_set, {})
        for names, vectors in from_every_rank(own):
            for name, vector in zip(names, vectors, strict=True):
                # A row of its own: a view would keep the whole batch's vectors in memory.
                kept.setdefault(name, deque(maxlen=self.config.size)).append(vector.clone())

    def draw(self, present: Sequence[str], generator: torch.Generator, data_set: str = "") -> list[Tensor]:
        """The mean vectors (D,) of up to `negatives` random categories of a data set that are not `present`."""
        kept = self._vectors.get(data_set, {})
        absent = sorted(kept.keys() - set(present))
        chosen = torch.randperm(len(absent), generator=generator)[: self.config.negatives].tolist()
        return [torch.stack([*kept[absent[index]]]).mean(0) for index in chosen]

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Vectors (n, D) by data set and phrase, oldest first, which `torch.load(weights_only=True)` reads."""
        return {
            data_set: {name: torch.stack([*vectors]) for name, vectors in kept.items()}
            for data_set, kept in self._vectors.items()
        }

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Go on from what `state_dict` gave; of more vectors than `size` the last ones are kept."""
        self._vectors = {
            data_set: {name: deque(vectors, maxlen=self.config.size) for name, vectors in kept.items()}
            for data_set, kept in state.items()
        }
