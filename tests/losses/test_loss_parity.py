"""The same numbers in, the same numbers out: against the losses of `transformers`.

Deformable DETR stands for one token per category (T-Rex2, DINO), Grounding DINO for several, RT-DETR for denoising.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from trex2_lightning.config import CostConfig, DenoisingConfig, LossConfig
from trex2_lightning.losses.criterion import Criterion
from trex2_lightning.losses.denoising import noise_queries
from trex2_lightning.losses.matcher import HungarianMatcher
from trex2_lightning.ops.boxes import inverse_sigmoid
from trex2_lightning.structures import Detections, DetectorOutput, PromptTokens, Targets

pytest.importorskip("transformers")

from transformers.loss import loss_deformable_detr, loss_grounding_dino, loss_rt_detr
from transformers.models.rt_detr import modeling_rt_detr

SEEDS = range(5)
COST = CostConfig(classification=2.0, l1=5.0, giou=2.0)
THEIR_COST = {"class_cost": 2.0, "bbox_cost": 5.0, "giou_cost": 2.0}
UNWEIGHTED = LossConfig(classification=1.0, l1=1.0, giou=1.0, cost=COST)
TERMS = {"loss_ce": "classification", "loss_bbox": "l1", "loss_giou": "giou"}


def boxes(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.rand(*shape, 4, generator=generator) * 0.6 + 0.02


def random_case(seed: int, category: list[int], counts: list[int]) -> tuple[DetectorOutput, list[Targets]]:
    """Three decoder layers and a proposal layer of 20 queries each."""
    generator = torch.Generator().manual_seed(seed)
    num = len(category)

    def detections(layers: int) -> Detections:
        logits = torch.randn(layers, len(counts), 20, num, generator=generator) * 2 - 2
        return Detections(logits, boxes(layers, len(counts), 20, generator=generator))

    targets = [
        Targets(torch.randint(max(category) + 1, (n,), generator=generator), boxes(n, generator=generator), i)
        for i, n in enumerate(counts)
    ]
    prompts = PromptTokens(
        embed=torch.zeros(1, num, 4),
        valid=torch.ones(1, num, dtype=torch.bool),
        category=torch.tensor(category),
        attend=torch.ones(num, num, dtype=torch.bool),
        position=torch.zeros(num, dtype=torch.int64),
    )
    return DetectorOutput(detections(3), detections(1), None, prompts), targets


def their_targets(targets: list[Targets]) -> list[dict[str, Tensor]]:
    return [{"class_labels": target.labels, "boxes": target.boxes} for target in targets]


def their_outputs(detections: Detections, extra: dict[str, object]) -> dict[str, object]:
    """Every decoder layer as they want it: the last one first, the others among the auxiliary outputs."""
    layers = [{"logits": logits, "pred_boxes": boxes, **extra} for logits, boxes in zip(*detections, strict=True)]
    return {**layers[-1], "auxiliary_outputs": layers[:-1]}


def summed(losses: dict[str, Tensor], term: str) -> Tensor:
    """Over all layers: `loss_ce`, `loss_ce_0`, `loss_ce_1` ..."""
    return sum(loss for name, loss in losses.items() if name.startswith(term))


def compare(ours: dict[str, Tensor], theirs: dict[str, Tensor], part: str) -> None:
    for their_term, term in TERMS.items():
        torch.testing.assert_close(ours[f"{part}/{term}"], summed(theirs, their_term), rtol=1e-5, atol=1e-5)


def assert_same_matching(output: DetectorOutput, targets: list[Targets], matcher: object, extra: dict) -> None:
    ours = HungarianMatcher(COST, 0.25, 2.0)(output.queries, output.prompts, targets)
    for assigned, logits, boxes in zip(ours, *output.queries, strict=True):
        theirs = matcher({"logits": logits, "pred_boxes": boxes, **extra}, their_targets(targets))
        for image, (queries, matched) in enumerate(theirs):
            expected = np.full_like(assigned[image], -1)
            expected[queries] = matched
            assert (assigned[image] == expected).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("counts", [[4, 1, 7], [0, 6, 20]])
def test_deformable_detr(seed: int, counts: list[int]) -> None:
    output, targets = random_case(seed, [0, 1, 2, 3, 4], counts)
    matcher = loss_deformable_detr.DeformableDetrHungarianMatcher(**THEIR_COST)
    assert_same_matching(output, targets, matcher, {})
    criterion = loss_deformable_detr.DeformableDetrImageLoss(matcher, 5, 0.25, ["labels", "boxes"])
    ours = Criterion(UNWEIGHTED)(output, targets)
    compare(ours, criterion(their_outputs(output.queries, {}), their_targets(targets)), "queries")
    compare(ours, criterion(their_outputs(output.proposals, {}), their_targets(targets)), "proposals")


@pytest.mark.parametrize("seed", SEEDS)
def test_grounding_dino_with_several_tokens_per_category(seed: int) -> None:
    """Two images: beyond that their offsets into `label_maps` hold for the second image only."""
    category = [-1, 0, 0, 0, -1, 1, -1, 2, 2, -1]
    output, targets = random_case(seed, category, [5, 3])
    label_map = torch.stack([output.prompts.category == c for c in range(3)])
    extra = {"label_maps": (label_map, label_map), "text_mask": output.prompts.valid[:, None].expand(2, 1, -1)}
    matcher = loss_grounding_dino.GroundingDinoHungarianMatcher(**THEIR_COST)
    assert_same_matching(output, targets, matcher, extra)
    criterion = loss_grounding_dino.GroundingDinoImageLoss(matcher, 0.25, ["labels", "boxes"])
    ours = Criterion(UNWEIGHTED)(output, targets)
    compare(ours, criterion(their_outputs(output.queries, extra), their_targets(targets)), "queries")
    compare(ours, criterion(their_outputs(output.proposals, extra), their_targets(targets)), "proposals")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("queries", [30, 2])
def test_rt_detr_makes_the_same_noise_of_the_same_random_numbers(
    seed: int, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, targets = random_case(seed, [0, 1, 2, 3, 4], [4, 0, 7])
    config = DenoisingConfig(queries=queries, label_noise=0.8, box_noise=0.7)
    noised = noise_queries(targets, 5, 6, config, torch.Generator().manual_seed(seed))
    assert noised is not None

    numbers = torch.Generator().manual_seed(seed)
    monkeypatch.setattr(torch, "rand_like", lambda x, dtype=None: torch.rand(x.shape, generator=numbers))
    monkeypatch.setattr(
        torch, "randint_like", lambda x, low, high, dtype=None: torch.randint(low, high, x.shape, generator=numbers)
    )
    labels, logit_boxes, mask, meta = modeling_rt_detr.get_contrastive_denoising_training_group(
        their_targets(targets), 5, 6, lambda labels: labels, queries, config.label_noise, config.box_noise
    )
    assert noised.labels[noised.valid].tolist() == labels[noised.valid].tolist()
    assert (labels[~noised.valid] == 5).all()  # their label of a padded query
    theirs = logit_boxes.sigmoid()[noised.valid]  # sides of zero length became 1e-5
    torch.testing.assert_close(inverse_sigmoid(noised.boxes).sigmoid()[noised.valid], theirs, rtol=0, atol=1e-6)
    assert noised.attend.equal(mask == 0)
    for image, positives in enumerate(meta["dn_positive_idx"]):
        assert np.flatnonzero(noised.target[image] >= 0).tolist() == positives.tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_rt_detr_box_loss_of_noised_queries(seed: int) -> None:
    output, targets = random_case(seed, [0, 1, 2, 3, 4], [4, 0, 7])
    noised = noise_queries(targets, 5, 20, DenoisingConfig(queries=30), torch.Generator().manual_seed(seed))
    assert noised is not None
    generator = torch.Generator().manual_seed(seed)
    shape = (3, *noised.labels.shape)
    output = output._replace(noised=Detections(torch.zeros(*shape, 5), boxes(*shape, generator=generator)))
    ours = Criterion(UNWEIGHTED)(output, targets, None, noised)

    groups = 30 // 7
    meta = {
        "dn_num_group": groups,
        "dn_positive_idx": [torch.from_numpy(np.flatnonzero(row >= 0)) for row in noised.target],
    }
    indices = loss_rt_detr.RTDetrLoss.get_cdn_matched_indices(meta, their_targets(targets))
    them = loss_rt_detr.RTDetrLoss.__new__(loss_rt_detr.RTDetrLoss)
    losses = [
        them.loss_boxes({"pred_boxes": layer}, their_targets(targets), indices, 11 * groups)
        for layer in output.noised.boxes
    ]
    for their_term, term in (("loss_bbox", "l1"), ("loss_giou", "giou")):
        theirs = sum(loss[their_term] for loss in losses)
        torch.testing.assert_close(ours[f"noised/{term}"], theirs, rtol=1e-5, atol=1e-5)
