"""Grounding DINO against `transformers`: the same numbers from the same weights, read and written."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hub_reference import NAMES, PIECES, random_images, reference, sentence
from safetensors.torch import load_file, save_file

from trex2_lightning.config import ModelConfig, TextConfig
from trex2_lightning.errors import InputError
from trex2_lightning.models import build
from trex2_lightning.models.build import build_detector
from trex2_lightning.models.early import BiAttention
from trex2_lightning.models.hub import settings
from trex2_lightning.models.hub.load import load_bert, load_detector
from trex2_lightning.models.hub.names import BERT
from trex2_lightning.models.hub.save import save_detector
from trex2_lightning.models.hub.settings import model_config
from trex2_lightning.models.text import BertEncoder
from trex2_lightning.models.weights import WeightsError
from trex2_lightning.structures import Prompts

SEPARATE_HEADS = {"decoder_bbox_embed_share": False}
MANY_HEADS = {"encoder_attention_heads": 8, "decoder_attention_heads": 8, "d_model": 64}
MM = {"is_mm": True, "decoder_cls_embed_share": False}
DEEP = {"num_feature_levels": 3, "encoder_layers": 3, "decoder_layers": 3, "decoder_n_points": 3, "encoder_n_points": 3}
FIVE_LEVELS = {"num_feature_levels": 5, "stages": (1, 2, 3, 4)}
CONFIGURATIONS = [
    # what is changed, sizes of the images: none is a multiple of the windows, several are padded to the largest
    pytest.param({}, [(97, 131), (64, 90)], id="grounding-dino"),
    pytest.param(MM | SEPARATE_HEADS, [(120, 96)], id="mm-grounding-dino"),
    pytest.param(SEPARATE_HEADS | MANY_HEADS, [(128, 128)], id="many-heads", marks=pytest.mark.slow),
    pytest.param(DEEP, [(64, 160), (133, 75), (97, 97)], id="deep-three-levels", marks=pytest.mark.slow),
    pytest.param({"is_mm": True} | FIVE_LEVELS, [(201, 155), (180, 97)], id="mm-five-levels", marks=pytest.mark.slow),
    pytest.param(FIVE_LEVELS | SEPARATE_HEADS, [(160, 224)], id="five-levels", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random Grounding DINO; tests do not write to it."""
    folder = tmp_path_factory.mktemp("grounding-dino")
    reference(folder)
    return folder


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def run_reference(model: Any, images: Any) -> Any:
    tokens = sentence().expand(len(images.pixels), -1)
    with torch.no_grad():
        return model(
            pixel_values=images.pixels,
            pixel_mask=images.valid.long(),
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
        )


@torch.no_grad()
@pytest.mark.parametrize(("changes", "sizes"), CONFIGURATIONS)
def test_parity(tmp_path: Path, changes: dict[str, Any], sizes: list[tuple[int, int]]) -> None:
    """Encoder, every decoder layer, logits and boxes; and again with the weights that we write."""
    model = reference(tmp_path, **changes)
    config = model_config(str(tmp_path))
    detector = build_detector(config).eval()
    report = load_detector(detector, str(tmp_path))
    assert report.skipped == ()
    assert {name.split(".")[0] for name in report.new} == {"visual_encoder", "noised_content"}

    images = random_images(*sizes)
    theirs = run_reference(model, images)
    prompts = detector.encode_prompts(Prompts(NAMES))
    features, fused = detector.fuse(detector.encode_image(images), prompts)
    layers: list[torch.Tensor] = []
    detector.decoder.register_forward_hook(lambda *args: layers.extend(args[2]))
    ours = detector.decode(detector.encode_image(images), detector.encode_prompts(Prompts(NAMES))).queries
    num_tokens = sentence().shape[1]
    assert_close(features.tokens, theirs.encoder_last_hidden_state_vision)
    assert_close(fused.embed, theirs.encoder_last_hidden_state_text)
    states, boxes = layers
    starts = torch.cat([theirs.init_reference_points[:, None], theirs.intermediate_reference_points], 1)
    for layer in range(len(states)):
        state = theirs.intermediate_hidden_states[:, layer]
        assert_close(states[layer], state)
        box = (model.bbox_embed[layer](state) + torch.special.logit(starts[:, layer], eps=1e-5)).sigmoid()
        assert_close(boxes[layer], box)
    assert_close(ours.logits[-1], theirs.logits[..., :num_tokens])
    assert_close(ours.boxes[-1], theirs.pred_boxes)
    assert theirs.logits[..., num_tokens:].isneginf().all()

    save_detector(detector, config, tmp_path / "written")
    again = run_reference(type(model).from_pretrained(tmp_path / "written").eval(), images)
    assert_close(again.logits, theirs.logits)
    assert_close(again.pred_boxes, theirs.pred_boxes)
    assert model_config(str(tmp_path / "written")) == config


