"""Training, evaluation and prediction show the detector the same pixels, normalised as its backbone wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

from trex2_lightning.config import Config
from trex2_lightning.data.images.image_files import read_image
from trex2_lightning.data.images.transforms import eval_transform
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.structures import Batch, Images, PixelStatistics
from trex2_lightning.training.build import build_datamodule, build_module

NOT_CHANGED = ("data.augment.horizontal_flip=0", "data.train={annotations: test.json, images: test}")
OF_TEST_RESNET = PixelStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
GIVEN = PixelStatistics((0.1, 0.2, 0.3), (1.0, 0.5, 2.0))
GIVING = ("model.backbone.mean=[0.1, 0.2, 0.3]", "model.backbone.std=[1.0, 0.5, 2.0]")


@pytest.mark.parametrize(("settings", "statistics"), [((), OF_TEST_RESNET), (GIVING, GIVEN)])
def test_the_same_pixels_whoever_shows_them(
    tiny_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    settings: tuple[str, ...],
    statistics: PixelStatistics,
) -> None:
    config = tiny_config(*NOT_CHANGED, *settings)
    data, predictor = build_datamodule(config), Predictor(config, build_module(config))
    data.setup("fit")
    data.setup("test")
    paths = {image.id: image.path for image in data.test_records.images}
    trained, evaluated = by_number(data.train_dataloader()), by_number(data.test_dataloader())
    seen: list[Images] = []
    monkeypatch.setattr(predictor.module.detector, "encode_image", seen.append)
    assert trained.keys() == evaluated.keys() == paths.keys() == {1, 2, 3}
    for number, path in paths.items():
        expected = eval_transform(config.data, statistics)(read_image(path))
        predictor.encode(path)
        for found in (trained[number], evaluated[number], *unpadded(seen.pop())):
            torch.testing.assert_close(found, expected)


def by_number(batches: Iterable[Batch]) -> dict[int, Tensor]:
    return {
        target.image_id: pixels
        for batch in batches
        for target, pixels in zip(batch.targets, unpadded(batch.images), strict=True)
    }


def unpadded(images: Images) -> list[Tensor]:
    """(3, h, w) of each image."""
    return [
        pixels[:, valid.any(1)][:, :, valid.any(0)] for pixels, valid in zip(images.pixels, images.valid, strict=True)
    ]
