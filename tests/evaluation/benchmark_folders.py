"""Writes tiny benchmarks as their authors lay them out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image


def lvis(root: Path) -> None:
    """`val` and `train`; the first category is rare, the second common, the third frequent."""
    (root / "annotations").mkdir(parents=True)
    federated = {"neg_category_ids": [0], "not_exhaustive_category_ids": [2]}
    for split in ("val", "train"):
        file = root / "annotations" / f"lvis_v1_{split}.json"
        coco_file(file, ("stop_sign", "cap_(hat)", "cup"), "..", **federated)


def roboflow100(root: Path) -> None:
    """Two data sets, of two and three categories."""
    for task, names in {"cells": ("RBC", "WBC"), "signs": ("stop", "go", "yield")}.items():
        for split in ("train", "test"):
            (root / task / split).mkdir(parents=True)
            coco_file(root / task / split / "_annotations.coco.json", names)


def fsc147(root: Path) -> None:
    """Images 1, 2 and 3 of 3, 4 and 5 objects; the first is `val`, which has no file of boxes."""
    root.mkdir(exist_ok=True)
    corners = [[[4, 4], [4, 24], [24, 24], [24, 4]]] * 3
    entries = {f"{i}.jpg": {"box_examples_coordinates": corners, "points": [[9, 9]] * (2 + i)} for i in (1, 2, 3)}
    (root / "annotation_FSC147_384.json").write_text(json.dumps(entries))
    files = {"train": [], "val": ["1.jpg"], "test": ["2.jpg", "3.jpg"]}
    (root / "Train_Test_Val_FSC_147.json").write_text(json.dumps(files))
    coco_file(root / "instances_test.json", ("fg",), "images_384_VarV2")


def fscd_lvis(root: Path) -> None:
    """`test`, of one category."""
    (root / "annotations").mkdir(parents=True)
    coco_file(root / "annotations" / "instances_test.json", ("cup",), "../images")
    shown = [{"id": i, "image_id": i, "boxes": [[4, 5, 20, 16]] * 3, "points": []} for i in (1, 2, 3)]
    (root / "annotations" / "count_test.json").write_text(json.dumps({"annotations": shown}))


def coco2017(root: Path) -> None:
    """COCO's `val2017` and `train2017`."""
    (root / "annotations").mkdir(parents=True)
    for split in ("val", "train"):
        coco_file(root / "annotations" / f"instances_{split}2017.json", ("stop sign", "cup"), f"../{split}2017")


def lvis_minival(root: Path) -> None:
    """As `lvis`, with the file that GLIP's authors made of `val`."""
    lvis(root)
    folder = root / "annotations"
    (folder / "lvis_v1_val.json").rename(folder / "lvis_v1_minival_inserted_image_name.json")


def odinw(root: Path, tasks: Iterable[tuple[str, str, str]]) -> None:
    """For each task its folder, and the files of its test and its reference split there."""
    for folder, *files in tasks:
        for file in files:
            (root / folder / file).parent.mkdir(parents=True, exist_ok=True)
            coco_file(root / folder / file, ("thing",))


def coco_file(file: Path, names: tuple[str, ...], folder: str = "", **image: Any) -> None:
    """Three images of different sizes with a box of every category, the last one without; `folder` holds them."""
    sizes = [(64, 64), (80, 56), (56, 80)]
    pictures = file.parent / folder
    pictures.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes, start=1):
        Image.new("RGB", size, (40 * number, 90, 60)).save(pictures / f"{number}.jpg")
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": w, "height": h} | image
            for i, (w, h) in enumerate(sizes, start=1)
        ],
        "categories": [
            {"id": i, "name": name, "supercategory": "none", "frequency": "rcf"[i % 3]} for i, name in enumerate(names)
        ],
        "annotations": [
            {"id": 10 * i + c, "image_id": i, "category_id": c, "bbox": [4 + 6 * c, 5, 20, 15 + i], "area": 300}
            for i in (1, 2)
            for c in range(len(names))
        ],
    }
    file.write_text(json.dumps(content))
