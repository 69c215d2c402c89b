"""Nameless pictures: copies of stars of their own, or of so many kinds of procedural outlines."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from torchvision.ops import box_iou

from trex2_lightning.config import DataConfig, NamelessConfig, RhythmConfig, ShapesConfig
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.data.formats.coco import FORMAT
from trex2_lightning.data.opening import read_records
from trex2_lightning.data.shapes import nameless, rendering
from trex2_lightning.data.shapes.drawing import filled
from trex2_lightning.data.shapes.layout import NAMELESS, PRESETS, categories, image_rng
from trex2_lightning.data.shapes.likeness import Gallery
from trex2_lightning.data.shapes.nameless import kind, place_nameless, plan_nameless
from trex2_lightning.data.shapes.outlines import OUTLINES
from trex2_lightning.data.shapes.primitives import Outline
from trex2_lightning.data.shapes.rendering import prepare, prepare_nameless
from trex2_lightning.structures import IMAGENET_PIXELS

SIDE = 48  # pixels of the masks by which outlines are compared here
TURNS = np.radians(np.arange(0, 360, 5))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kinds", [(), (3,), (0, 5, 7)])
def test_nameless_things_come_in_copies_and_find_room(preset: str, kinds: tuple[int, ...]) -> None:
    side, max_iou = PRESETS[preset].side, PRESETS[preset].max_iou
    numbers = set()
    for number in range(60 if not kinds else 10):
        rng = image_rng(ShapesConfig(preset), NAMELESS, number)
        instances = place_nameless(preset, rng, [kind(0, number) for number in kinds])
        copies = Counter(instance.category for instance in instances)
        assert set(copies) == set(range(len(copies)))
        assert set(copies.values()) <= {2, 3, 4, 5}
        numbers.add(len(copies))
        boxes = torch.tensor([instance.box for instance in instances], dtype=torch.float64)
        assert 0 <= boxes.min() <= boxes.max() <= side
        assert (box_iou(boxes, boxes) - torch.eye(len(boxes))).max() < max_iou
    assert numbers == ({len(kinds)} if kinds else {1, 2, 3})


@pytest.mark.parametrize("kinds", [(), (0, 5, 7)])
def test_copies_are_alike_and_other_kinds_are_not(kinds: tuple[int, ...]) -> None:
    rng = image_rng(ShapesConfig(), NAMELESS, 3)
    instances = place_nameless("easy", rng, [kind(0, number) for number in kinds])
    assert len({instance.category for instance in instances}) > 1
    for a, b in combinations(instances, 2):
        same = a.category == b.category
        corners = [[len(points) for points in instance.outline.solid] for instance in (a, b)]
        assert (a.colour == b.colour and corners[0] == corners[1]) == same


@pytest.mark.parametrize("kinds", [100, 1000])
def test_every_kind_is_shown_equally_often_in_equally_many_pictures(kinds: int) -> None:
    images = plan_nameless(ShapesConfig(nameless_kinds=kinds))
    assert len(images) == nameless.KIND_IMAGES
    assert Counter(map(len, images)).keys() == {1, 2, 3}
    counts = np.bincount(np.concatenate(images), minlength=kinds)
    assert len(counts) == kinds
    assert np.ptp(counts) <= 0.1 * counts.mean() + 2
    neighbours = Counter(pair for image in images for pair in combinations(image.tolist(), 2))
    assert len(neighbours) > 4 * kinds, "in one order for all rounds there are two for a kind"


def test_ten_thousand_kinds_are_all_but_shown_once() -> None:
    shown = np.concatenate(plan_nameless(ShapesConfig(nameless_kinds=10_000)))
    assert len(np.unique(shown)) > 9800


# Kinds


def test_a_kind_is_the_same_for_ever_and_others_are_others() -> None:
    first = [kind(0, number) for number in range(40)]
    kind.cache_clear()
    again, other = [kind(0, number) for number in range(40)], [kind(1, number) for number in range(40)]
    points = [[np.concatenate(outline.solid).tobytes() for outline in some] for some in (first, again, other)]
    assert points[0] == points[1]
    assert len({*points[0], *points[2]}) == 80


def test_a_kind_is_in_one_piece_and_its_holes_are_inside() -> None:
    for number in range(64):
        outline = kind(0, number)
        pieces, _ = label(upright(outline), np.ones((3, 3)))
        parts = np.bincount(pieces.ravel())[1:]
        assert parts.max() > 0.98 * parts.sum(), f"{number}: more than the pixel of a sharp tip lies apart"
        for hole in outline.holes:
            around = outline.box()
            assert (hole > around[0]).all()
            assert (hole < around[1]).all()


def test_no_kind_is_a_rare_or_novel_shape_in_disguise() -> None:
    for number in range(48):
        assert highest_overlap(kind(0, number)) < 0.8, number


@pytest.mark.slow
def test_none_of_a_thousand_kinds_is_a_rare_or_novel_shape_in_disguise() -> None:
    assert max(highest_overlap(kind(0, number)) for number in range(1000)) < 0.8


def test_what_is_too_like_a_shape_with_a_word_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    angle = np.radians(70)
    turn = 3 * np.array([[-np.cos(angle), -np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # a mirror, too
    disguised, honest = OUTLINES["fish"].transform(turn, np.array([5.0, -2])), kind(0, 6)
    assert nameless._rare_and_novel().likeness(disguised) > 0.95
    drawn = iter([disguised, disguised, honest])
    monkeypatch.setattr(nameless, "procedural_outline", lambda number, rng: next(drawn))
    kind.cache_clear()
    assert kind(0, 0) is honest
    kind.cache_clear()


@pytest.mark.parametrize("name", ["key", "bottle", "glasses", "tree"])
def test_likeness_is_what_masks_say(name: str) -> None:
    """Another way to the same figure: masks that are turned, drawn and compared one by one."""
    others = [OUTLINES[other] for other in ("circle", "crown", "bolt", "shirt", "rabbit", "wrench")]
    for other in others:
        expected = overlap_of(OUTLINES[name], turned_masks((other,), 120))
        assert Gallery.of([other]).likeness(OUTLINES[name]) == pytest.approx(expected, abs=0.03)


# Files


def test_pictures_of_kinds_are_a_folder_beside_the_others(
    few: ShapesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nameless, "STAR_IMAGES", 4)
    monkeypatch.setattr(nameless, "KIND_IMAGES", 3)
    root = prepare(few, tmp_path / "shapes")
    before = contents(root)
    for kinds, name, count in ((0, "nameless", 4), (7, "nameless-7", 3), (9, "nameless-9", 3)):
        config = replace(few, nameless_kinds=kinds)
        assert prepare(config, root) == root, "the folder is known as finished"
        prepare_nameless(config, root)
        after = contents(root)
        pictures = [f"{name}/{number:06d}.jpg" for number in range(1, count + 1)]
        assert after.keys() - before.keys() == {f"{name}.json", *pictures}
        assert before.items() <= after.items()
        before = after
        records = read_records(root / f"{name}.json", root / name, FORMAT)
        owners: dict[int, set[int]] = {}
        for image in records.images:
            for category in image.labels.tolist():
                owners.setdefault(category, set()).add(image.id)
            assert min(image.labels.bincount()[image.labels]) >= 2
        assert len(owners) == len(records.names)
        assert all(len(images) == 1 for images in owners.values())
    monkeypatch.setattr(rendering, "_render_all", None)
    prepare_nameless(few, root)  # renders once


@pytest.mark.parametrize("kinds", [0, 5])
def test_a_broken_off_nameless_rendering_is_completed(
    kinds: int, few: ShapesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures without their file: killed between the two, or another process is about to write it."""
    monkeypatch.setattr(nameless, "STAR_IMAGES", 3)
    monkeypatch.setattr(nameless, "KIND_IMAGES", 3)
    config = replace(few, nameless_kinds=kinds)
    root = prepare(config, tmp_path / "shapes")
    prepare_nameless(config, root)
    whole = contents(root)
    (root / f"{nameless.nameless_split(config)}.json").unlink()
    prepare_nameless(config, root)
    assert contents(root) == whole


