import torch

from trex2_lightning.ops.scores import category_scores, rank, to_pixels, without


def test_a_category_scores_the_mean_of_its_valid_tokens():
    logits = torch.tensor([[[0.0, 100.0, 3.0, -100.0]]])
    category = torch.tensor([0, 0, -1, 1])
    every = torch.ones(1, 4, dtype=torch.bool)
    torch.testing.assert_close(category_scores(logits, category, every), torch.tensor([[[0.75, 0.0]]]))
    first = torch.tensor([[True, False, True, False]])
    torch.testing.assert_close(category_scores(logits, category, first), torch.tensor([[[0.5, 0.0]]]))


def test_rank_takes_the_best_pairs_of_query_and_category():
    scores = torch.tensor([[[0.1, 0.9], [0.8, 0.2]]])
    boxes = torch.tensor([[[0.1] * 4, [0.2] * 4]])
    best = rank(scores, boxes, limit=3)
    torch.testing.assert_close(best.scores, torch.tensor([[0.9, 0.8, 0.2]]))
    assert best.labels.tolist() == [[1, 0, 1]]
    torch.testing.assert_close(best.boxes[0, :, 0], torch.tensor([0.1, 0.2, 0.2]))


def test_to_pixels_scales_each_image_by_its_size_and_clips():
    boxes = torch.tensor([[[0.5, 0.5, 0.5, 0.5]], [[0.0, 0.5, 1.0, 1.0]]])
    pixels = to_pixels(boxes, torch.tensor([[100, 200], [10, 20]]))  # height, width
    assert pixels.tolist() == [[[50.0, 25.0, 150.0, 75.0]], [[0.0, 0.0, 10.0, 10.0]]]


def test_negative_categories_take_the_queries_that_they_win_and_nothing_else():
    scores = torch.tensor([[[0.5, 0.4, 0.3], [0.5, 0.4, 0.6], [0.1, 0.2, 0.15]]])
    kept = without(torch.tensor([False, False, True]), scores)
    gone = -torch.inf
    torch.testing.assert_close(kept, torch.tensor([[[0.5, 0.4, gone], [gone] * 3, [0.1, 0.2, gone]]]))
    assert torch.equal(without(torch.zeros(3, dtype=torch.bool), scores), scores)


def test_scores_have_all_their_digits_under_autocast():
    logits, category = torch.linspace(-1, 1, 1000).view(1, 1000, 1), torch.tensor([0])
    valid = torch.ones(1, 1, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        found = category_scores(logits, category, valid)
    assert torch.equal(found, category_scores(logits, category, valid))
