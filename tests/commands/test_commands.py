"""The commands: what they write, and that wrong input ends them with status 2 and one readable line."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from trex2_lightning.commands.evaluate import main as evaluate_command
from trex2_lightning.commands.predict import main as predict_command
from trex2_lightning.commands.prepare import main as prepare_data
from trex2_lightning.commands.terminal import command, console
from trex2_lightning.commands.train import main as train_command
from trex2_lightning.commands.tune import main as tune_prompts_command
from trex2_lightning.config import Config, save
from trex2_lightning.evaluation.history import read_json
from trex2_lightning.evaluation.tables import ap_table
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.structures import Box, Point
from trex2_lightning.training.fit import train

TinyConfig = Callable[..., Config]
Command = Callable[[list[str]], None]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """A command sets them for its process."""
    loggers = [logging.getLogger(), logging.getLogger("trex2_lightning")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def experiment(tiny_config: TinyConfig, tmp_path: Path) -> Path:
    save(tiny_config("train.max_steps=1"), tmp_path / "experiment.yaml")
    return tmp_path / "experiment.yaml"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`call(command, argument, ...)` as the shell would."""

    def calling(main: Command, *arguments: Any) -> None:
        monkeypatch.setattr("sys.argv", ["script.py", *map(str, arguments)])
        command(main)

    return calling


