"""A detector as a folder for the hub: the same to the bit when it is read back, and nothing else is read."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from trex2_lightning.config import Config, load
from trex2_lightning.errors import InputError
from trex2_lightning.models.bert import SPECIAL
from trex2_lightning.training.build import build_module
from trex2_lightning.training.checkpoint import load_checkpoint, start_from
from trex2_lightning.training.module import DetectionModule
from trex2_lightning.training.published import is_published, publish, read_published

TINY = Path(__file__).parents[1] / "tiny.yaml"
TinyConfig = Callable[..., Config]
SMALL = ("model.visual={layers: 1, ffn: 32}", "model.transformer.decoder_layers=1")
STAGE1 = ("model.appearance.name=backbone",)
STAGE2 = ("train.rhythm.visual=1", "model.appearance={name: backbone, input: true}", "model.presence=true")
CELLS = [("phrase", "late", STAGE1), ("word", "late", STAGE2), ("phrase", "early", STAGE2), ("word", "early", ())]


def fitted(config: Config) -> DetectionModule:
    """A detector of random weights in which all that a run fits after training is fitted, at random too."""
    torch.manual_seed(0)
    module = build_module(config).eval()
    detector = module.detector
    fits = {name: torch.rand_like(tensor) for name, tensor in detector.calibration.fits().items()}
    detector.calibration.load_fits(fits)
    if detector.appearance is not None:
        detector.appearance.mean.normal_()
        detector.appearance.transform.normal_()
    module.known_names = ("red block", "blue block")
    module.provenance = [{}]
    return module


@pytest.fixture(scope="module")
def _published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, config = tmp_path_factory.mktemp("once") / "published", load(TINY, [*SMALL])
    publish(config, fitted(config), folder)
    return folder


@pytest.fixture
def folder(_published: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return shutil.copytree(_published, tmp_path / "published")


@pytest.mark.parametrize(("granularity", "fusion", "more"), CELLS)
def test_it_is_the_same_to_the_bit(
    granularity: str, fusion: str, more: tuple[str, ...], tiny_config: TinyConfig, tmp_path: Path
) -> None:
    cell = (f"model.granularity={granularity}", f"model.fusion={fusion}")
    config = tiny_config(*cell, *SMALL, *more)
    module = fitted(config)
    files = publish(config, module, tmp_path / "published")
    assert [file.name for file in files] == ["config.json", "model.safetensors"]
    read_config, read = load_checkpoint(tmp_path / "published")
    own, theirs = module.state_dict(), read.state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    own, theirs = module.detector.calibration.fits(), read.detector.calibration.fits()
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    assert read.detector.calibration.fitted
    assert (read.visual_trained, read.known_names) == (module.visual_trained, module.known_names)
    assert read.detector.backbone.pixels == module.detector.backbone.pixels
    for section, keys in {"data": ("size", "max_size"), "eval": ("max_detections",), "train": ("precision",)}.items():
        for key in keys:
            assert getattr(getattr(read_config, section), key) == getattr(getattr(config, section), key)


def test_a_vocabulary_is_a_file(tiny_config: TinyConfig, tmp_path: Path) -> None:
    config = tiny_config("model.text={name: custom-bert, vocabulary: 7, width: 32, layers: 1}", *SMALL)
    module = fitted(config)
    pieces = [*SPECIAL, "red", "\u2028"]  # the last ends a line for some, and is in BERT's own vocabulary
    module.detector.text_encoder.tokenizer.read(pieces)
    files = publish(config, module, tmp_path / "published")
    assert files[-1].read_bytes().decode().split("\n") == [*pieces, ""]
    assert not any("extra_state" in name for name in load_file(files[1]))
    assert load_checkpoint(tmp_path / "published")[1].detector.text_encoder.tokenizer.pieces == pieces


def test_a_run_starts_from_a_folder(folder: Path, tiny_config: TinyConfig) -> None:
    config = tiny_config(*SMALL, "loss.alignment.learned_temperature=true", "train.rhythm.visual=1")
    module = build_module(config)
    start_from(module, config, folder)
    weights = load_file(folder / "model.safetensors")
    assert torch.equal(module.detector.state_dict()["noised_content.weight"], weights["noised_content.weight"])
    assert module.provenance == [{}]


def changed(folder: Path, keys: str, value: Any) -> None:
    file = folder / "config.json"
    settings = section = json.loads(file.read_text())
    *sections, last = keys.split(".")
    for name in sections:
        section = section[name]
    section[last] = value
    file.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hook", "x", "hook is unknown"),
        ("model.hook", 1, "hook"),
        ("data.root", "/etc", "data is none that trex2 push writes"),
        ("train.init_from", "x.ckpt", "train is none"),
        ("known_names", [3], "known_names is none"),
        ("calibration", {"weight": [1]}, "calibration is none"),
        ("visual_trained", "yes", "visual_trained is none"),
        ("train.precision", "${oc.env:HOME}", "to be looked up elsewhere"),
        ("model.text.name", "${oc.env:HOME}", "to be looked up elsewhere"),
        ("model.init_from", "some/repository", "from elsewhere"),
        ("model.backbone.weights", "x.pth", "from elsewhere"),
        ("model.backbone.name", "hf-hub:some/model", "not a folder or a repository"),
        ("model.text.name", "local-dir:x", "not a folder or a repository"),
        ("model.backbone.options", {"checkpoint_path": "x.pth"}, "none of the options"),
        ("model.backbone.options", {"pretrained_cfg": {"file": "x"}}, "none of the options"),
        ("model.width", 2**40, "a checkpoint may have"),
        ("model.transformer.encoder_layers", 10**9, "a checkpoint may have"),
        ("model.transformer.ffn", 2**19, "another architecture than the configured model, 6 tensors differ"),
        ("model.num_queries", 2**15, "another architecture"),
        ("model.fusion", "early", "another architecture"),
        ("format", 10**6, "reads formats up to"),
        ("format", "x", "no whole number"),
    ],
)
def test_a_stranger_s_settings_do_nothing_else(
    folder: Path, key: str, value: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(folder, key, value)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_: pytest.fail("something was filled"))
    made: list[torch.device] = []
    create = timm.create_model

    def watched(*arguments: Any, **options: Any) -> Any:
        made.append(torch.get_default_device())
        return create(*arguments, **options)

    monkeypatch.setattr(timm, "create_model", watched)
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: pytest.fail("something was fetched"))
    with pytest.raises(InputError, match=message):
        load_checkpoint(folder)
    assert {device.type for device in made} <= {"meta"}, "the sizes are compared first"


def test_a_damaged_folder_is_told(folder: Path) -> None:
    weights, settings = folder / "model.safetensors", folder / "config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(InputError, match=r"model\.safetensors: is missing or damaged"):
        read_published(folder)
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: is missing or damaged"):
        read_published(folder)
    tensors = {"x": torch.zeros(1)}
    save_file(tensors, weights)
    with pytest.raises(InputError, match="another architecture"):
        load_checkpoint(folder)
    settings.write_text("{")
    assert not is_published(folder)
    with pytest.raises(InputError, match=r"config\.json: is damaged"):
        read_published(folder)


def test_nothing_is_unpickled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, lambda *_, **__: pytest.fail("something was unpickled"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("something was unpickled"))
    assert load_checkpoint(folder)[1].known_names
