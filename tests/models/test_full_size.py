"""The full model with the paper's sizes takes one step and one evaluation on the CPU."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from trex2_lightning.config import load
from trex2_lightning.training.fit import train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def one_image(tmp_path: Path) -> Path:
    (tmp_path / "train").mkdir()
    pixels = torch.randint(0, 256, (800, 1066, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(pixels.numpy()).save(tmp_path / "train" / "1.jpg")
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 1066, "height": 800}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [100, 100, 300, 200], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [500, 300, 400, 400], "iscrowd": 0},
        ],
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    return tmp_path


def test_swin_t_trains_and_evaluates_at_800_by_1066(one_image):
    split = "{annotations: train.json, images: train}"
    config = load(
        Path(__file__).parents[2] / "experiments" / "trex2_swin_t.yaml",
        [
            f"output={one_image}",
            f"data.root={one_image}",
            f"data.train={split}",
            f"data.val={split}",
            "data={train_sizes: [800], augment: {crop: 0.0}, batch_size: 1, num_workers: 0}",
            "model.backbone.weights=",
            "model.text.pretrained=",
            "train={max_steps: 1, val_every: 1, total_batch: 1, accelerator: cpu, devices: 1, precision: 32-true}",
            "logging={wandb: disabled, every: 1}",
        ],
    )
    module = train(config)
    assert module.trainer.callback_metrics["loss"].isfinite()
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    [result] = module.protocols["text"].metric.results()
    assert result.boxes.shape == (100, 4)
    assert result.boxes.isfinite().all()
    assert (result.boxes <= torch.tensor([1066, 800, 1066, 800])).all()
