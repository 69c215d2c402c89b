"""No annotation file leads to what lies outside of the folder of its images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

import pytest
from PIL import Image
from test_every_format import INDEXED, sample

from trex2_lightning.commands.prepare import main as prepare_data
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats import every_format
from trex2_lightning.data.formats.voc import read_voc
from trex2_lightning.data.formats.yolo import read_yolo
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.images.file_names import stays_inside
from trex2_lightning.errors import InputError

# How a file says the name of its image; the others have it by its stem.
NAMED = {"coco", "fsdet", "goldg", "lvis", "objects365", "odvg", "roboflow", "sa1b"}


@pytest.mark.parametrize("name", sorted(NAMED & {*INDEXED}))
@pytest.mark.parametrize("way", ["../secret/a.jpg", "b/../../secret/a.jpg", "{root}/secret/a.jpg", r"..\secret\a.jpg"])
def test_no_name_leads_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str) -> None:
    files, arguments, options, _ = sample(name)
    monkeypatch.chdir(tmp_path)
    for place in ("images/b.jpg", "secret/a.jpg"):
        Path(place).parent.mkdir()
        Image.new("RGB", (40, 30)).save(place)
    told = json.dumps(way.format(root=tmp_path))[1:-1]
    for file, content in files.items():
        Path(file).parent.mkdir(exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        Path(file).write_text(text.replace("a.jpg", told))
    with pytest.raises(InputError, match=r"no image could be used \(.*image file (missing|outside its folder)"):
        prepare_data([name, *arguments, "images", "index", *options])
    assert not Path("index").exists()


def test_stems_lead_nowhere_either(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    (tmp_path / "secret").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "secret" / "a.jpg")
    store = ImageStore([pictures("b.jpg")])
    for name in ("../secret/a.jpg", str(tmp_path / "secret" / "a.jpg")):
        assert store.find(name) is None
        assert ImageStore([tmp_path / "pictures"], look=False).find(name) is None


def test_a_drive_leads_out_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere `c:a.jpg` is a name as any other."""
    assert stays_inside("c:a.jpg")
    assert not stays_inside("c:/a.jpg")
    monkeypatch.setattr("trex2_lightning.data.images.file_names.PurePath", PureWindowsPath)
    assert not stays_inside("c:a.jpg")
    assert stays_inside("c/a.jpg")


def test_a_link_within_the_folder_is_its_owners(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.new("RGB", (40, 30)).save(elsewhere / "a.jpg")
    folder = pictures("b.jpg")
    (folder / "a.jpg").symlink_to(elsewhere / "a.jpg")
    assert ImageStore([folder]).find("a.jpg") == str(folder / "a.jpg")


def test_a_list_of_yolo_stays_below_its_root(tmp_path: Path) -> None:
    for place in ("set/images/a.jpg", "secret/images/b.jpg"):
        (tmp_path / place).parent.mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(tmp_path / place)
    for place in ("set/labels", "secret/labels"):
        (tmp_path / place).mkdir()
    (tmp_path / "set/labels/a.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "secret/labels/b.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "set/data.yaml").write_text("train: train.txt\nnames: [dog]\n")
    inside = f"images/a.jpg\n./images/../images/a.jpg\n{tmp_path}/set/images/a.jpg\n"
    (tmp_path / "set/train.txt").write_text(f"{inside}../secret/images/b.jpg\n{tmp_path}/secret/images/b.jpg\n")
    report = Report()
    images = [*read_yolo(tmp_path / "set/data.yaml", report)]
    assert {Path(image.path).name for image in images} == {"a.jpg"}
    assert report.counts["image file outside its folder"] == 2


def test_a_split_of_voc_stays_in_its_folder(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "secret.xml").write_text("<annotation><filename>b.jpg</filename></annotation>")
    (tmp_path / "set/a.xml").write_text("<annotation><filename>a.jpg</filename></annotation>")
    (tmp_path / "train.txt").write_text(f"a\n../secret\n{tmp_path}/secret\n")
    report, store = Report(), ImageStore([pictures("a.jpg", "b.jpg")])
    images = [*read_voc(tmp_path / "set", store, report, tmp_path / "train.txt")]
    assert [Path(image.path).name for image in images] == ["a.jpg"]
    assert report.counts["annotation file outside its folder"] == 2


def test_every_format_is_one_of_these() -> None:
    by_stem = {"crowdhuman", "hiertext", "label_studio", "openimages", "voc", "yolo", "fsc147", "fscd_lvis"}
    assert NAMED | by_stem == every_format().keys()
