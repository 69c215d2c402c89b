"""The tuning command: its prompts load elsewhere, and it reads every format."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trex2_lightning.commands.predict import main as predict_command
from trex2_lightning.commands.prepare import main as prepare_data
from trex2_lightning.commands.tune import main as tune_prompts_command


def test_tuned_prompts_load_in_predict(
    call: Callable[..., None],
    visual_checkpoint: Path,
    tiny_coco: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, data = tmp_path / "tuned.safetensors", ["--data", tiny_coco / "val.json", "--images", tiny_coco / "val"]
    names = ["--category", "blue block", "--category", "red block"]
    common = ["--ckpt", visual_checkpoint, *data, *names, "--output", file]
    call(tune_prompts_command, *common, "--start", "text", "--steps", 2, "--lr", 0.1)
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1] == "2 of 2 steps"
    before, after = map(float, re.findall(r"([\d.]+) (?:before|after)", printed.out))
    assert after < before
    image = tiny_coco / "test" / "1.jpg"
    common = ["--ckpt", visual_checkpoint, "--threshold", 0, "--output", tmp_path]
    call(predict_command, image, *common, "--prompts", file)
    assert {d["name"] for d in json.loads((tmp_path / "1.json").read_text())["detections"]} == {
        "blue block",
        "red block",
    }


def test_prompts_are_tuned_on_an_index_of_any_format(
    call: Callable[..., None],
    error_line: Callable[..., str],
    checkpoint: Path,
    tiny_coco: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As on the COCO file that the index was made of; from the names, as the checkpoint knows no boxes."""
    (tmp_path / "yolo" / "images").mkdir(parents=True)
    (tmp_path / "yolo" / "labels").mkdir()
    content = json.loads((tiny_coco / "val.json").read_text())
    names = [category["name"] for category in content["categories"]]
    for image in content["images"]:
        lines = []
        for item in (item for item in content["annotations"] if item["image_id"] == image["id"]):
            x, y, width, height = item["bbox"]
            shares = ((x + width / 2) / image["width"], (y + height / 2) / image["height"])
            shares += (width / image["width"], height / image["height"])
            lines.append(" ".join(map(str, (item["category_id"] - 1, *shares))))
        shutil.copy(tiny_coco / "val" / image["file_name"], tmp_path / "yolo" / "images")
        (tmp_path / "yolo" / "labels" / f"{Path(image['file_name']).stem}.txt").write_text("\n".join(lines))
    (tmp_path / "yolo" / "data.yaml").write_text(f"val: images\nnames: {names}\n")
    prepare_data(["yolo", str(tmp_path / "yolo" / "data.yaml"), str(tmp_path / "index"), "--split", "val"])
    wanted = ["--category", "blue block", "--category", "red block", "--steps", 1]
    common = ["--ckpt", checkpoint, *wanted, "--output", tmp_path / "x.safetensors"]
    printed = []
    for data in (["--data", tmp_path / "index"], ["--data", tiny_coco / "val.json", "--images", tiny_coco / "val"]):
        capsys.readouterr()
        call(tune_prompts_command, *common, *data, "--start", "text")
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "loss on 3 images" in printed[0]
    assert "trained with text alone" in (
        message := error_line(tune_prompts_command, *common, "--data", tmp_path / "index")
    )
    assert "add --start text" in message
    message = error_line(tune_prompts_command, *common, "--data", tiny_coco / "val.json", "--start", "text")
    assert message.endswith("val.json does not say where its images are: add --images FOLDER")
    message = error_line(tune_prompts_command, *common, "--data", tmp_path / "gone", "--start", "text")
    assert "gone: no index is there" in message
