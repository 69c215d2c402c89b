"""Checkpoints made by a stranger: nothing runs, nothing is written, and no more memory is taken than they are long."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.models import outline
from trex2_lightning.training import checkpoint as module_under_test
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.fit import train

TinyConfig = Callable[..., Config]


class Payload:
    """Reading it as an ordinary pickle makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def changed(path: Path, **sections: Any) -> Path:
    """The checkpoint with other settings: of a section of the model, by its name."""
    content = torch.load(path, weights_only=True)
    for name, values in sections.items():
        section = content["config"]["model"]
        section = section.setdefault(name, {}) if name != "own" else section
        section |= values
    torch.save(content, path)
    return path


def files_below(folder: Path) -> set[Path]:
    return {*folder.rglob("*")}


def test_options_that_name_a_pickle_run_nothing(visual_checkpoint: Path, tmp_path: Path) -> None:
    """timm before 1.0.26 unpickles what `checkpoint_path` names."""
    pickled, hacked = tmp_path / "weights.pth", tmp_path / "hacked"
    pickled.write_bytes(pickle.dumps(Payload(hacked)))
    before = files_below(tmp_path)
    for section in ("backbone", "appearance"):
        own = {"name": "backbone"} if section == "appearance" else {}
        path = changed(visual_checkpoint, **{section: {**own, "options": {"checkpoint_path": str(pickled)}}})
        assert f"model.{section}.options.checkpoint_path is none" in refusal(path)
        changed(visual_checkpoint, **{section: {"name": "" if own else "test_resnet", "options": {}}})
    assert files_below(tmp_path) == before


def test_weights_that_settings_name_are_not_read(
    visual_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr("trex2_lightning.models.weights.read_state_dict", lambda path: opened.append(path) or {})
    gone = str(tmp_path / "gone.pth")
    path = changed(visual_checkpoint, backbone={"weights": gone}, own={"init_from": gone})
    config, _ = load_checkpoint(path)
    assert config.model.backbone.weights == config.model.init_from == gone, "it is still known where they were from"
    changed(path, appearance={"name": "test_resnet", "weights": gone, "out_indices": [2, 3]})
    assert "tensors differ, such as detector.appearance" in refusal(path)
    assert not opened


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("transformer", {"ffn": 2**20}, "far larger than its weights"),
        ("transformer", {"decoder_layers": 1000, "ffn": 2**16}, "far larger than its weights"),
        ("text", {"context_length": 2**20}, "far larger than its weights"),  # whose mask is of no use, and 4 TiB
        ("text", {"width": 64}, "tensors differ"),
        ("own", {"num_levels": 60}, "tensors differ"),
        (
            "backbone",
            {"name": "swin_tiny_patch4_window7_224", "options": {"window_size": 1000}},
            "make no model|larger",
        ),
        ("backbone", {"options": {"layers": ["x"]}}, "settings make no model"),
        ("backbone", {"options": {"embed_dim": 3}}, "settings make no model"),  # which this one has not
    ],
)
def test_settings_of_another_model_are_told_before_it_is_built(
    visual_checkpoint: Path, section: str, settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    made = module_under_test.build_module

    def noted(config: Config) -> Any:
        built.append(torch.get_default_device().type)
        return made(config)

    monkeypatch.setattr(module_under_test, "build_module", noted)
    monkeypatch.setattr(outline, "ALWAYS", 2**26)
    told = refusal(changed(visual_checkpoint, **{section: settings}))
    assert any(part in told for part in message.split("|"))
    assert built == ["meta"], "nothing with memory"


def test_a_view_cannot_pretend_to_be_large(visual_checkpoint: Path) -> None:
    content = torch.load(visual_checkpoint, weights_only=True)
    content["state_dict"]["detector.level"] = torch.zeros(1).expand(10**9, 10)
    torch.save(content, visual_checkpoint)
    assert "more memory than the file" in refusal(visual_checkpoint)


@pytest.mark.parametrize("tensor", [torch.zeros(3, device="meta"), torch.zeros(3, 3).to_sparse(), "text", {"a": 1}])
def test_weights_are_tensors_of_numbers(visual_checkpoint: Path, tensor: Any) -> None:
    content = torch.load(visual_checkpoint, weights_only=True)
    content["state_dict"]["x"] = tensor
    torch.save(content, visual_checkpoint)
    assert "is not a checkpoint" in refusal(visual_checkpoint)


def test_a_compressed_file_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"config": {}, "state_dict": {"a": torch.zeros(10**6)}}, tmp_path / "plain.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "plain.ckpt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    assert (tmp_path / "bomb.ckpt").stat().st_size < 10_000
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("it was unpacked"))
    assert "more memory than the file" in refusal(tmp_path / "bomb.ckpt")


def test_a_pickle_makes_no_bytes_of_nothing(tmp_path: Path) -> None:
    """PyTorch takes `bytearray(n)` for harmless, and so makes n bytes of ten."""
    torch.save({"config": {}, "state_dict": {}}, tmp_path / "plain.ckpt")
    asks = b"\x80\x02cbuiltins\nbytearray\n(J\x00\x00\x00\x10tR."
    with zipfile.ZipFile(tmp_path / "plain.ckpt") as plain, zipfile.ZipFile(tmp_path / "x.ckpt", "w") as other:
        for name in plain.namelist():
            other.writestr(name, asks if name.endswith("data.pkl") else plain.read(name))
    assert "more memory than the file" in refusal(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("known_names", 5, "its known_names are no list of names"),
        ("known_names", [1], "its known_names are no list of names"),
        ("calibration", {"weight": torch.zeros(99)}, "what its scores mean is not numbers"),
        ("calibration", {"weight": "x"}, "what its scores mean is not numbers"),
    ],
)
def test_what_lies_beside_the_weights_is_looked_at(
    visual_checkpoint: Path, part: str, value: Any, message: str
) -> None:
    torch.save(torch.load(visual_checkpoint, weights_only=True) | {part: value}, visual_checkpoint)
    assert message in refusal(visual_checkpoint)


def test_a_run_whose_checkpoints_nobody_could_load_is_not_trained(tiny_config: TinyConfig) -> None:
    config = tiny_config("model.backbone.options={checkpoint_path: x.pth}")
    with pytest.raises(InputError, match="checkpoint_path is none of the options that a checkpoint may have"):
        train(config)
    assert not config.folder.exists()
