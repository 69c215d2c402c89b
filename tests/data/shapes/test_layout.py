"""What the splits hold and where it lies: groups, counts, overlap."""

from collections import Counter
from typing import Literal

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from trex2_lightning.config import ShapesConfig
from trex2_lightning.data.shapes import layout
from trex2_lightning.data.shapes.layout import GROUPS, MANY_SHAPES, PRESETS, categories, plan

Version = Literal[1, 2]
VERSIONS = pytest.mark.parametrize("version", [1, 2])


def instances_per_category(preset: str, split: str, version: Version = 1) -> dict[str, list[int]]:
    """Group -> number of instances of each of its categories, in the full data set."""
    known = categories(preset, version)
    counts = np.bincount(np.concatenate(plan(ShapesConfig(preset, version=version), split)), minlength=len(known))
    groups: dict[str, list[int]] = {group: [] for group in GROUPS}
    for category, count in zip(known, counts.tolist(), strict=True):
        groups[category.group].append(count)
    return groups


@VERSIONS
@pytest.mark.parametrize("preset", PRESETS)
def test_groups_are_what_their_names_say(preset: str, version: Version) -> None:
    known_all = categories(preset, version)
    of = {group: [c for c in known_all if c.group == group] for group in GROUPS}
    assert len({category.name for category in known_all}) == len(known_all)
    assert len(of["rare"]) >= 18
    assert len(of["novel"]) >= 18
    assert len(of["composed"]) >= 8
    known = of["frequent"] + of["common"]
    for group in ("rare", "novel"):
        others = {c.shape for c in known_all if c.group != group}
        assert len({c.shape for c in of[group]}) >= 6
        assert not {c.shape for c in of[group]} & others, "a rare or novel word is used nowhere else"
    for category in of["composed"]:
        assert sum(c.colour == category.colour for c in known) >= 3
        assert sum(c.shape == category.shape for c in known) >= 3
        assert category.name not in {c.name for c in known}


@pytest.mark.parametrize("preset", PRESETS)
def test_version_2_has_18_rare_and_18_novel_shapes_in_one_colour_each(preset: str) -> None:
    first, second = categories(preset), categories(preset, 2)
    for group in ("rare", "novel"):
        shapes = [category.shape for category in second if category.group == group]
        assert len(shapes) == len(set(shapes)) == 18
        assert {category.shape for category in first if category.group == group} < set(shapes)
    for group in ("frequent", "common", "composed"):
        assert [c for c in first if c.group == group] == [c for c in second if c.group == group]
    assert not set(MANY_SHAPES.rare) & set(MANY_SHAPES.novel)


def test_the_long_tail_of_the_easy_preset_has_the_sizes_it_was_tried_with() -> None:
    counts = instances_per_category("easy", "train")
    assert {group: len(numbers) for group, numbers in counts.items()} == {
        "frequent": 45,
        "common": 11,
        "rare": 18,
        "composed": 8,
        "novel": 18,
    }
    assert 490 <= min(counts["frequent"]) <= max(counts["frequent"]) <= 630
    assert 40 <= min(counts["common"]) <= max(counts["common"]) <= 65


@VERSIONS
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("seed", [0, 1])
def test_training_has_a_few_rare_instances_and_none_held_out(preset: str, seed: int, version: Version) -> None:
    known = categories(preset, version)
    images = plan(ShapesConfig(preset, seed=seed, version=version), "train")
    counts = np.bincount(np.concatenate(images), minlength=len(known))
    assert len(images) == 6000
    assert {len(image) for image in images} == set(range(1, 9))
    for category, count in zip(known, counts, strict=True):
        if category.group in ("composed", "novel"):
            assert count == 0
        elif category.group == "rare":
            assert 4 <= count <= 14
        else:
            assert count >= 30
    frequent, common = (
        np.mean(instances_per_category(preset, "train", version)[group]) for group in ("frequent", "common")
    )
    assert 9 < frequent / common < 11


@VERSIONS
@pytest.mark.parametrize("preset", PRESETS)
def test_every_category_is_evaluated_and_has_sixteen_reference_images(preset: str, version: Version) -> None:
    for split, least in (("val", 10), ("test", 15), ("reference", 16)):
        counts = instances_per_category(preset, split, version)
        assert min(min(numbers) for numbers in counts.values()) >= least, split
    planned = plan(ShapesConfig(preset, version=version), "reference")
    images = Counter(index for image in planned for index in set(image.tolist()))
    assert min(images[index] for index in range(len(categories(preset, version)))) >= 16


@pytest.mark.parametrize("preset", PRESETS)
def test_a_category_comes_with_copies_except_in_the_reference_split(preset: str) -> None:
    def most_copies(split: str) -> list[int]:
        return [max(Counter(image.tolist()).values()) for image in plan(ShapesConfig(preset), split)]

    for split in ("train", "val", "test"):
        assert np.mean([copies > 1 for copies in most_copies(split)]) > 0.5
    assert np.mean([copies > 1 for copies in most_copies("reference")]) < 0.05


def test_the_tail_grows_with_the_training_split_and_a_smaller_one_is_its_beginning() -> None:
    rare = [index for index, category in enumerate(categories("easy")) if category.group == "rare"]
    large = plan(ShapesConfig(num_train=12000), "train")
    small = plan(ShapesConfig(num_train=6000), "train")
    assert len(large) == 12000
    assert all(np.array_equal(a, b) for a, b in zip(small, large, strict=False))
    counts = np.bincount(np.concatenate(large))
    assert 8 <= counts[rare].min() <= counts[rare].max() <= 28


@pytest.mark.parametrize("preset", PRESETS)
def test_objects_lie_in_the_image_and_overlap_little_and_none_is_lost(preset: str) -> None:
    config = ShapesConfig(preset, num_train=150)
    side, max_iou = PRESETS[preset].side, PRESETS[preset].max_iou
    highest = 0.0
    for planned, instances in zip(plan(config, "train"), layout.layout(config, "train"), strict=True):
        assert [instance.category for instance in instances] == planned.tolist()
        boxes = torch.tensor([instance.box for instance in instances], dtype=torch.float64)
        assert boxes.min() >= 0
        assert boxes.max() <= side
        long_sides = (boxes[:, 2:] - boxes[:, :2]).amax(1) / side
        assert long_sides.min() >= 0.15 - 1e-6
        assert long_sides.max() <= 0.44 + 1e-6
        highest = max(highest, (box_iou(boxes, boxes) - torch.eye(len(boxes))).max().item())
    assert max_iou / 2 < highest < max_iou
