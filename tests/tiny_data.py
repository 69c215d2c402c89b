"""The data set of `tiny.yaml`: pictures of blocks in three colours, in COCO format."""

from __future__ import annotations

import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

COLORS = {"red block": (200, 30, 30), "green block": (30, 180, 30), "blue block": (30, 30, 200)}
SIZES = {"train": 6, "val": 3, "test": 3}
TINY = Path(__file__).parent / "tiny.yaml"


def write_tiny(root: Path) -> Path:
    for number, (split, num_images) in enumerate(SIZES.items()):
        write_split(root, split, num_images, random.Random(number))
    return root


def write_split(root: Path, split: str, num_images: int, rng: random.Random, sides: tuple[int, int] = (48, 96)) -> None:
    (root / split).mkdir(parents=True)
    images, annotations = [], []
    for image_id in range(1, num_images + 1):
        width, height = rng.randint(*sides), rng.randint(*sides)
        picture = Image.new("RGB", (width, height), (rng.randint(90, 160),) * 3)
        for _ in range(rng.randint(1, 3) if image_id < num_images else 0):
            category, w, h = rng.randrange(len(COLORS)), rng.randint(12, 24), rng.randint(12, 24)
            x, y = rng.randint(0, width - w), rng.randint(0, height - h)
            ImageDraw.Draw(picture).rectangle((x, y, x + w - 1, y + h - 1), fill=list(COLORS.values())[category])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        picture.save(root / split / f"{image_id}.jpg")
        images.append({"id": image_id, "file_name": f"{image_id}.jpg", "width": width, "height": height})
    categories = [{"id": index, "name": name} for index, name in enumerate(COLORS, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / f"{split}.json").write_text(json.dumps(content))
