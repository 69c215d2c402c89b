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
    boxes = root / "instances_test.json"
    coco_file(boxes, ("fg",), "images_384_VarV2")
    content = json.loads(boxes.read_text())
    content["images"] = [image for image in content["images"] if image["id"] != 1]
    content["annotations"] = [box for box in content["annotations"] if box["image_id"] != 1]
    boxes.write_text(json.dumps(content))


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


FEW_NAMES = ("cat", "traffic light", "tv", "toothbrush")  # of COCO-FSOD: novel, base, novel, base


def coco_fsod(root: Path, shots: Iterable[int] = (10, 30), seeds: Iterable[int] = range(10)) -> None:
    """FsDet's `datasets`: a file for each seed, number of shots and category; tv has one box less than the others.

    All lie in four images, the last of which is COCO's val2014, and no image has more than a third of them.
    """
    names = [f"COCO_train2014_{number:012}.jpg" for number in (1, 2, 3)] + ["COCO_val2014_000000000004.jpg"]
    images = [sized(number, name) for number, name in enumerate(names, start=1)]
    for name in [*names, "COCO_val2014_000000000005.jpg", "COCO_val2014_000000000006.jpg"]:
        picture(root / "coco" / name.split("_")[1] / name)
    tested = [sized(5, "COCO_val2014_000000000005.jpg"), sized(6, "COCO_val2014_000000000006.jpg")]
    boxes = [boxed(10 * i + c, i, c, 6 * c) for i in (5, 6) for c in range(len(FEW_NAMES))]
    saved(root / "cocosplit" / "datasplit" / "5k.json", tested, boxes, FEW_NAMES)
    for seed in seeds:
        folder = root / "cocosplit" / (f"seed{seed}" if seed else "")
        for count in shots:
            for label, category in enumerate(FEW_NAMES):
                own = range(count - (category == "tv"))
                boxes = [boxed(1000 * label + n, 1 + (n + seed) % 4, label, n) for n in own]
                there = {box["image_id"] for box in boxes}
                file = folder / f"full_box_{count}shot_{category}_trainval.json"
                saved(file, [image for image in images if image["id"] in there], boxes, FEW_NAMES)


def cdfsod(root: Path) -> None:
    """The six sets: of the first category as many images as shots, each with a box of it; of the second two at most."""
    for task in ("ArTaxOr", "clipart1k", "DIOR", "FISH", "NEU-DET", "UODD"):
        train, test = ("train/new_train", "test/new_test") if task == "DIOR" else ("train", "test")
        images = [sized(number, f"{number}.jpg") for number in range(1, 11)]
        for image in images:
            picture(root / task / train / image["file_name"])
            picture(root / task / test / image["file_name"])
        categories = (f"{task} a", f"{task} b")
        for count in (1, 5, 10):
            boxes = [boxed(n, n, 0, n) for n in range(1, count + 1)] + [boxed(20 + n, n, 1, n) for n in (1, 2)[:count]]
            saved(root / task / "annotations" / f"{count}_shot.json", images[:count], boxes, categories)
        truth = [boxed(10 * n + c, n, c, 6 * c) for n in (1, 2) for c in (0, 1)]
        saved(root / task / "annotations" / "test.json", images[:2], truth, categories)


def lvis_fsod(root: Path) -> None:
    """LVIS v0.5 `val` and FsDet's shots, which list images without a box too; the first category is rare."""
    for split, file, count in (("val", "lvis/lvis_v0.5_val.json", 3), ("train", "lvissplit/lvis_shots.json", 10)):
        images = [
            {"id": n, "width": 64, "height": 64, "coco_url": f"http://images.cocodataset.org/{split}2017/{n}.jpg"}
            | {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
            for n in range(1, count + 2)
        ]
        for image in images:
            picture(root / "coco" / f"{split}2017" / f"{image['id']}.jpg")
        boxes = [boxed(100 * c + n, n, c, n) for c in (0, 1, 2) for n in range(1, count + 1 - c)]
        saved(root / file, images, boxes, ("stop_sign", "cap_(hat)", "cup", "acorn"))


def sized(number: int, name: str) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": 64, "height": 64}


def boxed(number: int, image: int, category: int, x: float) -> dict[str, Any]:
    box = {"id": number, "image_id": image, "category_id": category, "bbox": [x, 5, 20, 15 + category]}
    return box | {"area": 300, "iscrowd": 0}


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (90, 120, 60)).save(path)


def saved(file: Path, images: list[dict[str, Any]], boxes: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    categories = [{"id": i, "name": name, "frequency": "rcf"[i % 3]} for i, name in enumerate(names)]
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
