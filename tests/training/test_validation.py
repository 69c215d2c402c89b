"""By what the best checkpoint of a run is chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from recorded_runs import read, rows

from trex2_lightning.config import Config, ConfigError
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.training import fit
from trex2_lightning.training.build import build_datamodule
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import Measurement
from trex2_lightning.training.validation import validation_of

TinyConfig = Callable[..., Config]
BOTH = "train.rhythm={visual: 1, text: 1}"
# By row: of the look before training, and of the two validations. Text is best first, the mean at the end.
APS = {"text": [0.0, 0.4, 0.3], "interactive_box": [0.0, 0.1, 0.3], "generic": [0.0, 0.1, 0.15]}


class Told:
    """Stands for the metric of a row."""

    def __init__(self, row: str) -> None:
        self._left = [*APS[row]]

    def reset(self) -> None:
        pass

    def update(self, _: Any) -> None:
        pass

    def compute(self) -> dict[str, float]:
        return {"ap": self._left.pop(0)}


@pytest.mark.parametrize(
    ("settings", "best", "mean"), [((), 4, 0.25), (("train.best_by=[text]",), 2, 0.3)], ids=["mean", "text"]
)
def test_the_best_is_that_of_the_mean(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], best: int, mean: float
) -> None:
    def told(config: Config, data: DetectionDataModule) -> dict[str, Measurement]:
        rows = validation_of(config, data)
        return {row: Measurement(one.prompting, Told(row)) for row, one in rows.items()}  # type: ignore[arg-type]

    monkeypatch.setattr(fit, "validation_of", told)
    config = tiny_config(BOTH, *settings)
    train(config)
    assert read(config.folder / "checkpoints" / "best.ckpt")["global_step"] == best
    last = [row for row in rows(config) if row["val/ap"]][-1]
    assert float(last["val/ap"]) == pytest.approx(0.3)
    assert float(last["val/mean_ap"]) == pytest.approx(mean)
    assert ("val/generic/ap" in last) == (not settings)


def test_figures_on_the_way_are_those_of_an_evaluation(tiny_config: TinyConfig) -> None:
    """Generic prompts too, of the weights as they are then: three images of three categories, a reference of each."""
    config = tiny_config(BOTH, "eval.references=[1]", "optim.lr=0.01")
    train(config)
    logged = [row for row in rows(config) if row["val/ap"]][-1]
    trained, module = load_checkpoint(config.folder / "checkpoints" / "last.ckpt")
    report = evaluate(trained, module, "val", ["text", "interactive_box", "generic"])
    found = {row: one.figures["ap"] for row, one in report.rows.items()}
    names = {"text": "val/ap", "interactive_box": "val/interactive_box/ap", "generic_1": "val/generic/ap"}
    assert {row: float(logged[name]) for row, name in names.items()} == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "chosen", "told"),
    [
        ("train.rhythm={visual: 0, text: 1}", ["text"], "AP on val with text; without interactive_box: no step has "),
        ("train.rhythm={visual: 1, text: 0}", ["interactive_box", "generic"], "; without text: no step has text"),
        (BOTH, ["text", "interactive_box", "generic"], "the mean of AP on val with text, interactive_box, generic"),
    ],
)
def test_what_a_run_does_not_train_is_left_out_and_said(
    tiny_config: TinyConfig, caplog: pytest.LogCaptureFixture, settings: str, chosen: list[str], told: str
) -> None:
    config = tiny_config(settings)
    data = build_datamodule(config)
    data.setup("fit")
    with caplog.at_level(logging.INFO):
        assert [*validation_of(config, data)] == chosen
    assert any(message.startswith("best.ckpt is chosen by") and told in message for message in caplog.messages)


def test_what_no_step_shows_is_left_out(tiny_config: TinyConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    kinds = "train.best_by=[text,interactive_box,interactive_point]"
    for points, never in ((0, "point"), (1, "box")):
        config = tiny_config("train.rhythm.visual=1", kinds, f"data.exemplars.points={points}")
        data = build_datamodule(config)
        data.setup("fit")
        assert f"interactive_{never}" not in validation_of(config, data)
        assert f"without interactive_{never}: no step shows a {never}" in caplog.text


def test_something_must_be_left(tiny_config: TinyConfig) -> None:
    config = tiny_config("train.best_by=[generic]")
    data = build_datamodule(config)
    data.setup("fit")
    with pytest.raises(ConfigError, match=r"train\.best_by=\['generic'\] has nothing .*no step has visual prompts"):
        validation_of(config, data)
    with pytest.raises(ConfigError, match=r"train\.best_by=\['mixed'\] must be one or more of text, interactive_box"):
        tiny_config("train.best_by=[mixed]")
