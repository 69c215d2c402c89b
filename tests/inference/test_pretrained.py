"""Detectors by what names them: checkpoints, folders of runs, folders of the hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from trex2_lightning.errors import InputError
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.inference.pretrained import load_pretrained
from trex2_lightning.models import outline
from trex2_lightning.models.weights import WeightsError
from trex2_lightning.training.checkpoint import checkpoint_of

sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "hub"))

from hub_reference import reference


def test_the_folder_of_a_run_is_its_best_checkpoint(checkpoint: Path) -> None:
    run = checkpoint.parent.parent
    best = checkpoint.with_name("best.ckpt")
    assert checkpoint_of(run) == checkpoint_of(str(run)) == best
    best.unlink()
    assert checkpoint_of(run) == checkpoint_of(checkpoint) == checkpoint
    assert load_pretrained(run)[0] == load_pretrained(str(checkpoint))[0]


@pytest.mark.parametrize("is_mm", [False, True])
def test_a_folder_of_the_hub_detects_without_a_run(tmp_path: Path, image: Path, is_mm: bool) -> None:
    """The scores are those of `transformers` on the same pixels: a name of one word has its token's."""
    model = reference(tmp_path / "dino", is_mm=is_mm, decoder_bbox_embed_share=not is_mm)
    predictor = Predictor.from_pretrained(tmp_path / "dino")
    names, tokens = ("cat", "ring"), torch.tensor([[101, 1020, 1012, 1015, 1012, 102]])
    pixels = predictor.transform(Image.open(image).convert("RGB"))[None]
    with torch.no_grad():
        theirs = model(pixel_values=pixels, input_ids=tokens)
    scores = theirs.logits[0, :, [1, 3]].sigmoid().flatten().sort(descending=True).values
    found = predictor.detect(image, predictor.text(names), threshold=0.0)
    torch.testing.assert_close(torch.tensor([one.score for one in found]), scores, atol=1e-4, rtol=0)


def test_what_names_no_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("bert").mkdir()
    Path("bert/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match=r"empty has neither checkpoints/best\.ckpt.* nor config\.json"):
        load_pretrained("empty")
    for gone in ("runs/x/checkpoints/best.ckpt", "gone.ckpt", "dino/x.ckpt", "gone"):
        with pytest.raises(InputError, match=f"no checkpoint {gone}: a run writes"):
            load_pretrained(gone)
    with pytest.raises(WeightsError, match="there is no folder some/model, and no such repository of the hub"):
        load_pretrained("some/model")
    with pytest.raises(WeightsError, match="bert is not a Grounding DINO"):
        load_pretrained("bert")


def test_sizes_of_a_folder_are_compared_with_its_weights_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(outline, "ALWAYS", 2**26)
    for sizes, message in ({"d_model": 2**20}, "larger than its weights"), ({"encoder_layers": 10**9}, "1,024 at most"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "grounding-dino", **sizes}))
        with pytest.raises(InputError, match=message):
            load_pretrained(tmp_path)
