import torch

from trex2_lightning.ops.anchors import anchors, token_centres


def test_centres_of_unpadded_maps():
    centres = token_centres([(1, 2), (1, 1)], torch.ones(1, 2, 2))
    torch.testing.assert_close(centres, torch.tensor([[[0.25, 0.5], [0.75, 0.5], [0.5, 0.5]]]))


def test_padding_stretches_centres_to_the_unpadded_image():
    centres = token_centres([(1, 4)], torch.tensor([[[0.5, 1.0]]]))  # the right half is padding
    torch.testing.assert_close(centres[0, :, 0], torch.tensor([0.25, 0.75, 1.25, 1.75]))


def test_sides_double_and_padding_proposes_nothing():
    valid = torch.tensor([[True, False, True]])
    boxes, usable = anchors([(1, 2), (1, 1)], valid, torch.tensor([[[0.5, 1.0], [1.0, 1.0]]]), size=0.1)
    assert boxes[0, :, 2].tolist() == torch.tensor([0.1, 0.1, 0.2]).tolist()
    assert usable.tolist() == [[True, False, True]]
    _, usable = anchors([(1, 2), (1, 1)], valid, torch.ones(1, 2, 2), size=0.1)  # where its centre would do
    assert usable.tolist() == [[True, False, True]]


def test_anchors_as_large_as_the_image_are_not_usable():
    _, usable = anchors([(1, 1)], torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 1, 2), size=1.0)
    assert not usable.any()