def test_fusion_and_its_gradients_alone() -> None:
    """The reference's layer scale of 1e-4 would hide errors of the fusion in the whole; here it is of order 1."""
    grounding_dino = pytest.importorskip("transformers.models.grounding_dino.modeling_grounding_dino")
    config = grounding_dino.GroundingDinoConfig(
        d_model=32, encoder_attention_heads=8, encoder_ffn_dim=128, fusion_droppath=0.0
    )
    torch.manual_seed(0)
    theirs = grounding_dino.GroundingDinoFusionLayer(config)
    ours = BiAttention(32, heads=4, hidden=64, drop_path=0.0)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    attention = {"image_query": "vision", "prompt_key": "text", "image_value": "values_vision"}
    attention |= {"prompt_value": "values_text", "image_output": "out_vision", "prompt_output": "out_text"}
    names = {name: f"attn.{other}_proj" for name, other in attention.items()}
    names |= {"image_norm": "layer_norm_vision", "prompt_norm": "layer_norm_text"}
    for name, other in names.items():
        ours.get_submodule(name).load_state_dict(theirs.get_submodule(other).state_dict())
    ours.image_scale.data, ours.prompt_scale.data = theirs.vision_param.data.clone(), theirs.text_param.data.clone()

    image, prompts = torch.randn(2, 50, 32, requires_grad=True), torch.randn(2, 9, 32, requires_grad=True)
    valid, prompts_valid = torch.rand(2, 50) > 0.3, torch.rand(2, 9) > 0.3
    (image_out, _), (prompts_out, _) = theirs(image, prompts, ~valid, ~prompts_valid)
    expected = torch.autograd.grad((image_out.sin().sum() + prompts_out.sin().sum()), [image, prompts])
    found = ours(image, valid, prompts, prompts_valid)
    torch.testing.assert_close(found[0], image_out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], prompts_out, rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(found[0].sin().sum() + found[1].sin().sum(), [image, prompts])
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-5)


def test_fusion_without_a_valid_prompt_leaves_the_image_to_itself() -> None:
    fusion = BiAttention(32, heads=2, hidden=32, drop_path=0.0)
    torch.nn.init.ones_(fusion.image_scale)
    image, prompts = torch.randn(1, 5, 32), torch.randn(1, 3, 32)
    out, _ = fusion(image, torch.ones(1, 5).bool(), prompts, torch.zeros(1, 3).bool())
    torch.testing.assert_close(out, fusion.image_norm(image))


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


def test_a_file_with_more_layers_is_refused(saved: Path) -> None:
    config = model_config(str(saved))
    config.transformer.encoder_layers = 1
    with pytest.raises(WeightsError, match=r"has 50 more \(model\.encoder\.layers\)"):
        load_detector(build_detector(config), str(saved))


def test_only_a_grounding_dino_is_written(saved: Path, tmp_path: Path) -> None:
    config = model_config(str(saved))
    config.fusion = "late"
    with pytest.raises(InputError, match=r"model\.fusion=early"):
        save_detector(build_detector(config), config, tmp_path)


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