@pytest.fixture
def error_line(call: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line that a command fails with."""

    def failing(main: Command, *arguments: Any) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            call(main, *arguments)
        printed = capsys.readouterr()
        assert end.value.code == 2
        assert "Traceback" not in printed.out + printed.err
        lines = [line for line in printed.out.splitlines() if line.strip() and "━" not in line]
        assert lines[-1].startswith("error: "), lines
        assert sum(line.startswith("error: ") for line in lines) == 1
        return lines[-1].removeprefix("error: ")

    return failing


# Commands


def test_train_takes_overrides_before_and_after_options(
    call: Callable[..., None], experiment: Path, tmp_path: Path
) -> None:
    call(train_command, experiment, "name=first", "seed=3")
    assert "seed: 3" in (tmp_path / "runs" / "first" / "config.yaml").read_text()
    call(train_command, experiment, "--resume", "name=first", "seed=3")


def test_evaluate_writes_figures_and_results(
    call: Callable[..., None], checkpoint: Path, tiny_coco: Path, tmp_path: Path
) -> None:
    moved = tiny_coco.rename(tmp_path / "moved")
    call(evaluate_command, "--ckpt", checkpoint, f"data.root={moved}", "--split", "val", "eval.batch_size=1")
    folder = checkpoint.parent.parent / "eval" / "val"
    summary = json.loads((folder / "evaluation.json").read_text())
    assert (summary["split"], summary["ground_truth"]) == ("val", str(moved / "val.json"))
    assert summary["ap"].keys() == {"text", "random_phrases"}
    assert summary["ap"]["text"].keys() == {"all"}
    assert summary["ap50"].keys() == summary["ap"].keys() == summary["categories"].keys()
    named = summary["categories"]["text"]
    assert sum(named.values()) / len(named) == pytest.approx(summary["ap"]["text"]["all"], abs=1e-4)
    results = json.loads((folder / "results_text.json").read_text())
    assert {result["image_id"] for result in results} == {1, 2, 3}
    assert results[0].keys() == {"image_id", "category_id", "bbox", "score"}


def test_the_run_s_folder_has_all_of_the_test_split_and_nothing_else(
    call: Callable[..., None], checkpoint: Path
) -> None:
    """What compares runs reads it there."""
    folder = checkpoint.parent.parent
    call(evaluate_command, "--ckpt", checkpoint)
    written = (folder / "evaluation.json").read_text()
    call(evaluate_command, "--ckpt", checkpoint, "--split", "val")
    call(evaluate_command, "--ckpt", checkpoint, "--protocol", "random_phrases", "--protocol", "text")
    call(evaluate_command, "--ckpt", checkpoint, "--protocol", "text", "--split", "val")
    assert (folder / "evaluation.json").read_text() == written
    rows = {path.name: list(read_json(path / "evaluation.json")["ap"]) for path in (folder / "eval").iterdir()}
    both = ["text", "random_phrases"]
    assert rows == {"val": both, "random_phrases-text": both, "val-text": ["text"]}


def test_evaluate_by_every_protocol_after_visual_training(
    call: Callable[..., None], tiny_config: TinyConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config("train.max_steps=2", "train.rhythm={visual: 1, text: 1}", "eval.references=[1, 2]")
    train(config)
    checkpoint = config.folder / "checkpoints" / "last.ckpt"
    call(evaluate_command, "--ckpt", checkpoint)
    rows = [
        *("text", "random_phrases", "hinted_text", "interactive_box", "interactive_point", "wrong_pictures"),
        *("generic_1", "generic_2", "mixed", "mixed_mean"),
    ]
    summary = json.loads((config.folder / "evaluation.json").read_text())
    assert list(summary["ap"]) == list(summary["ap50"]) == rows
    assert list(summary["top1"]) == list(summary["top5"]) == ["region_classification"]
    assert summary["top5"]["region_classification"]["all"] == 1  # of three names
    printed = capsys.readouterr().out
    for row in rows:
        results = json.loads((config.folder / f"results_{row}.json").read_text())
        assert {result["image_id"] for result in results} <= {1, 2, 3}
        assert row in printed

    call(
        evaluate_command,
        "--ckpt",
        checkpoint,
        "--protocol",
        "generic",
        "--protocol",
        "text",
        "--output",
        tmp_path / "some",
    )
    summary = json.loads((tmp_path / "some" / "evaluation.json").read_text())
    assert list(summary["ap"]) == ["text", "generic_1", "generic_2"]
    assert "top1" not in summary


def test_evaluate_writes_where_it_is_told(call: Callable[..., None], checkpoint: Path, tmp_path: Path) -> None:
    call(evaluate_command, "--output", tmp_path / "a" / "b", "--ckpt", checkpoint)
    written = {path.name for path in (tmp_path / "a" / "b").iterdir()}
    assert written == {"evaluation.json", "results_text.json", "results_random_phrases.json"}
    assert json.loads((tmp_path / "a" / "b" / "evaluation.json").read_text())["split"] == "test"


def test_predict_writes_a_picture_and_its_values(
    call: Callable[..., None], checkpoint: Path, tiny_coco: Path, tmp_path: Path
) -> None:
    image = tiny_coco / "test" / "1.jpg"
    phrases = ["--text", "red block", "--text", "a green block"]
    call(predict_command, image, *phrases, "--ckpt", checkpoint, "--threshold", 0, "--output", tmp_path / "out")
    content = json.loads((tmp_path / "out" / "1.json").read_text())
    assert {detection["name"] for detection in content["detections"]} == {"red block", "a green block"}
    assert (tmp_path / "out" / "1.png").is_file()


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

    predictor = Predictor.from_checkpoint(visual_checkpoint)
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
        "red block": "mixed", "spot": "visual", "cell": "visual", "dot": "visual"
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
    before, after = map(float, re.findall(r"([\d.]+) (?:before|after)", capsys.readouterr().out))
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


def test_the_table_has_a_column_for_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"text": {"all": 0.5, "rare": 0.25}, "random_phrases": {"all": 0.125}}
    console.print(ap_table({"AP": rows}))
    header, text, control = (
        line.split() for line in capsys.readouterr().out.splitlines() if "A" in line or "all" in line
    )
    assert [word for word in header if word.isalpha()] == ["metric", "prompt", "all", "rare"]
    assert ("0.500" in text, "0.250" in text, "0.125" in control, "-" in control) == (True, True, True, True)


def test_the_log_says_how_the_total_batch_is_reached(
    call: Callable[..., None], experiment: Path, caplog: pytest.LogCaptureFixture
) -> None:
    call(train_command, experiment)
    assert "total batch 4 = 1 devices x 2 images x 2 accumulated" in caplog.text


# Wrong input


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_stps=3", "train.max_stps: Key 'max_stps' not in 'TrainConfig'. Did you mean: 'max_steps'?"),
        ("train.max_steps=many", "train.max_steps: Value 'many'"),
        ("train.total_batch=3", "train.total_batch=3 is not a multiple of data.batch_size=2"),
        ("model.text.pretrained=openai", "model.text.pretrained cannot go with model.text.name=custom"),
        ("train.max_steps", "'train.max_steps' is not an override: write key=value"),
        ("data.root=nowhere", "nowhere/train.json: no such annotation file; set data.root="),
        ("data.train.images=nowhere", "nowhere: no such image folder"),
        ("train.init_from=nowhere.ckpt", "no checkpoint nowhere.ckpt"),
        ("model.backbone.weights=nowhere.pth", "no weights file nowhere.pth"),
        ("model.num_queries=5000", "model.num_queries=5000 is more than the "),
        ("model.text.context_length=3", "tokens, start and end included, but the text encoder reads 3: shorten it"),
    ],
)
def test_wrong_configuration(error_line: Callable[..., str], experiment: Path, override: str, message: str) -> None:
    assert message in error_line(train_command, experiment, override)


def test_a_missing_experiment(error_line: Callable[..., str]) -> None:
    assert error_line(train_command, "nowhere.yaml") == "no experiment file nowhere.yaml"


def test_brackets_of_a_message_are_printed(error_line: Callable[..., str], tmp_path: Path) -> None:
    """They are rich's markup for styles."""
    assert "[bold]/x[/].yaml" in error_line(train_command, "[bold]/x[/].yaml")


def test_more_gpus_than_there_are(error_line: Callable[..., str], experiment: Path, tmp_path: Path) -> None:
    eight_gpus = ("train.accelerator=gpu", "train.devices=99", "data.batch_size=1", "train.total_batch=99")
    message = error_line(train_command, experiment, *eight_gpus)
    assert message.startswith("train.devices=99 GPUs were asked for, but this machine has ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 77}, "annotation 1, image 77: annotation of an unknown image; correct or remove it"),
        ({"category_id": 77}, "annotation 1, category 77: box of an unknown category; correct or remove it"),
    ],
)
def test_broken_references(
    error_line: Callable[..., str], experiment: Path, tiny_coco: Path, change: dict[str, int], message: str
) -> None:
    content = json.loads((tiny_coco / "val.json").read_text())
    content["annotations"][0] |= change
    (tiny_coco / "val.json").write_text(json.dumps(content))
    assert message in error_line(train_command, experiment)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_in_evaluation(
    error_line: Callable[..., str], checkpoint: Path, tiny_coco: Path, workers: int
) -> None:
    picture = tiny_coco / "test" / "2.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    message = error_line(evaluate_command, "--ckpt", checkpoint, f"data.num_workers={workers}")
    assert message.startswith(f"{picture}: cannot be read")
    assert message.endswith("restore the file, or remove it from the annotations")


