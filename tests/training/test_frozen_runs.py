"""A run that trains the visual prompt encoder alone finds by text what it found before, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities import move_data_to_device
from recorded_runs import assert_same_end, interrupted_and_resumed, last_of, read, recorded_losses
from torch import Tensor

from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.training.build import build_datamodule, build_module
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule
from trex2_lightning.training.optim import adamw
from trex2_lightning.training.preflight import preflight

TinyConfig = Callable[..., Config]
PARTS = ["backbone", "neck", "text_encoder", "encoder", "selection", "decoder", "heads", "noised_content"]
CELLS = [(granularity, fusion) for granularity in ("phrase", "word") for fusion in ("late", "early")]
VISUAL = ("train.rhythm={visual: 1, text: 0}", "loss.denoising.queries=0", "model.transformer.dropout=0.1")


def frozen(fusion: str = "late") -> tuple[str, ...]:
    """Settings with which the visual prompt encoder alone is trained."""
    parts = [*PARTS, "fusions"] if fusion == "early" else PARTS
    return (*VISUAL, f"model.fusion={fusion}", f"train.frozen=[{', '.join(parts)}]")


def found_by_text(config: Config, module: DetectionModule) -> list[tuple[Tensor, ...]]:
    """Boxes, scores and labels of the images of test."""
    results = evaluate(config, module.eval(), "test", ["text"]).rows["text"].results
    return [(result.boxes, result.scores, result.labels) for result in results]


def assert_equal_to_the_bit(one: list[tuple[Tensor, ...]], other: list[tuple[Tensor, ...]]) -> None:
    assert any(len(scores) for _, scores, _ in one)
    for before, after in zip(one, other, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("granularity", "fusion"), CELLS)
def test_text_detections_stay_to_the_bit(tiny_config: TinyConfig, granularity: str, fusion: str) -> None:
    """Through steps, averaging, saving and loading; with dropout, BatchNorm and drop path in what is frozen."""
    config = tiny_config(*frozen(fusion), f"model.granularity={granularity}", "model.transformer.fusion_drop_path=0.5")
    torch.manual_seed(config.seed)
    start = build_module(config)
    before = found_by_text(config, start)
    weights = {name: x.clone() for name, x in start.state_dict().items()}
    config.train.init_from = str(saved(start, last_of(config).with_name("start.ckpt")))
    after = train(config)
    _, loaded = load_checkpoint(last_of(config))
    for module in (after, loaded):
        assert_equal_to_the_bit(before, found_by_text(config, module))
    state = read(last_of(config))
    for part in ("state_dict", "current_model_state"):
        moved = {name.split(".")[1] for name, x in state[part].items() if not torch.equal(x, weights[name])}
        assert moved == {"visual_encoder"}
    moments = state["optimizer_states"][0]["state"]
    assert len(moments) <= len(list(after.detector.visual_encoder.parameters()))


def saved(module: DetectionModule, path: Path) -> Path:
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    path.parent.mkdir(parents=True)
    torch.save(checkpoint, path)
    return path


def test_the_best_checkpoint_is_that_of_visual_prompts(tiny_config: TinyConfig) -> None:
    """Text finds the same in all of them, so the first would stay the best."""
    config = tiny_config(*frozen(), "train.max_steps=3", "train.val_every=1", "train.ema_decay=0", "seed=2")
    module = train(config)
    assert [*module.protocols] == ["interactive_box", "generic"]
    measured = module.protocols["interactive_box"]
    found = evaluate(config, module.eval(), "val", ["interactive_box"]).rows["interactive_box"].figures
    assert measured.metric.compute().items() <= found.items()


def test_a_rate_of_what_is_frozen_is_told(tiny_config: TinyConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    train(tiny_config("train.frozen=[backbone]", "train.max_steps=1"))
    told = [message for message in caplog.messages if message.endswith("has no effect")]
    assert told == ["nothing of the pretrained backbone is trained: optim.lr_backbone has no effect"]


def test_our_own_stage_1_gets_visual_prompts_like_that(tiny_config: TinyConfig, checkpoint: Path) -> None:
    stage1, first = load_checkpoint(checkpoint)
    config = tiny_config("name=visual", f"train.init_from={checkpoint}", *frozen(), "train.max_steps=2")
    module = train(config)
    assert_equal_to_the_bit(found_by_text(stage1, first), found_by_text(config, module))
    assert module.visual_trained
    assert "interactive_box" in evaluate(*load_checkpoint(last_of(config)), "test").rows


def test_the_decoder_may_be_trained_too(tiny_config: TinyConfig, checkpoint: Path) -> None:
    parts = ", ".join(part for part in PARTS if part != "decoder")
    steps = ("train.max_steps=2", "train.rhythm={visual: 1, text: 1}", f"train.frozen=[{parts}]")
    config = tiny_config("name=decoder", f"train.init_from={checkpoint}", *steps)
    train(config)
    start, end = read(checkpoint)["state_dict"], read(last_of(config))["state_dict"]
    assert {name.split(".")[1] for name in end if not torch.equal(start[name], end[name])} == {
        "visual_encoder",
        "decoder",
    }


def test_it_resumes_as_if_it_had_never_stopped(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    length = ("train.max_steps=4", "train.save_every=2", "train.val_every=4", "train.total_batch=2")
    whole, broken = (tiny_config(f"name={name}", *frozen("early"), *length) for name in ("whole", "broken"))
    with monkeypatch.context() as patch:
        losses = recorded_losses(patch)
        train(whole)
    _, after = interrupted_and_resumed(broken, monkeypatch, 3, recorded_losses)
    assert after == {number: loss for number, loss in losses.items() if number >= 2}
    assert_same_end(whole, broken)
    other = tiny_config("name=broken", *frozen("early"), *length, "train.frozen=[backbone]")
    with pytest.raises(
        InputError, match=r"^train\.frozen=\['backbone'\]: a resumed run keeps its \['backbone', 'neck'"
    ):
        train(other, resume=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.rhythm.text=1"], r"^train\.rhythm\.text=1: .* text steps nothing to train: set train\.rhythm\.text=0"),
        ([f"train.frozen=[{', '.join([*PARTS, 'visual_encoder'])}]"], r"^train\.rhythm\.visual=1: .* visual steps"),
        ([f"train.frozen=[{', '.join([*PARTS[:-1], 'visual_encoder'])}]"], r"^train\.rhythm\.visual=1: "),
        (
            [
                "train.rhythm.text=1",
                f"train.frozen=[{', '.join([*PARTS, 'visual_encoder']).replace('text_encoder, ', '')}]",
            ],
            r"^train\.rhythm\.visual=1: .* visual steps nothing to train",
        ),
        (["train.frozen=[head]"], r"^train\.frozen: the detector has no 'head'; there are .*heads"),
    ],
)
def test_what_would_train_nothing_is_refused(tiny_config: TinyConfig, settings: list[str], message: str) -> None:
    config = tiny_config(*frozen(), *settings)
    with pytest.raises(InputError, match=message):
        train(config)
    assert not config.folder.exists()


def test_only_what_is_trained_decays(tiny_config: TinyConfig) -> None:
    module = build_module(tiny_config(*frozen("early")))
    [group] = adamw(module.detector, tiny_config().optim).param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in module.detector.visual_encoder.parameters()}


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_a_step_on_images_without_objects_backpropagates(
    tiny_config: TinyConfig, fusion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To zeros: its exemplars are none, or of things that are in none of the images."""
    config = tiny_config(*frozen(fusion), "train.total_batch=2")
    data = build_datamodule(config)
    data.setup("fit")
    batch = move_data_to_device(next(iter(data.train_dataloader())), torch.device("cpu"))
    none = tuple(target._replace(labels=target.labels[:0], boxes=target.boxes[:0]) for target in batch.targets)
    exemplars = batch.prompts.exemplars
    empty = exemplars._replace(valid=torch.zeros_like(exemplars.valid))
    module = build_module(config)
    features = module.detector.encode_image(batch.images)
    for shown in (exemplars, empty):
        asked = batch._replace(prompts=batch.prompts._replace(exemplars=shown), targets=none)
        found = module.training_prompts(module.detector, asked, features, torch.Generator().manual_seed(0))
        output = module.detector.decode(features, found.prompts)
        loss = sum(module.criterion(output, found.targets, found.judged, None, found.vectors).values())
        module.zero_grad()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


def test_preflight_says_how_long_it_takes(tiny_config: TinyConfig) -> None:
    report = preflight(tiny_config(*frozen("early"), "train.total_batch=2"), 2)
    told = {line.split()[0]: line for line in report.lines}
    assert "(visual " in told["speed"]
    assert told["length"].startswith("length       4 steps: ")
    assert "read back the same" in told["checkpoint"]
