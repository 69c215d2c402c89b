"""What is found in a folder, whatever its format, and that nothing is left out in silence."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pet_folders import BOX, pictures, write_coco_file

from trex2_lightning.data.index.reading import Index
from trex2_lightning.errors import InputError
from trex2_lightning.finetuning.survey import PreparedFolder, prepare_folder, survey

Write = Callable[..., Path]


def prepared(root: Path, form: str = "") -> PreparedFolder:
    return prepare_folder(root, root.parent / "out", form)


def stems(index: Index) -> list[str]:
    return sorted(image.path.stem for image in index)


@pytest.mark.parametrize("form", ["coco", "roboflow", "yolo", "voc"])
def test_every_format_gives_the_same_splits(form: str, write: Write) -> None:
    root = write(form, train=3, val=2, test=1)
    found = prepared(root)
    assert {name: stems(index) for name, index in found.splits.items()} == {
        "train": ["train0", "train1", "train2"],
        "val": ["val0", "val1"],
        "test": ["test0"],
    }
    for index in found.splits.values():
        assert sorted(index.names) == ["cat", "dog"][-len(index.names) :]
        for image in index:
            assert image.path.is_file()
            assert image.boxes.tolist() == [pytest.approx([*BOX])]
    first, second = (found.splits["train"][place] for place in (0, 1))
    names = found.splits["train"].names
    assert [names[first.labels[0]], names[second.labels[0]]] == ["dog", "cat"]
    assert not [line for line in found.lines if "not " in line]


def _gzipped(file: Path) -> None:
    file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()


def _as_windows_writes(file: Path) -> None:
    file.write_bytes(file.read_text().replace("utf-8", "utf-16").encode("utf-16"))


def _in_capitals(file: Path) -> None:
    file.rename(file.with_suffix(file.suffix.upper()))


def _beside_what_macos_leaves(file: Path) -> None:
    file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")


@pytest.mark.parametrize(
    ("form", "change"),
    [
        *(("coco", _gzipped), ("coco", _as_windows_writes), ("coco", _beside_what_macos_leaves)),
        *(("voc", _in_capitals), ("voc", _beside_what_macos_leaves)),
        *(("yolo", _as_windows_writes), ("yolo", _in_capitals), ("yolo", _beside_what_macos_leaves)),
    ],
)
def test_what_tools_and_systems_make_of_the_files_is_found(
    form: str, change: Callable[[Path], None], write: Write
) -> None:
    root = write(form, train=3, val=2)
    for file in [path for path in root.rglob("*") if path.suffix in (".json", ".xml", ".yaml")]:
        change(file)
    found = prepared(root)
    assert {name: len(index) for name, index in found.splits.items()} == {"train": 3, "val": 2}
    assert not [line for line in found.lines if "not " in line]


def test_an_index_is_taken_as_it_is(write: Write) -> None:
    first = prepared(write("yolo", train=2, val=1))
    shutil.copytree(first.splits["train"].folder.parent, root := first.splits["train"].folder.parents[2] / "indexes")
    again = prepare_folder(root, root.parent / "other")
    assert {name: stems(index) for name, index in again.splits.items()} == {
        name: stems(index) for name, index in first.splits.items()
    }
    assert again.splits["val"].folder == root / "val"
    assert again.lines[0].endswith("index")


def test_a_set_without_val_gets_one(write: Write) -> None:
    root = write("coco", train=20)
    found = prepared(root)
    listed = (root.parent / "out" / "divided" / "val.txt").read_text().split()
    assert len(listed) == 2
    assert sorted(Path(path).stem for path in listed) == stems(found.splits["val"])
    assert len(found.splits["train"]) == 18
    assert set(stems(found.splits["train"])).isdisjoint(stems(found.splits["val"]))
    assert found.splits["train"].image_counts.tolist() == [9, 9]  # of ten each
    assert any("stratified" in line for line in found.lines)


def test_one_file_beside_its_pictures_is_the_whole_set(write: Write) -> None:
    root = write("coco", train=0)
    write_coco_file(root / "labels.json", pictures(root / "images", [f"a{number}" for number in range(10)]))
    (root / "train.json").unlink()
    assert {name: len(index) for name, index in prepared(root).splits.items()} == {"train": 9, "val": 1}


def test_what_is_left_out_is_counted(write: Write) -> None:
    root = write("coco", train=4, val=2)
    pictures(root / "more", ["x", "y"])
    (root / "train" / "train0.jpg").unlink()
    content = json.loads((root / "val.json").read_text())
    content["annotations"].append({"id": 9, "image_id": 1, "category_id": 7, "bbox": [0, 0, 9, 9]})
    (root / "val.json").write_text(json.dumps(content))
    told = "\n".join(prepared(root).lines)
    assert "in train: 1 x image file missing (image 1: train0.jpg)" in told
    assert "in val: 1 x box of an unknown category" in told
    assert "not used: 2 .jpg files" in told


def test_what_training_never_shows_is_told(write: Write) -> None:
    root = write("coco", train=2, val=2)
    content = json.loads((root / "train.json").read_text())
    content["annotations"] = content["annotations"][:1]  # a dog
    (root / "train.json").write_text(json.dumps(content))
    assert "  in val: 1 categories that have no box in train, such as cat" in prepared(root).lines


def test_a_split_that_yolo_names_and_has_not_is_told(write: Write) -> None:
    root = write("yolo", train=2, val=1, test=1)
    shutil.rmtree(root / "images" / "test")
    found = prepared(root)
    assert set(found.splits) == {"train", "val"}
    assert any("not read" in line and "images/test is not there" in line for line in found.lines)


def test_lvis_is_not_taken_for_coco(write: Write) -> None:
    """Else what an image does not judge would be taken to be absent."""
    root = write("coco", train=2, val=1)
    for split in ("train", "val"):
        content = json.loads((root / f"{split}.json").read_text())
        for image in content["images"]:
            image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
        (root / f"{split}.json").write_text(json.dumps(content))
    found = prepared(root)
    assert found.lines[0].endswith("lvis")
    assert found.splits["train"][0].judged.tolist() == found.splits["train"][0].labels.tolist()


def test_two_formats_want_a_choice(write: Write) -> None:
    root = write("yolo", train=2, val=1)
    write_coco_file(root / "train.json", pictures(root / "images" / "train", ["train0"]))
    with pytest.raises(InputError, match=r"several formats: choose by data\.format=coco or yolo"):
        prepared(root)
    assert len(prepared(root, "yolo").splits["train"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: shutil.rmtree(root), "no such folder"),
        (lambda root: (root / "train.json").unlink(), "has val and nothing to train on"),
        (lambda root: [file.unlink() for file in root.glob("*.json")], "no annotations of coco, lvis, yolo, voc"),
        (lambda root: shutil.copy(root / "train.json", root / "train_2.json"), "are both of the train split"),
        (lambda root: shutil.rmtree(root / "train"), "its pictures, such as train0.jpg, are not in"),
        (lambda root: write_coco_file(root / "train.json", []), "its list of images is empty"),
    ],
)
def test_what_cannot_be_trained_is_refused(change: Callable[[Path], object], message: str, write: Write) -> None:
    root = write("coco", train=2, val=1)
    change(root)
    with pytest.raises(InputError, match=message):
        prepared(root)


def test_pictures_of_the_same_names_are_those_of_the_split(write: Write) -> None:
    """In COCO's own layout."""
    root = write("coco", train=0, val=0)
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / f"{split}.json").unlink()
        shutil.rmtree(root / split)
        files = pictures(root / f"{split}2017", ["a", "b"])
        write_coco_file(root / "annotations" / f"instances_{split}2017.json", files)
        (root / "annotations" / f"captions_{split}2017.json").write_text('{"images": [], "annotations": []}')
    found = prepared(root)
    for split, index in found.splits.items():
        assert {image.path.parent.name for image in index} == {f"{split}2017"}
    assert sum("captions_" in line and "instances_" in line for line in found.lines) == 2


def test_pictures_are_where_most_of_them_are(write: Write) -> None:
    root = write("coco", train=3, val=1)
    pictures(root / "images", ["train0", "train1", "train2"])
    for stem in ("train1", "train2"):
        (root / "train" / f"{stem}.jpg").unlink()
    found = prepared(root)
    assert {image.path.parent.name for image in found.splits["train"]} == {"images"}
    assert len(found.splits["train"]) == 3


def test_what_is_on_the_pictures(write: Write) -> None:
    found = survey(prepared(write("coco", train=4, val=1)).splits["train"])
    assert (found.num_images, found.num_boxes, found.names) == (4, 4, ("cat", "dog"))
    assert (found.short_side, found.aspect, found.crowded) == (48, pytest.approx(64 / 48), 1)
    assert found.small == pytest.approx(32 / 48)  # boxes of 32 x 32
