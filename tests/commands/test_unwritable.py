"""A place that nothing can be written to is one line of every command that writes; as root may write anywhere, a file
stands in the folder's place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trex2_lightning.commands.export import main as export_command
from trex2_lightning.commands.label import main as label_command
from trex2_lightning.commands.predict import main as predict_command
from trex2_lightning.commands.train import main as train_command
from trex2_lightning.inference import export


@pytest.mark.parametrize(
    ("command", "arguments", "option"),
    [
        (predict_command, ["{image}", "--model", "{ckpt}", "--text", "red block", "--output", "{place}"], "--output"),
        (label_command, ["{image}", "--model", "{ckpt}", "--text", "red block", "--output", "{place}"], "--output"),
        (export_command, ["{ckpt}", "{place}"], "FOLDER"),
        (train_command, ["{experiment}", "output={place}"], "output="),
        (train_command, ["{experiment}", "output={place}", "name=a/b"], "output="),
    ],
)
def test_a_place_that_cannot_be_written_to_is_told_in_one_line(
    error_line: Callable[..., str],
    experiment: Path,
    checkpoint: Path,
    tiny_coco: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[[list[str]], None],
    arguments: list[str],
    option: str,
) -> None:
    monkeypatch.setattr(export, "require_onnx", lambda: None)
    (tmp_path / "file").write_text("")
    places = {"image": tiny_coco / "test" / "1.jpg", "ckpt": checkpoint, "experiment": experiment}
    told = error_line(command, *(part.format(place=tmp_path / "file" / "x", **places) for part in arguments))
    assert told.startswith(f"{tmp_path / 'file' / 'x'}")
    assert told.endswith(f": nothing can be written there (Not a directory); give another place by {option}")


def test_a_file_in_the_place_of_a_run(error_line: Callable[..., str], experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = error_line(train_command, experiment, f"output={tmp_path}", "name=file")
    assert told == f"{tmp_path / 'file'}: nothing can be written there (File exists); give another place by output="
