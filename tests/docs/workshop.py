"""A folder in which the documents' commands run: each name that they use (FOLDER, IMAGE, FILE, ...) is there, tiny."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from running import TINY, TINY_MODEL

from trex2_lightning.commands.prepare import main as prepare_data
from trex2_lightning.config import Config, load, save
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.training.build import build_module

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "models" / "hub"))

from hub_reference import reference  # noqa: E402, a Grounding DINO of transformers, small

NAMES = ("cell", "dust", "leaf")
SIZE = (128, 96)  # in which the documents' boxes lie
FEDERATED = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
# Checkpoints that the documents speak of, by what they were trained with.
TEXT_RUNS = ("small_coco", "other", "stage1", "trex2_swin_t", "demo/stage1", "demo/published")
VISUAL_RUNS = ("NAME", "stage2", "demo/stage2", "demo/one_gpu")


class Workshop:
    """The folder and what the documents find there.

    Args:
        folder: to write to, empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("docs", "experiments"):  # commands write to them
            shutil.copytree(ROOT / name, folder / name)
        for name in ("scripts", "src", "tests", "Makefile", "requirements.txt", "setup.cfg"):
            (folder / name).symlink_to(ROOT / name)
        write_data(folder / "FOLDER")
        for split in ("train", "val", "test"):  # a folder in one format alone
            write_json(folder / "PHOTOS" / f"{split}.json", write_split(folder / "PHOTOS" / split, random.Random(1)))
        for name in ("COCO", "bccd"):
            (folder / name).symlink_to("FOLDER")
        shutil.copytree(folder / "FOLDER", folder / "ROOT", symlinks=True)  # where docs/data.md writes indexes to
        write_sources(folder)
        prepare_data(["coco", str(folder / "train.json"), str(folder / "train"), str(folder / "indexes" / "train")])
        for name in ("IMAGE", "image.jpg", "a.png", "b.png"):
            shutil.copy(folder / "FOLDER" / "test" / "1.jpg", folder / name)
        for size in ("tiny", "base"):
            reference(folder / "IDEA-Research" / f"grounding-dino-{size}")
        self._write_checkpoints()

    def _write_checkpoints(self) -> None:
        torch.manual_seed(0)
        state, ready = None, self.folder / "ready"
        for kind, visual in (("text", 0), ("visual", 1)):
            config = tiny_config(self.folder, f"train.rhythm.visual={visual}", "eval.references=[1]")
            module = build_module(config)
            state = state or module.state_dict()
            checkpoint = {"state_dict": state}
            module.on_save_checkpoint(checkpoint)
            (ready / kind / "checkpoints").mkdir(parents=True)
            save(config, ready / kind / "config.yaml")
            (ready / kind / "evaluation.json").write_text(json.dumps({"ap": {"text": {"all": 0.5}}}))
            for name in ("best", "last"):
                file = ready / kind / "checkpoints" / f"{name}.ckpt"
                torch.save(checkpoint, file)
        shutil.copy(ready / "visual" / "checkpoints" / "best.ckpt", self.folder / "FILE")
        predictor = Predictor.from_pretrained(self.folder / "FILE")
        predictor.save(predictor.text(("tuned",)), self.folder / "tuned.safetensors")

    def renew(self) -> None:
        """The runs as they were before a document's commands."""
        shutil.rmtree(self.folder / "runs", ignore_errors=True)
        for kind, runs in (("text", TEXT_RUNS), ("visual", VISUAL_RUNS)):
            for run in runs:
                shutil.copytree(self.folder / "ready" / kind, self.folder / "runs" / run)


def tiny_config(folder: Path, *overrides: str) -> Config:
    return load(ROOT / "experiments" / "small_coco.yaml", ["data.root=FOLDER", *TINY, *TINY_MODEL, *overrides])


def write_data(root: Path) -> None:
    """One folder in all the layouts that the documents give a folder: COCO's, Roboflow's, VOC's, YOLO's, indexes."""
    for number, (split, place) in enumerate({"train": "train", "val": "valid", "test": "test"}.items()):
        content = write_split(root / split, random.Random(number))
        write_json(root / f"{split}.json", content)
        write_json(root / split / "_annotations.coco.json", content)
        (root / split / "1.txt").write_text("0 .5 .5 .3 .3\n")
        if place != split:
            (root / place).symlink_to(split)
        if split != "test":
            (root / f"{split}2017").symlink_to(split)
            write_json(root / "annotations" / f"instances_{split}2017.json", content)
            lvis = [
                image | FEDERATED | {"file_name": f"{split}2017/{image['file_name']}"} for image in content["images"]
            ]
            kinds = [category | {"frequency": "f"} for category in content["categories"]]
            write_json(root / "annotations" / f"lvis_v1_{split}.json", content | {"images": lvis, "categories": kinds})
    shutil.copy(root / "test" / "1.jpg", root / "test" / "IMAGE.jpg")
    (root / "data.yaml").write_text(f"train: train\nval: val\ntest: test\nnames: {list(NAMES)}\n")
    for name in ("Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    (root / "JPEGImages").symlink_to("train")
    (root / "Annotations" / "1.xml").write_text(
        "<annotation><filename>1.jpg</filename><object><name>cell</name><bndbox><xmin>2</xmin><ymin>3</ymin>"
        "<xmax>40</xmax><ymax>60</ymax></bndbox></object></annotation>"
    )
    (root / "ImageSets" / "Main" / "train.txt").write_text("1\n")
    write_json(root / "captions.json", captioned(json.loads((root / "train.json").read_text())))
    sets = {"coco": ("objects365", "openimages", "hiertext", "crowdhuman"), "goldg": ("flickr30k", "gqa")}
    for kind, names in sets.items():
        source = root / ("train.json" if kind == "coco" else "captions.json")
        for name in names:
            prepare_data([kind, str(source), str(root / "train"), str(root / f"{name}_train")])


def write_split(folder: Path, rng: random.Random, num_images: int = 3) -> dict[str, Any]:
    """Images of coloured blocks with a box of every category, and what COCO's format says of them."""
    folder.mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, num_images + 1):
        picture = Image.new("RGB", SIZE, (120, 120, 120))
        for category, name in enumerate(NAMES, start=1):
            x, y, side = rng.randint(0, 90), rng.randint(0, 60), rng.randint(16, 32)
            color = ["red", "green", "blue"][category - 1]
            ImageDraw.Draw(picture).rectangle((x, y, x + side, y + side), fill=color)
            box = {"id": 10 * number + category, "bbox": [x, y, side, side], "area": side * side, "iscrowd": 0}
            annotations.append(box | {"image_id": number, "category_id": category, "category": name})
        picture.save(folder / f"{number}.jpg")
        images.append({"id": number, "file_name": f"{number}.jpg", "width": SIZE[0], "height": SIZE[1]})
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def captioned(content: dict[str, Any]) -> dict[str, Any]:
    """As GoldG has it: every box is named by a stretch of its image's caption."""
    caption = " ".join(NAMES)
    spans = {name: [caption.index(name), caption.index(name) + len(name)] for name in NAMES}
    images = [image | {"caption": caption, "tokens_negative": [[0, len(caption)]]} for image in content["images"]]
    boxes = [box | {"tokens_positive": [spans[box["category"]]]} for box in content["annotations"]]
    return content | {"images": images, "annotations": boxes}


