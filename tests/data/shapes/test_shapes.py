import json
import multiprocessing
import time
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, JpegImagePlugin
from pycocotools.coco import COCO
from torchvision.ops import box_iou

from trex2_lightning.config import ShapesConfig
from trex2_lightning.data.formats.coco import FORMAT
from trex2_lightning.data.index.opening import read_records
from trex2_lightning.data.shapes import layout, rendering
from trex2_lightning.data.shapes.drawing import COLOURS, OUTLINES, Instance, draw, paint, pose
from trex2_lightning.data.shapes.layout import GROUPS, NAMELESS, PRESETS, SPLITS, categories, plan
from trex2_lightning.data.shapes.rendering import prepare, prepare_nameless
from trex2_lightning.errors import InputError

WHITE = np.full(3, 255.0)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> ShapesConfig:
    """A data set of a few pictures."""
    for name, preset in PRESETS.items():
        few_images = {"val": 3, "test": 4, "reference": 5}
        monkeypatch.setitem(PRESETS, name, replace(preset, num_images=few_images))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    return ShapesConfig(num_train=6)


def instances_per_category(preset: str, split: str) -> dict[str, list[int]]:
    """Group -> number of instances of each of its categories, in the full data set."""
    counts = np.bincount(np.concatenate(plan(ShapesConfig(preset), split)), minlength=len(categories(preset)))
    groups: dict[str, list[int]] = {group: [] for group in GROUPS}
    for category, count in zip(categories(preset), counts.tolist(), strict=True):
        groups[category.group].append(count)
    return groups


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def area(instance: Instance) -> float:
    x0, y0, x1, y1 = instance.box
    return (x1 - x0) * (y1 - y0)


def pixels(shape: str, angle: float, size: int = 20, fill: str = "solid") -> np.ndarray:
    """The shape in white on black, in the upper left corner."""
    canvas = Image.new("RGB", (size + 2, size + 2))
    paint(canvas, pose(OUTLINES[shape], size, 1.0, angle), WHITE, fill, np.random.default_rng(0))
    return np.asarray(canvas)[..., 0] / 255


@pytest.mark.parametrize("preset", PRESETS)
def test_groups_are_what_their_names_say(preset: str) -> None:
    of = {group: [c for c in categories(preset) if c.group == group] for group in GROUPS}
    assert len({category.name for category in categories(preset)}) == len(categories(preset))
    assert len(of["rare"]) >= 18
    assert len(of["novel"]) >= 18
    assert len(of["composed"]) >= 8
    known = of["frequent"] + of["common"]
    for group in ("rare", "novel"):
        others = {c.shape for c in categories(preset) if c.group != group}
        assert len({c.shape for c in of[group]}) >= 6
        assert not {c.shape for c in of[group]} & others, "a rare or novel word is used nowhere else"
    for category in of["composed"]:
        assert sum(c.colour == category.colour for c in known) >= 3
        assert sum(c.shape == category.shape for c in known) >= 3
        assert category.name not in {c.name for c in known}


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


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("seed", [0, 1])
def test_training_has_a_few_rare_instances_and_none_held_out(preset: str, seed: int) -> None:
    config = ShapesConfig(preset, seed=seed)
    images = plan(config, "train")
    counts = np.bincount(np.concatenate(images), minlength=len(categories(preset)))
    assert len(images) == 6000
    assert {len(image) for image in images} == set(range(1, 9))
    for category, count in zip(categories(preset), counts, strict=True):
        if category.group in ("composed", "novel"):
            assert count == 0
        elif category.group == "rare":
            assert 4 <= count <= 14
        else:
            assert count >= 30
    frequent, common = (np.mean(instances_per_category(preset, "train")[group]) for group in ("frequent", "common"))
    assert 9 < frequent / common < 11


@pytest.mark.parametrize("preset", PRESETS)
def test_every_category_is_evaluated_and_has_sixteen_reference_images(preset: str) -> None:
    for split, least in (("val", 10), ("test", 15), ("reference", 16)):
        counts = instances_per_category(preset, split)
        assert min(min(numbers) for numbers in counts.values()) >= least, split
    images = Counter(index for image in plan(ShapesConfig(preset), "reference") for index in set(image.tolist()))
    assert min(images[index] for index in range(len(categories(preset)))) >= 16


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


