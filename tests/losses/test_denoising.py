"""Contrastive denoising: what DINO section 3.3 promises of the noised queries."""

import pytest
import torch
from torch import Tensor

from trex2_lightning.config import DenoisingConfig
from trex2_lightning.losses.denoising import noise_queries
from trex2_lightning.ops.boxes import cxcywh_to_xyxy
from trex2_lightning.structures import NoisedQueries, Targets

QUIET = DenoisingConfig(queries=8, label_noise=0.0, box_noise=0.0)


def target(labels: list[int], boxes: list[list[float]] | None = None) -> Targets:
    """Central boxes, unless said otherwise, whose edges stay inside the image under any noise."""
    boxes = boxes or [[0.5, 0.5, 0.1 + 0.02 * i, 0.2] for i in range(len(labels))]
    return Targets(torch.tensor(labels, dtype=torch.int64), torch.tensor(boxes).reshape(-1, 4), image_id=0)


def noise(targets: list[Targets], config: DenoisingConfig, seed: int = 0, categories: int = 4, queries: int = 3):
    noised = noise_queries(targets, categories, queries, config, torch.Generator().manual_seed(seed))
    assert isinstance(noised, NoisedQueries)
    return noised


def edge_shifts(config: DenoisingConfig) -> tuple[Tensor, Tensor]:
    """How far the edges of many positives and negatives moved, in halves of the box's side, (..., 4)."""
    targets = [target([0] * 5)] * 40
    noised = noise(targets, config)
    original = torch.stack([t.boxes for t in targets]).repeat(1, noised.boxes.shape[1] // 5, 1)
    half = original[..., 2:].repeat(1, 1, 2) / 2
    shifts = (cxcywh_to_xyxy(noised.boxes) - cxcywh_to_xyxy(original)) / half
    crossed = (noised.boxes[..., 2:] <= 1e-6).repeat(1, 1, 2)  # edges that crossed were put together
    shifts = shifts.masked_fill(crossed, torch.nan)
    return shifts[noised.target >= 0], shifts[noised.target < 0]


def test_layout_without_noise() -> None:
    """Two images of 2 and 1 targets and room for 8: 4 groups of 2 positives and 2 negatives."""
    noised = noise([target([3, 1]), target([2])], QUIET)
    assert noised.labels.tolist() == [[3, 1] * 8, [2, 0] * 8]
    assert noised.target.tolist() == [[0, 1, -1, -1] * 4, [0, -1, -1, -1] * 4]
    assert noised.valid.int().tolist() == [[1, 1] * 8, [1, 0] * 8]
    torch.testing.assert_close(noised.boxes[0], target([3, 1]).boxes.repeat(8, 1))
    torch.testing.assert_close(noised.boxes[1, ::2], target([2]).boxes.repeat(8, 1))
    assert (noised.boxes[1, 1::2] == 0).all()


@pytest.mark.parametrize(("queries", "boxes", "groups"), [(100, 3, 33), (8, 8, 1), (2, 5, 1), (1, 1, 1)])
def test_groups_fill_the_number_of_queries(queries: int, boxes: int, groups: int) -> None:
    noised = noise([target([0] * boxes), target([0])], DenoisingConfig(queries=queries))
    assert noised.labels.shape == (2, groups * 2 * boxes)


def test_attention_of_two_groups() -> None:
    noised = noise([target([0])], DenoisingConfig(queries=2), queries=2)
    assert noised.attend.int().tolist() == [
        [1, 1, 0, 0, 1, 1],
        [1, 1, 0, 0, 1, 1],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_positives_stay_within_half_a_side_and_negatives_go_beyond(scale: float) -> None:
    positive, negative = edge_shifts(DenoisingConfig(queries=100, box_noise=scale))
    positive, negative = positive.abs() / scale, negative.abs() / scale
    assert not positive.isnan().any()
    assert positive.max() < 1 + 1e-4
    negative = negative[~negative.isnan()]
    assert negative.min() > 1 - 1e-4
    assert negative.max() < 2 + 1e-4
    # The distances are uniform: 16,000 draws of mean 1/2, standard error 0.003.
    assert positive.mean().item() == pytest.approx(0.5, abs=0.02)
    if scale == 0.4:  # edges seldom cross, so no draw is missing from the mean
        assert negative.mean().item() == pytest.approx(1.5, abs=0.1)


def test_edges_move_both_ways_and_apart_from_one_another() -> None:
    positive, _ = edge_shifts(DenoisingConfig(queries=100))
    assert positive.mean(0).abs().max() < 0.03
    correlation = torch.corrcoef(positive.T) - torch.eye(4)
    assert correlation.abs().max() < 0.06


def test_only_positives_are_sure_to_cover_the_centre_of_their_target() -> None:
    noised = noise([target([0])] * 50, DenoisingConfig(queries=40))
    low, high = cxcywh_to_xyxy(noised.boxes).split(2, -1)
    covers = ((low <= 0.5 + 1e-6) & (high >= 0.5 - 1e-6)).all(-1)
    assert covers[noised.target >= 0].all()
    assert not covers[noised.target < 0].all()


def test_boxes_stay_inside_the_image() -> None:
    at_the_rim = target([0, 0], [[0.05, 0.95, 0.1, 0.1], [0.5, 0.5, 1.0, 1.0]])
    noised = noise([at_the_rim] * 50, DenoisingConfig(queries=100))
    corners = cxcywh_to_xyxy(noised.boxes)
    assert corners.min() >= -1e-6
    assert corners.max() <= 1 + 1e-6
    assert (noised.boxes[..., 2:] >= 0).all()


def test_half_of_the_label_noise_is_flipped_to_any_category() -> None:
    """Of the replaced labels one in C is the same again: a share of 0.5 / 2 * 3 / 4 differs with 4 categories."""
    noised = noise([target([2] * 5)] * 100, DenoisingConfig(queries=100, label_noise=0.5))
    share = torch.bincount(noised.labels.flatten(), minlength=4) / noised.labels.numel()  # 20,000 draws
    assert share.tolist() == pytest.approx([0.0625, 0.0625, 0.8125, 0.0625], abs=0.01)


def test_generator_decides() -> None:
    targets = [target([0, 1, 2]), target([3])]
    first, same, other = (noise(targets, DenoisingConfig(), seed) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(first, same, strict=True))
    assert not first.boxes.equal(other.boxes)
    assert not first.labels.equal(other.labels)


def test_noise_does_not_touch_the_global_generator() -> None:
    state = torch.get_rng_state()
    noise([target([0])], DenoisingConfig())
    assert torch.get_rng_state().equal(state)


def test_other_images_do_not_change_an_image() -> None:
    first = target([0, 1])
    one = noise([first, target([3, 3])], DenoisingConfig())
    two = noise([first, target([1, 2], [[0.3, 0.3, 0.1, 0.1], [0.6, 0.6, 0.3, 0.3]])], DenoisingConfig())
    fewer = noise([first, target([])], DenoisingConfig())
    for noised in (two, fewer):
        assert noised.labels[0].equal(one.labels[0])
        assert noised.boxes[0].equal(one.boxes[0])
        assert (noised.target[0] == one.target[0]).all()


def test_image_without_boxes_has_no_valid_query() -> None:
    noised = noise([target([]), target([1, 2])], DenoisingConfig())
    assert not noised.valid[0].any()
    assert noised.valid[1].all()
    assert (noised.target[0] == -1).all()
    assert (noised.labels[0] == 0).all()


def test_batch_without_boxes_keeps_one_group() -> None:
    noised = noise([target([]), target([])], DenoisingConfig(), queries=1)
    assert noised.labels.shape == (2, 2)
    assert not noised.valid.any()
    assert (noised.target == -1).all()
    assert noised.attend.int().tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 1]]


def test_no_queries_no_denoising() -> None:
    assert noise_queries([target([0])], 1, 3, DenoisingConfig(queries=0), torch.Generator()) is None


def test_of_very_many_boxes_some_are_noised_and_each_in_some_step() -> None:
    """Attention costs the square of them; the matcher still sees all."""
    config = DenoisingConfig(queries=100, limit=4, label_noise=0.0, box_noise=0.0)
    crowded, other = target([*range(10)]), target([5])
    seen = set()
    for seed in range(30):
        noised = noise([crowded, other], config, seed, categories=10)
        assert noised.labels.shape == (2, 100 // 4 * 2 * 4)
        first = noised.target[0, :4]
        assert len({*first.tolist()}) == 4
        assert noised.labels[0, :8].tolist() == [*first, *first]  # target n has label n
        torch.testing.assert_close(noised.boxes[0, :4], crowded.boxes[first])
        assert noised.target[1, :4].tolist() == [0, -1, -1, -1]
        seen |= {*first.tolist()}
    assert seen == {*range(10)}
    within = noise([target([0, 1, 2, 3]), other], config)
    assert within.target[0, :4].tolist() == [0, 1, 2, 3]
