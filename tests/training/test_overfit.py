"""It must learn: a detector that cannot learn a few images by heart will not learn a data set."""

import json
import os
from pathlib import Path

import pytest

from trex2_lightning.config import ShapesConfig, load
from trex2_lightning.data.shapes.rendering import prepare
from trex2_lightning.training.fit import train

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def first_images(root: Path, count: int, output: Path) -> list[str]:
    """Overrides that train and evaluate on the first images of the training split that have boxes, as they are."""
    content = json.loads((root / "train.json").read_text())
    with_boxes = {annotation["image_id"] for annotation in content["annotations"]}
    images = [image for image in content["images"] if image["id"] in with_boxes][:count]
    kept = {image["id"] for image in images}
    content["images"] = images
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    (output / "train.json").write_text(json.dumps(content))
    split = f"{{annotations: train.json, images: {root / 'train'}}}"
    return [
        "data.format=coco",
        f"data.root={output}",
        f"data.train={split}",
        f"data.val={split}",
        "data.augment={horizontal_flip: 0.0, vertical_flip: 0.0, color_jitter: 0.0}",
        f"output={output}",
        "logging.wandb=disabled",
    ]


def trained_ap(experiment: str, overrides: list[str]) -> float:
    module = train(load(EXPERIMENTS / experiment, overrides))
    return module.figures["text"]["ap"]


@pytest.mark.parametrize(
    ("images", "steps", "batch", "bar"), [(1, 400, 2, 0.95), (10, 400, 5, 0.90)], ids=["one", "ten"]
)
def test_shapes_by_heart(images, steps, batch, bar, tmp_path):
    overrides = first_images(prepare(ShapesConfig()), images, tmp_path)
    lengths = [f"train.max_steps={steps}", f"train.val_every={steps}", "optim.warmup_steps=20"]
    batches = [f"data.batch_size={batch}", f"train.total_batch={batch}"]
    assert trained_ap("demo/stage1.yaml", [*overrides, *lengths, *batches]) >= bar


def test_ten_photographs_by_heart(tmp_path):
    if "TREX2_DATA" not in os.environ:
        pytest.skip("TREX2_DATA names no folder of photographs")
    overrides = first_images(Path(os.environ["TREX2_DATA"], "coco128"), 10, tmp_path)
    overrides += ["data.size=320", "data.max_size=320", "train.max_steps=400", "train.val_every=400"]
    assert trained_ap("small_coco.yaml", overrides) >= 0.85


def test_five_hundred_steps_of_the_demo(tmp_path):
    overrides = ["train.max_steps=500", "train.val_every=500", f"output={tmp_path}", "logging.wandb=disabled"]
    module = train(load(EXPERIMENTS / "demo" / "stage1.yaml", overrides))
    assert module.figures["text"]["ap/seen"] >= 0.25
