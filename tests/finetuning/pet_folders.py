"""Small data sets in the layouts that people have them in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

NAMES = ("cat", "dog")
SIDES = (64, 48)  # of the pictures
BOX = (8, 12, 40, 44)  # xyxy, on each picture


def write_coco(root: Path, split: str, stems: Sequence[str]) -> None:
    write_coco_file(root / f"{split}.json", pictures(root / split, stems))


def write_roboflow(root: Path, split: str, stems: Sequence[str]) -> None:
    folder = root / {"val": "valid"}.get(split, split)
    write_coco_file(folder / "_annotations.coco.json", pictures(folder, stems))


def write_coco_file(file: Path, files: Sequence[Path]) -> None:
    left, top, right, bottom = BOX
    images = [
        {"id": number, "file_name": path.name, "width": SIDES[0], "height": SIDES[1]}
        for number, path in enumerate(files, 1)
    ]
    boxes = [
        {"id": n, "image_id": n, "category_id": n % 2, "bbox": [left, top, right - left, bottom - top]}
        for n in range(1, len(files) + 1)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES)]
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))


def write_yolo(root: Path, split: str, stems: Sequence[str]) -> None:
    (root / "labels" / split).mkdir(parents=True)
    left, top, right, bottom = BOX
    width, height = SIDES
    shares = (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height
    for number, path in enumerate(pictures(root / "images" / split, stems), 1):
        words = " ".join(map(str, (number % 2, *shares)))
        (root / "labels" / split / f"{path.stem}.txt").write_text(f"{words}\n")


def write_voc(root: Path, split: str, stems: Sequence[str]) -> None:
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    left, top, right, bottom = BOX
    for number, path in enumerate(pictures(root / "JPEGImages", stems), 1):
        (root / "Annotations" / f"{path.stem}.xml").write_text(
            f"<annotation><filename>{path.name}</filename><object><name>{NAMES[number % 2]}</name><bndbox>"
            f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
            "</annotation>"
        )
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))


def pictures(folder: Path, stems: Sequence[str]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for number, stem in enumerate(stems):
        Image.new("RGB", SIDES, (40 * number % 255, 90, 120)).save(folder / f"{stem}.jpg")
    return [folder / f"{stem}.jpg" for stem in stems]


WRITERS = {"coco": write_coco, "roboflow": write_roboflow, "yolo": write_yolo, "voc": write_voc}
