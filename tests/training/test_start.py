"""The start of a run: its phrases are read, and the weights that it begins with fit."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from recorded_runs import last_of, read

from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.training import fit
from trex2_lightning.training.build import build_module
from trex2_lightning.training.checkpoint import load_checkpoint, start_from
from trex2_lightning.training.fit import train
from trex2_lightning.training.published import publish

TinyConfig = Callable[..., Config]


@pytest.mark.parametrize(
    ("settings", "source"),
    [
        ([], r"data\.train"),
        (
            [
                "data.sets.captions={annotations: train.json, images: train, kind: grounding, text: 1}",
                "data.negatives.more_than=0",
            ],
            r"data\.sets\.captions",
        ),
    ],
)
def test_a_phrase_that_the_text_encoder_cannot_read_is_told_before_the_first_step(
    tiny_coco: Path, tiny_config: TinyConfig, settings: list[str], source: str
) -> None:
    content = json.loads((tiny_coco / "train.json").read_text())
    content["categories"].append({"id": 99, "name": "a long, " * 9 + "winding road"})
    (tiny_coco / "train.json").write_text(json.dumps(content))
    config = tiny_config(*settings)
    with pytest.raises(InputError, match=rf"^{source}: the phrase 'a long, .* reads 16: shorten it; mend the data"):
        train(config)
    assert not config.folder.exists()


# Starting from a checkpoint


def test_a_run_starts_from_the_weights_of_another(tiny_config: TinyConfig) -> None:
    first = tiny_config("name=first")
    train(first)
    second = tiny_config(
        "name=second", f"train.init_from={last_of(first)}", "train.max_steps=1", "train.ema_decay=0", "seed=5",
        "optim.lr=0", "optim.lr_text=0", "optim.lr_backbone=0",
    )  # fmt: skip
    module = train(second)
    start, end = read(last_of(first))["state_dict"], dict(module.named_parameters())
    for name, parameter in end.items():
        assert torch.equal(parameter, start[name]), name


def test_a_run_starts_from_a_run_s_folder_and_from_a_repository_of_the_hub(
    checkpoint: Path, tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(*load_checkpoint(checkpoint), tmp_path / "downloaded")
    monkeypatch.setattr(fit, "hub_folder", lambda source: {"me/cells": tmp_path / "downloaded"}[source])
    still = ("train.max_steps=1", "train.ema_decay=0", "optim.lr=0", "optim.lr_text=0", "optim.lr_backbone=0")
    expected = load_checkpoint(checkpoint)[1].detector.state_dict()
    for name, start in (("folder", checkpoint.parent.parent), ("hub", "me/cells")):
        module = train(tiny_config(f"name={name}", f"train.init_from={start}", "seed=5", *still))
        found = dict(module.detector.named_parameters())
        assert all(tensor.equal(expected[parameter]) for parameter, tensor in found.items())
    (tmp_path / "downloaded" / "config.json").write_text('{"model_type": "grounding-dino"}')
    with pytest.raises(InputError, match=r"no detector of this package: model\.init_from=me/cells starts"):
        train(tiny_config("name=other", "train.init_from=me/cells"))


def test_only_one_of_two_models_may_have_a_bias_for_each_prompt(tiny_config: TinyConfig, tmp_path: Path) -> None:
    modules = {own: build_module(tiny_config(f"model.prompt_bias={own}")) for own in (False, True)}
    for before, after in ((False, True), (True, False)):
        content: dict[str, object] = {}
        modules[before].on_save_checkpoint(content)
        torch.save({"state_dict": modules[before].state_dict(), **content}, tmp_path / "first.ckpt")
        config = tiny_config(f"model.prompt_bias={after}")
        second = build_module(config)
        start_from(second, config, tmp_path / "first.ckpt")
        for name, tensor in second.state_dict().items():
            assert ".of_prompt" in name or torch.equal(tensor, modules[before].state_dict()[name]), name


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [(False, True, "has no presence head: a new one here"), (True, False, "has a presence head: none here")],
)
def test_only_one_of_two_models_may_have_a_presence_head(
    tiny_config: TinyConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, before: bool, after: bool, line: str
) -> None:
    caplog.set_level(logging.INFO)
    torch.manual_seed(0)
    first, content = build_module(tiny_config(f"model.presence={before}")), {}
    first.on_save_checkpoint(content)
    torch.save({"state_dict": first.state_dict(), **content}, tmp_path / "first.ckpt")
    config = tiny_config(f"model.presence={after}")
    torch.manual_seed(1)
    second = build_module(config)
    own = {name: tensor.clone() for name, tensor in second.state_dict().items() if "presence" in name}
    start_from(second, config, tmp_path / "first.ckpt")
    expected = {name: tensor for name, tensor in first.state_dict().items() if "presence" not in name} | own
    torch.testing.assert_close(dict(second.state_dict()), expected, rtol=0, atol=0)
    assert [record.getMessage().split(".ckpt ")[1] for record in caplog.records if line in record.getMessage()] == [
        f"{line}, as model.presence says"
    ]


@pytest.mark.parametrize(
    ("change", "tensor"),
    [
        ("model.num_queries=30", r"detector\.selection\.content: \(20, 32\) in the file, \(30, 32\) in the model"),
        ("model.transformer.decoder_layers=3", r"missing in the file, .* in the model"),
        ("model.transformer.decoder_layers=1", r"in the file, nothing in the model"),
    ],
)
def test_weights_of_another_architecture_are_refused_by_name(
    tiny_config: TinyConfig, checkpoint: Path, change: str, tensor: str
) -> None:
    config = tiny_config("name=other", f"train.init_from={checkpoint}", change)
    with pytest.raises(InputError, match=f"has another architecture than the configured model.*{tensor}") as error:
        train(config)
    assert "\n" not in str(error.value)
    assert not config.folder.exists()


def test_weights_are_not_shown_other_pixels_than_they_know(tiny_config: TinyConfig, checkpoint: Path) -> None:
    others = ("model.backbone.mean=[0,0,0]", "model.backbone.std=[1,1,1]")
    message = r"was trained on pixels of another mean .* add model\.backbone\.mean=\[0\.5,0\.5,0\.5\] model"
    with pytest.raises(InputError, match=message):
        train(tiny_config("name=other", f"train.init_from={checkpoint}", *others))


def test_a_stage_1_checkpoint_fits_stage_2(tiny_config: TinyConfig) -> None:
    text, visual = (build_module(tiny_config(f"train.rhythm.visual={steps}")) for steps in (0, 8))
    visual.load_state_dict(text.state_dict(), strict=True)
    frozen = {name.split(".")[0] for name, value in text.detector.named_parameters() if not value.requires_grad}
    assert frozen == {"visual_encoder"}
    assert all(parameter.requires_grad for parameter in visual.parameters())
