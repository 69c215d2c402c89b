from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trex2_lightning.data.index import open_index
from trex2_lightning.errors import InputError
from trex2_lightning.prepare import FORMATS, prepare_data

ROOT = Path(__file__).parents[1]


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
