"""An index of Objects365's size beside pycocotools on a tenth of it: time and memory, each in a process of its own."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.objects365 import read_objects365
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.index.reading import open_index
from trex2_lightning.data.index.writing import build_index

IMAGES, BOXES, CATEGORIES = 1_700_000, 25_000_000, 365  # Objects365 v2, training
SAMPLES = 10_000
WIDTH, HEIGHT = 640, 480
CHUNK = 100_000  # entries that are written at once


class ProcessCost(NamedTuple):
    """What a process needed for one thing."""

    seconds: float
    added: float  # MiB that it holds more than before
    peak: float  # MiB, all in all


def write_annotations(file: Path, images: int, boxes: int) -> None:
    """Random boxes in COCO's format; there are no images."""
    generator = np.random.default_rng(0)
    with file.open("w", encoding="utf-8") as out:
        names = ", ".join(f'{{"id": {number}, "name": "thing {number}"}}' for number in range(1, CATEGORIES + 1))
        out.write(f'{{"categories": [{names}],\n"images": [')
        for start in range(0, images, CHUNK):
            entries = (
                f'{{"id": {number}, "file_name": "images/v1/patch{number % 51}/objects365_v1_{number:08}.jpg", '
                f'"width": {WIDTH}, "height": {HEIGHT}}}'
                for number in range(start, min(start + CHUNK, images))
            )
            out.write((",\n" if start else "") + ",\n".join(entries))
        out.write('],\n"annotations": [')
        for start in range(0, boxes, CHUNK):
            count = min(CHUNK, boxes - start)
            corners = generator.uniform(1, 200, (count, 4)).round(2).tolist()
            owners, labels = generator.integers(0, images, count), generator.integers(1, CATEGORIES + 1, count)
            entries = (
                f'{{"id": {start + number}, "image_id": {owner}, "category_id": {label}, "iscrowd": 0, '
                f'"area": {w * h:.2f}, "bbox": [{x}, {y}, {w}, {h}]}}'
                for number, ((x, y, w, h), owner, label) in enumerate(
                    zip(corners, owners.tolist(), labels.tolist(), strict=True)
                )
            )
            out.write((",\n" if start else "") + ",\n".join(entries))
        out.write("]}\n")


def building(file: Path, folder: Path) -> ProcessCost:
    return _alone(_build, file, folder)


def opening(folder: Path) -> ProcessCost:
    return _alone(_open, folder)


def reading_images(folder: Path) -> ProcessCost:
    """`SAMPLES` random images of an open index."""
    return _alone(_sample, folder)


def opening_with_pycocotools(file: Path) -> ProcessCost:
    return _alone(_open_with_pycocotools, file)


class _Everywhere(ImageStore):
    """Has every image that it is asked for: what a file system takes to say so is not measured."""

    def find(self, *names: str) -> str | None:
        return f"/data/objects365/{names[0]}"


def _build(file: Path, folder: Path) -> ProcessCost:
    report = Report()
    return _cost(lambda: build_index(folder, read_objects365(file, _Everywhere([]), report), report, {}))


def _open(folder: Path) -> ProcessCost:
    return _cost(lambda: open_index(folder))


def _sample(folder: Path) -> ProcessCost:
    images = open_index(folder).images
    places = np.random.default_rng(1).integers(0, len(images), SAMPLES).tolist()
    return _cost(lambda: [len(images[place].boxes) for place in places])


def _open_with_pycocotools(file: Path) -> ProcessCost:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        return _cost(lambda: COCO(str(file)))


def _alone(function: Callable[..., ProcessCost], *arguments: Path) -> ProcessCost:
    """Run in a process that has done nothing before, and has imported no more than this module."""
    program = (
        f"import sys, pathlib; from {__name__} import {function.__name__} as function; "
        "sys.stdout.write(' '.join(map(str, function(*map(pathlib.Path, sys.argv[1:])))))"
    )
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True, capture_output=True)
    return ProcessCost(*map(float, done.stdout.split()))


def _cost(function: Callable[[], object]) -> ProcessCost:
    before, start = memory("VmRSS"), perf_counter()
    kept = function()
    seconds, added = perf_counter() - start, memory("VmRSS") - before
    del kept
    return ProcessCost(seconds, added, memory("VmHWM"))


def memory(kind: str) -> float:
    """MiB of this process, now (VmRSS) or at its highest (VmHWM); `resource` would begin with the parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) / 1024
