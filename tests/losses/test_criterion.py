"""The whole criterion: values on paper, what must not matter, and where gradients must and must not flow."""

from math import inf, log
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from trex2_lightning.config import AlignmentConfig, DenoisingConfig, LossConfig
from trex2_lightning.losses.alignment import relation_loss
from trex2_lightning.losses.criterion import Criterion
from trex2_lightning.losses.denoising import noise_queries
from trex2_lightning.structures import CategoryVectors, Detections, DetectorOutput, NoisedQueries, PromptTokens, Targets

CRITERION = Criterion(LossConfig())
CATEGORY = [0, 0, -1, 1, 2]  # a phrase of two words, a separator, two phrases of one word
NAMES = [f"{part}/{term}" for part in ("queries", "proposals", "noised") for term in ("classification", "l1", "giou")]


def prompts(category: list[int], batch: int = 1) -> PromptTokens:
    num = len(category)
    return PromptTokens(
        embed=torch.zeros(batch, num, 4),
        valid=torch.ones(batch, num, dtype=torch.bool),
        category=torch.tensor(category),
        attend=torch.ones(num, num, dtype=torch.bool),
        position=torch.zeros(num, dtype=torch.int64),
    )


def random_boxes(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.rand(*shape, 4, generator=generator) * 0.4 + 0.2


def random_targets(counts: list[int], generator: torch.Generator) -> list[Targets]:
    return [
        Targets(torch.randint(3, (n,), generator=generator), random_boxes(n, generator=generator), i)
        for i, n in enumerate(counts)
    ]


def random_output(noised: NoisedQueries | None, batch: int, generator: torch.Generator) -> DetectorOutput:
    """Two decoder layers of four queries for `CATEGORY`; every prediction wants a gradient."""

    def detections(layers: int, queries: int) -> Detections:
        logits = torch.randn(layers, batch, queries, len(CATEGORY), generator=generator)
        boxes = random_boxes(layers, batch, queries, generator=generator)
        return Detections(logits.requires_grad_(), boxes.requires_grad_())

    return DetectorOutput(
        queries=detections(2, 4),
        proposals=detections(1, 4),
        noised=detections(2, noised.labels.shape[1]) if noised else None,
        prompts=prompts(CATEGORY),
    )


def random_batch(counts: list[int], seed: int = 0) -> tuple[DetectorOutput, list[Targets], NoisedQueries]:
    generator = torch.Generator().manual_seed(seed)
    targets = random_targets(counts, generator)
    noised = noise_queries(targets, 3, 4, DenoisingConfig(queries=6), generator)
    assert noised is not None
    return random_output(noised, len(counts), generator), targets, noised


def predictions(output: DetectorOutput) -> list[Tensor]:
    return [*output.queries, *output.proposals, *(output.noised or ())]


def on_paper(queries: Detections, target: Targets) -> dict[str, Tensor]:
    output = DetectorOutput(queries, queries, None, prompts([0]))
    return CRITERION(output, [target])


TINY_TARGET = Targets(torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), 0)
TINY_BOXES = torch.tensor([[0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.4, 0.4]])


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
    noised_twice = NoisedQueries(*(tensor.repeat(2, *[1] * (tensor.ndim - 1)) for tensor in noised[:4]), noised.attend)
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


def test_unjudged_categories_without_boxes_get_exactly_no_gradient() -> None:
    output, targets, noised = random_batch([2, 2])
    judged = torch.tensor([[True, False, True], [False, True, True]])
    targets = [target._replace(labels=torch.full_like(target.labels, 2)) for target in targets]
    sum(CRITERION(output, targets, judged, noised).values()).backward()
    expected = torch.tensor([[True, True, True, False, True], [False, False, True, True, True]])  # (B, T), 2: separator
    for detections in output[:3]:
        gradient = detections.logits.grad != 0
        assert gradient.any(2).any(0).equal(expected)


def test_a_marked_object_of_an_unjudged_category_is_learned_and_has_no_negatives() -> None:
    output = random_output(None, 1, torch.Generator().manual_seed(0))
    target = Targets(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), 0)
    sum(CRITERION(output, [target], torch.tensor([[True, False, True]])).values()).backward()
    for detections in output[:2]:
        gradient = detections.logits.grad[..., CATEGORY.index(1)]  # (K, 1, Q)
        assert (gradient <= 0).all()
        assert ((gradient < 0).sum(2) == 1).all()  # of one query in each layer


