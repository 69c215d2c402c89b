"""The prediction command: prompts of all sources, and what it says of wrong ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trex2_lightning.commands.evaluate import main as evaluate_command
from trex2_lightning.commands.predict import main as predict_command
from trex2_lightning.config import Config
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.structures import Box, Point
from trex2_lightning.training.build import build_module

Command = Callable[[list[str]], None]
ROOT = Path(__file__).parents[2]


def test_predict_writes_a_picture_and_its_values(
    call: Callable[..., None], checkpoint: Path, tiny_coco: Path, tmp_path: Path
) -> None:
    image = tiny_coco / "test" / "1.jpg"
    phrases = ["--text", "red block", "--text", "a green block"]
    call(predict_command, image, *phrases, "--ckpt", checkpoint, "--threshold", 0, "--output", tmp_path / "out")
    content = json.loads((tmp_path / "out" / "1.json").read_text())
    assert {detection["name"] for detection in content["detections"]} == {"red block", "a green block"}
    assert "present" not in content
    assert (tmp_path / "out" / "1.png").is_file()


def test_predict_prints_json_alone_for_pipes(
    call: Callable[..., None],
    checkpoint: Path,
    tiny_coco: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    common = [tiny_coco / "test" / "1.jpg", "--model", checkpoint, "--text", ":smile: [red]", "--threshold", 0]
    capsys.readouterr()
    call(predict_command, *common, "--json")
    printed = capsys.readouterr()
    assert not Path("runs/predict").exists()
    assert printed.err.splitlines()[-1] == "20 detections"
    call(predict_command, *common, "--json", "--output", "out")
    assert capsys.readouterr().out == printed.out == Path("out/1.json").read_text()
    assert json.loads(printed.out)["detections"][0]["name"] == ":smile: [red]"


def test_predict_tells_the_best_score_where_nothing_is_found(
    call: Callable[..., None], checkpoint: Path, tiny_coco: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    common = [tiny_coco / "test" / "1.jpg", "--ckpt", checkpoint.parent.parent, "--text", "red block"]
    call(predict_command, *common, "--threshold", 0, "--output", tmp_path / "all")
    best = json.loads((tmp_path / "all" / "1.json").read_text())["detections"][0]
    assert "nothing is above" not in caplog.text
    call(predict_command, *common, "--threshold", 0.999, "--output", tmp_path / "none")
    assert json.loads((tmp_path / "none" / "1.json").read_text())["detections"] == []
    told = f"nothing is above the threshold; the best score is {best['score']:.3g}, of 'red block'"
    assert [record.getMessage().startswith(told) for record in caplog.records] == [True]


def test_predict_says_what_is_present_where_the_checkpoint_does(
    call: Callable[..., None], tiny_config: Callable[..., Config], tiny_coco: Path, tmp_path: Path
) -> None:
    module = build_module(tiny_config("model.presence=true"))
    content: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(content)
    torch.save(content, tmp_path / "last.ckpt")
    phrases = ["--text", "red block", "--text", "a green block"]
    call(
        predict_command,
        tiny_coco / "test" / "1.jpg",
        *phrases,
        "--ckpt",
        tmp_path / "last.ckpt",
        "--output",
        tmp_path / "a",
    )
    present = json.loads((tmp_path / "a" / "1.json").read_text())["present"]
    assert list(present) == ["red block", "a green block"]
    assert all(0 < probability < 1 for probability in present.values())


def test_predict_with_prompts_of_all_sources(
    call: Callable[..., None], visual_checkpoint: Path, tiny_coco: Path, tmp_path: Path
) -> None:
    image, other, file = tiny_coco / "test" / "1.jpg", tiny_coco / "test" / "2.jpg", tmp_path / "all.safetensors"
    prompts = ["--text", "red block", "--box", "cell=5,6,30,40", "--box", "cell = 20,10,45,30", "--point", "dot=12,30"]
    prompts += ["--reference", f"red block={other}:1,1,20,20", "--reference", f"red block={image}:5,6,30,40"]
    prompts += ["--reference", f"spot={other}:7,8", "--negative", "cell", "--mix", "mean"]
    common = [image, "--ckpt", visual_checkpoint, "--threshold", 0]
    call(predict_command, *common, *prompts, "--save-prompts", file, "--output", tmp_path / "a")
    call(predict_command, *common, "--prompts", file, "--negative", "cell", "--output", tmp_path / "b")
    detections = json.loads((tmp_path / "a" / "1.json").read_text())["detections"]
    assert {detection["name"] for detection in detections} == {"red block", "dot", "spot"}
    assert detections == json.loads((tmp_path / "b" / "1.json").read_text())["detections"]

    predictor = Predictor.from_pretrained(visual_checkpoint)
    saved = predictor.load(file)
    expected = predictor.mixed(
        ("red block",),
        [
            (other, {"red block": [Box(1, 1, 20, 20)], "spot": [Point(7, 8)]}),
            (image, {"red block": [Box(5, 6, 30, 40)]}),
            (image, {"cell": [Box(5, 6, 30, 40), Box(20, 10, 45, 30)], "dot": [Point(12, 30)]}),
        ],
        "mean",
    )
    assert dict(zip(saved.names, saved.sources, strict=True)) == {
        "red block": "mixed", "spot": "generic", "cell": "generic", "dot": "generic"
    }  # fmt: skip
    assert (saved.names, saved.sources) == (expected.names, expected.sources)
    assert torch.equal(saved.vectors, expected.vectors)


@pytest.mark.ci
def test_prompts_of_one_process_find_the_same_in_another(
    visual_checkpoint: Path, tiny_coco: Path, tmp_path: Path
) -> None:
    image, file = tiny_coco / "test" / "1.jpg", tmp_path / "set.safetensors"
    made = ["--text", "red block", "--reference", f"cell={tiny_coco / 'test' / '2.jpg'}:1,1,20,20"]
    found = []
    for prompts in ([*made, "--save-prompts", str(file)], ["--prompts", str(file)]):
        script = [sys.executable, str(ROOT / "scripts" / "predict.py"), str(image), "--ckpt", str(visual_checkpoint)]
        subprocess.run([*script, *prompts, "--threshold", "0", "--output", str(tmp_path / "out")], check=True)
        found.append((tmp_path / "out" / "1.json").read_text())
    assert found[0] == found[1]
    assert '"name": "cell"' in found[0]


# Wrong input


@pytest.mark.parametrize("command", [evaluate_command, predict_command])
def test_a_file_that_is_no_checkpoint(
    error_line: Callable[..., str], tmp_path: Path, tiny_coco: Path, command: Command
) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"hello world")
    image = [tiny_coco / "test" / "1.jpg", "--text", "x"] if command is predict_command else []
    assert "x.ckpt is not a checkpoint" in error_line(command, *image, "--ckpt", tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        (["red block", ""], "a phrase is empty"),
        (["word " * 30], "has 32 tokens, start and end included, but the text encoder reads 16: shorten it"),
        (["red block", "red block"], "the phrase 'red block' is given twice"),
    ],
)
def test_wrong_phrases(
    error_line: Callable[..., str], checkpoint: Path, tiny_coco: Path, phrases: list[str], message: str
) -> None:
    image = tiny_coco / "test" / "1.jpg"
    texts = [word for phrase in phrases for word in ("--text", phrase)]
    assert message in error_line(predict_command, image, *texts, "--ckpt", checkpoint)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "there is nothing to look for: give a phrase, a box, a point or a prompt file"),
        (["--box", "cell=1,2,3"], "--box cell=1,2,3: write --box NAME=X1,Y1,X2,Y2, in pixels"),
        (["--box", "1,2,3,4"], "--box 1,2,3,4: write --box NAME=X1,Y1,X2,Y2, in pixels"),
        (["--box", "cell=1,2,3,x"], "--box cell=1,2,3,x: write --box NAME="),
        (["--box", "cell=1,2"], "--box cell=1,2: write --box NAME="),
        (["--point", "cell=1,2,3,4"], "--point cell=1,2,3,4: write --point NAME=X,Y, in pixels"),
        (["--reference", "cell=1,2,3,4"], "write --reference NAME=FILE:X1,Y1,X2,Y2, in pixels"),
        (["--reference", "cell=gone.jpg:1,2,3,4"], "gone.jpg: no such image file"),
        (["--box", "cell=1,2,3,4", "--point", "cell=1,2"], "'cell' has a box and a point"),
        (["--box", "cell=1,2,3,4000"], "1,2,3,4000 of 'cell' is no box in its image of "),
        (["--prompts", "gone.safetensors"], "no prompt file gone.safetensors"),
        (["--text", "cell", "--negative", "ring"], "the negative 'ring' is none of the categories cell"),
    ],
)
def test_wrong_prompts(
    error_line: Callable[..., str], visual_checkpoint: Path, tiny_coco: Path, prompts: list[str], message: str
) -> None:
    image = tiny_coco / "test" / "1.jpg"
    assert message in error_line(predict_command, image, *prompts, "--ckpt", visual_checkpoint)


def test_an_unreadable_image_to_predict(error_line: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("no picture")
    """Before it reads the checkpoint."""
    for name, told in (("x.jpg", "cannot be read"), ("gone.jpg", "no such image file")):
        message = error_line(predict_command, tmp_path / name, "--text", "x", "--ckpt", "gone.ckpt")
        assert message.startswith(f"{tmp_path / name}: {told}")


def test_predict_does_not_replace_a_photograph(error_line: Callable[..., str], tiny_coco: Path, tmp_path: Path) -> None:
    """It says so before it reads the checkpoint."""
    folder = tiny_coco / "test"
    common = ["--text", "x", "--ckpt", "gone.ckpt", "--output", folder]
    assert "give another folder by --output" in error_line(predict_command, folder / "1.jpg", *common)
    reference = ["--reference", f"x={folder / '1.jpg'}:1,2,3,4"]
    assert "give another folder by --output" in error_line(predict_command, tmp_path / "1.jpg", *reference, *common)


def test_text_is_refined_by_what_it_finds_in_the_image(
    call: Callable[..., None],
    checkpoint: Path,
    visual_checkpoint: Path,
    tiny_coco: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "refined.safetensors"
    common = [tiny_coco / "test" / "1.jpg", "--text", "red block", "--output", tmp_path / "out", "--refine"]
    call(predict_command, *common, "--model", visual_checkpoint, "--refine-score", 0, "--save-prompts", file)
    assert Predictor.from_pretrained(visual_checkpoint).load(file).sources == ("mixed",)
    for wrong, told in (
        (["--model", checkpoint], "trained with text alone, so what text finds cannot prompt it"),
        (["--model", visual_checkpoint, "--refine-boxes", 0], "--refine-boxes 0: write a whole number from 1 on"),
    ):
        with pytest.raises(SystemExit):
            call(predict_command, *common, *wrong)
        assert told in capsys.readouterr().err
