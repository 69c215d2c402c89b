"""The ladder of ideas for stage 2: which runs it makes, whether they are comparable, and what its page says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from trex2_lightning.commands.ablation_prompts import main as ablation_prompts
from trex2_lightning.config import Config, load
from trex2_lightning.data.sampling.mixture import TrainSet, with_nameless
from trex2_lightning.data.sampling.rhythm import turn
from trex2_lightning.errors import InputError
from trex2_lightning.studies import prompt_ablation, prompt_page, sweep
from trex2_lightning.studies.prompt_rows import BASE, BASES, ROWS, SETS, STAGE1, row

Calls = list[tuple[str, str, tuple[str, ...]]]
RUNS = [(name, one) for name in SETS for one in ROWS if name in ROWS[one].sets]


def run_with(**values: float) -> dict[str, dict[str, float]]:
    return {way: dict.fromkeys(("seen", "rare", "novel"), values.get(way, 0.5)) for way in prompt_page.WAYS}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What would have been run; an evaluation leaves its file."""
    made: Calls = []

    def script(name: str, run: Path, *arguments: str) -> None:
        made.append((name, f"{run.parent.name}/{run.name}", arguments))
        if name == "evaluate":
            run.mkdir(parents=True)
            (run / "evaluation.json").write_text(json.dumps({"ap": run_with()}))

    monkeypatch.setattr(sweep, "script", script)
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.delenv("TREX2_DATA", raising=False)
    return made


@pytest.fixture
def ladder(calls: Calls, tmp_path: Path) -> Any:
    """`ladder("--rows", ...)`: the trainings of a call, by run, and the text of the page."""

    def run(*arguments: str) -> tuple[dict[str, tuple[str, ...]], str]:
        calls.clear()
        ablation_prompts([*arguments, "--jobs", "1", "--output", str(tmp_path), "--page", str(tmp_path / "page.md")])
        return {run: given for name, run, given in calls if name == "train"}, (tmp_path / "page.md").read_text()

    return run


@cache
def settings(name: str, one: str) -> Config:
    return load(BASES / f"{name}.yaml", [*row(one).changes])


@pytest.mark.parametrize(("name", "one"), RUNS)
def test_rows_have_equal_numbers_of_images_and_of_steps_with_named_exemplars(name: str, one: str) -> None:
    config, base = settings(name, one), settings(name, BASE)
    assert (config.train.max_steps, config.train.total_batch) == (base.train.max_steps, base.train.total_batch)
    for steps in (396, base.train.max_steps):
        assert named_steps(config, steps) == named_steps(base, steps)
    if row(one).of_stage1:
        load(STAGE1[name], [*row(one).changes])


def named_steps(config: Config, steps: int) -> int:
    sets = [TrainSet([], ())]
    if config.data.nameless.share:
        sets = with_nameless(sets, [], config.data.nameless.share)
    turns = [turn(step, config.train.rhythm, sets) for step in range(steps)]
    return sum(1 for one in turns if one.visual and one.source != "nameless")


@pytest.mark.parametrize(("name", "one"), RUNS)
def test_a_row_changes_what_it_says_and_nothing_else(name: str, one: str) -> None:
    changed = differences(settings(name, one), settings(name, BASE))
    keys = {change.partition("=")[0] for change in row(one).changes}
    assert all(any(key == own or key.startswith(f"{own}.") for own in keys) for key in changed)
    assert bool(changed) == (one != BASE)


def test_the_row_of_the_paper_is_its_recipe() -> None:
    """But for the rhythm, which is equal in all rows."""
    row_s, recipe = settings("shapes", "paper"), load("experiments/stage2_paper.yaml")
    assert row_s.loss.alignment == recipe.loss.alignment
    assert row_s.data.exemplars == recipe.data.exemplars
    for key in ("combine", "order", "source"):
        assert getattr(row_s.model.visual, key) == getattr(recipe.model.visual, key)
    assert (row_s.train.prompt_scope, row_s.train.memory_bank) == (recipe.train.prompt_scope, recipe.train.memory_bank)


def test_the_base_on_photographs_is_their_recipe_on_two_sets() -> None:
    base, recipe = settings("photographs", BASE), load("experiments/photographs_stage2.yaml")
    allowed = ("data.sets", "data.val", "data.num_workers", "eval", "name", "logging.group")
    allowed += ("train.init_from", "train.max_steps", "train.val_every", "train.rhythm")
    assert all(key.startswith(allowed) for key in differences(base, recipe))
    first = differences(load(STAGE1["photographs"]), load("experiments/photographs.yaml"))
    assert all(key.startswith(allowed) for key in first)


