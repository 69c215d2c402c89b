"""What every (granularity, fusion) cell promises, whatever its weights and whichever way it is prompted."""

import inspect

import pytest
import torch
from detector_parts import KINDS, PHRASES, QUERIES, assert_same_boxes, find, padded, prompts_of, random_images, scores

from trex2_lightning.config import LossConfig
from trex2_lightning.errors import InputError
from trex2_lightning.losses.criterion import Criterion
from trex2_lightning.losses.denoising import noise_queries
from trex2_lightning.models.late import LateFusionDetector
from trex2_lightning.models.selection import QuerySelection
from trex2_lightning.ops.deformable import level_table
from trex2_lightning.structures import Exemplars, FeatureMaps, Images, Prompts, Targets


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_categories_permutes_scores_and_leaves_boxes(detector, kind):
    order = [2, 0, 3, 1]
    one = find(detector, random_images(), prompts_of(kind))
    other = find(detector, random_images(), prompts_of(kind, order))
    assert_same_boxes(one, other)
    torch.testing.assert_close(scores(one)[..., order], scores(other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_invalid_category_changes_nothing(detector, kind):
    features = detector.encode_image(random_images())
    prompts = detector.encode_prompts(prompts_of(kind), features)
    off = torch.zeros_like(prompts.valid[:, :1])
    extended = prompts._replace(
        embed=torch.cat([prompts.embed, 100 * torch.ones_like(prompts.embed[:, :1])], 1),
        valid=torch.cat([prompts.valid, off], 1),
        category=torch.cat([prompts.category, torch.tensor([4])]),
        attend=torch.block_diag(prompts.attend, torch.ones(1, 1, dtype=torch.bool)).bool(),
        position=torch.cat([prompts.position, torch.tensor([0])]),
    )
    one, other = detector.decode(features, prompts), detector.decode(features, extended)
    assert_same_boxes(one, other)
    torch.testing.assert_close(one.queries.logits, other.queries.logits[..., :-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["box", "point"])
def test_a_category_without_exemplars_is_an_invalid_one(detector, kind):
    features = detector.encode_image(random_images())
    prompts = prompts_of(kind)
    encoded = detector.encode_prompts(prompts, features)
    assert torch.equal(encoded.valid, prompts.exemplars.valid.any(-1))
    assert encoded.embed.isfinite().all()
    assert not encoded.valid.all()
    boxes, valid, _ = prompts.exemplars
    further = Exemplars(
        torch.cat([boxes, torch.zeros(2, 1, 3, 4)], 1),
        torch.cat([valid, torch.zeros(2, 1, 3, dtype=torch.bool)], 1),
        kind,
    )
    extended = Prompts(exemplars=further)
    one, other = (detector.decode(features, detector.encode_prompts(p, features)) for p in (prompts, extended))
    assert_same_boxes(one, other)
    torch.testing.assert_close(one.queries.logits, other.queries.logits[..., :4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_padding_changes_nothing(detector, kind):
    features = detector.encode_image(padded(random_images()))
    assert not features.valid.all()
    noise = 10 * torch.randn_like(features.tokens).masked_fill(features.valid[..., None], 0)
    noisy = features._replace(tokens=features.tokens + noise, neck=features.neck + noise)
    one, other = (detector.decode(f, detector.encode_prompts(prompts_of(kind), f)) for f in (features, noisy))
    assert_same_boxes(one, other)
    torch.testing.assert_close(one.queries.logits, other.queries.logits)


@pytest.mark.parametrize("kind", KINDS)
def test_more_padding_changes_nothing_behind_the_neck(detector, kind):
    """Padding of the coarser levels. The backbone's convolutions and the neck's GroupNorm do see padding, and DINO's
    decoder embeds its boxes as shares of the padded finest map (docs/deviations.md)."""
    small = detector.neck(detector.backbone(random_images().pixels), random_images().valid)
    encoded = [small, grown_coarse_levels(small)]
    if isinstance(detector, LateFusionDetector):
        encoded = [detector.encoder(features) for features in encoded]
    one, other = (detector.decode(f, detector.encode_prompts(prompts_of(kind), f)) for f in encoded)
    assert_same_boxes(one, other)
    torch.testing.assert_close(one.queries.logits, other.queries.logits, rtol=1e-4, atol=1e-4)


def grown_coarse_levels(features):
    """All levels but the finest with a further row and column of padding that holds rubbish."""
    counts = [h * w for h, w in features.shapes]
    columns = []
    for x, rubbish in ((features.tokens, 7.0), (features.pos, 3.0), (features.valid.float()[..., None], 0.0)):
        levels = list(x.split(counts, 1))
        for level, (h, w) in enumerate(features.shapes[1:], start=1):
            map_ = levels[level].unflatten(1, (h, w))
            levels[level] = torch.nn.functional.pad(map_, (0, 0, 0, 1, 0, 1), value=rubbish).flatten(1, 2)
        columns.append(torch.cat(levels, 1))
    tokens, pos, valid = columns
    shapes = (features.shapes[0], *((h + 1, w + 1) for h, w in features.shapes[1:]))
    ratios = [[w / new_w, h / new_h] for (h, w), (new_h, new_w) in zip(features.shapes, shapes, strict=True)]
    levels, ratios = level_table(shapes, tokens.device), torch.tensor([ratios] * len(tokens))
    return FeatureMaps(tokens, pos, valid[..., 0].bool(), shapes, levels, ratios, tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_batched_equals_one_by_one(detector, kind):
    """Of 128 px: at 64 rounding swaps two proposals whose scores differ by 8e-5, and a query's content goes by rank."""
    images = random_images(size=128)
    both = find(detector, images, prompts_of(kind))
    for i in range(2):
        alone = find(detector, Images(*(x[i : i + 1] for x in images)), prompts_of(kind, images=slice(i, i + 1)))
        torch.testing.assert_close(both.queries.boxes[:, i : i + 1], alone.queries.boxes, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(both.queries.logits[:, i : i + 1], alone.queries.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_boxes", [0, 3])
def test_a_batch_backpropagates_to_what_its_prompts_use_and_to_nothing_else(detector, kind, num_boxes):
    """Without a single box too: under DDP a parameter without a gradient would make the other ranks wait for ever.

    A parameter that must not change has no gradient at all: AdamW would move it by one of zero.
    """
    unused = {
        "text": ("visual_encoder.",),
        "box": ("text_encoder.", "visual_encoder.point_embedding."),
        "point": ("text_encoder.", "visual_encoder.box_embedding."),
    }
    prompts = prompts_of(kind)
    if num_boxes == 0 and prompts.exemplars is not None:
        nothing = torch.zeros_like(prompts.exemplars.valid)
        prompts = Prompts(exemplars=prompts.exemplars._replace(valid=nothing))
    targets = [Targets(torch.zeros(num_boxes, dtype=torch.int64), torch.rand(num_boxes, 4), i) for i in range(2)]
    config = LossConfig()
    noised = noise_queries(targets, len(PHRASES), QUERIES, config.denoising, torch.Generator().manual_seed(0))
    output = find(detector.train(), random_images(), prompts, noised)
    loss = sum(Criterion(config)(output, targets, None, noised).values())
    loss.backward()
    assert loss.isfinite()
    untouched = [name for name, p in detector.named_parameters() if p.grad is None]
    assert untouched == [name for name, _ in detector.named_parameters() if name.startswith(unused[kind])]
    assert all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None)


@pytest.mark.parametrize(("text", "visual"), [(True, False), (False, True), (True, True)])
def test_a_run_trains_the_prompt_encoders_that_it_uses_and_saves_both(detector, text, visual):
    names = set(detector.state_dict())
    detector.train_prompts(text=text, visual=visual)
    trained = {name.split(".")[0] for name, p in detector.named_parameters() if p.requires_grad}
    assert ("text_encoder" in trained, "visual_encoder" in trained) == (text, visual)
    assert "decoder" in trained
    assert set(detector.state_dict()) == names


def test_noised_queries_do_not_change_the_others(detector):
    targets = [Targets(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), i) for i in range(2)]
    noised = noise_queries(targets, len(PHRASES), QUERIES, LossConfig().denoising, torch.Generator().manual_seed(0))
    with_noise = find(detector, random_images(), Prompts(PHRASES), noised)
    without = find(detector, random_images(), Prompts(PHRASES))
    assert_same_boxes(with_noise, without)
    torch.testing.assert_close(with_noise.queries.logits, without.queries.logits)
    assert with_noise.noised.logits.shape == (2, 2, noised.labels.shape[1], with_noise.queries.logits.shape[-1])


def test_an_image_is_encoded_without_any_prompt(detector):
    assert list(inspect.signature(detector.encode_image).parameters) == ["images"]


def test_late_fusion_scores_a_category_without_regard_to_the_others(late):
    """For a given query; which tokens become queries is chosen by all prompts together."""
    prompts = late.encode_prompts(Prompts(PHRASES))
    first = late.encode_prompts(Prompts(PHRASES[:1]))
    query = torch.randn(1, 5, 32)
    num_tokens = first.embed.shape[1]
    torch.testing.assert_close(late.heads[0](query, prompts)[..., :num_tokens], late.heads[0](query, first))


def test_early_fusion_reads_an_image_by_its_prompts(early):
    features = early.encode_image(random_images())
    fused = [early.fuse(features, early.encode_prompts(Prompts(phrases)))[0] for phrases in (PHRASES, PHRASES[:2])]
    assert (fused[0].tokens - fused[1].tokens).abs().max() > 1e-3


@torch.no_grad()
def test_early_fusion_asks_for_many_prompts_in_parts_that_are_those_alone(early):
    """Each part finds its queries as if its names were the only ones; nothing is truncated."""
    features = early.encode_image(random_images())
    prompts = early.encode_prompts(Prompts(PHRASES))
    early.max_tokens = prompts.embed.shape[1] // 2  # two names in a part
    merged = early.decode(features, prompts)
    halves = [early.decode(features, early.encode_prompts(Prompts(half))) for half in (PHRASES[:2], PHRASES[2:])]
    found = scores(merged)
    assert found.shape == (2, 2 * QUERIES, len(PHRASES))
    for half, queries, categories in zip(halves, found.split(QUERIES, 1), (slice(0, 2), slice(2, 4)), strict=True):
        torch.testing.assert_close(queries[..., categories], scores(half), rtol=1e-4, atol=1e-5)
    assert (found[:, :QUERIES, 2:] == 0).all()
    assert (found[:, QUERIES:, :2] == 0).all()
    torch.testing.assert_close(merged.queries.boxes[-1, :, :QUERIES], halves[0].queries.boxes[-1])
    torch.testing.assert_close(merged.queries.boxes[-1, :, QUERIES:], halves[1].queries.boxes[-1])


def test_too_many_prompts_where_gradients_are_taken_are_an_error(early):
    """Prompt tuning trains in evaluation mode."""
    early.max_tokens = 3
    with pytest.raises(InputError, match=r"model\.max_tokens=3.*ask for fewer categories"):
        find(early, random_images(), Prompts(PHRASES))


def test_initial_scores_are_the_prior():
    """Focal loss needs it to start (RetinaNet, section 4.1): of few objects, not of half a million."""
    fresh = QuerySelection(32, 5, anchor_size=0.05, prior=0.01)
    assert fresh.head.bias.sigmoid().item() == pytest.approx(0.01)


def test_more_queries_than_tokens_is_an_error_that_says_what_to_do(detector):
    with pytest.raises(InputError, match=r"model\.num_queries=20.*data\.size"):
        find(detector, random_images(size=24), Prompts(PHRASES))
