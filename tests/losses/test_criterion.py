"""The whole criterion: values on paper, what must not matter, and which terms there are."""

from math import log

import numpy as np
import pytest
import torch
from criterion_parts import CATEGORY, CRITERION, NAMES, TINY_BOXES, TINY_TARGET, on_paper, random_batch, random_output

from trex2_lightning.config import AlignmentConfig, DenoisingConfig, LossConfig
from trex2_lightning.losses.alignment import relation_loss
from trex2_lightning.losses.classification import presence_loss
from trex2_lightning.losses.criterion import Criterion
from trex2_lightning.losses.denoising import noise_queries
from trex2_lightning.structures import CategoryVectors, Detections, DetectorOutput, NoisedQueries, Targets


def test_values_on_paper() -> None:
    """The second query is twice as wide and high as its target: IoU = GIoU = 1/4, L1 = 0.4; all scores are 1/2."""
    losses = on_paper(Detections(torch.zeros(1, 1, 2, 1), TINY_BOXES[None, None]), TINY_TARGET)
    assert losses["queries/classification"].item() == pytest.approx((0.25 + 0.75) / 4 * log(2), rel=1e-5)
    assert losses["queries/l1"].item() == pytest.approx(5 * 0.4, rel=1e-5)
    assert losses["queries/giou"].item() == pytest.approx(2 * 0.75, rel=1e-5)


def test_weights_scale_their_terms_only() -> None:
    output, targets, noised = random_batch([2, 1])
    base = CRITERION(output, targets, None, noised)
    other = Criterion(LossConfig(classification=3.0, l1=0.5, giou=1.0))(output, targets, None, noised)
    factors = {"classification": 3.0, "l1": 0.1, "giou": 0.5}
    assert list(base) == NAMES
    for name in NAMES:
        assert other[name].item() == pytest.approx(factors[name.split("/")[1]] * base[name].item(), rel=1e-5), name


def test_presence_is_a_term_of_its_own_for_detectors_that_have_the_head() -> None:
    output, targets, noised = random_batch([2, 1])
    logits = torch.tensor([[0.3, 0.3, 0.0, -1.0, 2.0], [1.0, 1.0, 0.0, 0.5, -0.2]], dtype=torch.bfloat16)
    base = CRITERION(output, targets, None, noised)
    terms = Criterion(LossConfig(presence=3.0))(output._replace(presence=logits), targets, None, noised)
    assert list(terms) == [*NAMES[:6], "presence", *NAMES[6:]]
    assert all(terms[name].equal(base[name]) for name in NAMES)
    expected = presence_loss(logits.float(), targets, output.prompts, torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(terms["presence"], 3 * expected)


def test_layers_are_summed() -> None:
    output, targets, _ = random_batch([2, 1])
    layers = [Detections(output.queries.logits[k : k + 1], output.queries.boxes[k : k + 1]) for k in range(2)]
    losses = CRITERION(output._replace(queries=layers[0], proposals=layers[1], noised=None), targets)
    whole = CRITERION(output._replace(noised=None), targets)
    for term in ("classification", "l1", "giou"):
        parts = losses[f"queries/{term}"] + losses[f"proposals/{term}"]
        torch.testing.assert_close(whole[f"queries/{term}"], parts)


def test_a_perfect_prediction_costs_nothing() -> None:
    """Small boxes too: one of 2 x 2 pixels in an image of 1000."""
    boxes = torch.tensor([[0.3, 0.4, 0.2, 0.1], [0.7, 0.7, 0.002, 0.002]])
    target = Targets(torch.tensor([0, 0]), boxes, 0)
    losses = on_paper(Detections(torch.full((1, 1, 2, 1), 12.0), boxes[None, None]), target)
    assert losses["queries/l1"].item() == 0
    assert abs(losses["queries/giou"].item()) < 1e-3
    assert losses["queries/classification"].item() < 1e-6


def test_loss_per_box_does_not_depend_on_the_number_of_images() -> None:
    output, targets, noised = random_batch([2, 1])
    twice = DetectorOutput(
        *(Detections(d.logits.repeat(1, 2, 1, 1), d.boxes.repeat(1, 2, 1, 1)) for d in output[:3]), output.prompts
    )
    labels, boxes, target, valid, attend = noised
    noised_twice = NoisedQueries(
        *(torch.cat([x, x]) for x in (labels, boxes)), np.r_[target, target], torch.cat([valid] * 2), attend
    )
    for name, loss in CRITERION(twice, targets * 2, None, noised_twice).items():
        torch.testing.assert_close(loss, CRITERION(output, targets, None, noised)[name])


def test_noised_queries_recover_their_target_or_nothing() -> None:
    """Boxes: positives only. Scores: a positive its target's true category, a negative none, whatever it claims."""
    targets = [Targets(torch.tensor([1, 2]), torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.6, 0.6, 0.2, 0.2]]), 0)]
    config = DenoisingConfig(queries=4, label_noise=2.0)  # every label is drawn at random
    noised = noise_queries(targets, 3, 4, config, torch.Generator().manual_seed(0))
    assert noised is not None
    right = torch.full((1, 8, len(CATEGORY)), -20.0)
    right[0, [0, 4], 3] = 20
    right[0, [1, 5], 4] = 20
    boxes = targets[0].boxes.repeat(4, 1)[None]
    boxes[0, [2, 3, 6, 7]] = 0.9  # the negatives
    generator = torch.Generator().manual_seed(0)
    output = random_output(noised, 1, generator)._replace(noised=Detections(right[None], boxes[None]))
    losses = CRITERION(output, targets, None, noised)
    assert losses["noised/classification"].item() < 1e-6
    assert losses["noised/l1"].item() == 0
    assert losses["noised/giou"].item() == pytest.approx(0, abs=1e-5)
    boxes[0, 5, 0] += 0.1
    losses = CRITERION(output, targets, None, noised)
    assert losses["noised/l1"].item() == pytest.approx(5 * 0.1 / 4, rel=1e-4)  # 2 boxes x 2 groups


