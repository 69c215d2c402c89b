"""What a run is told and does not use: it is said, or refused where nothing would be trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.training.fit import train
from trex2_lightning.training.unused import unused_settings

TinyConfig = Callable[..., Config]
VISUAL = "train.rhythm={text: 1, visual: 1}"


@pytest.mark.parametrize(
    ("setting", "mend"),
    [
        ("data.negatives.dictionary=words.txt", "data.negatives.source=both"),
        ("model.appearance.scale=2", "model.appearance.name=backbone"),
        ("data.nameless.share=0.5", VISUAL),
        ("train.memory_bank.size=8", VISUAL),
    ],
)
def test_a_setting_without_effect_is_told_of_and_what_would_give_it_one(
    tiny_config: TinyConfig, setting: str, mend: str
) -> None:
    [told] = unused_settings(tiny_config(setting))
    assert told.startswith(setting)
    assert unused_settings(tiny_config(setting, mend)) == []
    assert unused_settings(tiny_config()) == []


def test_steps_that_would_train_nothing_are_refused(tiny_config: TinyConfig) -> None:
    with pytest.raises(InputError, match=r"^optim\.visual_first=3: .* set one of the two"):
        unused_settings(tiny_config("optim.visual_first=3"))
    assert unused_settings(tiny_config("optim.visual_first=3", VISUAL)) == []


def test_a_run_tells_it_at_its_start(tiny_config: TinyConfig, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(InputError, match="nothing can be written there"):
        train(tiny_config("model.appearance.scale=2", f"output={tmp_path}/a file"))
    assert "model.appearance.scale=2.0 has no effect" in caplog.text
