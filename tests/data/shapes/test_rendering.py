"""The folder: a COCO data set, made once, by whoever is first, and never half."""

import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin
from pycocotools.coco import COCO

from trex2_lightning.config import ShapesConfig
from trex2_lightning.data.formats.coco import FORMAT
from trex2_lightning.data.opening import read_records
from trex2_lightning.data.shapes import layout, rendering
from trex2_lightning.data.shapes.layout import PRESETS, SPLITS, categories
from trex2_lightning.data.shapes.rendering import prepare, prepare_nameless
from trex2_lightning.errors import InputError


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


# Nameless pictures


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


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
