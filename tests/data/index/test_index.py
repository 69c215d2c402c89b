from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from trex2_lightning.data.annotations.cleaning import Annotated, annotate
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.coco import FORMAT as COCO
from trex2_lightning.data.formats.coco import read_coco
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.images.image_files import read_image
from trex2_lightning.data.index.reading import Index, open_index
from trex2_lightning.data.index.writing import build_index, is_current
from trex2_lightning.data.opening import open_records, read_records
from trex2_lightning.data.sampling.orientation import portrait_apart
from trex2_lightning.errors import InputError


def images(report: Report) -> Iterator[Annotated]:
    report.names[:], report.category_ids[:], report.groups[:] = ["cat", "dog", "cow"], [5, 7, 9], ["a", "b", "a"]
    box = (1, 2, 3, 4)
    yield annotate(report, "", "r/\xe9.jpg", (40, 30), [box, box, (0, 0, 9, 9)], ["dog", "dog", "a  Man"], [0, 1, 0])
    yield annotate(report, "", "b.jpg", (40, 30), [], [], judged=["cow", "dog"], image_id=77)
    yield annotate(report, "", "c.jpg", (20, 30), [box], ["A man"], area=[2.5], judged=[])


def build(folder: Path, **settings: Any) -> Index:
    report = Report()
    return build_index(folder, images(report), report, settings)


def test_gives_back_what_the_reader_gave(tmp_path: Path) -> None:
    index = build(tmp_path / "index")
    first, second, third = index
    assert list(index.names) == ["cat", "dog", "cow", "a Man"]  # declared, then as they came; case tells nothing
    assert (index.names[3], index.names[-4], index.names[1:3]) == ("a Man", "cat", ["dog", "cow"])
    assert (first.path, first.width, first.height, first.id) == (Path("r/\xe9.jpg"), 40, 30, 0)
    assert first.boxes.tolist() == [[1, 2, 3, 4], [1, 2, 3, 4], [0, 0, 9, 9]]
    assert (first.labels.tolist(), first.crowd.tolist()) == ([1, 1, 3], [False, True, False])
    assert (first.area.tolist(), first.judged) == ([4, 4, 81], None)
    assert (first.boxes.dtype, first.labels.dtype, first.crowd.dtype) == (torch.float32, torch.int64, torch.bool)
    assert (second.id, second.boxes.shape, second.labels.tolist()) == (77, (0, 4), [])
    assert second.judged is not None
    assert second.judged.tolist() == [2, 1]
    assert third.judged is not None
    assert third.judged.tolist() == []
    assert (third.area.tolist(), third.labels.tolist()) == ([2.5], [3])
    assert index.image_counts.tolist() == [0, 1, 0, 2]
    assert (len(index), index.num_boxes) == (3, 4)
    assert [record.id for record in index[1:]] == [77, 2]
    assert index[-1].path == third.path
    with pytest.raises(IndexError):
        index[3]


def test_equals_the_records_of_the_file(tiny_coco: Path, tmp_path: Path) -> None:
    report, folder = Report(), tmp_path / "index"
    build_index(folder, read_coco(tiny_coco / "train.json", ImageStore([tiny_coco / "train"]), report), report, {})
    records, expected = open_index(folder), read_records(tiny_coco / "train.json", tiny_coco / "train", COCO)
    assert records._replace(images=[], annotations=Path()) == expected._replace(images=[], annotations=Path())
    for found, image in zip(records.images, expected.images, strict=True):
        assert (found.id, found.path, found.width, found.height) == (image.id, image.path, image.width, image.height)
        for name in ("boxes", "labels", "crowd", "area"):
            assert torch.equal(getattr(found, name), getattr(image, name))


def test_a_record_is_its_own_and_columns_are_arrays(tmp_path: Path) -> None:
    index = build(tmp_path / "index")
    index[0].boxes.zero_()
    assert index[0].boxes.sum() > 0
    assert np.load(tmp_path / "index" / "labels.npy", mmap_mode="r").tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize("at_once", [1, 2, 99])
