"""Pixels of one network as another one sees them."""

from __future__ import annotations

import torch

from trex2_lightning.ops.pixels import renormalize
from trex2_lightning.structures import IMAGENET_PIXELS, PixelStatistics

HALVES = PixelStatistics((0.5, 0.5, 0.5), (0.5, 0.25, 1.0))


def test_a_picture_is_as_if_it_had_been_normalised_so_from_the_file_and_its_padding_stays_zero() -> None:
    picture = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(2, 4, 6, dtype=torch.bool)
    valid[0, :, 4:] = valid[1, 3:] = False

    def normalised(statistics: PixelStatistics) -> torch.Tensor:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in statistics)
        return (picture - mean) / std * valid[:, None]

    before = normalised(IMAGENET_PIXELS)
    torch.testing.assert_close(renormalize(before, valid, IMAGENET_PIXELS, HALVES), normalised(HALVES))
    assert torch.equal(before, normalised(IMAGENET_PIXELS)), "the detector still reads them"


def test_a_value_known_on_paper() -> None:
    """0.75 of each channel."""
    pixels = torch.tensor([0.5, 1.0, 0.25]).view(1, 3, 1, 1)
    ours = renormalize(pixels, torch.ones(1, 1, 1, dtype=torch.bool), HALVES, PixelStatistics((0, 1, 0.5), (1, 1, 0.5)))
    assert ours.flatten().tolist() == [0.75, -0.25, 0.5]


def test_pixels_that_are_right_are_left_alone() -> None:
    pixels = torch.rand(1, 3, 2, 2)
    assert renormalize(pixels, torch.ones(1, 2, 2, dtype=torch.bool), HALVES, HALVES) is pixels
