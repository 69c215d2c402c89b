"""The folder: a COCO data set, made once, by whoever is first, and never half."""

import hashlib
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
from trex2_lightning.data.shapes import layout, nameless, rendering
from trex2_lightning.data.shapes.layout import PRESETS, RELATIONS, SPLITS, categories
from trex2_lightning.data.shapes.rendering import prepare, prepare_nameless, prepare_relations
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


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (ShapesConfig(num_train=0), "num_train"),
        (ShapesConfig(seed=-1), "seed"),
        (ShapesConfig(nameless_kinds=-1), "nameless_kinds"),
    ],
)
def test_senseless_parameters_are_refused(config: ShapesConfig, key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"data\.shapes\.{key}="):
        prepare(config, tmp_path / "shapes")


# Versions

DIGESTS = {  # of all files of a few pictures, as they were before there was a second version, and their cache folders
    "easy": ("shapes-easy-84dbd21356ce", "c3832309495754c56830d35a6b5fdc67b0e9c76bf0f6b9317f2187eb790d21b4"),
    "hard": ("shapes-hard-ca2fd20f62cb", "2e7481ca9bd182f000a8abc952f22a3984889d2f63cc5462f602fe1136ff0395"),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_version_1_is_what_it_was_to_the_byte_and_its_caches_are_found(
    preset: str, few: ShapesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(nameless, "STAR_IMAGES", 4)
    monkeypatch.setitem(RELATIONS, "relations", 3)
    config = replace(few, preset=preset)
    root = prepare(config)
    prepare_nameless(config, root)
    prepare_relations(config, root, "relations")
    digest = hashlib.sha256()
    for name, content in sorted(contents(root).items(), key=lambda file: Path(file[0])):
        digest.update(name.encode() + b"\0" + content)
    assert (root.name, digest.hexdigest()) == DIGESTS[preset]


def test_version_2_has_a_folder_of_its_own_and_differs_in_rare_and_novel_pictures_alone(
    few: ShapesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, second = prepare(few), prepare(replace(few, version=2))
    assert second.name.startswith("shapes-easy-v2-")
    kept = []
    for split in SPLITS:
        coco = [COCO(root / f"{split}.json") for root in (first, second)]
        shown = [{coco.cats[a["category_id"]]["name"] for a in coco.anns.values()} for coco in coco]
        assert shown[0] - shown[1] <= {c.name for c in categories("easy") if c.group in ("rare", "novel")}
        for image in coco[0].imgs:
            tail = {c["group"] for a in coco[0].imgToAnns[image] for c in [coco[0].cats[a["category_id"]]]}
            same = len({(root / split / f"{image:06d}.jpg").read_bytes() for root in (first, second)}) == 1
            kept.append((same, bool(tail & {"rare", "novel"})))
    assert (True, False) in kept
    assert (False, True) in kept
    assert (False, False) not in kept
    with pytest.raises(InputError, match=r"version=2: delete it or set data\.root"):
        prepare(replace(few, version=2), first)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
