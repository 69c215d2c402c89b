"""Small random Grounding DINOs of `transformers`, for tests of parity with them and of reading and writing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trex2_lightning.structures import Images

NAMES = ("red star", "ring", "a very blue moon", "cat")
CLS, SEP, DOT = 101, 102, 1012  # numbers that are fixed in the reference
WORDS = ["red", "star", "ring", "a", "very", "blue", "moon", "cat", "##s", "dog", "?"]
PIECES = [f"[unused{number}]" for number in range(1040)]
PIECES[:2], PIECES[100:104], PIECES[DOT], PIECES[1013:1024] = (
    ["[PAD]", "x"],
    ["[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    ".",
    WORDS,
)

SMALL: dict[str, Any] = {
    "d_model": 32,
    "num_queries": 12,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
}


def reference(folder: Path, *, is_mm: bool = False, stages: tuple[int, ...] = (2, 3, 4), **changes: Any) -> Any:
    """A random model, written to `folder` with its vocabulary, every parameter away from its start.

    Layer scales of the fusion are of order 1: their initial 1e-4 would hide errors of the fusion.
    """
    transformers = pytest.importorskip("transformers")
    name = "MMGroundingDino" if is_mm else "GroundingDino"
    swin = transformers.SwinConfig(
        embed_dim=16,
        depths=[1, 2, 2, 1],
        num_heads=[1, 2, 4, 8],
        window_size=4,
        image_size=64,
        out_features=[f"stage{stage}" for stage in stages],
    )
    bert = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        vocab_size=len(PIECES),
        max_position_embeddings=32,
    )
    config = getattr(transformers, f"{name}Config")(backbone_config=swin, text_config=bert, **(SMALL | changes))
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForObjectDetection")(config).eval()
    generator = torch.Generator().manual_seed(0)
    for key, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 1 + 0.3 * noise if key.endswith(("vision_param", "text_param")) else 0.05 * noise
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return model


def sentence(names: tuple[str, ...] = NAMES) -> torch.Tensor:
    """The reference's tokens of "[CLS] red star . ring . ... [SEP]": (1, T)."""
    tokens = [CLS]
    for name in names:
        tokens += [*(PIECES.index(word) for word in name.split()), DOT]
    return torch.tensor([[*tokens, SEP]])


def random_images(*sizes: tuple[int, int]) -> Images:
    """A batch of images of these (height, width), padded to the largest."""
    generator = torch.Generator().manual_seed(1)
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    pixels = torch.zeros(len(sizes), 3, height, width)
    valid = torch.zeros(len(sizes), height, width, dtype=torch.bool)
    for i, (h, w) in enumerate(sizes):
        pixels[i, :, :h, :w] = torch.randn(3, h, w, generator=generator)
        valid[i, :h, :w] = True
    return Images(pixels, valid, torch.tensor(sizes))
