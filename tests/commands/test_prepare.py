from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from trex2_lightning.commands.prepare import main as prepare_data
from trex2_lightning.data.images.image_files import read_image
from trex2_lightning.data.index.reading import open_index
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


def test_an_index_without_a_box_to_use_is_written_and_refused(
    tiny_coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((tiny_coco / "train.json").read_text())
    crowds = [item | {"iscrowd": 1} for item in content["annotations"]]
    (tiny_coco / "train.json").write_text(json.dumps(content | {"annotations": crowds}))
    with pytest.raises(InputError, match=rf"none of its 6 images has a box to use: {len(crowds)} are crowds"):
        prepare_data(["coco", str(tiny_coco / "train.json"), str(tiny_coco / "train"), str(tiny_coco / "index")])
    assert "written to" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_to_is_told_in_one_line(tiny_coco: Path) -> None:
    place = tiny_coco / "train.json" / "index"
    with pytest.raises(InputError, match=r"was not written .*; make room, or give another place"):
        prepare_data(["coco", str(tiny_coco / "train.json"), str(tiny_coco / "train"), str(place)])


def test_names_of_files_may_be_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    image = tmp_path / "images" / os.fsdecode(b"a\xff.jpg")
    Image.new("RGB", (40, 30)).save(image)
    (tmp_path / "labels" / os.fsdecode(b"a\xff.txt")).write_text("0 .5 .5 .5 .5")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [dog]\n")
    prepare_data(["yolo", str(tmp_path / "data.yaml"), str(tmp_path / "index")])
    [record] = open_index(tmp_path / "index").images
    assert record.path == image


def test_what_no_terminal_prints_is_told_in_another_way(tmp_path: Path, tiny_coco: Path) -> None:
    content = json.loads((tiny_coco / "train.json").read_text())
    content["images"][0]["file_name"] = "\ud800.jpg"
    (tiny_coco / "train.json").write_text(json.dumps(content))
    script = [sys.executable, str(ROOT / "scripts" / "prepare_data.py"), "coco"]
    places = [str(tiny_coco / "train.json"), str(tiny_coco / "train"), str(tmp_path / "index")]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([*script, *places], capture_output=True, env=environment)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
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
    assert b"gone.json: cannot be read" in done.stderr
    assert b"Traceback" not in done.stdout + done.stderr


def test_missing_images_are_refused(tiny_coco: Path) -> None:
    with pytest.raises(InputError, match="give a folder, a zip file"):
        prepare_data(["coco", str(tiny_coco / "train.json"), str(tiny_coco / "gone"), str(tiny_coco / "index")])