def test_portrait_images_are_found_in_the_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """Images are 40 x 30, 40 x 30 and 20 x 30."""
    monkeypatch.setattr("trex2_lightning.data.index.reading.IMAGES_AT_ONCE", at_once)
    index = build(tmp_path / "index")
    monkeypatch.setattr(Index, "__getitem__", None)  # no record is made
    assert portrait_apart(index, 1, "data.train").tolist() == [2]


def test_nameless_categories_belong_to_one_image_each(tmp_path: Path) -> None:
    report = Report()
    report.nameless = True
    boxes = [(1, 2, 3, 4)] * 3
    given = [annotate(report, "", f"{n}.jpg", (9, 9), boxes, ["1", "0", "1"]) for n in range(2)]
    index = build_index(tmp_path / "index", given, report, {})
    assert [image.labels.tolist() for image in index] == [[0, 1, 0], [2, 3, 2]]
    assert list(index.names) == []


def test_workers_by_fork_and_by_spawn_read_the_same(tmp_path: Path) -> None:
    index = build(tmp_path / "index")
    assert pickle.loads(pickle.dumps(index))[0].boxes.tolist() == index[0].boxes.tolist()
    loader = DataLoader(index, batch_size=None, num_workers=2, shuffle=False)  # type: ignore[arg-type]
    assert [image.boxes.tolist() for image in loader] == [image.boxes.tolist() for image in index]


class Interrupted(BaseException):
    pass


def test_an_interrupted_build_leaves_nothing_and_keeps_what_was(tmp_path: Path) -> None:
    def broken(report: Report) -> Iterator[Annotated]:
        yield from images(report)
        raise Interrupted

    for built in ([], ["index"]):
        with pytest.raises(Interrupted):
            build_index(tmp_path / "index", broken(Report()), Report(), {})
        assert [path.name for path in tmp_path.iterdir()] == built
        build(tmp_path / "index")
    assert len(Index(tmp_path / "index")) == 3


