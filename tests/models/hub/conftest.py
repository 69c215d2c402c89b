"""A folder as the hub has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_reference import reference


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random Grounding DINO; tests do not write to it."""
    folder = tmp_path_factory.mktemp("grounding-dino")
    reference(folder)
    return folder