def write_sources(folder: Path) -> None:
    """What docs/data.md downloads, each in its own format and under its own name."""
    coco = json.loads((folder / "FOLDER" / "train.json").read_text())
    image, boxes = coco["images"][0], [box for box in coco["annotations"] if box["image_id"] == 1]
    pictures = folder / "FOLDER" / "train"
    write_json(folder / "train.json", coco)
    for name in ("train", "objects365/train", "Images", "IMAGES", "openimages", "flickr30k-images", "hiertext/train"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(pictures)
    for name in ("images", "train2014"):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            archive.write(pictures / "1.jpg", "1.jpg")
    for number in range(2):
        with tarfile.open(folder / f"sa_00000{number}.tar", "w") as archive:
            archive.add(pictures / f"{number + 1}.jpg", f"./{number + 1}.jpg")
    for name in ("objects365_train", "zhiyuan_objv2_train"):
        write_json(folder / f"{name}.json", coco)
    write_json(
        folder / "lvis_v1_train.json", json.loads((pictures.parent / "annotations/lvis_v1_train.json").read_text())
    )
    for name in ("final_flickr_separateGT_train", "final_mixed_train"):
        write_json(folder / "mdetr_annotations" / f"{name}.json", captioned(coco))
    shares = "0.1,0.5,0.1,0.5"
    tables = {
        "oidv6-train-annotations-bbox": f"ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n1,/m/c,{shares},0\n",
        "oidv7-class-descriptions-boxable": "LabelName,DisplayName\n/m/c,cell\n/m/d,dust\n",
        "oidv7-train-annotations-human-imagelabels": "ImageID,Source,LabelName,Confidence\n1,verification,/m/d,0\n",
    }
    for name, table in tables.items():
        (folder / f"{name}.csv").write_text(table)
    write_json(folder / "bbox_labels_600_hierarchy.json", {"LabelName": "/m/e", "Subcategory": [{"LabelName": "/m/c"}]})
    person = {"tag": "person", "vbox": [1, 2, 30, 40], "fbox": [1, 2, 30, 50], "hbox": [1, 2, 9, 9]}
    write_json(folder / "annotation_train.odgt", {"ID": "1", "gtboxes": [person]})
    word = {"vertices": [[1, 2], [40, 2], [40, 6], [1, 6]], "legible": True}
    page = {
        "image_id": "1",
        "image_width": SIZE[0],
        "image_height": SIZE[1],
        "paragraphs": [{"lines": [{"words": [word]}]}],
    }
    write_json(folder / "hiertext" / "gt" / "train.jsonl.gz", {"annotations": [page]})
    labelled = [box | {"category": "same"} for box in boxes]
    write_json(folder / "LABELLED_JSON_FOLDER" / "1.json", {"image": image, "annotations": labelled})
    instances = [{"bbox": [1, 2, 40, 60], "label": 1}]
    odvg = {"filename": "1.jpg", "width": SIZE[0], "height": SIZE[1], "detection": {"instances": instances}}
    write_json(folder / "FILE.jsonl", odvg)
    write_json(folder / "label_map.json", {"1": "cell"})
    (folder / "list.txt").write_text("FOLDER/train/1.jpg\nFOLDER/train/3.jpg\n")
    write_json(folder / "corrected.json", [corrected(entry, boxes) for entry in coco["images"][:2]])


def corrected(image: dict[str, Any], boxes: list[dict[str, Any]]) -> dict[str, Any]:
    """A task of Label Studio that a person has submitted, with the first of the boxes."""
    sides = dict(zip(("x", "y", "width", "height"), boxes[0]["bbox"], strict=True))
    percent = {name: 100 * value / SIZE[name in ("y", "height")] for name, value in sides.items()}
    result = {"type": "rectanglelabels", "original_width": SIZE[0], "original_height": SIZE[1]}
    result |= {"value": percent | {"rotation": 0, "rectanglelabels": ["cell"]}}
    data = {"image": f"/data/local-files/?d={image['file_name']}", "width": SIZE[0], "height": SIZE[1]}
    return {"id": image["id"], "data": data, "annotations": [{"result": [result]}]}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
