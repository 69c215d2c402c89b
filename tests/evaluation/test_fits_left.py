"""What a fit leaves as it is, and tells of: what was compared with nothing, learned with it, or is asked otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trex2_lightning.commands.calibrate import main as calibrate_command
from trex2_lightning.evaluation import fits
from trex2_lightning.evaluation.fits import calibrate
from trex2_lightning.models.appearance import AppearanceTerm
from trex2_lightning.models.calibration import SOURCES, ScoreCalibration
from trex2_lightning.training.checkpoint import load_checkpoint

APPEARANCE = "model.appearance.name=backbone"


def test_a_category_without_references_fits_nothing_that_is_no_number(
    visual_checkpoint: Path, tiny_coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mixed prompt asks for it by its name alone, which is compared with nothing."""
    monkeypatch.setattr(fits, "RIGHT", 0.01)
    for split in ("train", "val"):
        content = json.loads((tiny_coco / f"{split}.json").read_text())
        content["categories"].insert(0, {"id": 99, "name": "a thing of no picture"})
        (tiny_coco / f"{split}.json").write_text(json.dumps(content))
    calibrate_command(["--ckpt", str(visual_checkpoint), APPEARANCE])
    _, module = load_checkpoint(visual_checkpoint.with_name("calibrated.ckpt"))
    calibration = module.detector.calibration
    assert all(fit.isfinite().all() for fit in calibration.fits().values())
    mixed = SOURCES.index("mixed")
    unfitted = ScoreCalibration().weight[:, mixed]
    assert (calibration.weight[:, mixed] != unfitted).any(-1).tolist() == [False, True]


def test_what_a_learned_weight_was_trained_with_is_kept(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    calibrate_command(["--ckpt", str(checkpoint), APPEARANCE])
    config, module = load_checkpoint(checkpoint.with_name("calibrated.ckpt"))
    appearance = module.detector.appearance
    assert appearance is not None
    module.detector.appearance_term = AppearanceTerm()
    appearance.temperature.fill_(0.07)
    calibrate(config, module)
    assert appearance.temperature == torch.tensor(0.05), "of a weight of 0 nothing was learned"
    with torch.no_grad():
        module.detector.appearance_term.weight.fill_(0.1)
    appearance.temperature.fill_(0.07)
    before = appearance.transform.clone().mul_(2)
    appearance.transform.copy_(before)
    calibrate(config, module)
    assert appearance.temperature == torch.tensor(0.07)
    assert torch.equal(appearance.transform, before)
    assert "the learned weight was trained with that" in caplog.text


def test_another_aggregation_than_the_fit_s_is_told_of(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    calibrate_command(["--ckpt", str(checkpoint), "eval.aggregation=best"])
    assert "eval.aggregation=best: fitted is the mean" in caplog.text
