"""What the presence head promises in every cell; all other contracts are run with it, too."""

import pytest
import torch
from detector_parts import KINDS, PHRASES, find, padded, prompts_of, random_images

from trex2_lightning.config import ModelConfig
from trex2_lightning.errors import InputError
from trex2_lightning.models.presence import PresenceHead
from trex2_lightning.ops.prompt_tokens import from_vectors
from trex2_lightning.ops.scores import category_scores
from trex2_lightning.structures import Images, Prompts


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_categories_permutes_presence(detector, kind):
    order = [2, 0, 3, 1]
    one = detector.present(find(detector, random_images(), prompts_of(kind)))
    other = detector.present(find(detector, random_images(), prompts_of(kind, order)))
    torch.testing.assert_close(one[:, order], other, rtol=1e-4, atol=1e-5)
    assert one[one > 0].std() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_batched_equals_one_by_one_and_padding_changes_nothing(detector, kind):
    images = random_images(size=128)
    both = detector.present(find(detector, images, prompts_of(kind)))
    for i in range(2):
        alone = find(detector, Images(*(x[i : i + 1] for x in images)), prompts_of(kind, images=slice(i, i + 1)))
        torch.testing.assert_close(both[i : i + 1], detector.present(alone), rtol=1e-4, atol=1e-5)
    features = detector.encode_image(padded(random_images()))
    noise = 10 * torch.randn_like(features.tokens).masked_fill(features.valid[..., None], 0)
    noisy = features._replace(tokens=features.tokens + noise, neck=features.neck + noise)
    one, other = (
        detector.present(detector.decode(f, detector.encode_prompts(prompts_of(kind), f))) for f in (features, noisy)
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_category_that_is_not_valid_is_not_present_and_changes_nothing(detector):
    features = detector.encode_image(random_images())
    prompts = detector.encode_prompts(Prompts(PHRASES))
    off = prompts._replace(valid=prompts.valid & (prompts.category != 1))
    other = off._replace(embed=prompts.embed + 3 * (prompts.category == 1)[:, None])
    one, two = (detector.present(detector.decode(features, p)) for p in (off, other))
    assert (one[:, 1] == 0).all()
    assert (one[:, [0, 2, 3]] > 0).all()
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_the_words_of_a_category_have_one_presence(detector):
    output = find(detector, random_images(), Prompts(PHRASES))
    category = output.prompts.category
    present = detector.present(output)[:, category.clamp(min=0)]
    named = category >= 0
    torch.testing.assert_close(output.presence.sigmoid()[:, named], present[:, named])


@torch.no_grad()
def test_early_fusion_has_the_presence_of_all_parts(early):
    features = early.encode_image(random_images())
    prompts = early.encode_prompts(Prompts(PHRASES))
    early.max_tokens = prompts.embed.shape[1] // 2
    merged = early.present(early.decode(features, prompts))
    halves = [early.decode(features, early.encode_prompts(Prompts(half))) for half in (PHRASES[:2], PHRASES[2:])]
    torch.testing.assert_close(merged, torch.cat([*map(early.present, halves)], 1), rtol=1e-4, atol=1e-5)


def test_a_score_is_multiplied_by_its_category_s_presence(detector):
    output = find(detector, random_images(), Prompts(PHRASES))
    plain = category_scores(output.queries.logits[-1], output.prompts.category, output.prompts.valid)
    torch.testing.assert_close(detector.scores(output), plain * detector.present(output)[:, None])
    assert detector.scores(output._replace(presence=None)).equal(plain)
    with pytest.raises(InputError, match=r"no presence head: train one with model\.presence=true"):
        detector.present(output._replace(presence=None))


def test_training_it_moves_what_it_reads_and_no_proposal(detector):
    """The best proposal is an input alone: detection's part of the selection is trained by detection."""
    find(detector, random_images(), Prompts(PHRASES)).presence.sum().backward()
    assert all(p.grad is not None for p in detector.presence.parameters())
    assert detector.neck.level_embedding.grad is not None
    assert all(p.grad is None for p in detector.selection.parameters())


def test_a_new_head_says_half_of_the_best_proposal_s_logit(late):
    features = late.encode_image(random_images())
    proposals = torch.tensor([[[-4.0, -1.0], [-2.0, -3.0]]]).expand(2, -1, -1)
    logits = PresenceHead(32, 4)(features, from_vectors(torch.randn(1, 2, 32)), proposals)
    torch.testing.assert_close(logits, torch.tensor([[-1.0, -0.5]] * 2))


def test_it_is_off_unless_it_is_asked_for():
    assert ModelConfig().presence is False


def test_the_best_proposal_counts_with_all_its_digits_under_autocast(late):
    features, proposals = late.encode_image(random_images()), torch.tensor([[[1.0009, -3.0027]]]).expand(2, -1, -1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = PresenceHead(32, 4)(features, from_vectors(torch.randn(1, 2, 32)), proposals)
    torch.testing.assert_close(logits, proposals[:, 0] / 2, rtol=1e-6, atol=0)
