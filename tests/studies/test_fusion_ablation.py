"""The ablation of fusion and granularity: its runs, its measurements and what its page says of them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from trex2_lightning.commands.ablation_fusion import main as ablation_fusion
from trex2_lightning.commands.evaluate import main as evaluate_command
from trex2_lightning.commands.train import main as train_command
from trex2_lightning.config import load
from trex2_lightning.data.shapes.layout import PRESETS, RELATIONS
from trex2_lightning.evaluation import costs
from trex2_lightning.studies import claims, fusion_ablation, fusion_page, sweep
from trex2_lightning.studies.fusion_page import Cell

ROOT = Path(__file__).parents[2]
SETTINGS = ["data.shapes.num_train=8", "logging.wandb=disabled", "logging.every=1", "train.ema_decay=0"]


def cell(ap: float = 0.5, milliseconds: float = 10.0, lost: float = 0.0, chosen: float = 0.25) -> Cell:
    cost = dict.fromkeys(fusion_page.STEPS, milliseconds)
    counts = [str(count) for count in costs.VOCABULARIES]
    return Cell(
        ap={way: dict.fromkeys(fusion_page.SHOWN_GROUPS, ap) for way in ("text", "random_phrases")},
        measures={
            "threads": 2,
            "parameters": 2_500_000,
            "latency": {
                count: {step: value * (n + 1) for step, value in cost.items()} for n, count in enumerate(counts)
            },
            "gflops": dict.fromkeys(counts, cost),
            "lengthened": {
                form: {"seen": ap - lost * n, "tokens": 100, "milliseconds": 7.0}
                for n, form in enumerate(claims.NAME_FORMS)
            },
            "interference": {str(count): ap - lost * n for n, count in enumerate(claims.NUM_OTHERS)},
            "relations": {when: {"target": chosen, "lookalike": 0.5, "ap": 0.1} for when in ("names", "phrases")},
        },
        seconds_per_step=0.5,
        memory_gib=1.5,
    )


def test_the_page_has_mean_spread_and_a_verdict_for_each_claim() -> None:
    cells = {
        "phrase_late": {0: cell(ap=0.5), 1: cell(ap=0.6)},
        "phrase_early": {0: cell(chosen=0.9), 1: cell(chosen=0.8)},
        "word_early": {0: cell(milliseconds=20.0, lost=0.1), 1: cell(milliseconds=10.1, lost=0.2)},
    }
    config = load(ROOT / "experiments" / "ablation" / "phrase_late.yaml")
    text = fusion_page.page(cells, config, relation_steps=77)
    lines = text.splitlines()
    assert f"{config.train.max_steps} steps of batch 8" in text
    assert "went on for 77 steps" in text
    assert f"| phrase_late (2) |{' 0.550 ± 0.071 |' * 7}" in lines
    assert "| phrase_late (2) | 2.500 ± 0.000 | 0.500 ± 0.000 | 1.500 ± 0.000 |" in lines
    # 100 names: twice the cost of 10, by three steps, two with cached prompts, one with the picture cached too
    assert "| phrase_late (2) | 20.0 ± 0.0 | 20.0 ± 0.0 | 20.0 ± 0.0 | 60.0 ± 0.0 |" in lines
    for kept, steps in (("nothing", 3), ("prompts", 2), ("prompts, image", 1)):
        shown = " | ".join(f"{10 * steps * n}.0 ± 0.0" for n in (1, 2, 3, 4))
        assert f"| phrase_late (2) | {kept} | {shown} |" in lines

    def verdict(start: str) -> str:
        [found] = [line for line in lines if line.startswith(f"- {start}")]
        return found.rsplit(": ", 1)[1]

    assert verdict("One vector") == "**reproduced** (+0.300, +0.600)."
    assert verdict("No interference") == "**reproduced** (+0.200, +0.400)."
    assert verdict("Cheaper: with 100 names") == "**not shown in every seed** (+1.000, +0.010)."
    assert (
        verdict("Deep interaction: early fusion learns relations better, by phrase")
        == "**reproduced** (+0.650, +0.550)."
    )
    assert verdict("Deep interaction: early fusion learns relations better, by word") == "no runs."
    assert verdict("Early fusion finds more on seen categories, by phrase").endswith("(+0.000, -0.100).")
    assert verdict("Open vocabulary: T-Rex2 finds more novel").endswith("(+0.000, +0.100).")


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "easy", replace(PRESETS["easy"], num_images={"val": 2, "test": 40, "reference": 2}))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    for split in RELATIONS:
        monkeypatch.setitem(RELATIONS, split, 8)
    monkeypatch.setattr(costs, "VOCABULARIES", (10, 100))
    monkeypatch.setattr(costs, "MIN_SECONDS", 0.001)


@pytest.mark.slow
def test_cells_are_trained_alike_measured_and_not_repeated(
    few_pictures: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, str]] = []
    configs = {}

    def script(name: str, folder: Path, *arguments: str) -> None:
        made.append((name, folder.name))
        if name == "train":
            configs[folder.name] = load(arguments[0], list(arguments[1:]))
        {"train": train_command, "evaluate": evaluate_command}[name](list(arguments))

    monkeypatch.setattr(sweep, "script", script)
    monkeypatch.setattr(fusion_ablation, "CELLS", ("phrase_late", "word_early"))
    monkeypatch.chdir(ROOT)
    page = tmp_path / "page.md"
    call = ["--seeds", "3", "--jobs", "1", "--output", str(tmp_path), "--page", str(page), "--quick"]
    call += [f"data.root={tmp_path / 'shapes'}", "train.max_steps=1", *SETTINGS]
    monkeypatch.setattr(fusion_page, "FUSION_TRENDS", fusion_page.FUSION_TRENDS[:1])
    ablation_fusion(call)
    rows = ["phrase_late_3", "word_early_3", "phrase_late_relations_3", "word_early_relations_3"]
    assert made == [(name, row) for row in rows for name in ("train", "evaluate")]
    late, early = configs["phrase_late_3"], configs["word_early_3"]
    assert (late.seed, late.logging.group) == (3, "ablation_fusion")
    early.name, early.model.granularity, early.model.fusion = late.name, "phrase", "late"
    assert early == late
    learned = configs["word_early_relations_3"]
    folder = tmp_path / "ablation" / "fusion_quick"
    assert learned.train.init_from == str(folder / "word_early_3" / "checkpoints" / "last.ckpt")
    assert learned.data.augment.horizontal_flip == 0  # a flipped picture has its left on the right
    assert learned.data.train.images == "relations_train"
    for row in rows[:2]:
        measures = json.loads((folder / row / "measures.json").read_text())
        assert list(measures["lengthened"]) == list(claims.NAME_FORMS)
        assert all(set(fusion_page.SHOWN_GROUPS) <= set(found) for found in measures["lengthened"].values())
        assert set(measures["relations"]) == {"names", "phrases"}
        tokens = [found["tokens"] for found in measures["lengthened"].values()]
        assert (tokens == [100] * 4) == row.startswith("phrase")
    assert "| word_early (1) |" in page.read_text()

    made.clear()
    page.unlink()
    ablation_fusion(call)
    assert made == []
    assert page.is_file()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_quick_ablation_makes_every_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    jobs = str(min(os.cpu_count() or 1, 4))
    ablation_fusion(["--quick", "--jobs", jobs, "--output", str(tmp_path), "logging.wandb=disabled"])
    folder = tmp_path / "ablation" / "fusion_quick"
    text = (folder / "ablation_fusion.md").read_text()
    total: dict[str, dict[str, float]] = {}
    for name in fusion_ablation.CELLS:
        assert f"| {name} (1) |" in text
        measures: dict[str, Any] = json.loads((folder / f"{name}_0" / "measures.json").read_text())
        total[name] = {count: sum(steps.values()) for count, steps in measures["gflops"].items()}
    for count in ("10", "2000"):
        assert mean(total[name][count] for name in total if name.endswith("early")) > total["phrase_late"][count]
