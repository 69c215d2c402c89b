"""The evaluation command: figures and results of every protocol, and where they lie."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trex2_lightning.commands.calibrate import main as calibrate_command
from trex2_lightning.commands.evaluate import _own_folder
from trex2_lightning.commands.evaluate import main as evaluate_command
from trex2_lightning.config import Config
from trex2_lightning.evaluation import evaluate as evaluate_module
from trex2_lightning.evaluation import fits
from trex2_lightning.evaluation.history import read_json
from trex2_lightning.training.fit import train

sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "hub"))

from hub_reference import reference

TinyConfig = Callable[..., Config]


def test_evaluate_writes_figures_and_results(
    call: Callable[..., None], checkpoint: Path, tiny_coco: Path, tmp_path: Path
) -> None:
    moved = tiny_coco.rename(tmp_path / "moved")
    call(evaluate_command, "--ckpt", checkpoint, f"data.root={moved}", "--split", "val", "eval.batch_size=1")
    folder = checkpoint.parent.parent / "eval" / "val"
    summary = json.loads((folder / "evaluation.json").read_text())
    assert (summary["split"], summary["ground_truth"]) == ("val", str(moved / "val.json"))
    assert summary["ap"].keys() == {"text", "random_phrases", "foreign_phrases"}
    assert summary["ap"]["text"].keys() == {"all"}
    assert summary["ap50"].keys() == summary["ap"].keys() == summary["categories"].keys()
    named = summary["categories"]["text"]
    assert sum(named.values()) / len(named) == pytest.approx(summary["ap"]["text"]["all"], abs=1e-4)
    results = json.loads((folder / "results_text.json").read_text())
    assert {result["image_id"] for result in results} == {1, 2, 3}
    assert results[0].keys() == {"image_id", "category_id", "bbox", "score"}


def test_a_published_detector_is_evaluated_without_a_run(
    call: Callable[..., None], tiny_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reference(tmp_path / "some" / "dino")
    size = ("data.size=64", "data.max_size=96", "logging.wandb=disabled", "data.num_workers=0")
    call(evaluate_command, "--model", "some/dino", f"data.root={tiny_coco}", *size)
    summary = json.loads((tmp_path / "runs" / "dino" / "evaluation.json").read_text())
    assert summary["checkpoint"] == "some/dino"
    assert summary["ap"].keys() == {"text", "random_phrases", "foreign_phrases"}
    results = json.loads((tmp_path / "runs" / "dino" / "results_text.json").read_text())
    assert {result["image_id"] for result in results} == {1, 2, 3}


def test_a_checkpoint_outside_of_a_run_is_evaluated_to_the_working_folder(
    call: Callable[..., None], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it lies may be anybody's folder, or none that can be written to."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    loose = checkpoint.rename(tmp_path / "elsewhere" / "some.ckpt")
    call(evaluate_command, "--ckpt", loose, "--protocol", "text", "logging.wandb=disabled")
    assert (tmp_path / "here" / "results" / "some" / "eval" / "text" / "evaluation.json").is_file()
    assert [*(tmp_path / "elsewhere").iterdir()] == [loose]


def test_checkpoints_of_one_name_keep_their_own_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places = {}
    for name in ("one", "other", "one"):
        place = _own_folder(tmp_path / name / "some.ckpt") / "eval" / "text"
        place.mkdir(parents=True, exist_ok=True)
        (place / "evaluation.json").write_text(json.dumps({"checkpoint": f"{name}/some.ckpt"}))
        assert places.setdefault(name, place) == place
    assert places == {
        name: Path("results", own, "eval", "text") for name, own in (("one", "some"), ("other", "some_2"))
    }


@pytest.mark.parametrize("command", [evaluate_command, calibrate_command])
def test_what_cannot_be_written_is_seen_before_the_work(
    error_line: Callable[..., str],
    checkpoint: Path,
    tmp_path: Path,
    command: Callable[[list[str]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As root may write anywhere, a file stands in the folder's place."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(evaluate_module, "evaluate", None)
    monkeypatch.setattr(fits, "calibrate", None)
    message = error_line(command, "--ckpt", checkpoint, "--output", tmp_path / "file" / "x" / "y.ckpt")
    assert "nothing can be written there (Not a directory); give another place by --output" in message


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
    every, both = ["text", "random_phrases", "foreign_phrases"], ["text", "random_phrases"]
    assert rows == {"val": every, "random_phrases-text": both, "val-text": ["text"]}


def test_evaluate_by_every_protocol_after_visual_training(
    call: Callable[..., None], tiny_config: TinyConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config("train.max_steps=2", "train.rhythm={visual: 1, text: 1}", "eval.references=[1, 2]")
    train(config)
    checkpoint = config.folder / "checkpoints" / "last.ckpt"
    call(evaluate_command, "--ckpt", checkpoint)
    rows = [
        *(
            "text",
            "random_phrases",
            "foreign_phrases",
            "hinted_text",
            "interactive_box",
            "interactive_point",
            "wrong_pictures",
        ),
        *("generic_1", "generic_2", "random_references", "mixed", "mixed_mean"),
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
    rows = ("text", "random_phrases", "foreign_phrases")
    assert written == {"evaluation.json", "reliability.png", *(f"results_{row}.json" for row in rows)}
    assert json.loads((tmp_path / "a" / "b" / "evaluation.json").read_text())["split"] == "test"


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_in_evaluation(
    error_line: Callable[..., str], checkpoint: Path, tiny_coco: Path, workers: int
) -> None:
    picture = tiny_coco / "test" / "2.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    message = error_line(evaluate_command, "--ckpt", checkpoint, f"data.num_workers={workers}")
    assert message.startswith("data.test: 1 of 3 images cannot be read")
    assert f"{picture}: cannot be read" in message
    assert message.endswith("restore the files, or remove them from the annotations")
