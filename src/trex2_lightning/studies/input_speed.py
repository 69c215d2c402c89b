"""The input pipeline beside the same work done with PIL and pycocotools: JPEG files to padded training batches."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch import Tensor

from trex2_lightning.config import DataConfig, RhythmConfig, SplitConfig
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.structures import IMAGENET_PIXELS

IMAGE_SIZES = (800, 128)  # shorter side of the images in a batch, pixels
MAX_SIZE = 1333  # of the longer one
WIDTH, HEIGHT = 640, 480  # of the files
BATCH_SIZE = 8
FILES, CATEGORIES, BOXES = 64, 80, 7  # as COCO has them: boxes an image


Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]  # pixels (B, 3, H, W) and where they are an image's (B, H, W)


def loaders(folder: Path, size: int) -> tuple[Batches, Batches]:
    """What reads the files of `write_images` once, in batches: PIL and pycocotools, and ours."""
    files = SplitConfig("train.json", "train")
    data = DataConfig(
        root=str(folder), train=files, val=files, size=size, max_size=MAX_SIZE, batch_size=BATCH_SIZE, num_workers=0
    )
    steps = FILES // BATCH_SIZE
    module = DetectionDataModule(
        data,
        statistics=IMAGENET_PIXELS,
        seed=0,
        total_steps=steps,
        accumulate=1,
        rhythm=RhythmConfig(visual=0, text=1),
        eval_batch_size=1,
    )
    module.setup("fit")
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO(str(folder / "train.json"))

    def peer() -> Iterator[tuple[Tensor, Tensor]]:
        order = np.random.default_rng(0).permutation(annotations.getImgIds()).tolist()
        for start in range(0, FILES, BATCH_SIZE):
            yield _pad([_read(annotations, folder / "train", number, size) for number in order[start:][:BATCH_SIZE]])

    def ours() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in module.train_dataloader():
            yield batch.images.pixels, batch.images.valid

    return peer, ours


def write_images(folder: Path) -> None:
    """JPEG files of smooth colours with some noise, as large on the disk as photographs are, and their COCO file."""
    generator = np.random.default_rng(0)
    (folder / "train").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, FILES + 1):
        name = f"{number:04}.jpg"
        coarse = Image.fromarray(generator.integers(0, 256, (HEIGHT // 20, WIDTH // 20, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = smooth + generator.normal(0, 8, smooth.shape).astype(np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / "train" / name, quality=90)
        images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for x, y, w, h in generator.uniform(1, 200, (BOXES, 4)).tolist():
            annotation = {"image_id": number, "category_id": int(generator.integers(1, CATEGORIES + 1))}
            annotations.append(
                {"id": len(annotations) + 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0} | annotation
            )
    categories = [{"id": number, "name": f"thing {number}"} for number in range(1, CATEGORIES + 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "train.json").write_text(json.dumps(content), encoding="utf-8")


def _read(annotations: COCO, images: Path, image_id: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    [entry] = annotations.loadImgs(image_id)
    image = Image.open(images / entry["file_name"]).convert("RGB")
    objects = annotations.loadAnns(annotations.getAnnIds(image_id))
    boxes = torch.tensor([item["bbox"] for item in objects]) / torch.tensor([image.width, image.height] * 2)
    centres = torch.cat([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], 1)
    if torch.rand(()) < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        centres[:, 0] = 1 - centres[:, 0]
    scale = min(size / min(image.size), MAX_SIZE / max(image.size))
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
    pixels = (np.asarray(image, dtype=np.float32) / 255 - IMAGENET_PIXELS.mean) / IMAGENET_PIXELS.std
    labels = torch.tensor([item["category_id"] for item in objects])
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1), centres, labels


def _pad(examples: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    height, width = (max(pixels.shape[axis] for pixels, _, _ in examples) for axis in (1, 2))
    batch, mask = torch.zeros(len(examples), 3, height, width), torch.zeros(len(examples), height, width).bool()
    for index, (pixels, _, _) in enumerate(examples):
        batch[index, :, : pixels.shape[1], : pixels.shape[2]] = pixels
        mask[index, : pixels.shape[1], : pixels.shape[2]] = True
    return batch, mask
