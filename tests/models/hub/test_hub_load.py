"""What is loaded of a Grounding DINO or a BERT, what is fetched beside it, and what is refused."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hub_reference import NAMES, PIECES, reference
from safetensors.torch import load_file, save_file

from trex2_lightning.config import ModelConfig, TextConfig
from trex2_lightning.errors import InputError
from trex2_lightning.models import build
from trex2_lightning.models.build import build_detector
from trex2_lightning.models.hub import settings
from trex2_lightning.models.hub.load import load_bert, load_detector
from trex2_lightning.models.hub.names import BERT
from trex2_lightning.models.hub.settings import model_config
from trex2_lightning.models.text import BertEncoder
from trex2_lightning.models.weights import WeightsError

# Detectors


@pytest.mark.parametrize("text", ["custom", "custom-bert"])
def test_warm_start_of_late_fusion_takes_what_both_share(saved: Path, text: str) -> None:
    config = model_config(str(saved))
    config.fusion, config.granularity, config.similarity = "late", "phrase", "scaled"
    if text == "custom":
        config.text = TextConfig(name="custom", width=32, layers=1, heads=2)
    detector = build_detector(config)
    before = {name: x.clone() for name, x in detector.state_dict().items()}
    report = load_detector(detector, str(saved))
    after = detector.state_dict()
    parts = {name.split(".")[0] for name in report.loaded}
    assert parts - {"text_encoder"} == {"backbone", "neck", "encoder", "selection", "decoder"}
    assert ("text_encoder" in parts) == (text == "custom-bert")
    assert set(report.loaded) | set(report.new) == {name for name in after if not name.endswith("_extra_state")}
    assert all(torch.equal(after[name], before[name]) for name in report.new)
    state = load_file(saved / "model.safetensors")
    assert torch.equal(after["encoder.layers.1.norm.weight"], state[f"{LAYER}.self_attn_layer_norm.weight"])
    skipped = {name for name in report.skipped if "text_backbone" not in name and "text_projection" not in name}
    assert all("fusion_layer" in n or "text_enhancer" in n or "encoder_attn_text" in n for n in skipped)
    assert "tensors loaded (backbone, " in str(report)
    assert "model.encoder.layers" in str(report)


LAYER = "model.encoder.layers.1.deformable_layer"


def test_a_run_starts_from_what_init_from_names(saved: Path) -> None:
    config = model_config(str(saved))
    config.init_from = str(saved)
    detector = build_detector(config)
    state = load_file(saved / "model.safetensors")
    assert torch.equal(detector.selection.content, state["model.query_position_embeddings.weight"])
    assert detector.text_encoder.tokenizer.pieces == PIECES


@pytest.fixture
def no_pretrained_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a network: what timm or a BERT would be fetched for is an error."""

    def refuse(*_: Any, **options: Any) -> Any:
        raise AssertionError("pretrained weights were asked for")

    create = timm.create_model

    def created(name: str, *, pretrained: bool = False, **options: Any) -> Any:
        return refuse() if pretrained else create(name, **options)

    monkeypatch.setattr(timm, "create_model", created)
    monkeypatch.setattr(build, "load_bert", refuse)


def pretrained(saved: Path) -> ModelConfig:
    config = model_config(str(saved))
    config.init_from, config.backbone.weights, config.text.pretrained = str(saved), "timm", "bert-base-uncased"
    return config


def test_what_init_from_has_is_not_fetched_from_elsewhere(saved: Path, no_pretrained_parts: None) -> None:
    config = pretrained(saved)
    detector = build_detector(config)
    state = load_file(saved / "model.safetensors")
    assert torch.equal(detector.selection.content, state["model.query_position_embeddings.weight"])
    assert (config.backbone.weights, config.text.pretrained) == ("timm", "bert-base-uncased")
    config.fusion = "late"
    build_detector(config)


@pytest.mark.parametrize("part", ["backbone", "text", "vocabulary"])
def test_what_init_from_lacks_is_fetched(saved: Path, tmp_path: Path, no_pretrained_parts: None, part: str) -> None:
    config = pretrained(saved)
    config.fusion = "late"  # a Grounding DINO needs all of it
    shutil.copytree(saved, tmp_path / "copy")
    config.init_from = str(tmp_path / "copy")
    parts = {"backbone": "model.backbone.conv_encoder.", "text": BERT}
    if part in parts:
        state = {k: v for k, v in load_file(saved / "model.safetensors").items() if parts[part] not in k}
        save_file(state, tmp_path / "copy" / "model.safetensors")
    else:
        (tmp_path / "copy" / "vocab.txt").unlink()
    with pytest.raises((AssertionError, InputError), match="pretrained weights were asked for"):
        build_detector(config)


