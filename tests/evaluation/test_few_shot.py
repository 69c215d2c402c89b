"""Few-shot benchmarks on small files in their formats: whose boxes are shown, what is counted, what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from benchmark_folders import FEW_NAMES, cdfsod, coco_fsod, lvis_fsod
from torch import Tensor

from trex2_lightning.commands.evaluate import main as evaluate_command
from trex2_lightning.config import Config, for_benchmark, override
from trex2_lightning.data.sampling.references import Support
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation import tasks
from trex2_lightning.prompting import reference_encoder
from trex2_lightning.training.build import build_datamodule
from trex2_lightning.training.module import DetectionModule

TinyConfig = Callable[..., Config]
EVAL = Path(__file__).parents[2] / "experiments" / "eval"


def evaluated(checkpoint: Path, benchmark: str, root: Path) -> dict[str, Any]:
    evaluate_command(["--ckpt", str(checkpoint), str(EVAL / f"{benchmark}.yaml"), f"data.root={root}"])
    written = json.loads((checkpoint.parent.parent / "eval" / benchmark / "evaluation.json").read_text())
    assert isinstance(written, dict)
    return written


def supports(config: Config, monkeypatch: pytest.MonkeyPatch) -> dict[str, Support]:
    """What the generic prompts of each task are made of, without a detector."""
    monkeypatch.setattr(tasks, "evaluate", lambda own, *_, **__: support(own))
    visual = cast(DetectionModule, SimpleNamespace(knows_exemplars=True, visual_trained=True))
    return cast(dict[str, Support], tasks.evaluate_tasks(config, visual, "test"))


def support(config: Config) -> Support:
    data = build_datamodule(config)
    data.setup("test")
    [count] = config.eval.references
    data.draw_references(data.names, count)
    return data.support(count)


@pytest.mark.parametrize("shots", [10, 30])
def test_all_boxes_of_every_seed_are_exemplars(
    shots: int, tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though an image has several of a category, and tv has a box less than the others."""
    coco_fsod(tmp_path)
    config = for_benchmark(tiny_config(), EVAL / f"coco_fsod_{shots}shot_seeds.yaml")
    found = supports(override(config, [f"data.root={tmp_path}"]), monkeypatch)
    exemplars = dict.fromkeys(FEW_NAMES, shots) | {"tv": shots - 1}
    assert found == {f"seed{seed}": Support(4, exemplars, 0) for seed in range(10)}


@pytest.mark.parametrize("shots", [1, 5, 10])
def test_all_boxes_of_every_set_are_exemplars(
    shots: int, tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second category of each set has two boxes at most."""
    cdfsod(tmp_path)
    config = for_benchmark(tiny_config(), EVAL / f"cdfsod_{shots}shot.yaml")
    found = supports(override(config, [f"data.root={tmp_path}"]), monkeypatch)
    assert list(found) == ["ArTaxOr", "Clipart1k", "DIOR", "DeepFish", "NEU-DET", "UODD"]
    for own in found.values():
        assert (own.images, list(own.exemplars.values()), own.left_out) == (shots, [shots, min(shots, 2)], 0)


def test_rare_categories_of_lvis_from_its_shots(visual_checkpoint: Path, tmp_path: Path) -> None:
    lvis_fsod(tmp_path)
    written = evaluated(visual_checkpoint, "lvis_fsod_10shot", tmp_path)
    assert written["ap"]["generic_10"].keys() == {"all", "rare", "common", "frequent"}
    exemplars = {"stop sign": 10, "cap (hat)": 9, "cup": 8, "acorn": 0}
    assert written["references"] == {"10": {"images": 10, "exemplars": exemplars, "left_out": 0}}


def test_novel_ap_stands_beside_base_ap_and_the_exemplars_are_told(
    visual_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    coco_fsod(tmp_path, shots=[10], seeds=[0])
    shown: list[Tensor] = []
    stack = reference_encoder.stack_exemplars

    def counted(boxes: list[dict[int, Tensor]], **others: Any) -> Any:
        shown.extend(own for image in boxes for own in image.values())
        return stack(boxes, **others)

    monkeypatch.setattr(reference_encoder, "stack_exemplars", counted)
    written = evaluated(visual_checkpoint, "coco_fsod_10shot", tmp_path)
    assert written["ap"]["generic_10"].keys() == {"all", "base", "novel"}
    assert len(torch.cat(shown)) == 39  # ten boxes of each of four categories, but nine of tv
    [told] = written["references"].values()
    assert told == {
        "images": 4,
        "exemplars": {"cat": 10, "traffic light": 10, "tv": 9, "toothbrush": 10},
        "left_out": 0,
    }
    line = "39 exemplars of 4 categories in 4 images, fewest 9 of tv; 0 boxes of the reference split left out"
    assert f"generic_10: {line}" in capsys.readouterr().out


def test_the_novel_categories_alone(visual_checkpoint: Path, tmp_path: Path) -> None:
    coco_fsod(tmp_path, shots=[30], seeds=[0])
    written = evaluated(visual_checkpoint, "coco_fsod_30shot_novel", tmp_path)
    assert written["ap"]["generic_30"].keys() == {"all", "novel"}
    assert written["ap"]["generic_30"]["all"] == written["ap"]["generic_30"]["novel"]
    assert written["references"]["30"]["exemplars"] == {"cat": 30, "tv": 29}
    folder = visual_checkpoint.parent.parent / "eval" / "coco_fsod_30shot_novel"
    results = json.loads((folder / "results_generic_30.json").read_text())
    assert {item["category_id"] for item in results} == {0, 2}


def test_what_is_missing_is_told_before_the_first_task_begins(
    visual_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Config] = []
    monkeypatch.setattr(tasks, "evaluate", lambda own, *_: begun.append(own))
    coco_fsod(tmp_path / "coco", shots=[10], seeds=[0, 1, 2, 3, 4, 5, 6, 8, 9])
    with pytest.raises(
        InputError, match=r"1 annotation files of the 10 tasks are missing, such as .*seed7/full_box_10"
    ):
        evaluated(visual_checkpoint, "coco_fsod_10shot_seeds", tmp_path / "coco")
    cdfsod(tmp_path / "cd")
    (tmp_path / "cd" / "UODD" / "annotations" / "5_shot.json").unlink()
    (tmp_path / "cd" / "FISH" / "annotations" / "test.json").unlink()
    missing = r"2 annotation files of the 6 tasks .*FISH/annotations/test\.json; .*UODD/annotations/5_shot\.json: set "
    with pytest.raises(InputError, match=missing + r"data\.root= .*the head of the benchmark's file says"):
        evaluated(visual_checkpoint, "cdfsod_5shot", tmp_path / "cd")
    assert begun == []


def test_a_category_without_a_file_of_shots_ends_the_run(visual_checkpoint: Path, tmp_path: Path) -> None:
    coco_fsod(tmp_path, shots=[10], seeds=[0])
    (tmp_path / "cocosplit" / "full_box_10shot_tv_trainval.json").unlink()
    with pytest.raises(InputError, match=r"cocosplit: has no full_box_10shot_tv_trainval\.json: fetch cocosplit/ from"):
        evaluated(visual_checkpoint, "coco_fsod_10shot", tmp_path)