def test_order_of_categories_does_not_matter() -> None:
    output, targets, noised = random_batch([2, 1, 3])
    judged = torch.tensor([[True, True, False], [True, False, True], [True, True, True]])
    order = torch.tensor([4, 2, 0, 1, 3])  # tokens
    renamed = torch.tensor([1, 2, 0, -1])  # category 0 is now 1, 1 is 2, 2 is 0, separators (last) stay
    shuffled = DetectorOutput(
        *(Detections(d.logits[..., order], d.boxes) for d in output[:3]),
        output.prompts._replace(category=renamed[output.prompts.category[order]]),
    )
    relabelled = [target._replace(labels=renamed[target.labels]) for target in targets]
    expected = CRITERION(output, targets, judged, noised)
    for name, loss in CRITERION(shuffled, relabelled, judged[:, [2, 0, 1]], noised).items():
        torch.testing.assert_close(loss, expected[name])


def test_order_of_targets_and_queries_does_not_matter() -> None:
    output, targets, _ = random_batch([3, 2])
    flipped = [target._replace(labels=target.labels.flip(0), boxes=target.boxes.flip(0)) for target in targets]
    turned = Detections(output.queries.logits.flip(2), output.queries.boxes.flip(2))
    expected = CRITERION(output._replace(noised=None), targets)
    for name, loss in CRITERION(output._replace(queries=turned, noised=None), flipped).items():
        torch.testing.assert_close(loss, expected[name])


def test_noised_queries_and_their_predictions_go_together() -> None:
    output, targets, _ = random_batch([1])
    with pytest.raises(ValueError, match="given together"):
        CRITERION(output, targets)


def test_a_learned_temperature_begins_at_the_fixed_one_is_trained_and_clamped() -> None:
    output, targets, noised = random_batch([2, 1])
    vectors = CategoryVectors(torch.randn(1, 3, 4), torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool))
    config = AlignmentConfig(temperature=0.2, learned_temperature=True)
    criterion = Criterion(LossConfig(alignment=config))
    fixed = Criterion(LossConfig(alignment=AlignmentConfig(temperature=0.2)))
    assert [*criterion.state_dict()] == ["log_scale"]
    assert not fixed.state_dict()
    term = criterion(output, targets, None, noised, vectors)["alignment"]
    torch.testing.assert_close(term, fixed(output, targets, None, noised, vectors)["alignment"])
    term.backward()
    assert criterion.log_scale is not None
    assert criterion.log_scale.grad
    for scale, bound in ((200.0, 100.0), (0.5, 1.0)):
        criterion.log_scale.data.fill_(log(scale))
        criterion(output, targets, None, noised, vectors)["alignment"].backward()
        assert criterion.log_scale.exp().item() == pytest.approx(bound)


def test_alignment_is_a_term_of_visual_iterations() -> None:
    output, targets, noised = random_batch([2, 1])
    generator = torch.Generator().manual_seed(0)
    visual, text = torch.randn(2, 3, 4, generator=generator), torch.randn(1, 3, 4, generator=generator)
    shown = torch.tensor([[True, True, False], [True, True, True]])
    vectors = CategoryVectors(text, visual, shown)
    assert list(CRITERION(output, targets, None, noised)) == NAMES
    terms = CRITERION(output, targets, None, noised, vectors)
    assert list(terms) == [*NAMES, "alignment"]

    config = AlignmentConfig(weight=3.0, relation=2.0)
    weighted = Criterion(LossConfig(alignment=config))(output, targets, None, noised, vectors)
    torch.testing.assert_close(weighted["alignment"], 3 * terms["alignment"])
    torch.testing.assert_close(weighted["relation"], 2 * relation_loss(visual, text, shown, config))
    without = Criterion(LossConfig(alignment=AlignmentConfig(weight=0.0)))
    assert list(without(output, targets, None, noised, vectors)) == NAMES
