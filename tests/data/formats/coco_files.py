"""Writes small files in COCO's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BOX = {"bbox": [1, 2, 3, 4], "iscrowd": 0, "area": 12, "id": 1, "image_id": 1, "category_id": 1}
SIZED = {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}


def one_box(**image: Any) -> dict[str, Any]:
    """A file with an image `a.jpg` of 40 x 30 pixels and a dog in it."""
    return {"images": [SIZED | image], "annotations": [BOX], "categories": [{"id": 1, "name": "dog"}]}


def box(number: int, image: int, category: int, xywh: list[float]) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": xywh, "area": xywh[2] * xywh[3]}


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