def test_a_run_trains_on_the_kinds_that_it_asks_for(
    few: ShapesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nameless, "KIND_IMAGES", 2)
    data = DataConfig(
        format="shapes",
        root=str(tmp_path / "shapes"),
        shapes=replace(few, nameless_kinds=6),
        nameless=NamelessConfig(share=0.5),
    )
    module = DetectionDataModule(
        data,
        statistics=IMAGENET_PIXELS,
        seed=0,
        total_steps=1,
        accumulate=1,
        rhythm=RhythmConfig(),
        eval_batch_size=1,
    )
    module.setup("fit")
    assert module._records[NAMELESS].annotations == tmp_path / "shapes" / "nameless-6.json"
    assert len(module._records[NAMELESS].images) == 2


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Overlap of masks, by brute force


def highest_overlap(outline: Outline) -> float:
    return overlap_of(outline, rare_and_novel_masks())


@cache
def rare_and_novel_masks() -> np.ndarray:
    """All rare and novel shapes of both presets and versions."""
    known = {
        category.shape
        for preset in PRESETS
        for version in (1, 2)
        for category in categories(preset, version)
        if category.group in ("rare", "novel")
    }
    assert len(known) == 36
    return turned_masks(tuple(OUTLINES[shape] for shape in sorted(known)))


def turned_masks(outlines: tuple[Outline, ...], side: int = SIDE) -> np.ndarray:
    """(outlines x mirror x rotations, pixels) in all directions."""
    masks = []
    for outline in map(aligned, outlines):
        for mirror in (-1, 1):
            for angle in TURNS:
                turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
                masks.append(mask_of(outline.transform(turn @ np.diag([mirror, 1]), np.zeros(2)), side))
    return np.array(masks)


def overlap_of(outline: Outline, masks: np.ndarray) -> float:
    """Highest IoU with one of the masks."""
    mine = mask_of(aligned(outline), round(masks.shape[1] ** 0.5))
    both = masks @ mine
    return float((both / (masks.sum(1) + mine.sum() - both)).max())


def mask_of(outline: Outline, side: int) -> np.ndarray:
    """(side x side,) 1 where an aligned outline covers at least half of a pixel; a unit is a third of the picture."""
    fine = 3 * side
    drawn = filled(outline.transform(np.eye(2) * fine / 3, np.full(2, fine / 2 - 0.5)), (fine, fine)).reduce(3)
    return (np.asarray(drawn) > 127).ravel().astype(np.float32)


def aligned(outline: Outline) -> Outline:
    """With its centre of mass at 0 and an area of 1."""
    mask = upright(outline)
    low, high = outline.box()
    unit, centre = 150 / (high - low).max(), np.argwhere(mask).mean(0)[::-1] + 0.5
    scale = 1 / np.sqrt(mask.sum())
    return outline.transform(np.eye(2) * unit * scale, -scale * (low * unit + centre))


def upright(outline: Outline) -> np.ndarray:
    """Its mask, 150 pixels long."""
    low, high = outline.box()
    unit = 150 / (high - low).max()
    width, height = np.ceil((high - low) * unit + 1).astype(int).tolist()
    return np.asarray(filled(outline.transform(np.eye(2) * unit, -low * unit - 0.5), (width, height))) > 0