def test_a_killed_build_does_not_look_finished(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        report = Report()
        build_index(tmp_path / "index", (os._exit(3) for _ in range(1)), report, {})  # type: ignore[misc]
    os.waitpid(pid, 0)
    [left] = tmp_path.iterdir()
    assert left.name.endswith(".unfinished")
    with pytest.raises(InputError, match=r"no index is there; make it with trex2 prepare"):
        Index(left)


def test_is_current_until_source_settings_or_columns_change(tmp_path: Path) -> None:
    def built() -> bool:
        report = Report()
        with report.open(tmp_path / "source"):
            build_index(tmp_path / "index", images(report), report, {"split": "train"})
        return is_current(tmp_path / "index", {"split": "train"})

    assert not is_current(tmp_path / "index", {})
    (tmp_path / "source").write_text("one")
    assert built()
    assert not is_current(tmp_path / "index", {"split": "val"})
    (tmp_path / "source").write_text("other")
    assert not is_current(tmp_path / "index", {"split": "train"})
    assert built()
    (tmp_path / "source").unlink()
    assert not is_current(tmp_path / "index", {"split": "train"})
    (tmp_path / "source").write_text("other")
    assert built()
    labels = tmp_path / "index" / "labels.npy"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x7f")
    assert Index(tmp_path / "index").broken() == ["labels"]
    assert not is_current(tmp_path / "index", {"split": "train"})


@pytest.mark.parametrize("damage", ["cut", "gone", "head", "version", "json", "part", "columns"])
def test_a_broken_index_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    build(tmp_path / "index")
    column, summary = tmp_path / "index" / "boxes.npy", tmp_path / "index" / "index.json"
    if damage == "cut":
        column.write_bytes(column.read_bytes()[:-1])
    elif damage == "gone":
        column.unlink()
    elif damage == "head":
        column.write_bytes(b"x" * column.stat().st_size)
    elif damage == "version":
        summary.write_text(json.dumps(json.loads(summary.read_text()) | {"version": 0}))
    elif damage == "part":
        summary.write_text('{"version": 1}')
    elif damage == "columns":
        summary.write_text(json.dumps(json.loads(summary.read_text()) | {"columns": {"boxes": 3}}))
    else:
        summary.write_text("{")
    with pytest.raises(InputError, match=r"prepare the data set again$"):
        Index(tmp_path / "index")


def test_an_index_is_not_written_over_something_else_nor_without_images(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="is there and is no index"):
        build(tmp_path / "photos")
    report = Report()
    report.count("image file missing", "x", 3)
    with pytest.raises(InputError, match=r"no image could be used \(3 x image file missing\)"):
        build_index(tmp_path / "index", [], report, {})
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.fixture
def prepared_with_pictures(tmp_path: Path) -> Path:
    return prepare_with_pictures(tmp_path / "here")


def prepare_with_pictures(root: Path) -> Path:
    """A folder with `indexes/train`, and its pictures in `photos/train` and `photos/more.zip`."""
    (root / "photos" / "train" / "deep").mkdir(parents=True)
    Image.new("RGB", (4, 3)).save(root / "photos" / "train" / "deep" / "a.png")
    with zipfile.ZipFile(root / "photos" / "more.zip", "w") as archive:
        archive.write(root / "photos" / "train" / "deep" / "a.png", "b.png")
    store, report = ImageStore([root / "photos" / "train", root / "photos" / "more.zip"]), Report()
    read = [annotate(report, "", str(store.find(name)), (4, 3), [(0, 0, 2, 2)], ["dog"]) for name in PICTURES]
    build_index(root / "indexes" / "train", read, report, {})
    return root


PICTURES = ("deep/a.png", "b.png")


def are_read(images: Index) -> bool:
    return all(read_image(image.path, (3, 4)) for image in images)


def test_an_index_is_moved_with_its_pictures(prepared_with_pictures: Path, tmp_path: Path) -> None:
    prepared_with_pictures.rename(tmp_path / "there")
    index = Index(tmp_path / "there" / "indexes" / "train")
    assert [image.path.is_relative_to(tmp_path / "there" / "photos") for image in index] == [True, True]
    assert are_read(index)
    assert [image.path for image in pickle.loads(pickle.dumps(index))] == [image.path for image in index]


def test_an_index_is_moved_without_its_pictures(prepared_with_pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()  # where they would be, seen from the index
    (prepared_with_pictures / "indexes").rename(tmp_path / "indexes")
    assert are_read(Index(tmp_path / "indexes" / "train"))


def test_pictures_that_moved_alone_are_in_the_given_folder(prepared_with_pictures: Path, tmp_path: Path) -> None:
    (prepared_with_pictures / "photos").rename(tmp_path / "elsewhere")
    folder = prepared_with_pictures / "indexes" / "train"
    records = open_records(folder, tmp_path / "elsewhere", COCO)
    assert [read_image(image.path).size for image in records.images] == [(4, 3)] * 2
    lost = Index(folder)[0].path  # is told as it was
    assert lost == prepared_with_pictures / "photos" / "train" / "deep" / "a.png"


def test_an_index_that_does_not_say_where_its_pictures_are_has_their_old_paths(prepared_with_pictures: Path) -> None:
    summary = prepared_with_pictures / "indexes" / "train" / "index.json"
    content = json.loads(summary.read_text())
    del content["root"], content["root_from_index"]
    summary.write_text(json.dumps(content))
    assert are_read(Index(summary.parent))


def test_an_index_on_another_drive_than_its_pictures_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Windows, where no way leads from one to the other."""

    def refuse(*_: object) -> None:
        raise ValueError("path is on mount 'C:', start on mount 'D:'")

    monkeypatch.setattr(os.path, "relpath", refuse)
    assert are_read(Index(prepare_with_pictures(tmp_path / "index apart") / "indexes" / "train"))
    monkeypatch.setattr(os.path, "commonpath", refuse)
    index = Index(prepare_with_pictures(tmp_path / "pictures apart") / "indexes" / "train")
    assert "root" not in index.summary
    assert are_read(index)
