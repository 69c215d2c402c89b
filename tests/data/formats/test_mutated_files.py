"""Files with a few changes are read, or refused in one line: never a traceback, never a box outside its image."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats import every_format
from trex2_lightning.data.formats.coco import read_coco
from trex2_lightning.data.formats.lvis import read_lvis
from trex2_lightning.data.formats.odvg import read_odvg
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.opening import read_records
from trex2_lightning.errors import InputError

COCO = {
    "images": [
        {"id": n, "file_name": f"{n}.jpg", "width": 40, "height": 30, "neg_category_ids": [1, 2]} for n in range(3)
    ],
    "annotations": [
        {"id": n, "image_id": n % 3, "category_id": n % 2, "bbox": [n, n, 9, 9], "area": 80.5, "iscrowd": 0}
        for n in range(8)
    ],
    "categories": [{"id": n, "name": f"name {n}", "supercategory": "none"} for n in range(3)],
}
INSTANCE = {"bbox": [1, 2, 9, 9], "label": 1, "category": "dog"}
REGIONS = [
    {"bbox": [1, 2, 9, 9], "phrase": "a man", "tokens_positive": [[0, 5]]},
    {"bbox": [[1, 2, 9, 9], [3, 3, 4, 4]], "phrase": ["a dog", "dog"], "tokens_positive": [[0, 5]]},
]
ODVG = [
    {"filename": "0.jpg", "height": 30, "width": 40, "detection": {"instances": [INSTANCE, INSTANCE]}},
    {"filename": "1.jpg", "height": 30, "width": 40, "grounding": {"caption": "a man, a dog", "regions": REGIONS}},
    {"filename": "2.jpg", "height": 30, "width": 40, "detection": {"instances": []}},
]
ODD: list[Any] = [
    None, True, -1, 0, 3, 10**400, 2**63, 1e308, -1e-320, float("nan"), float("inf"), "", " ", "x", "\ud800", "a\0b",
    "../../x", "/", "x" * 5000, [], {}, [[]], [None], [1, 2], {"id": 1}, [1, 2, 3, "4"], [float("nan")] * 4, [[1, 2]],
]  # fmt: skip


def mutated(value: Any, rng: random.Random) -> Any:
    """A copy with one to three entries replaced, removed or doubled, wherever they lie."""
    copy = deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        place = copy
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(place[key], dict | list) and rng.random() < 0.8:
                place = place[key]
                continue
            action = rng.random()
            if action < 0.7:
                place[key] = deepcopy(rng.choice(ODD))  # the next change may go into it
            elif action < 0.85:
                del place[key]
            elif isinstance(place, list):
                place.append(deepcopy(place[key]))
            break
    return copy


def damaged(text: bytes, rng: random.Random) -> bytes:
    """In a third of the cases a few bytes are changed, cut away or repeated."""
    if rng.random() < 2 / 3:
        return text
    at, length = rng.randrange(len(text)), rng.randint(1, 40)
    middle = rng.choice([b"", rng.randbytes(length), text[at : at + length] * 2, b"[" * 3000])
    return text[:at] + middle + (text[at + length :] if rng.random() < 0.8 else b"")


def fuzz(count: int, folder: Path, pictures: Callable[..., Path], form: str) -> int:
    store = ImageStore([pictures("0.jpg", "1.jpg", "2.jpg")])
    path, labels, read = folder / "a.json", folder / "labels.json", 0
    refused: list[str] = []
    labels.write_text(json.dumps({"0": "cat", "1": "dog"}))
    for seed in range(count):
        rng = random.Random(seed)
        if form == "odvg":
            text = b"\n".join(json.dumps(line).encode() for line in mutated(ODVG, rng))
        else:
            text = json.dumps(mutated(COCO, rng)).encode()
        path.write_bytes(damaged(text or b" ", rng))
        report = Report()
        try:
            if form == "odvg":
                images = list(read_odvg(path, store, report, labels if seed % 2 else None))
            else:
                images = list((read_lvis if seed % 2 else read_coco)(path, store, report))
        except InputError as error:
            refused.append(str(error))
            continue
        read += 1
        for image in images:
            assert len(image.boxes) == len(image.names) == len(image.crowd) == len(image.area), seed
            assert (image.boxes[:, 2:] > image.boxes[:, :2]).all(), seed
            assert (image.boxes >= 0).all(), seed
            assert (image.boxes <= [image.width, image.height] * 2).all(), seed
            assert all(name == name.strip() != "" for name in image.names), seed
    assert all(message.startswith(str(path)) and "\n" not in message for message in refused)
    return read


@pytest.mark.parametrize("form", ["coco", "odvg"])
def test_a_hundred_changed_files(form: str, tmp_path: Path, pictures: Callable[..., Path]) -> None:
    assert 50 < fuzz(100, tmp_path, pictures, form) <= 100


@pytest.mark.slow
@pytest.mark.parametrize("form", ["coco", "odvg"])
def test_a_thousand_changed_files(form: str, tmp_path: Path, pictures: Callable[..., Path]) -> None:
    assert 500 < fuzz(1000, tmp_path, pictures, form) < 1000


def test_what_is_read_without_an_index_is_what_an_index_would_have(
    tmp_path: Path, pictures: Callable[..., Path]
) -> None:
    folder, form, refused = pictures("0.jpg", "1.jpg", "2.jpg"), every_format()["coco"], []
    for seed in range(150):
        rng = random.Random(seed)
        (tmp_path / "a.json").write_bytes(damaged(json.dumps(mutated(COCO, rng)).encode(), rng))
        try:
            records = read_records(tmp_path / "a.json", folder, form)
        except InputError as error:
            refused.append(str(error))
            continue
        report = Report()
        images = list(form.read({"annotations": tmp_path / "a.json", "images": [folder]}, report))
        assert records.names == tuple(report.names), seed
        whole = {image.id: image for image in records.images}
        for image in images:  # all but those whose file is missing
            assert image.id is not None, seed
            assert whole[image.id].boxes.tolist() == image.boxes.tolist(), seed
            assert [records.names[label] for label in whole[image.id].labels] == image.names, seed
    assert all(message.startswith(str(tmp_path / "a.json")) and "\n" not in message for message in refused)
    assert 10 < 150 - len(refused) < 75
