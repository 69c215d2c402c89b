"""The labelling command: what it writes and says, what is left out, and what it says of wrong input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from trex2_lightning.commands.label import main as label_command
from trex2_lightning.commands.terminal import STOPPED
from trex2_lightning.inference.predictor import Predictor

RED = ("--text", "red block")


@pytest.fixture
def label(call: Callable[..., None], visual_checkpoint: Path, tiny_coco: Path, tmp_path: Path) -> Callable[..., Path]:
    """`label("--option", ...)` on the training pictures: the folder that was written to."""

    def labelled(*arguments: object, output: str = "out", pictures: object = tiny_coco / "train") -> Path:
        common = ["--ckpt", visual_checkpoint, "--workers", 0, "--output", tmp_path / output]
        call(label_command, pictures, *common, *arguments)
        return tmp_path / output

    return labelled


def names_in(folder: Path) -> list[str]:
    return [image["file_name"] for image in json.loads((folder / "labels.json").read_text())["images"]]


def test_label_writes_and_tells_what_it_found(
    label: Callable[..., Path], tiny_coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tiny_coco / "train" / "7.jpg").write_text("torn")
    exemplars = [
        word for x in (1, 5, 9) for word in ("--reference", f"cell={tiny_coco / 'train' / '1.jpg'}:{x},1,30,40")
    ]
    prompts = [*RED, *exemplars, "--negative", "red block"]
    folder = label(*prompts, "--threshold", 0, "--threshold", "cell=0.01")
    printed = capsys.readouterr()
    content = json.loads((folder / "labels.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "cell"}]
    first, second = printed.out.splitlines()
    assert first.startswith(f"6 pictures: {len(content['annotations'])} cell; written to {folder / 'labels.json'}, ")
    assert second == "1 skipped, as they cannot be read: 7.jpg"
    assert printed.err.splitlines()[-1] == "7 of 7 pictures"
    assert (folder / "uncertain.png").is_file()


def test_the_rest_is_what_an_earlier_call_left(label: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trex2_lightning.inference.labelling.label_pictures.write_sheet", lambda *_: False)
    first = label(*RED, "--limit", 2)
    rest = label("--text", "cell", "--except", first, output="rest")
    assert names_in(first) == ["1.jpg", "2.jpg"]
    assert names_in(rest) == ["3.jpg", "4.jpg", "5.jpg", "6.jpg"]


def test_shards_are_put_together_by_the_call_without_one(
    label: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trex2_lightning.inference.labelling.label_pictures.write_sheet", lambda *_: False)
    common = [*RED, "--batch-size", 2]
    for number in (1, 2):
        folder = label(*common, "--shard", f"{number}/2")
        assert f"shard {number}/2 is done; when all are" in " ".join(capsys.readouterr().out.split())
        assert [path.name for path in folder.iterdir()] == ["journal"]
    assert names_in(label(*common)) == [f"{number}.jpg" for number in range(1, 7)]


def test_stopped_by_the_user(
    label: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trex2_lightning.inference.labelling.journal.Journal.add", stop)
    with pytest.raises(SystemExit) as stopped:
        label(*RED)
    assert stopped.value.code == STOPPED
    kept = f"stopped: what was labelled so far is in {tmp_path / 'out'}; the same command goes on from there"
    assert kept in " ".join(capsys.readouterr().err.split("\n"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", "cell"], "--threshold cell: write --threshold 0.3 or --threshold NAME=0.3"),
        (["--threshold", "cell=0.1", *RED], "the threshold of 'cell' is for none of the categories red block"),
        (["--shard", "3/2", *RED], "--shard 3/2: write --shard I/N, from 1/N to N/N"),
        (["--shard", "1", *RED], "--shard 1: write --shard I/N"),
        ([], "there is nothing to look for: give a phrase, "),
        (["--reference", "cell=gone.jpg:1,2,3,4"], "gone.jpg: "),
        (["--except", "gone", *RED], "gone: nothing was labelled there"),
        (["--threshold", "30", *RED], "the threshold 30 is no score: give one from 0 to 1"),
        (["--threshold", "red block=nan", *RED], "the threshold nan is no score"),
        (["--nms", "70", *RED], "the IoU 70 of NMS is none: give one from 0 to 1"),
    ],
)
def test_wrong_input(
    error_line: Callable[..., str],
    visual_checkpoint: Path,
    tiny_coco: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    """Nothing is begun, so that the mended command may have the same folder."""
    common = [tiny_coco / "train", "--ckpt", visual_checkpoint, "--output", tmp_path / "out"]
    assert message in error_line(label_command, *common, *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("--limit", 0), ("--workers", "-1"), ("--every", "1.5")])
def test_a_number_that_is_none(
    label: Callable[..., Path], arguments: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        label(*RED, *arguments)
    assert end.value.code == 2
    assert f"argument {arguments[0]}: {arguments[1]}: write a whole number from" in capsys.readouterr().err


def test_what_is_written_among_the_pictures_is_not_labelled_itself(label: Callable[..., Path], tiny_coco: Path) -> None:
    for _ in range(2):
        folder = label(*RED, "--threshold", 0, "--format", "yolo", output=tiny_coco / "train" / "out")
        label(*RED, "--threshold", 0, output=tiny_coco / "train" / "out")
        assert (folder / "uncertain.png").is_file()
        assert names_in(folder) == [f"{number}.jpg" for number in range(1, 7)]


def test_refined_prompts_are_made_once_from_the_pictures(
    label: Callable[..., Path], visual_checkpoint: Path, tiny_coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny_coco / "train" / "7.jpg").write_text("torn")
    refined = [*RED, "--threshold", 0, "--refine", "--refine-score", 0]
    folder = label(*refined)
    [prompts] = folder.glob("*.safetensors")
    assert Predictor.from_pretrained(visual_checkpoint).load(prompts).sources == ("mixed",)
    with monkeypatch.context() as patch:
        patch.setattr("trex2_lightning.inference.labelling.refined_request.refine", lambda *_: pytest.fail("again"))
        (tiny_coco / "train" / "8.jpg").write_bytes((tiny_coco / "train" / "1.jpg").read_bytes())
        assert names_in(label(*refined))[-1] == "8.jpg"
    with pytest.raises(SystemExit):
        label(*refined, "--refine-boxes", 1)  # the folder was begun with other prompts
