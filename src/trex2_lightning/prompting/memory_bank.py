"""Visual vectors of recent iterations: more categories to be told apart than one batch holds.

After PET-DINO's dynamic memory (arXiv 2604.00503), whose vectors also serve as positives; here only where that is asked
for (docs/deviations.md). B images, C categories of a rank's batch, U in the vocabulary of all ranks, D width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from trex2_lightning.config import MemoryBankConfig
from trex2_lightning.data.sampling.foreign import far_from
from trex2_lightning.ops.distributed import from_every_rank
from trex2_lightning.structures import PromptTokens

WITHOUT_NAME = ""  # in a phrase's place: each of these vectors is a category of its own


class MemoryBank:
    """The last `size` vectors of each category by its data set and phrase, in CPU memory and the same on all ranks.

    Vectors are detached and as old as the iterations in which they were made. Those of another data set are no
    negatives: its categories may be in an image without being marked. With `foreign` the user says that they are not;
    then those of nameless pictures are kept and drawn too, as many as an iteration asks for.
    """

    def __init__(self, config: MemoryBankConfig) -> None:
        self.config = config
        self._vectors: dict[str, dict[str, deque[Tensor]]] = {}

    def add(self, phrases: Sequence[str], prompts: PromptTokens, data_set: str = "") -> None:
        """Keep the valid vectors of all ranks' images, in the ranks' order; every rank must call this together.

        Args:
            phrases: C; none of nameless pictures.
            prompts: of batch size B, with one vector per category, as the images gave them.
            data_set: that the images are of, on all ranks.
        """
        if not phrases and not self.config.foreign:
            return
        embed, valid = prompts.embed.detach().float(), prompts.valid[..., None].float()
        names = phrases or (WITHOUT_NAME,) * embed.shape[1]
        self._keep(names, torch.cat([embed, valid], -1).cpu(), data_set)  # the device is waited for once

    def _keep(self, phrases: Sequence[str], marked: Tensor, data_set: str) -> None:
        """Of vectors (B, C, D + 1) whose last number is 1 where they are valid, else 0."""
        shown = marked[..., -1] > 0
        own = [phrases[category] for category in shown.nonzero()[:, 1].tolist()], marked[shown][:, :-1]
        kept = self._vectors.setdefault(data_set, {})
        for names, vectors in from_every_rank(own):
            for name, vector in zip(names, vectors, strict=True):
                # A row of its own: a view would keep the whole batch's vectors in memory.
                kept.setdefault(name, deque(maxlen=self._room(name))).append(vector.clone())

    def draw(self, present: Sequence[str], generator: torch.Generator, data_set: str = "") -> list[Tensor]:
        """The mean vectors (D,) of up to `negatives` random categories of a data set that are not `present`.

        With `foreign` they are also of other sets, where their names are near none of this set, and of nameless ones.
        """
        kept = self._vectors.get(data_set, {})
        absent = [[*kept[name]] for name in sorted(kept.keys() - {*present, WITHOUT_NAME})]
        if self.config.foreign:
            absent += self._elsewhere(tuple(sorted({*present, *kept} - {WITHOUT_NAME})), data_set)
        chosen = torch.randperm(len(absent), generator=generator)[: self.config.negatives].tolist()
        return [torch.stack(absent[index]).mean(0) for index in chosen]

    def recalled(
        self, prompts: PromptTokens, names: Sequence[str], generator: torch.Generator, data_set: str = ""
    ) -> PromptTokens:
        """`prompts` in which a random share, `positives`, of the categories has the mean of the vectors that are kept.

        Args:
            prompts: of one vector for each of U categories.
            names: U; none of nameless pictures, of which nothing is kept that could come again.
            generator: the only source of randomness.
            data_set: that the images are of.
        """
        kept = self._vectors.get(data_set, {})
        drawn = (torch.rand(len(names), generator=generator) < self.config.positives).tolist()
        wanted = [place for place, name in enumerate(names) if drawn[place] and name in kept]
        if not wanted:
            return prompts
        means = torch.stack([torch.stack([*kept[names[place]]]).mean(0) for place in wanted])
        place = torch.tensor(wanted, device=prompts.embed.device)
        vectors = means.to(prompts.embed, non_blocking=True).expand(len(prompts.embed), -1, -1)
        return prompts._replace(
            embed=prompts.embed.index_copy(1, place, vectors), valid=prompts.valid.index_fill(1, place, True)
        )

    def _elsewhere(self, names: tuple[str, ...], data_set: str) -> list[list[Tensor]]:
        """The vectors of each category that a set with these names does not have."""
        found = []
        for other, kept in sorted(self._vectors.items()):
            if other != data_set:
                apart = far_from(names, tuple(sorted(kept.keys() - {WITHOUT_NAME})))
                found += [[*kept[name]] for name in apart]
            found += [[vector] for vector in kept.get(WITHOUT_NAME, ())]
        return found

    def _room(self, name: str) -> int:
        return self.config.negatives if name == WITHOUT_NAME else self.config.size

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Vectors (n, D) by data set and phrase, oldest first, which `torch.load(weights_only=True)` reads."""
        return {
            data_set: {name: torch.stack([*vectors]) for name, vectors in kept.items()}
            for data_set, kept in self._vectors.items()
        }

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Go on from what `state_dict` gave; of more vectors than `size` the last ones are kept."""
        self._vectors = {
            data_set: {name: deque(vectors, maxlen=self._room(name)) for name, vectors in kept.items()}
            for data_set, kept in state.items()
        }
