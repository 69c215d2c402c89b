"""The settings that a Grounding DINO's files say, and those that cannot be had or written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from trex2_lightning.errors import InputError
from trex2_lightning.models.bert import WordPieces
from trex2_lightning.models.build import build_detector
from trex2_lightning.models.hub import settings
from trex2_lightning.models.hub.load import _read_vocabulary
from trex2_lightning.models.hub.save import save_detector
from trex2_lightning.models.hub.settings import model_config


def test_an_architecture_without_a_setting_is_refused(saved: Path, tmp_path: Path) -> None:
    values = json.loads((saved / "config.json").read_text()) | {"decoder_ffn_dim": 96}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="decoder_ffn_dim=96"):
        model_config(str(tmp_path))


def test_what_a_config_does_not_say_is_what_the_reference_takes(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.GroundingDinoConfig().save_pretrained(tmp_path / "full")
    (tmp_path / "brief").mkdir()
    (tmp_path / "brief" / "config.json").write_text('{"model_type": "grounding-dino"}')
    assert model_config(str(tmp_path / "brief")) == model_config(str(tmp_path / "full"))


def test_only_a_grounding_dino_is_written(saved: Path, tmp_path: Path) -> None:
    config = model_config(str(saved))
    config.fusion = "late"
    with pytest.raises(InputError, match=r"model\.fusion=early"):
        save_detector(build_detector(config), config, tmp_path)


def test_a_detector_of_other_pixels_than_the_hub_s_readers_give_is_not_written(saved: Path, tmp_path: Path) -> None:
    config = model_config(str(saved))
    config.backbone = replace(config.backbone, mean=[0.5] * 3, std=[0.5] * 3)
    detector = build_detector(config)
    with pytest.raises(
        InputError, match=r"ImageNet's mean and deviation.*: train it with model\.backbone\.mean=\[\] and"
    ):
        save_detector(detector, config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("d_model", "${oc.env:HOME}"),
        ("d_model", True),
        ("num_queries", [900]),
        ("encoder_layers", None),
        ("backbone_config", []),
        ("two_stage", 1),
        ("backbone_config", {"depths": [1] * 65}),
    ],
)
def test_values_of_other_kinds_are_named(tmp_path: Path, key: str, value: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "grounding-dino", key: value}))
    with pytest.raises(InputError, match=rf"its config\.json says ({key}|depths)="):
        model_config(str(tmp_path))


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "{}", '{"model_type": ["grounding-dino"]}', " " * 1001])
def test_what_cannot_be_settings_is_told(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "LONGEST_FILE", 1000 if text.startswith(" ") else settings.LONGEST_FILE)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"readable|another model_type"):
        model_config(str(tmp_path))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{}", '{"model": {"vocab": ["a"]}}', '{"model": {"vocab": {"a": "b", "c": 1}}}']
)
def test_a_vocabulary_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match="its vocabulary cannot be read"):
        _read_vocabulary(WordPieces(10), tmp_path)
