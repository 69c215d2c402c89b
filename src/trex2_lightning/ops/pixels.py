"""Pixels as one network sees them to those of another."""

from __future__ import annotations

from torch import Tensor

from trex2_lightning.structures import PixelStatistics


def renormalize(pixels: Tensor, valid: Tensor, before: PixelStatistics, after: PixelStatistics) -> Tensor:
    """Pixels that were normalised for one network as another one wants them; the padding stays zero.

    Args:
        pixels: (B, 3, H, W).
        valid: (B, H, W), False in the padding.
        before: what they were normalised with.
        after: what they are to be normalised with.

    Returns:
        (B, 3, H, W), the same tensor where both are alike.
    """
    if before == after:
        return pixels
    old_mean, old_std, mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (*before, *after))
    return ((pixels * old_std + old_mean - mean) / std).masked_fill(~valid[:, None], 0)
