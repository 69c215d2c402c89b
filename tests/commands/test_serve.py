"""What `serve` refuses before it loads a detector."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trex2_lightning.commands.serve import main as serve_command


def test_more_pixels_than_pictures_may_have_are_refused(
    error_line: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREX2_MAX_PIXELS", "1000")
    message = error_line(serve_command, "--model", "x", "--max-pixels", "1001")
    assert message.startswith("--max-pixels 1001 is more than TREX2_MAX_PIXELS=1000 lets through")
