"""Images asked for one category alone, as users often ask: what scores are fitted to, beside all categories together.

B images, C categories, N references.
"""

from __future__ import annotations

import random
from typing import Literal

import torch
from lightning.fabric.utilities import move_data_to_device

from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.prompt_tokens import category_vectors, from_vectors, only
from trex2_lightning.prompting.protocols import Prompting, Text
from trex2_lightning.structures import Batch, ExemplarAppearance, FeatureMaps, PromptTokens


class OneCategory(Prompting):
    """In each image one category alone, by the exemplars of one reference.

    Interactive prompts: one that the image does not have, so that nothing that is found is right; exemplars of the
    image itself alone would teach that whatever is found is what they show. Others: any category; where all were asked
    for together, the best of them would be right, and of one that is asked for alone whatever is found.

    Args:
        references: of batch size N, with C categories.
        seed: of the draw, which depends on the image too.
        source: what the prompts stand for.
    """

    def __init__(self, references: PromptTokens, seed: int, source: Literal["interactive", "generic", "mixed"]) -> None:
        self._references = references
        self._seed = seed
        self.source = source

    def __call__(self, _detector: PromptedDetector, batch: Batch, features: FeatureMaps) -> PromptTokens:
        references, device = self._references, features.tokens.device
        places = references.valid.nonzero().tolist()  # of a reference and a category that it shows
        chosen: list[tuple[int, int, int]] = []  # of an image, a reference and a category
        for image, target in enumerate(batch.targets):
            has = {*target.labels.tolist()} if self.source == "interactive" else set()
            others = [place for place in places if place[1] not in has]
            if others:
                reference, category = random.Random(f"{self._seed} {target.image_id}").choice(others)
                chosen.append((image, reference, category))
        size, shown = references.embed.shape[1], references.appearance
        rows = torch.tensor(chosen, dtype=torch.long).view(-1, 3)
        place, reference, kind = rows.unbind(1)
        embed = references.embed.new_zeros(len(batch.targets), *references.embed.shape[1:])
        embed[place, kind] = references.embed[reference, kind]
        valid = torch.zeros(len(embed), size, dtype=torch.bool)
        valid[place, kind] = True
        prompts = from_vectors(embed, valid)
        if shown is not None:  # one exemplar for each image
            vectors = shown.vectors[reference, kind].expand(len(embed), -1, -1)
            own = torch.arange(len(embed))[:, None] == place
            prompts = prompts._replace(appearance=ExemplarAppearance(vectors, own, kind))
        return move_data_to_device(prompts, device)


class OneMixed(OneCategory):
    """The same by its name too, as `prompting.protocols.Mixed` has both.

    Args:
        references, seed: as of `OneCategory`.
        learned: as of `Mixed`.
    """

    def __init__(self, references: PromptTokens, seed: int, *, learned: bool) -> None:
        super().__init__(references, seed, "mixed")
        self._text = Text()
        self._learned = learned

    def start(self) -> None:
        self._text.start()

    def __call__(self, detector: PromptedDetector, batch: Batch, features: FeatureMaps) -> PromptTokens:
        one, text = super().__call__(detector, batch, features), self._text(detector, batch, features)
        if self._learned:
            return one._replace(embed=(one.embed + category_vectors(text)) / 2)
        size = len(one.embed)
        text = text._replace(embed=text.embed.expand(size, -1, -1), valid=text.valid.expand(size, -1))
        wanted = one.valid[:, text.category.clamp(min=0)] & (text.category >= 0)
        return only(text, wanted)._replace(appearance=one.appearance)
