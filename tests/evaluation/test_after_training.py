"""What training leaves in its checkpoints at its end: scores that are fitted to val, or a line that says why not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trex2_lightning.commands.train import main as train_command
from trex2_lightning.config import Config, load
from trex2_lightning.config.files import save
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation import after_training, fits
from trex2_lightning.evaluation.after_training import fit_scores
from trex2_lightning.models.calibration import ScoreCalibration

Checkpoint = dict[str, Any]


@pytest.fixture(autouse=True)
def some_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what weights find that have learned next to nothing."""
    monkeypatch.setattr(fits, "RIGHT", 0.01)


@pytest.fixture
def run(checkpoint: Path, tiny_config: Callable[..., Config]) -> Config:
    """Trained for one step, with both checkpoints."""
    config = tiny_config("train.max_steps=1")
    checkpoint.with_name("best.ckpt").write_bytes(checkpoint.read_bytes())
    return config


def read(config: Config, name: str = "last") -> Checkpoint:
    content: Checkpoint = torch.load(config.folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return content


def is_fitted(checkpoint: Checkpoint) -> bool:
    return not torch.equal(checkpoint["calibration"]["weight"], ScoreCalibration().weight)


def test_training_ends_with_fitted_scores_and_goes_on_without_them(
    tiny_config: Callable[..., Config], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config("train.max_steps=2")
    save(config, file := tmp_path / "run.yaml")
    with caplog.at_level(logging.INFO, "trex2_lightning"):
        train_command([str(file)])
    last, best = read(config), read(config, "best")
    assert is_fitted(last)
    torch.testing.assert_close(best["calibration"], last["calibration"], rtol=0, atol=0)
    threshold = float(last["calibration"]["threshold"][0, 0])
    assert f"last.ckpt: scores are fitted to val; kept are text from {threshold:.2f}" in caplog.text
    train_command([str(file), "train.max_steps=3", "train.calibrate=false", "--resume"])
    assert read(config)["global_step"] == 3
    assert not is_fitted(read(config)), "what was fitted to other weights"


def test_nothing_else_of_a_checkpoint_changes(run: Config) -> None:
    before = read(run)
    fit_scores(run)
    after = read(run)
    assert is_fitted(after)
    assert after.keys() == before.keys()
    for part in ("state_dict", "current_model_state"):
        torch.testing.assert_close(after[part], before[part], rtol=0, atol=0)
    assert (after["config"], after["known_names"]) == (before["config"], before["known_names"])


def test_other_weights_have_a_fit_of_their_own(run: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(after_training, "calibrate", lambda _config, module: calls.append(module) or {})
    fit_scores(run)
    assert len(calls) == 1
    path = run.folder / "checkpoints" / "best.ckpt"
    torch.save(read(run, "best") | {"global_step": 7}, path)
    fit_scores(run)
    assert len({*map(id, calls)}) == 3
    path.unlink()
    fit_scores(run)
    assert len(calls) == 4, "a run may have no best checkpoint"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.calibrate=false", None),
        ("data.val={annotations: train.json, images: train}", "data.val is what it was trained on, so scores stay"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_a_line(
    run: Config, tmp_path: Path, setting: str, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    save(run, file := tmp_path / "run.yaml")
    before = (run.folder / "checkpoints" / "last.ckpt").read_bytes()
    fit_scores(load(file, [setting]))
    assert (run.folder / "checkpoints" / "last.ckpt").read_bytes() == before
    lines = [record.message for record in caplog.records if record.name.startswith("trex2_lightning")]
    assert lines == [] if said is None else lines[0].startswith(said) and len(lines) == 1


def test_a_trained_run_does_not_fail_for_a_fit(
    run: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise InputError("val is gone")

    monkeypatch.setattr(after_training, "calibrate", fail)
    fit_scores(run)
    assert "last.ckpt: its scores stay as they were learned: val is gone" in caplog.text
    assert not is_fitted(read(run))