def test_rows_are_put_together() -> None:
    both = row("cross_image+kinds_100")
    assert both.changes == (*ROWS["cross_image"].changes, *ROWS["kinds_100"].changes)
    assert both.sets == ("shapes",)
    assert row("stars+kinds_100").changes == ROWS["kinds_100"].changes  # the same share, once
    with pytest.raises(InputError, match=r"data.shapes.nameless_kinds, 100 and 1000"):
        row("kinds_100+kinds_1000")
    with pytest.raises(InputError, match="there is no row 'nothing'"):
        row("base+nothing")


def test_every_row_goes_on_from_the_stage_1_of_its_seed(ladder: Any, tmp_path: Path) -> None:
    trained, _ = ladder("--rows", BASE, "from_scratch", "--seeds", "3", "4")
    folder = tmp_path / "ablation" / "prompts" / "shapes"
    runs = ["stage1_3", "stage1_4", "base_3", "from_scratch_3", "base_4", "from_scratch_4"]
    assert list(trained) == [f"shapes/{run}" for run in runs]
    assert f"train.init_from={folder / 'stage1_4' / 'checkpoints' / 'last.ckpt'}" in trained["shapes/base_4"]
    for one in (BASE, "from_scratch", "stage1"):
        file, *overrides = trained[f"shapes/{one}_4"]
        config = load(file, overrides)
        assert not config.train.calibrate  # which takes longer than the rest of an evaluation
        assert (config.seed, config.folder) == (4, folder / f"{one}_4")
        assert bool(config.train.init_from) == (one == BASE)


def test_a_row_that_changes_stage_1_has_one_of_its_own(ladder: Any, tmp_path: Path) -> None:
    trained, _ = ladder("--rows", BASE, "no_appearance_input", "--seeds", "0", "--data", "D", "--sets", "photographs")
    own = "stage1+no_appearance_input_0"
    assert [*trained] == [f"photographs/{run}" for run in ("stage1_0", own, "base_0", "no_appearance_input_0")]
    start = tmp_path / "ablation" / "prompts" / "photographs" / own / "checkpoints" / "last.ckpt"
    for run, given in trained.items():
        config = load(given[0], [*given[1:]])
        assert config.data.root == "D"
        assert config.model.appearance.input == ("no_appearance_input" not in run)
    assert f"train.init_from={start}" in trained["photographs/no_appearance_input_0"]


def test_a_screening_is_short_and_beside_the_whole_runs_from_the_same_stage_1(ladder: Any, tmp_path: Path) -> None:
    trained, page = ladder("--rows", BASE, "bank+neck", "--screen")
    assert [*trained] == ["shapes/stage1_0", "shapes_screen/base_0", "shapes_screen/bank+neck_0"]
    config = load(trained["shapes_screen/bank+neck_0"][0], [*trained["shapes_screen/bank+neck_0"][1:]])
    assert (config.train.max_steps, config.train.memory_bank.size, config.model.visual.source) == (396, 16, "neck")
    assert config.train.init_from.endswith("shapes/stage1_0/checkpoints/last.ckpt")
    assert load(trained["shapes/stage1_0"][0], [*trained["shapes/stage1_0"][1:]]).train.max_steps == 1300
    assert "## shapes, 396 steps, screening" in page
    assert "| bank+neck (1) |" in page
    again, _ = ladder("--rows", BASE, "bank+neck", "bank", "--screen")
    assert [*again] == ["shapes_screen/bank_0"]  # the others are finished


def test_a_row_of_evaluation_asks_the_base_s_checkpoint_and_trains_nothing(
    ladder: Any, calls: Calls, tmp_path: Path
) -> None:
    trained, page = ladder("--rows", "best_reference", BASE, "--screen")
    assert [*trained] == ["shapes/stage1_0", "shapes_screen/base_0"]
    folder = tmp_path / "ablation" / "prompts" / "shapes_screen"
    name, run, given = calls[-1]
    assert (name, run) == ("evaluate", "shapes_screen/best_reference_0")
    base = ["--ckpt", str(folder / "base_0" / "checkpoints" / "last.ckpt")]
    assert [*given] == [*base, "--output", str(folder / "best_reference_0"), "eval.aggregation=best"]
    assert "| best_reference (1) |" in page
    assert ladder("--rows", "best_reference", BASE, "--screen")[0] == {}
    assert calls == []
    assert row("best_reference+bank").of_evaluation is False


