"""A small synthetic data set."""

from dataclasses import replace

import pytest

from trex2_lightning.config import ShapesConfig
from trex2_lightning.data.shapes.layout import PRESETS


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> ShapesConfig:
    """A data set of a few pictures."""
    for name, preset in PRESETS.items():
        few_images = {"val": 3, "test": 4, "reference": 5}
        monkeypatch.setitem(PRESETS, name, replace(preset, num_images=few_images))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    return ShapesConfig(num_train=6)
