"""Pictures of curves can be read, however many there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from trex2_lightning.evaluation.curves import curve


def test_each_of_many_curves_is_told_from_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, _: drawn.append(figure))
    curve({f"row {i}": [(0, i), (1, i)] for i in range(30)}, tmp_path / "curves.png", "height")
    drawn[0].draw_without_rendering()
    [axes] = drawn[0].axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 30
    [legend] = drawn[0].legends
    box = legend.get_window_extent()
    assert not box.overlaps(axes.get_window_extent())