@pytest.mark.parametrize("preset", PRESETS)
def test_boxes_are_tight_around_the_pixels(preset: str) -> None:
    side, fills = PRESETS[preset].side, PRESETS[preset].fills
    drawn = set()
    for number, instances in enumerate(layout.layout(ShapesConfig(preset), "val")):
        for instance in instances[:1]:
            canvas = Image.new("RGB", (side, side))
            rng = np.random.default_rng(number)
            paint(canvas, instance.outline, WHITE, fills[number % len(fills)], rng)
            inked = Image.fromarray(np.where(np.asarray(canvas)[..., 0] > 40, 255, 0).astype(np.uint8))
            assert np.abs(np.subtract(inked.getbbox(), instance.box)).max() <= 1.5
            drawn.add(categories(preset)[instance.category].shape)
    assert len(drawn) > 15


def test_occlusion_leaves_much_of_every_object_in_sight() -> None:
    shares = []
    for instances in layout.layout(ShapesConfig("hard"), "val"):
        canvas = Image.new("RGB", (192, 192))
        for number, instance in enumerate(sorted(instances, key=area, reverse=True), start=1):  # as `draw` paints
            whole = Image.new("RGB", canvas.size)
            for picture in (canvas, whole):
                paint(picture, instance.outline, np.full(3, 30.0 * number), "solid", np.random.default_rng(0))
            shares.append([30 * number, (np.asarray(whole) == 30 * number).sum(), canvas])
    visible = [(np.asarray(canvas) == value).sum() / whole for value, whole, canvas in shares]
    assert 0.4 < min(visible) < 0.8, "there is occlusion, but nothing is hidden"


def test_shapes_are_told_apart_when_small_and_turned() -> None:
    shapes_used = (*PRESETS["hard"].shapes, *PRESETS["hard"].rare_shapes, *PRESETS["hard"].novel_shapes)
    masks = {shape: [pixels(shape, angle) for angle in (-0.35, 0.0, 0.35)] for shape in shapes_used}
    for a, b in combinations(shapes_used, 2):
        overlap = max(np.minimum(x, y).sum() / np.maximum(x, y).sum() for x in masks[a] for y in masks[b])
        assert overlap < 0.82, (a, b)


def test_colours_are_told_apart_in_spite_of_their_jitter() -> None:
    for (a, rgb), (b, other) in combinations(COLOURS.items(), 2):
        assert np.linalg.norm(np.subtract(rgb, other)) > 6 * 14, (a, b)


def test_fills_differ_within_the_same_edge() -> None:
    drawn = {fill: pixels("square", 0.0, size=40, fill=fill) for fill in PRESETS["hard"].fills}
    inside = {fill: picture[5:35, 5:35].mean() for fill, picture in drawn.items()}
    assert inside["solid"] == 1
    assert inside["outline"] == 0
    assert 0.3 < inside["stripes"] < 0.7
    assert 0.2 < inside["dots"] < 0.6
    for picture in drawn.values():
        assert picture[20, 0] == 1, "every fill has a solid edge"


def test_a_picture_shows_each_instance_in_its_colour() -> None:
    for instances in [next(layout.layout(ShapesConfig(), split)) for split in SPLITS]:
        instances = [i for i in instances if categories("easy")[i.category].shape in ("circle", "square", "heart")]
        picture = np.asarray(draw(instances, 128, ("solid",), np.random.default_rng(0)), float)
        for instance in instances:
            x0, y0, x1, y1 = instance.box
            centre = picture[int((y0 + y1) / 2) - 2 :, int((x0 + x1) / 2) - 2 :][:5, :5].mean((0, 1))
            nearest = min(COLOURS, key=lambda name: np.linalg.norm(centre - COLOURS[name]))
            assert nearest == instance.colour


