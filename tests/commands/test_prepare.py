from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from trex2_lightning.commands.prepare import FORMATS, _parser
from trex2_lightning.commands.prepare import main as prepare_data
from trex2_lightning.config import DataConfig, RhythmConfig, SetConfig
from trex2_lightning.data.images.transforms import read_image
from trex2_lightning.data.index.reading import open_index
from trex2_lightning.data.sampling.mixture import read_mixture
from trex2_lightning.errors import InputError

ROOT = Path(__file__).parents[2]


def test_prepares_once_and_again_when_the_file_changed(tiny_coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations, output = tiny_coco / "train.json", tiny_coco / "index"
    arguments = ["coco", str(annotations), str(tiny_coco / "train"), str(output)]
    prepare_data(arguments)
    assert len(open_index(output).images) == 6
    assert f"written to {output}" in capsys.readouterr().out
    prepare_data(arguments)
    assert "up to date" in capsys.readouterr().out
    content = json.loads(annotations.read_text())
    content["images"][0]["file_name"] = "gone.jpg"
    annotations.write_text(json.dumps(content))
    prepare_data(arguments)
    assert len(open_index(output).images) == 5
    assert "image file missing" in capsys.readouterr().out


def test_an_index_that_lacks_images_is_made_anew_when_they_may_be_there(
    tiny_coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, away = next((tiny_coco / "train").iterdir()), tiny_coco / "away"
    arguments = ["coco", str(tiny_coco / "train.json"), str(tiny_coco / "train"), str(tiny_coco / "index")]
    image.rename(away)
    prepare_data(arguments)
    away.rename(image)
    prepare_data(arguments)
    assert "up to date" not in capsys.readouterr().out
    assert len(open_index(tiny_coco / "index").images) == 6


def test_an_archive_that_is_packed_anew_is_read_anew(tiny_coco: Path) -> None:
    archive = tiny_coco / "images.zip"
    arguments = ["coco", str(tiny_coco / "train.json"), str(archive), str(tiny_coco / "index")]
    images = sorted((tiny_coco / "train").iterdir())
    for order in (images, images[::-1]):
        with zipfile.ZipFile(archive, "w") as content:
            for image in order:
                content.write(image, image.name)
        prepare_data(arguments)
        record = open_index(tiny_coco / "index").images[0]
        assert read_image(record.path, (record.height, record.width))


BOX = {"bbox": [1, 2, 3, 4], "iscrowd": 0, "area": 12, "id": 1, "image_id": 1, "category_id": 1}
SIZED = {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}
DOGS = [{"id": 1, "name": "dog"}]
COCO = {"images": [SIZED], "annotations": [BOX], "categories": DOGS}
FEDERATED = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
CAPTION = {"caption": "a dog", "tokens_negative": [[0, 5]]}
INSTANCE = {"bbox": [1, 2, 4, 6], "label": 1}
ODVG = {"filename": "a.jpg", "width": 40, "height": 30, "detection": {"instances": [INSTANCE]}}
WORD = {"vertices": [[1, 2], [4, 2], [4, 6], [1, 6]], "legible": True}
PAGE = {"image_id": "a", "image_width": 40, "image_height": 30, "paragraphs": [{"lines": [{"words": [WORD]}]}]}
PERSON = {"tag": "person", "vbox": [1, 2, 3, 4], "fbox": [9, 2, 3, 4], "hbox": [1, 2, 3, 1]}
VOC = (
    "<annotation><filename>a.jpg</filename><object><name>dog</name>"
    "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>4</xmax><ymax>6</ymax></bndbox></object></annotation>"
)
SHARES = "0.025,0.1,0.0667,0.2"
CSV = f"ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,/m/d,{SHARES},0\n"
# Files to write; arguments before the place of the images, and options; the one category.
SOURCES: dict[str, tuple[dict[str, Any], list[str], list[str], list[str]]] = {
    "coco": ({"a.json": COCO}, ["a.json"], [], ["dog"]),
    "lvis": ({"a.json": COCO | {"images": [SIZED | FEDERATED]}}, ["a.json"], [], ["dog"]),
    "objects365": ({"a.json": COCO | {"images": [SIZED | {"file_name": "x/y/a.jpg"}]}}, ["a.json"], [], ["dog"]),
    "openimages": (
        {
            "boxes.csv": CSV,
            "names.csv": "LabelName,DisplayName\n/m/d,dog\n/m/c,cat\n",
            "labels.csv": "ImageID,Source,LabelName,Confidence\na,verification,/m/c,0\n",
            "kinds.json": {"LabelName": "/m/e", "Subcategory": [{"LabelName": "/m/d"}]},
        },
        ["boxes.csv", "names.csv"],
        ["--labels", "labels.csv", "--hierarchy", "kinds.json"],
        ["dog", "cat"],
    ),
    "goldg": (
        {"a.json": {"images": [SIZED | CAPTION], "annotations": [BOX | {"tokens_positive": [[2, 5]]}]}},
        ["a.json"],
        [],
        ["dog"],
    ),
    "odvg": ({"a.jsonl": ODVG, "map.json": {"1": "dog"}}, ["a.jsonl"], ["--label-map", "map.json"], ["dog"]),
    "crowdhuman": ({"a.odgt": {"ID": "a", "gtboxes": [PERSON]}}, ["a.odgt"], ["--part", "visible"], ["person"]),
    "hiertext": ({"a.jsonl": {"annotations": [PAGE]}}, ["a.jsonl"], ["--level", "word"], ["word"]),
    "sa1b": (
        {"labels/a.json": {"image": SIZED, "annotations": [BOX | {"category": "x"}]}},
        ["labels"],
        ["--more-than", "0"],
        [],
    ),
    "voc": ({"xml/a.xml": VOC, "train.txt": "a\n"}, ["xml"], ["--split", "train.txt"], ["dog"]),
    "yolo": (
        {"data.yaml": "train: images\nnames: [dog]\n", "labels/a.txt": "0 0.0625 .1333 .075 .1333"},
        ["data.yaml"],
        ["--split", "train"],
        ["dog"],
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_becomes_the_same_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    files, arguments, options, names = SOURCES[name]
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Image.new("RGB", (40, 30)).save("images/a.jpg")
    for file, content in files.items():
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text(content if isinstance(content, str) else json.dumps(content))
    images = ["images"] if FORMATS[name].has_images else []
    command = [name, *arguments, *images, "index", *options]
    prepare_data(command)
    printed = capsys.readouterr().out
    assert re.search(r"images\W+1\b", printed)
    assert re.search(r"boxes\W+1\b", printed)
    records = open_index(Path("index"))
    [image] = records.images
    assert list(records.names) == names
    assert image.path == (tmp_path / "images" / "a.jpg")
    assert (image.boxes - torch.tensor([[1, 2, 4, 6]])).abs().max() < 0.01
    prepare_data(command)
    assert "up to date" in capsys.readouterr().out


def test_the_summary_tells_what_was_left_out_and_where_first(
    tiny_coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((tiny_coco / "train.json").read_text())
    for item in content["annotations"][:2]:
        item["bbox"] = [3, 3, 0, 0]
    (tiny_coco / "train.json").write_text(json.dumps(content))
    prepare_data(["coco", str(tiny_coco / "train.json"), str(tiny_coco / "train"), str(tiny_coco / "index")])
    [row] = [line for line in capsys.readouterr().out.splitlines() if "box without area" in line]
    assert "2" in row
    assert f"image {content['annotations'][0]['image_id']}" in row


def test_a_place_that_cannot_be_written_to_is_told_in_one_line(tiny_coco: Path) -> None:
    place = tiny_coco / "train.json" / "index"
    with pytest.raises(InputError, match=r"was not written .*; make room, or give another place"):
        prepare_data(["coco", str(tiny_coco / "train.json"), str(tiny_coco / "train"), str(place)])


def test_names_of_files_may_be_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    image = tmp_path / "images" / os.fsdecode(b"a\xff.jpg")
    Image.new("RGB", (40, 30)).save(image)
    (tmp_path / "data.yaml").write_text("train: images\nnames: [dog]\n")
    prepare_data(["yolo", str(tmp_path / "data.yaml"), str(tmp_path / "index")])
    [record] = open_index(tmp_path / "index").images
    assert record.path == image


@pytest.mark.parametrize("name", FORMATS)
def test_the_command_that_is_named_where_a_set_is_missing_is_one(tmp_path: Path, name: str) -> None:
    sets = {"a": SetConfig("a", text=1, format=name)}
    with pytest.raises(InputError) as caught:
        read_mixture(DataConfig(root=str(tmp_path), sets=sets), RhythmConfig())
    [command] = re.findall(r"prepare_data\.py (.*)", str(caught.value))
    assert _parser("prepare_data.py").parse_args(command.split()).output == tmp_path / "a"


def test_what_no_terminal_prints_is_told_in_another_way(tmp_path: Path, tiny_coco: Path) -> None:
    content = json.loads((tiny_coco / "train.json").read_text())
    content["images"][0]["file_name"] = "\ud800.jpg"
    (tiny_coco / "train.json").write_text(json.dumps(content))
    script = [sys.executable, str(ROOT / "scripts" / "prepare_data.py"), "coco"]
    places = [str(tiny_coco / "train.json"), str(tiny_coco / "train"), str(tmp_path / "index")]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([*script, *places], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\ud800.jpg" in done.stdout


def test_several_places_of_images_and_a_folder_of_roboflow(tiny_coco: Path) -> None:
    (tiny_coco / "val.json").rename(tiny_coco / "val" / "_annotations.coco.json")
    places = [str(tiny_coco / "test"), str(tiny_coco / "val")]
    prepare_data(["coco", str(tiny_coco / "val"), *places, str(tiny_coco / "index")])
    assert len(open_index(tiny_coco / "index").images) == 3


def test_the_script_ends_with_one_line_and_status_2(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "prepare_data.py")]
    done = subprocess.run([*script, "coco", "gone.json", str(tmp_path), str(tmp_path / "x")], capture_output=True)
    assert done.returncode == 2
    assert b"gone.json: cannot be read" in done.stdout
    assert b"Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        prepare_data([name, "--help"])
    assert "folder to write the index to" in capsys.readouterr().out


def test_missing_images_are_refused(tiny_coco: Path) -> None:
    with pytest.raises(InputError, match="give a folder, a zip file"):
        prepare_data(["coco", str(tiny_coco / "train.json"), str(tiny_coco / "gone"), str(tiny_coco / "index")])
