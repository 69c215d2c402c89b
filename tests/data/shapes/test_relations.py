"""Relational phrases: each names one of four lookalikes, and nothing but the relation tells which."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trex2_lightning.config import DataConfig, RhythmConfig, ShapesConfig, SplitConfig
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.data.formats.coco import FORMAT as COCO
from trex2_lightning.data.opening import read_records
from trex2_lightning.data.shapes import rendering
from trex2_lightning.data.shapes.drawing import Instance
from trex2_lightning.data.shapes.layout import PRESETS, RELATIONS, categories, image_rng
from trex2_lightning.data.shapes.relations import phrases, place_relations
from trex2_lightning.structures import IMAGENET_PIXELS

DIRECTIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


def layouts(preset: str, count: int) -> list[list[Instance]]:
    return [place_relations(preset, image_rng(ShapesConfig(preset), "relations", i)) for i in range(count)]


def parsed(phrase: str) -> tuple[str, str, str]:
    """What is meant, the relation and what it stands by."""
    for relation in DIRECTIONS:
        target, found, anchor = phrase.removeprefix("the ").partition(f" {relation} the ")
        if found:
            return target, relation, anchor
    raise AssertionError(phrase)


def centre(instance: Instance) -> np.ndarray:
    x0, y0, x1, y1 = instance.box
    return np.array([x0 + x1, y0 + y1]) / 2


@pytest.mark.parametrize("preset", PRESETS)
def test_phrases_name_frequent_categories(preset: str) -> None:
    known = phrases(preset)
    assert len(set(known)) == len(known) == 48
    frequent = {category.name for category in categories(preset) if category.group == "frequent"}
    targets, _, anchors = (set(words) for words in zip(*map(parsed, known), strict=True))
    assert targets | anchors <= frequent
    words = [name.split() for name in targets | anchors]
    assert len({colour for colour, _ in words}) == len({shape for _, shape in words}) == len(words)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_phrase_singles_out_one_of_four_lookalikes(preset: str) -> None:
    known, side = phrases(preset), PRESETS[preset].side
    used: Counter[str] = Counter()
    for instances in layouts(preset, 100):
        lookalikes = [instance for instance in instances if instance.category >= 0]
        assert len({(one.colour, known[one.category].split()[2]) for one in lookalikes}) == 1
        assert len({one.category for one in lookalikes}) == len(lookalikes) == 4
        anchors = {one.colour: one for one in instances if one.category < 0}
        assert len(anchors) == 2
        for one in lookalikes:
            _, relation, anchor = parsed(known[one.category])
            used[relation] += 1
            direction = np.array(DIRECTIONS[relation])
            offsets = [centre(other) - centre(anchors[anchor.split()[0]]) for other in lookalikes]
            along = [offset @ direction for offset in offsets]
            across = [abs(offset @ direction[::-1]) for offset in offsets]
            fitting = [a > 0 and b < 0.7 * a for a, b in zip(along, across, strict=True)]
            assert fitting == [other is one for other in lookalikes]
        boxes = np.array([instance.box for instance in instances])
        assert 0 <= boxes.min() <= boxes.max() <= side
    assert min(used.values()) > 60


def test_lookalikes_of_a_phrase_stand_where_those_of_others_do() -> None:
    """So a place in the image alone leaves two of the four, and the neighbour alone does too."""
    known = phrases("easy")
    for instances in layouts("easy", 30):
        lookalikes = [instance for instance in instances if instance.category >= 0]
        relations = Counter(parsed(known[one.category])[1] for one in lookalikes)
        anchors = Counter(parsed(known[one.category])[2] for one in lookalikes)
        assert set(relations.values()) == set(anchors.values()) == {2}


def test_the_split_is_rendered_where_it_is_asked_for_and_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    few = {"val": 2, "test": 2, "reference": 2}
    monkeypatch.setitem(PRESETS, "easy", replace(PRESETS["easy"], num_images=few))
    monkeypatch.setitem(RELATIONS, "relations", 3)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    root = rendering.prepare(ShapesConfig(num_train=3), tmp_path / "shapes")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    data = DataConfig(
        format="shapes",
        root=str(root),
        shapes=ShapesConfig(num_train=3),
        test=SplitConfig("relations.json", "relations"),
    )
    module = DetectionDataModule(
        data, statistics=IMAGENET_PIXELS, seed=0, total_steps=1, accumulate=1, rhythm=RhythmConfig(), eval_batch_size=1
    )
    module.setup("test")
    after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert before.items() <= after.items()
    assert {str(path.relative_to(root)) for path in after.keys() - before.keys()} == {
        "relations.json",
        *(f"relations/{number:06d}.jpg" for number in (1, 2, 3)),
    }
    assert module.test_records.names == tuple(phrases("easy"))
    expected = layouts("easy", 3)
    for image, instances in zip(module.test_records.images, expected, strict=True):
        targets = [one for one in instances if one.category >= 0]
        assert image.labels.tolist() == [one.category for one in targets]
        np.testing.assert_allclose(image.boxes, [one.box for one in targets], atol=0.02)
    again = json.loads((root / "relations.json").read_text())
    (root / "relations.json").unlink()
    rendering.prepare_relations(ShapesConfig(num_train=3), root, "relations")
    assert json.loads((root / "relations.json").read_text()) == again
    read_records(root / "relations.json", root / "relations", COCO)
    assert caplog.messages == []