def test_a_checkpoint_of_another_architecture(
    error_line: Callable[..., str], checkpoint: Path, experiment: Path
) -> None:
    overrides = ("name=other", f"train.init_from={checkpoint}", "model.transformer.ffn=128")
    message = error_line(train_command, experiment, *overrides)
    assert "has another architecture than the configured model" in message
    assert "(64, 32) in the file, (128, 32) in the model" in message


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


def test_an_unreadable_image_to_predict(error_line: Callable[..., str], checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("no picture")
    message = error_line(predict_command, tmp_path / "x.jpg", "--text", "x", "--ckpt", checkpoint)
    assert message.startswith(f"{tmp_path / 'x.jpg'}: cannot be read")


def test_predict_does_not_replace_a_photograph(error_line: Callable[..., str], tiny_coco: Path, tmp_path: Path) -> None:
    """It says so before it reads the checkpoint."""
    folder = tiny_coco / "test"
    common = ["--text", "x", "--ckpt", "gone.ckpt", "--output", folder]
    assert "give another folder by --output" in error_line(predict_command, folder / "1.jpg", *common)
    reference = ["--reference", f"x={folder / '1.jpg'}:1,2,3,4"]
    assert "give another folder by --output" in error_line(predict_command, tmp_path / "1.jpg", *reference, *common)


def test_an_existing_run_needs_resume(error_line: Callable[..., str], checkpoint: Path, experiment: Path) -> None:
    assert "already has a run: add --resume" in error_line(train_command, experiment)
    assert "nothing to resume" in error_line(train_command, experiment, "--resume", "name=other")


def test_an_option_that_does_not_exist(call: Callable[..., None], experiment: Path) -> None:
    with pytest.raises(SystemExit) as end:
        call(train_command, experiment, "--resum3")
    assert end.value.code == 2
