"""The prompt tokens that a detector makes of phrases and of exemplars."""

import pytest
import torch
from detector_parts import PHRASES, QUERIES, prompts_of, random_images

from trex2_lightning.errors import InputError
from trex2_lightning.ops.prompt_tokens import average
from trex2_lightning.structures import Prompts, PromptTokens


def test_prompt_tokens_of_phrases(detector):
    prompts = detector.encode_prompts(Prompts(PHRASES))
    assert isinstance(prompts, PromptTokens)
    assert prompts.valid.all()
    if detector.text_encoder.granularity == "phrase":
        assert prompts.category.tolist() == [0, 1, 2, 3]
        assert torch.equal(prompts.attend, torch.eye(4, dtype=torch.bool))
    else:
        assert prompts.category.tolist() == [0, 0, -1, 1, 1, -1, 2, 2, -1, 3, 3, -1]
        assert torch.equal(prompts.attend, torch.block_diag(*[torch.ones(3, 3)] * 4).bool())
    assert prompts.embed.shape == (1, len(prompts.category), 32)


def test_prompt_tokens_of_exemplars(detector):
    features = detector.encode_image(random_images())
    prompts = detector.encode_prompts(prompts_of("box"), features)
    assert prompts.embed.shape == (2, 4, 32)
    assert prompts.category.tolist() == [0, 1, 2, 3]
    assert prompts.valid.tolist() == [[True, True, False, False], [True] * 4]


def test_exemplars_prompt_where_phrases_name_their_categories(detector):
    features = detector.encode_image(random_images())
    visual = detector.encode_prompts(prompts_of("box"), features)
    both = detector.encode_prompts(prompts_of("box")._replace(phrases=PHRASES), features)
    torch.testing.assert_close(both.embed, visual.embed)
    assert torch.equal(both.valid, visual.valid)


def test_exemplars_of_other_images_are_generic_prompts_of_any_image(detector):
    references = detector.encode_image(random_images())
    generic = average(detector.encode_prompts(prompts_of("box"), references))
    output = detector.decode(detector.encode_image(random_images(batch=3)), generic)
    assert output.queries.logits.shape == (2, 3, QUERIES, 4)


def test_prompts_that_cannot_be_encoded_say_what_to_do(detector):
    with pytest.raises(InputError, match="give phrases or exemplars"):
        detector.encode_prompts(Prompts())
    with pytest.raises(InputError, match=r"reference=encode_image\(images\)"):
        detector.encode_prompts(prompts_of("box"))
