"""Without PyTorch phrases become the tokens that the text encoders read."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from typing import Literal

import pytest
from tokenizers import Tokenizer

from trex2_lightning.config import TextConfig
from trex2_lightning.errors import InputError
from trex2_lightning.inference.export_text import exported_text, tokenizer_of
from trex2_lightning.inference.exported import ExportedText
from trex2_lightning.inference.phrase_rows import phrase_rows
from trex2_lightning.models.text import BertEncoder, ClipEncoder, TextEncoder

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "red", "star", "cat", "##s", "a", "blue", "moon"]
PHRASES = (
    "red star",
    "Red  CATS",
    "a\tblue moon",
    "the dog's 42 bones, isn't it?",
    "T-shirt (size XL) @ $9.99",
    "caf\u00e9 cr\u00e8me",
    "&quot;so&quot;",
    "<end_of_text>",
    "\u2018curly\u2019 \uff37ide",
)


@cache
def made(kind: str, granularity: Literal["phrase", "word"]) -> tuple[TextEncoder, Tokenizer, ExportedText]:
    encoder = encoder_of(kind, granularity)
    return encoder, tokenizer_of(encoder), exported_text(encoder)


def encoder_of(kind: str, granularity: Literal["phrase", "word"]) -> TextEncoder:
    sizes = TextConfig(kind, width=32, layers=1, heads=2, context_length=77, vocabulary=len(PIECES))
    if kind == "custom":
        return ClipEncoder(sizes, 32, granularity)
    encoder = BertEncoder(sizes, 32, granularity)
    encoder.tokenizer.read(PIECES)
    return encoder


@pytest.mark.parametrize("granularity", ["phrase", "word"])
@pytest.mark.parametrize("kind", ["custom", "custom-bert"])
def test_rows_are_the_encoder_s(kind: str, granularity: Literal["phrase", "word"]) -> None:
    encoder, tokenizer, text = made(kind, granularity)
    phrases = PHRASES[:6] if kind == "custom-bert" else PHRASES
    assert phrase_rows(phrases, tokenizer, text) == encoder.rows(phrases)


@pytest.mark.parametrize("kind", ["custom", "custom-bert"])
@pytest.mark.parametrize("phrase", ["", "  ", "a " * 76])  # 78 tokens with start and end, of 77
def test_what_an_encoder_refuses_is_refused(kind: str, phrase: str) -> None:
    encoder, tokenizer, text = made(kind, "phrase")
    with pytest.raises(InputError) as expected:
        encoder.check([phrase])
    with pytest.raises(InputError) as found:
        phrase_rows([phrase], tokenizer, text)
    assert str(found.value) == str(expected.value)


def test_who_uses_an_exported_detector_needs_no_pytorch() -> None:
    blocked = ("torch", "torchvision", "lightning", "open_clip", "timm", "transformers")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "import trex2_lightning.inference.onnx_predictor as m; print(m.OnnxPredictor.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "OnnxPredictor\n", "")
