"""The ablation of prompts: which runs it makes, and what its page says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trex2_lightning.commands.ablation_prompts import main as ablation_prompts
from trex2_lightning.config import load
from trex2_lightning.studies import prompt_ablation, sweep

WAYS = ["text", "hinted_text", "interactive_box", "interactive_point", "mixed"]
WAYS += [f"generic_{count}" for count in (1, 4, 16, 32)]


def run_with(**values: float) -> prompt_ablation.PromptAP:
    return {way: dict.fromkeys(("seen", "rare", "novel"), values.get(way, 0.5)) for way in WAYS}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, tuple[str, ...]]]:
    """What would have been run; an evaluation leaves its file."""
    made: list[tuple[str, str, tuple[str, ...]]] = []

    def script(name: str, run: Path, *arguments: str) -> None:
        made.append((name, run.name, arguments))
        if name == "evaluate":
            run.mkdir(parents=True)
            (run / "evaluation.json").write_text(json.dumps({"ap": run_with()}))

    monkeypatch.setattr(sweep, "script", script)
    monkeypatch.chdir(Path(__file__).parents[2])
    return made


def test_every_row_goes_on_from_the_stage_1_of_its_seed(calls, tmp_path):
    arguments = ["--rows", "paper", "from_scratch", "--seeds", "3", "4", "--jobs", "1"]
    ablation_prompts([*arguments, "--output", str(tmp_path), "--page", str(tmp_path / "page.md")])
    trained = {run: arguments for name, run, arguments in calls if name == "train"}
    assert list(trained) == ["stage1_3", "stage1_4", "paper_3", "from_scratch_3", "paper_4", "from_scratch_4"]
    start = tmp_path / "ablation" / "prompts" / "stage1_4" / "checkpoints" / "last.ckpt"
    assert f"train.init_from={start}" in trained["paper_4"]
    assert not any("init_from" in argument for argument in trained["from_scratch_4"])
    for row, seed in (("paper", 4), ("from_scratch", 4), ("stage1", 4)):
        file, *overrides = trained[f"{row}_{seed}"]
        config = load(file, overrides)
        assert (config.seed, config.folder) == (4, tmp_path / "ablation" / "prompts" / f"{row}_{seed}")


def test_a_finished_run_is_not_repeated_and_a_broken_one_goes_on(calls, tmp_path):
    folder = tmp_path / "ablation" / "prompts"
    for run in ("stage1_0", "paper_0"):
        (folder / run / "checkpoints").mkdir(parents=True)
        (folder / run / "checkpoints" / "last.ckpt").touch()
    (folder / "stage1_0" / "evaluation.json").write_text(json.dumps({"ap": run_with()}))
    calls_of_paper = ["--rows", "paper", "--seeds", "0", "--output", str(tmp_path), "--page", str(tmp_path / "page.md")]
    with pytest.raises(FileExistsError):  # the stand-in evaluation makes a new folder
        ablation_prompts(calls_of_paper)
    [(name, run, arguments), _] = calls
    assert (name, run, arguments[1]) == ("train", "paper_0", "--resume")


def test_a_run_that_was_evaluated_on_val_alone_is_evaluated_and_not_read(calls, tmp_path):
    folder = tmp_path / "prompts"
    for seed, split in enumerate(("test", "val")):
        (folder / f"paper_{seed}").mkdir(parents=True)
        (folder / f"paper_{seed}" / "evaluation.json").write_text(json.dumps({"split": split, "ap": run_with()}))
    assert sweep.folders(folder, "paper") == {0: folder / "paper_0"}
    assert list(prompt_ablation._finished(folder, ["paper"])["paper"]) == [0]
    sweep.finish(folder / "paper_0", Path("x.yaml"), [])
    assert calls == []
    with pytest.raises(FileExistsError):  # the stand-in evaluation makes a new folder
        sweep.finish(folder / "paper_1", Path("x.yaml"), [])
    assert [name for name, *_ in calls] == ["train", "evaluate"]


def test_rows_differ_from_the_paper_s_in_one_choice():
    paper = load(prompt_ablation.ROWS / "paper.yaml")
    for row, change in (
        ("no_alignment", {"loss": {"alignment": {"weight": 0.0}}}),
        ("batch_scope", {"train": {"prompt_scope": "batch"}}),
        ("cross_image", {"data": {"exemplars": {"cross_image": 0.5}}}),
        ("nameless", {"data": {"nameless": {"share": 0.3}}}),
        ("from_scratch", {"train": {"init_from": ""}}),
    ):
        other = load(prompt_ablation.ROWS / f"{row}.yaml", ["name=ablation/prompts/paper"])
        assert differences(other, paper) == change, row


def test_a_trend_needs_every_seed():
    runs = {
        "paper": {0: run_with(generic_16=0.6), 1: run_with(generic_16=0.58)},
        "no_alignment": {0: run_with(generic_16=0.5), 1: run_with(generic_16=0.5)},
        "nameless": {0: run_with(generic_16=0.5), 1: run_with(generic_16=0.7)},
        "stage1": {0: {"text": {"seen": 0.4, "rare": 0.3, "novel": 0.0}}},
    }
    lines = prompt_ablation.prompt_page(runs).splitlines()

    def line(start: str) -> str:
        [found] = [line for line in lines if line.startswith(start)]
        return found

    assert line("- Alignment lifts generic").endswith("**reproduced** (+0.100, +0.080).")
    assert line("- Nameless visual data lowers").endswith("**not shown, the seeds disagree** (+0.100, -0.120).")
    assert line("- Visual training costs text").endswith("**the contrary is found** (-0.200).")
    assert line("- Boxes beat points").endswith("**no difference beyond 0.01** (+0.000, +0.000).")
    assert line("- Starting from text").endswith("no runs.")
    assert "| paper (2) | 0.500 ± 0.000 | 0.500 ± 0.000 | 0.500 ± 0.000 | 0.500 ± 0.000 | 0.590 ± 0.014 |" in "".join(
        lines
    )
    assert "| stage1 (1) | 0.400 |  |" in "".join(lines)


def differences(one, other) -> dict:
    """Where two configurations differ, with the values of the first."""
    found = {}
    for key, value in vars(one).items():
        if value != getattr(other, key):
            found[key] = differences(value, getattr(other, key)) if hasattr(value, "__dict__") else value
    return found