def test_invalid_tokens_get_exactly_no_gradient_even_if_infinite() -> None:
    output, targets, noised = random_batch([2, 2])
    valid = torch.tensor([[True, True, True, True, False], [True, False, True, True, True]])
    with torch.no_grad():
        for detections in output[:3]:
            detections.logits.transpose(1, 2)[:, :, ~valid] = -inf
    losses = CRITERION(output._replace(prompts=prompts(CATEGORY, 2)._replace(valid=valid)), targets, None, noised)
    total = sum(losses.values())
    assert total.isfinite()
    total.backward()
    for detections in output[:3]:
        gradient = detections.logits.grad != 0
        assert gradient.any(2).any(0).equal(valid)
        assert detections.boxes.grad.isfinite().all()


def test_padded_noised_queries_get_no_gradient() -> None:
    output, targets, noised = random_batch([3, 1])
    sum(CRITERION(output, targets, None, noised).values()).backward()
    assert (output.noised.logits.grad[:, ~noised.valid] == 0).all()
    assert (output.noised.logits.grad[:, noised.valid] != 0).all()
    assert (output.noised.boxes.grad.any(-1) == (noised.target >= 0)).all()


def test_batch_without_boxes_is_finite_and_reaches_every_prediction() -> None:
    output, targets, noised = random_batch([0, 0])
    losses = CRITERION(output, targets, None, noised)
    assert list(losses) == NAMES
    assert all(loss.item() == 0 for name, loss in losses.items() if not name.endswith("/classification"))
    assert losses["queries/classification"] > 0
    gradients = torch.autograd.grad(sum(losses.values()), predictions(output))  # raises where one is not reached
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0].any()
    assert not gradients[-1].any()


def test_gradient_is_the_derivative() -> None:
    output, targets, noised = random_batch([2, 1])
    targets = [target._replace(boxes=target.boxes.double()) for target in targets]
    leaves = [tensor.detach().double().requires_grad_() for tensor in predictions(output)]

    def loss(*leaves: Tensor) -> Tensor:
        parts = [Detections(*leaves[i : i + 2]) for i in (0, 2, 4)]
        return sum(CRITERION(DetectorOutput(*parts, output.prompts), targets, None, noised).values())

    assert torch.autograd.gradcheck(loss, leaves, fast_mode=True)


def test_half_precision_predictions_are_compared_in_float32() -> None:
    output, targets, noised = random_batch([2, 1])
    half = DetectorOutput(*(Detections(d.logits.bfloat16(), d.boxes.bfloat16()) for d in output[:3]), output.prompts)
    full = DetectorOutput(*(Detections(d.logits.float(), d.boxes.float()) for d in half[:3]), output.prompts)
    expected = CRITERION(full, targets, None, noised)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = CRITERION(half, targets, None, noised)
    assert all(loss.dtype == torch.float32 and loss.equal(expected[name]) for name, loss in losses.items())


def test_autocast_does_not_blur_the_matching() -> None:
    """Two queries on the target's box differ by less in score than bfloat16 can tell: the better one is matched."""
    logits = torch.tensor([2.0, 2.0005]).view(1, 1, 2, 1)
    boxes = TINY_TARGET.boxes.repeat(2, 1)[None, None].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = on_paper(Detections(logits, boxes * 1.1), TINY_TARGET)
    sum(losses.values()).backward()
    assert boxes.grad.any(-1).tolist() == [[[False, True]]]


def test_noised_queries_and_their_predictions_go_together() -> None:
    output, targets, _ = random_batch([1])
    with pytest.raises(ValueError, match="given together"):
        CRITERION(output, targets)


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


def loss_and_gradient(output: DetectorOutput, targets: list[Targets], noised: NoisedQueries) -> Tensor:
    """Total loss, followed by all gradients of the first image's predictions."""
    total = sum(CRITERION(output, targets, None, noised).values())
    gradients = torch.autograd.grad(total, predictions(output))
    return torch.cat([total.detach()[None], *(gradient[:, 0].flatten() for gradient in gradients)])


def one_rank(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    output, targets, noised = random_batch([[3], [0]][rank], seed=rank)
    torch.save(loss_and_gradient(output, targets, noised), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


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
