"""Stage 2 as a run: it starts from stage 1's weights, says so, and resumes with all that its iterations draw from."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recorded_runs import CrashError, interrupted_and_resumed, last_of
from torch import Tensor

from trex2_lightning.config import Config, load
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.structures import Batch, Box
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule

TinyConfig = Callable[..., Config]
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
STEPS, SAVED_AT, CRASH_AT = 8, 4, 6
EVERYTHING = (
    "data.exemplars.cross_image=0.5",
    "data.nameless.images=train",
    "data.nameless.share=0.3",
    "train.memory_bank={size: 2, negatives: 2}",
    "train.rhythm={visual: 5, text: 1}",
    "train.total_batch=2",
    f"train={{max_steps: {STEPS}, val_every: {STEPS}, save_every: {SAVED_AT}}}",
)


def add_nameless(root: Path) -> None:
    """The training images once more, every object a category of its own."""
    content = json.loads((root / "train.json").read_text())
    objects = [item | {"category_id": item["id"]} for item in content["annotations"]]
    names = [{"id": item["id"], "name": f"thing {item['id']}"} for item in objects]
    (root / "nameless.json").write_text(json.dumps(content | {"annotations": objects, "categories": names}))


def recorded(patch: pytest.MonkeyPatch, crash_at: int | None = None) -> list[tuple[float, str]]:
    """Loss and source of every batch of runs from now on."""
    seen: list[tuple[float, str]] = []
    step = DetectionModule.training_step

    def recording(self: DetectionModule, batch: Batch, batch_idx: int) -> Tensor:
        if batch_idx == crash_at:
            raise CrashError
        loss = step(self, batch, batch_idx)
        source = "cross" if batch.cross_image else "named" if batch.prompts.phrases else "nameless"
        seen.append((loss.item(), "text" if batch.prompts.exemplars is None else source))
        return loss

    patch.setattr(DetectionModule, "training_step", recording)
    return seen


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tiny_coco: Path, tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_nameless(tiny_coco)
    whole, broken = tiny_config("name=whole", *EVERYTHING), tiny_config("name=broken", *EVERYTHING)
    with monkeypatch.context() as patch:
        losses = recorded(patch)
        train(whole)
    assert {source for _, source in losses} == {"text", "named", "cross", "nameless"}
    before, after = interrupted_and_resumed(broken, monkeypatch, CRASH_AT, recorded)
    assert before == losses[:CRASH_AT]
    assert after == losses[SAVED_AT:]
    one, other = (torch.load(last_of(config), weights_only=True) for config in (whole, broken))
    for part in ("state_dict", "memory_bank"):
        torch.testing.assert_close(one[part], other[part], rtol=0, atol=0)
    assert max(len(vectors) for vectors in one["memory_bank"][""].values()) == 2


def test_what_it_starts_from_is_said(
    tiny_config: TinyConfig, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config("name=stage2", f"train.init_from={checkpoint}", "train.rhythm.visual=8", "train.max_steps=1")
    with caplog.at_level(logging.INFO):
        train(config)
        assert f"starting from the weights of {checkpoint}" in caplog.text
        caplog.clear()
        checkpoint.unlink()  # is not needed any more
        train(config, resume=True)
    assert f"going on from {last_of(config)}" in caplog.text


@pytest.mark.parametrize(("settings", "told"), [((), True), (("model.visual.source=neck",), False)])
def test_that_early_fusion_reads_exemplars_from_the_neck_is_said(
    tiny_config: TinyConfig, caplog: pytest.LogCaptureFixture, settings: tuple[str, ...], told: bool
) -> None:
    with caplog.at_level(logging.INFO):
        train(tiny_config("model.fusion=early", "train.rhythm.visual=8", "train.max_steps=1", *settings))
    assert ("model.visual.source=encoder: early fusion" in caplog.text) == told


def test_a_missing_checkpoint_ends_with_the_command_that_makes_one(tiny_config: TinyConfig) -> None:
    config = tiny_config("data.root=nowhere", "train.init_from=gone.ckpt")
    with pytest.raises(
        InputError, match=r"^no checkpoint gone\.ckpt to start from: train the run .*CKPT=FILE"
    ) as error:
        train(config)
    assert "\n" not in str(error.value)
    assert not config.folder.exists()


@pytest.mark.parametrize(
    "path",
    [path for path in EXPERIMENTS.rglob("*.yaml") if "init_from: runs/" in path.read_text()],
    ids=lambda p: p.stem,
)
def test_a_missing_checkpoint_of_an_experiment_ends_with_the_command_that_makes_that_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(EXPERIMENTS)
    config = load(path, ["train.accelerator=cpu", "train.devices=1", "train.nodes=1", "logging.wandb=disabled"])
    with pytest.raises(InputError) as error:
        train(config)
    [named] = re.findall(r"to start from: trex2 train (\S+) data\.root=FOLDER trains it", str(error.value))
    assert load(named).folder == Path(config.train.init_from).parent.parent


@pytest.mark.parametrize("change", ["model.visual.combine=concat", "model.visual.layers=1"])
def test_a_visual_prompt_encoder_that_stage_1_never_trained_may_be_another(
    tiny_config: TinyConfig, checkpoint: Path, change: str
) -> None:
    still = ("optim.lr=0", "optim.lr_text=0", "optim.lr_backbone=0", "train.ema_decay=0", "train.max_steps=1")
    begin = ("train.rhythm={visual: 1, text: 0}", f"train.init_from={checkpoint}")
    config = tiny_config("name=stage2", change, *begin, *still)
    module = train(config)
    stage1 = torch.load(checkpoint, weights_only=True)
    assert "memory_bank" not in stage1  # there was none
    start = stage1["state_dict"]
    for name, parameter in module.named_parameters():
        if not name.startswith("detector.visual_encoder."):
            assert parameter.equal(start[name]), name
    text = tiny_config("name=text", change, f"train.init_from={last_of(config)}", *still)
    train(text)  # leaves what was trained as it is
    again = ("name=stage3", "train.rhythm.visual=1", *still)
    for trained in (last_of(config), last_of(text)):
        with pytest.raises(InputError, match="has another architecture"):
            train(tiny_config(*again, f"train.init_from={trained}"))


def test_what_trained_visual_prompts_is_known_of_the_runs_that_go_on(
    tiny_config: TinyConfig, checkpoint: Path, tiny_coco: Path
) -> None:
    """Whatever their own rhythm, and after a resume; of an older checkpoint its rhythm tells."""
    short, image = ("train.max_steps=1", "train.ema_decay=0"), tiny_coco / "test" / "1.jpg"
    marked = {"cell": [Box(5, 6, 30, 40)]}
    start = checkpoint
    for name, visual, expected in (("again", 0, False), ("stage2", 1, True), ("text", 0, True)):
        rhythm = f"train.rhythm.visual={visual}"
        config = tiny_config(f"name={name}", f"train.init_from={start}", rhythm, *short)
        train(config)
        train(replace(config, train=replace(config.train, max_steps=2)), resume=True)
        start = last_of(config)
        assert load_checkpoint(start)[1].visual_trained is expected
        predictor = Predictor.from_pretrained(start)
        if expected:
            assert predictor.interactive(image, marked).names == ("cell",)
        else:
            with pytest.raises(InputError, match="was trained with text alone"):
                predictor.interactive(image, marked)
    assert "interactive_box" in evaluate(*load_checkpoint(start), "test").rows

    content = torch.load(start, weights_only=True)
    del content["visual_trained"], content["config"]["format"]
    for visual in (0, 1):
        content["config"]["train"]["rhythm"]["visual"] = visual
        torch.save(content, start)
        assert load_checkpoint(start)[1].visual_trained is bool(visual)
