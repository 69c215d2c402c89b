"""NumPy's pixels are those of training and evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from trex2_lightning.config import DataConfig
from trex2_lightning.data.images.transforms import eval_transform
from trex2_lightning.inference.array_images import shortest_side
from trex2_lightning.structures import IMAGENET_PIXELS

SIZES = [
    (48, 64, 80, 133),
    (97, 131, 64, 96),
    (230, 307, 64, 90),
    (30, 50, 31, 133),
    (1000, 333, 320, 533),
    (64, 64, 64, 64),
]


@pytest.mark.skipif(
    "AVX2" not in torch.backends.cpu.get_cpu_capability() and "AVX512" not in torch.backends.cpu.get_cpu_capability(),
    reason="other processors resize in floating point",
)
@pytest.mark.parametrize(("height", "width", "size", "longest"), SIZES)
def test_resizing_is_torchvision_s_to_the_bit(height: int, width: int, size: int, longest: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    transform = eval_transform(DataConfig(size=size, max_size=longest), IMAGENET_PIXELS)
    expected = transform(Image.fromarray(image))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET_PIXELS)
    stored = ((expected * std + mean) * 255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(shortest_side(image, size, longest), stored)