@pytest.mark.parametrize("preset", PRESETS)
def test_bytes_depend_on_the_configuration_and_not_on_the_workers(
    preset: str, few: ShapesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(few, preset=preset)
    alone = contents(prepare(config, tmp_path / "alone"))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    together = contents(prepare(config, tmp_path / "together"))
    assert alone == together
    assert len(alone) == 6 + 3 + 4 + 5 + len(SPLITS) + 1
    pictures = [content for name, content in alone.items() if name.endswith(".jpg")]
    assert len(set(pictures)) == len(pictures), "splits share no picture"
    other = contents(prepare(replace(config, seed=1), tmp_path / "other"))
    assert not set(pictures) & set(other.values())
    longer = contents(prepare(replace(config, num_train=7), tmp_path / "longer"))
    assert alone["train/000006.jpg"] == longer["train/000006.jpg"]


def test_folder_is_a_coco_data_set(few: ShapesConfig, tmp_path: Path) -> None:
    root = prepare(few, tmp_path / "shapes")
    for split in SPLITS:
        coco = COCO(root / f"{split}.json")
        names = {index + 1: category for index, category in enumerate(categories("easy"))}
        assert {i: (c["name"], c["group"]) for i, c in coco.cats.items()} == {
            i: (c.name, c.group) for i, c in names.items()
        }
        expected = list(layout.layout(few, split))
        assert len(coco.imgs) == len(expected)
        for image, instances in zip(coco.imgs.values(), expected, strict=True):
            with Image.open(root / split / image["file_name"]) as picture:
                assert picture.size == (image["width"], image["height"]) == (128, 128)
                assert JpegImagePlugin.get_sampling(picture) == 0, "full resolution of colours"
            annotations = coco.imgToAnns[image["id"]]
            assert [a["category_id"] - 1 for a in annotations] == [i.category for i in instances]
            for annotation, instance in zip(annotations, instances, strict=True):
                x, y, width, height = annotation["bbox"]
                np.testing.assert_allclose((x, y, x + width, y + height), instance.box, atol=0.02)
                assert annotation["area"] == pytest.approx(width * height, rel=0.01)
                assert annotation["iscrowd"] == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_nameless_things_come_in_copies_and_find_room(preset: str) -> None:
    side, max_iou = PRESETS[preset].side, PRESETS[preset].max_iou
    kinds = set()
    for number in range(60):
        instances = layout.place_nameless(preset, layout.image_rng(ShapesConfig(preset), NAMELESS, number))
        copies = Counter(instance.category for instance in instances)
        assert set(copies) == set(range(len(copies)))
        assert set(copies.values()) <= {2, 3, 4, 5}
        kinds.add(len(copies))
        boxes = torch.tensor([instance.box for instance in instances], dtype=torch.float64)
        assert 0 <= boxes.min() <= boxes.max() <= side
        assert (box_iou(boxes, boxes) - torch.eye(len(boxes))).max() < max_iou
    assert kinds == {1, 2, 3}


def test_nameless_copies_are_alike_and_other_kinds_are_not() -> None:
    instances = layout.place_nameless("easy", layout.image_rng(ShapesConfig(), NAMELESS, 3))
    assert len({instance.category for instance in instances}) > 1
    for a, b in combinations(instances, 2):
        same = a.category == b.category
        corners = [len(instance.outline.solid[0]) for instance in (a, b)]
        assert (a.colour == b.colour and corners[0] == corners[1]) == same


def test_nameless_pictures_are_added_on_demand_and_change_nothing_else(
    few: ShapesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "NAMELESS_IMAGES", 4)
    root = prepare(few, tmp_path / "shapes")
    before = contents(root)
    prepare_nameless(few, root)
    after = contents(root)
    assert {name for name in after if name not in before} == {
        "nameless.json",
        *(f"nameless/{number:06d}.jpg" for number in range(1, 5)),
    }
    assert before.items() <= after.items()
    assert prepare(few, root) == root  # the folder is still known as finished
    monkeypatch.setattr(rendering, "_render_all", None)
    prepare_nameless(few, root)  # renders once

    records = read_records(root / "nameless.json", root / "nameless", FORMAT)
    owners: dict[int, set[int]] = {}
    for image in records.images:
        for label in image.labels.tolist():
            owners.setdefault(label, set()).add(image.id)
        assert min(image.labels.bincount()[image.labels]) >= 2
    assert len(owners) == len(records.names)
    assert all(len(images) == 1 for images in owners.values())


def test_a_broken_off_nameless_rendering_is_completed(
    few: ShapesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures without their file: killed between the two, or another process is about to write it."""
    monkeypatch.setattr(rendering, "NAMELESS_IMAGES", 3)
    root = prepare(few, tmp_path / "shapes")
    prepare_nameless(few, root)
    whole = contents(root)
    (root / "nameless.json").unlink()
    prepare_nameless(few, root)
    assert contents(root) == whole


def test_default_folder_is_in_the_cache_and_is_rendered_once(
    few: ShapesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = prepare(few)
    assert folder.parent == tmp_path / "trex2_lightning"
    assert folder.name.startswith("shapes-easy-")
    assert capfd.readouterr() == ("", ""), "no progress bar where nobody looks"
    monkeypatch.setattr(rendering, "_render_splits", None)
    assert prepare(few) == folder
    monkeypatch.undo()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(rendering, "_render_splits", lambda config, folder: folder.mkdir())
    others = {prepare(replace(few, seed=seed)).name for seed in (0, 1)}
    assert len(others) == 2
    assert (tmp_path / ".cache" / "trex2_lightning" / others.pop()).is_dir()


def test_an_exception_while_rendering_leaves_nothing(
    few: ShapesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> dict:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(rendering, "_coco", full_disk)
        with pytest.raises(OSError, match="no space left"):
            prepare(few, tmp_path / "shapes")
    assert not list(tmp_path.iterdir())
    assert (prepare(few, tmp_path / "shapes") / "test.json").is_file()


def test_a_killed_rendering_leaves_nothing_that_looks_finished(few: ShapesConfig, tmp_path: Path) -> None:
    root = tmp_path / "shapes"
    # A daemonic process may not have children of its own: it renders alone.
    process = multiprocessing.Process(target=prepare, args=(ShapesConfig(num_train=6000), root), daemon=True)
    process.start()
    while not list(tmp_path.rglob("*.jpg")):
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert not root.exists()
    assert len(COCO(prepare(few, root) / "train.json").imgs) == 6


def test_the_first_of_two_processes_wins(few: ShapesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "shapes"
    render = rendering._render_splits

    def overtaken(config: ShapesConfig, folder: Path) -> None:
        monkeypatch.setattr(rendering, "_render_splits", render)
        prepare(config, root)
        (root / "seen").touch()
        render(config, folder)

    monkeypatch.setattr(rendering, "_render_splits", overtaken)
    assert prepare(few, root) == root
    assert (root / "seen").is_file()
    assert list(tmp_path.iterdir()) == [root]


def test_a_folder_with_other_parameters_is_refused(few: ShapesConfig, tmp_path: Path) -> None:
    root = prepare(few, tmp_path / "shapes")
    before = contents(root)
    with pytest.raises(InputError, match=r"seed=0, not .* seed=3: delete it or set data\.root") as error:
        prepare(replace(few, seed=3), root)
    assert "\n" not in str(error.value)
    assert contents(root) == before


def test_a_folder_with_something_else_is_refused(few: ShapesConfig, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    for root in (tmp_path, tmp_path / "photo.jpg"):
        with pytest.raises(InputError, match=r"something other .* set data\.root to a new folder"):
            prepare(few, root)
    with pytest.raises(InputError, match="cannot write"):
        prepare(few, tmp_path / "photo.jpg" / "shapes")
    (tmp_path / "empty").mkdir()
    assert json.loads((prepare(few, tmp_path / "empty") / "val.json").read_text())["images"]


@pytest.mark.parametrize(("config", "key"), [(ShapesConfig(num_train=0), "num_train"), (ShapesConfig(seed=-1), "seed")])
def test_senseless_parameters_are_refused(config: ShapesConfig, key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"data\.shapes\.{key}="):
        prepare(config, tmp_path / "shapes")