def test_a_stage_1_can_be_given(ladder: Any, tmp_path: Path) -> None:
    trained, _ = ladder("--rows", BASE, "--seeds", "5", "--stage1", "there.ckpt")
    assert [*trained] == ["shapes/base_5"]
    assert "train.init_from=there.ckpt" in trained["shapes/base_5"]
    with pytest.raises(InputError, match="a checkpoint for each of --seeds"):
        ladder("--stage1", "there.ckpt")
    with pytest.raises(InputError, match="of one data set"):
        ladder("--seeds", "0", "--stage1", "there.ckpt", "--data", "D")


def test_photographs_need_a_folder(ladder: Any) -> None:
    with pytest.raises(InputError, match="give --data"):
        ladder("--sets", "photographs")


def test_the_page_is_written_of_what_is_finished_where_a_run_fails(
    ladder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sweep.script

    def script(name: str, run: Path, *arguments: str) -> None:
        if run.name == "bank_0":
            raise InputError("no memory")
        made(name, run, *arguments)

    monkeypatch.setattr(sweep, "script", script)
    with pytest.raises(InputError, match="no memory"):
        ladder("--rows", "bank", BASE, "neck", "--seeds", "0")
    page = (tmp_path / "page.md").read_text()
    assert "| neck (1) |" in page
    assert "| bank" not in page


def test_a_broken_run_goes_on(calls: Calls, tmp_path: Path) -> None:
    last = tmp_path / "ablation" / "prompts" / "shapes" / "base_0" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    arguments = ["--rows", BASE, "--seeds", "0", "--stage1", "x", "--output", str(tmp_path)]
    with pytest.raises(FileExistsError):  # the stand-in evaluation makes a new folder
        ablation_prompts([*arguments, "--page", str(tmp_path / "page.md")])
    [(name, run, given), _] = calls
    assert (name, run, given[1]) == ("train", "shapes/base_0", "--resume")


def test_a_run_that_was_evaluated_on_val_alone_is_evaluated_and_not_read(calls: Calls, tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    for seed, split in enumerate(("test", "val")):
        (folder / f"base_{seed}").mkdir(parents=True)
        (folder / f"base_{seed}" / "evaluation.json").write_text(json.dumps({"split": split, "ap": run_with()}))
    assert sweep.folders(folder, BASE) == {0: folder / "base_0"}
    [found] = prompt_ablation.finished(tmp_path)
    assert [*found.runs[BASE]] == [0]
    sweep.finish(folder / "base_0", Path("x.yaml"), [])
    assert calls == []
    with pytest.raises(FileExistsError):  # the stand-in evaluation makes a new folder
        sweep.finish(folder / "base_1", Path("x.yaml"), [])
    assert [name for name, *_ in calls] == ["train", "evaluate"]


def test_the_figures_of_a_run_on_two_sets_are_read_set_by_set(tmp_path: Path) -> None:
    run = tmp_path / "photographs" / "base_0"
    (run / "csv" / "version_0").mkdir(parents=True)
    tasks = {"groceries": {"ap": run_with(text=0.2)}, "logos": {"ap": run_with(text=0.1)}}
    (run / "evaluation.json").write_text(json.dumps({"split": "test", "ap": {"text": {"mean": 0.15}}, "tasks": tasks}))
    rows = "\n".join(f"{step},{seconds}" for step, seconds in ((1, 0.5), (2, 0.7), (3, 9)))
    (run / "csv" / "version_0" / "metrics.csv").write_text(f"step,resources/seconds_per_step\n{rows}\n")
    [found] = prompt_ablation.finished(tmp_path)
    assert found.runs[BASE][0].ap["logos"]["text"]["novel"] == 0.1
    assert found.runs[BASE][0].seconds == 0.7
    page = prompt_page.prompt_page([found])
    assert "| base (1) | 0.100 / 0.100 | 0.500 / 0.500 |" in page
    assert "| 0.70 |" in page


def differences(one: Any, other: Any, before: str = "") -> dict[str, Any]:
    """The dotted keys where two configurations differ, with the values of the first."""
    found: dict[str, Any] = {}
    for key, value in vars(one).items():
        former = getattr(other, key)
        if hasattr(value, "__dict__") and not isinstance(value, Mapping):
            found |= differences(value, former, f"{before}{key}.")
        elif value != former:
            found[f"{before}{key}"] = value
    return found
