"""One category alone, by its name and an exemplar."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from trex2_lightning.config import Config
from trex2_lightning.evaluation.one_category import OneCategory, OneMixed
from trex2_lightning.models.build import build_detector
from trex2_lightning.ops.prompt_tokens import category_vectors, from_vectors
from trex2_lightning.structures import Batch, ExemplarAppearance, FeatureMaps, Images, Prompts, Targets

NAMES = ("a red block", "a ring", "a star")


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("granularity", ["phrase", "word"])
@torch.no_grad()
def test_it_is_asked_for_by_name_and_exemplar(
    granularity: str, learned: bool, tiny_config: Callable[..., Config], maps: Callable[..., FeatureMaps]
) -> None:
    detector = build_detector(tiny_config(f"model.granularity={granularity}").model).eval()
    references = from_vectors(torch.randn(4, 3, detector.decoder.width))
    seen = ExemplarAppearance(torch.randn(4, 3, 5), references.valid, references.category)
    references = references._replace(appearance=seen)
    targets = tuple(Targets(torch.arange(3), torch.zeros(3, 4), number) for number in range(4))
    batch = Batch(Images(*[torch.zeros(4)] * 3), Prompts(NAMES), targets)
    features = maps(torch.zeros(4, 4, 8), torch.ones(4, 4, dtype=torch.bool), ((2, 2),))
    one, mixed = OneCategory(references, 0, "mixed"), OneMixed(references, 0, learned=learned)
    mixed.start()
    shown, asked = one(detector, batch, features), mixed(detector, batch, features)
    text = detector.encode_prompts(Prompts(NAMES))
    assert shown.appearance is not None
    assert asked.appearance is not None
    assert torch.equal(asked.appearance.vectors, shown.appearance.vectors)
    for image, own in enumerate(shown.valid):
        [category] = own.nonzero()[:, 0].tolist()
        tokens = asked.valid[image] & (asked.category >= 0)
        assert {*asked.category[tokens].tolist()} == {category}
        if learned:
            expected = (shown.embed[image, category] + category_vectors(text)[0, category]) / 2
            torch.testing.assert_close(asked.embed[image, category], expected)
        else:
            assert torch.equal(asked.embed[image], text.embed[0])
            assert tokens.sum() == (text.category == category).sum(), "all of its words"
