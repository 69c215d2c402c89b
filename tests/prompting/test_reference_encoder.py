"""The vectors of reference images: each counts once, with what it was drawn for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from glass import IMAGES, Glass, batch_of, image

from trex2_lightning.config import Config
from trex2_lightning.models.build import build_detector
from trex2_lightning.prompting.reference_encoder import ReferenceEncoder
from trex2_lightning.structures import Exemplars, Prompts
from trex2_lightning.training.build import build_datamodule
from trex2_lightning.training.trainer import build_evaluator

TinyConfig = Callable[..., Config]


def test_a_reference_shows_all_its_boxes_of_what_it_was_drawn_for() -> None:
    """Image 9 was drawn second for category 1, and not for 0; category 3 has no image."""
    encoder = ReferenceEncoder(Glass(), {7: {2: 0, 0: 0}, 9: {1: 1}, 4: {1: 0}}, 2, 4)  # type: ignore[arg-type]
    other = image(4, [1], 0.4)
    for batch in (batch_of(IMAGES[0], IMAGES[2]), batch_of(other)):
        encoder.predict_step(batch)
    prompts = encoder.prompts
    assert prompts.valid.tolist() == [[True, True, True, False], [False, True, False, False]]
    target = IMAGES[0][0]
    expected = [*target.boxes[[0, 2, 3]].mean(0).tolist(), 3, 0.1]
    assert prompts.embed[0, 2].tolist() == pytest.approx(expected)
    assert prompts.embed[1, 1, 4:].tolist() == pytest.approx([2, 0.3])
    assert prompts.embed[0, 1].tolist() == pytest.approx([*other[0].boxes[0].tolist(), 1, 0.4])


def test_an_image_that_is_seen_twice_counts_once() -> None:
    encoder = ReferenceEncoder(Glass(), {7: {2: 0, 0: 0}}, 1, 4)  # type: ignore[arg-type]
    encoder.predict_step(batch_of(IMAGES[0]))
    once = encoder.prompts.embed.clone()
    encoder.predict_step(batch_of(IMAGES[0]))
    torch.testing.assert_close(encoder.prompts.embed, once)


def test_references_are_those_of_a_slow_loop(square_coco: Any, tiny_config: TinyConfig) -> None:
    """Image by image and category by category, with a real detector."""
    torch.manual_seed(0)
    config = tiny_config(f"data.root={square_coco}", "eval.batch_size=4")
    detector = build_detector(config.model).eval()
    data = build_datamodule(config)
    data.setup("test")
    names = data.test_records.names
    drawn = data.draw_references(names, 3)
    encoder = ReferenceEncoder(detector, drawn, 3, len(names))
    build_evaluator(config).predict(encoder, datamodule=data, return_predictions=False)

    expected, valid = torch.zeros_like(encoder.prompts.embed), torch.zeros(3, len(names), dtype=torch.bool)
    data.eval_batch_size = 1
    with torch.inference_mode():
        for batch in data.predict_dataloader():
            [target] = batch.targets
            features = detector.encode_image(batch.images)
            for category, place in drawn[target.image_id].items():
                boxes = target.boxes[target.labels == category]
                shown = Exemplars(boxes[None, None], torch.ones(1, 1, len(boxes), dtype=torch.bool))
                prompts = detector.encode_prompts(Prompts(exemplars=shown), features)
                expected[place, category] = prompts.embed[0, 0]
                valid[place, category] = True
    assert valid.sum() >= 5
    assert torch.equal(encoder.prompts.valid, valid)
    torch.testing.assert_close(encoder.prompts.embed, expected, rtol=1e-4, atol=1e-4)