def test_a_repository_of_the_hub_is_what_is_downloaded_of_it(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(repository: str, *, allow_patterns: list[str]) -> str:
        asked.append(repository)
        assert all(any(fnmatch(file.name, pattern) for pattern in allow_patterns) for file in saved.iterdir())
        return str(saved)

    monkeypatch.setattr(settings, "snapshot_download", download)
    config = model_config("someone/grounding-dino")
    assert config == model_config(str(saved))
    config.init_from = "someone/grounding-dino"
    detector = build_detector(config)
    assert set(asked) == {"someone/grounding-dino"}
    state = load_file(saved / "model.safetensors")
    assert torch.equal(detector.selection.content, state["model.query_position_embeddings.weight"])
    assert detector.text_encoder.tokenizer.pieces == PIECES


def test_what_does_not_fit_is_refused_with_what_to_do(saved: Path, tmp_path: Path) -> None:
    config = model_config(str(saved))
    config.similarity = "scaled"
    with pytest.raises(WeightsError, match=r"lacks 3 tensors.*model\.similarity=plain"):
        load_detector(build_detector(config), str(saved))
    config = model_config(str(saved))
    config.num_queries = 5
    with pytest.raises(WeightsError, match=r"selection\.content: \(12, 32\), not \(5, 32\).*config\.json"):
        load_detector(build_detector(config), str(saved))
    detector = build_detector(model_config(str(saved)))
    with pytest.raises(WeightsError, match="there is no folder no/such/folder/here"):
        load_detector(detector, "no/such/folder/here")
    with pytest.raises(WeightsError, match=r"no readable config\.json"):
        load_detector(detector, str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WeightsError, match="not a Grounding DINO"):
        load_detector(detector, str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "grounding-dino"}')
    with pytest.raises(WeightsError, match=r"no \.safetensors file"):
        load_detector(detector, str(tmp_path))


def test_one_box_head_cannot_take_several(tmp_path: Path) -> None:
    reference(tmp_path, decoder_bbox_embed_share=False)
    config = model_config(str(tmp_path))
    config.transformer.shared_box_head = True
    with pytest.raises(WeightsError, match=r"model\.transformer\.shared_box_head=false"):
        load_detector(build_detector(config), str(tmp_path))


def test_a_file_with_more_layers_is_refused(saved: Path) -> None:
    config = model_config(str(saved))
    config.transformer.encoder_layers = 1
    with pytest.raises(WeightsError, match=r"has 50 more \(model\.encoder\.layers\)"):
        load_detector(build_detector(config), str(saved))


# BERT


@pytest.mark.parametrize("old_names", [False, True])
def test_a_bert_of_the_hub(saved: Path, tmp_path: Path, old_names: bool) -> None:
    """Old files say gamma and beta, and have a prefix and layers for pretraining."""
    prefix = "model.text_backbone."
    state = {k.removeprefix(prefix): v for k, v in load_file(saved / "model.safetensors").items() if prefix in k}
    if old_names:
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new_name, old_name in old.items():
            state = {f"{k.replace(new_name, old_name)}": v for k, v in state.items()}
        state = {f"bert.{k}": v for k, v in state.items()} | {"cls.predictions.bias": torch.zeros(3)}
    save_file(state, tmp_path / "model.safetensors")
    numbers = {piece: number for number, piece in enumerate(PIECES)}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": numbers}}))
    config = model_config(str(saved))
    encoder, whole = BertEncoder(config.text, 32, "word").eval(), build_detector(config).eval()
    load_bert(encoder, str(tmp_path))
    load_detector(whole, str(saved))
    encoder.projection.load_state_dict(whole.text_encoder.projection.state_dict())
    torch.testing.assert_close(encoder(NAMES).embed, whole.text_encoder(NAMES).embed)


def test_a_bert_of_another_size_is_refused(saved: Path) -> None:
    config = TextConfig(name="custom-bert", width=32, layers=2, heads=2, context_length=16, vocabulary=len(PIECES))
    with pytest.raises(WeightsError, match=r"lacks encoder\.layer"):
        load_bert(BertEncoder(config, 32, "word"), str(saved))
