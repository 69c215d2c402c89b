"""Exemplars of several images in one batch."""

import torch

from trex2_lightning.ops.padding import stack_exemplars


def test_images_that_show_different_categories() -> None:
    boxes = torch.rand(4, 4)
    categories, exemplars = stack_exemplars([{7: boxes[:1], 2: boxes[1:3]}, {}, {7: boxes[3:]}])
    assert categories.tolist() == [2, 7]
    assert exemplars.boxes.shape == (3, 2, 2, 4)
    assert exemplars.valid.tolist() == [
        [[True, True], [True, False]],
        [[False, False], [False, False]],
        [[False, False], [True, False]],
    ]
    assert torch.equal(exemplars.boxes[exemplars.valid], boxes[[1, 2, 0, 3]])


def test_nothing_shown_at_all() -> None:
    categories, exemplars = stack_exemplars([{}, {}])
    assert categories.tolist() == [0]
    assert exemplars.boxes.shape == (2, 1, 1, 4)
    assert not exemplars.valid.any()
