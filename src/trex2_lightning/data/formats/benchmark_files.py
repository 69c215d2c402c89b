"""Reads the published annotations of benchmarks whose files say more than COCO's format, or keep to it loosely.

LVIS v1 (arXiv 1908.03195), data sets as Roboflow exports them (ODinW, Roboflow-100), FSC-147 (arXiv 2104.08391) with
the boxes of FSCD-147, and FSCD-LVIS (both arXiv 2207.10988).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trex2_lightning.data.images.transforms import read_image
from trex2_lightning.data.records import CocoError, ImageRecord, Records, from_coco, parse, read_coco

FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
OBJECT = "object"  # the one category of a counting benchmark: what it is, the exemplars show
NUM_EXEMPLARS = 3


def read_lvis(annotations: Path, images: Path) -> Records:
    """LVIS: `images` is COCO's folder, with `train2017` and `val2017`, among which LVIS divides anew.

    Groups are the frequencies; names are asked for with spaces in place of underscores.

    Raises:
        CocoError: as `read_coco`; or an image or category without the federated fields.
    """
    content = parse(annotations)
    for image in filter(_is_entry, content["images"]):
        if "coco_url" in image:
            image["file_name"] = "/".join(str(image["coco_url"]).split("/")[-2:])
    for category in filter(_is_entry, content["categories"]):
        category["group"] = FREQUENCIES.get(category.get("frequency"), "")
        category["name"] = str(category.get("name", "")).replace("_", " ")
    records = from_coco(content, annotations, images)
    index = {category_id: label for label, category_id in enumerate(records.category_ids)}
    try:
        federated = []
        for record, image in zip(records.images, content["images"], strict=True):
            known = {index[category_id] for category_id in image["neg_category_ids"]} | set(record.labels.tolist())
            known -= {index[category_id] for category_id in image["not_exhaustive_category_ids"]}
            federated.append(record._replace(judged=torch.tensor(sorted(known), dtype=torch.int64)))
    except (KeyError, TypeError) as error:
        raise CocoError(
            f"{annotations}: an image has no or wrong category ids that are negative or not exhaustive ({error}); "
            "give LVIS's own file"
        ) from error
    return records._replace(images=federated)


def read_roboflow(annotations: Path, images: Path) -> Records:
    """A COCO file of Roboflow: a category that only heads others is left out, and names are kept as they are.

    Two of them may differ in case or spaces alone, as some of ODinW's do.

    Raises:
        CocoError: as `read_coco`.
    """
    content = parse(annotations)
    used = {item.get("category_id") for item in filter(_is_entry, content["annotations"])}
    listed = list(filter(_is_entry, content["categories"]))
    heads = {category.get("supercategory") for category in listed}
    kept = [
        category
        for category in listed
        if category.get("id") in used or category.get("supercategory") != "none" or category.get("name") not in heads
    ]
    distinct = [category | {"name": f"{number} {category.get('name')}"} for number, category in enumerate(kept)]
    records = from_coco(content | {"categories": distinct}, annotations, images)
    return records._replace(names=tuple(str(category["name"]) for category in kept))


def read_fsc147(annotations: Path, images: Path) -> Records:
    """A split of FSC-147: every image with its exemplars and its number of objects.

    `annotation_FSC147_384.json` and `Train_Test_Val_FSC_147.json` lie beside `annotations`, the `instances_SPLIT.json`
    of FSCD-147. Without that file there are no boxes, so no AP.

    Raises:
        CocoError: a file is missing or broken, or an image is.
    """
    split = annotations.stem.removeprefix("instances_")
    objects = _json(annotations.with_name("annotation_FSC147_384.json"))
    files = _json(annotations.with_name("Train_Test_Val_FSC_147.json"))
    if annotations.is_file():
        records = _one_category(annotations, images)
    else:
        records = Records([], (OBJECT,), (1,), ("",), annotations)
    boxes = {record.path.name: record for record in records.images}
    try:
        counted = [
            _counted(
                boxes.get(name) or _without_boxes(number, images / name),
                [_corners(polygon) for polygon in objects[name]["box_examples_coordinates"]],
                len(objects[name]["points"]),
            )
            for number, name in enumerate(files[split], start=1 + max((r.id for r in records.images), default=0))
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise CocoError(f"{annotations.parent}: {error!r} in FSC-147's {split} split; fetch its files again") from error
    return records._replace(images=counted)


def read_fscd_lvis(annotations: Path, images: Path) -> Records:
    """A split of FSCD-LVIS: all boxes of an image are of what its exemplars show; their file is `count_...` beside.

    Raises:
        CocoError: as `read_fsc147`.
    """
    records = _one_category(annotations, images)
    beside = annotations.with_name(annotations.name.replace("instances", "count"))
    try:
        shown = {item["image_id"]: item for item in _json(beside)["annotations"]}
        counted = [
            _counted(
                record,
                [(x, y, x + width, y + height) for x, y, width, height in shown[record.id]["boxes"]],
                len(shown[record.id]["points"]),
            )
            for record in records.images
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise CocoError(f"{beside}: {error!r}, so it does not fit {annotations.name}; fetch both again") from error
    return records._replace(images=counted)


READERS: dict[str, Callable[[Path, Path], Records]] = {
    "coco": read_coco,
    "shapes": read_coco,
    "lvis": read_lvis,
    "roboflow": read_roboflow,
    "fsc147": read_fsc147,
    "fscd_lvis": read_fscd_lvis,
}


def _one_category(annotations: Path, images: Path) -> Records:
    content = parse(annotations)
    for item in filter(_is_entry, content["annotations"]):
        item["category_id"] = 1
    return from_coco(content | {"categories": [{"id": 1, "name": OBJECT}]}, annotations, images)


def _counted(record: ImageRecord, corners: list[tuple[float, ...]], count: int) -> ImageRecord:
    limits = torch.tensor([record.width, record.height] * 2, dtype=torch.float32)
    exemplars = torch.tensor(corners[:NUM_EXEMPLARS], dtype=torch.float32).reshape(-1, 4).clamp(min=0).minimum(limits)
    return record._replace(exemplars=exemplars, num_objects=count)


def _corners(polygon: list[list[float]]) -> tuple[float, ...]:
    (x0, y0), (x1, y1) = (tuple(choose(axis) for axis in zip(*polygon, strict=True)) for choose in (min, max))
    return x0, y0, x1, y1


def _without_boxes(image_id: int, path: Path) -> ImageRecord:
    width, height = read_image(path).size
    return ImageRecord(
        image_id,
        path,
        width,
        height,
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        crowd=torch.zeros(0, dtype=torch.bool),
        area=torch.zeros(0),
    )


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict)


def _json(path: Path) -> Any:
    if not path.is_file():
        raise CocoError(f"{path}: no such annotation file; set data.root= to the data set's folder")
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise CocoError(f"{path}: not JSON ({error}); fetch it again") from error
