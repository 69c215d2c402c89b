"""Grounding DINO of `transformers` beside our detectors with the same random weights, on one image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from trex2_lightning.errors import InputError
from trex2_lightning.models.build import build_detector
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.models.hub.load import load_detector
from trex2_lightning.models.hub.settings import model_config
from trex2_lightning.models.text import BertEncoder
from trex2_lightning.structures import DetectorOutput, Images, Prompts, PromptTokens
from trex2_lightning.studies.timing import Row, Setting, difference, fastest, ratio

VOCABULARY = "vocab.txt"
CLS, SEP, DOT, FIRST_WORD = 101, 102, 1012, 2000  # word pieces
# Word pieces of a name: COCO's 80 names make 194 tokens with dots and ends, LVIS's 1,203 have 2.2 pieces each.
COCO_LENGTHS = (1, 2, 1, 1, 2, 1, 1, 1, 3, 1)
LVIS_LENGTHS = (2, 1, 2, 3, 2, 1, 2, 1, 2, 4, 2, 1, 2, 3, 1, 6)


@torch.no_grad()
def detectors(folder: Path, setting: Setting) -> list[Row]:
    """Grounding DINO of `transformers`, and our detectors with its random weights, on one image.

    Raises:
        InputError: `transformers` is not installed.
    """
    reference = random_reference(folder, setting)
    early, late = random_detector(folder, "early", "word", "plain"), random_detector(folder, "late", "phrase", "scaled")
    few, many = made_up_names(COCO_LENGTHS, setting.few), made_up_names(LVIS_LENGTHS, setting.many)
    images = Images(
        torch.randn(1, 3, setting.height, setting.width, generator=torch.Generator().manual_seed(0)),
        torch.ones(1, setting.height, setting.width, dtype=torch.bool),
        torch.tensor([[setting.height, setting.width]]),
    )

    def ask(tokens: Tensor) -> Any:
        return reference(images.pixels, input_ids=tokens, attention_mask=torch.ones_like(tokens))

    def find(detector: PromptedDetector, prompts: PromptTokens) -> Tensor:
        return detector.scores(detector.decode(detector.encode_image(images), prompts))

    limit = reference.config.max_text_len
    [sentence], chunks = sentences(few, limit), sentences(many, limit)
    theirs = ask(sentence)
    differ = outputs_differ(
        theirs, early.decode(early.encode_image(images), early.encode_prompts(Prompts(few))), sentence.shape[1]
    )
    largest = float(theirs.logits[..., : sentence.shape[1]].abs().max())
    few_vectors, many_vectors = late.encode_prompts(Prompts(few)), late.encode_prompts(Prompts(many))
    peer, words, phrases, more = fastest(
        setting.repeats,
        lambda: ask(sentence),
        lambda: find(early, early.encode_prompts(Prompts(few))),
        lambda: find(late, few_vectors),
        lambda: find(late, many_vectors),
    )
    [in_chunks] = fastest(1, lambda: [ask(chunk) for chunk in chunks])
    what, cached = f"{setting.height} x {setting.width}", "(phrase, late), vectors cached"
    return [
        Row(f"{what}, {len(few)} names, (word, early)", peer, words, ratio(peer, words), ">= 1.5"),
        Row(
            f"largest difference of boxes and of logits, which reach {largest:.1f}",
            None,
            None,
            f"{differ:.1e}",
            "<= 1e-4",
        ),
        Row(f"{what}, {len(few)} names, {cached}", peer, phrases, ratio(peer, phrases), ">= 2"),
        Row(
            f"{what}, {len(many)} names in {len(chunks)} chunks, {cached}",
            in_chunks,
            more,
            ratio(in_chunks, more),
            ">= 40",
        ),
        Row(f"{len(many)} names against {len(few)}, {cached}", None, None, f"{more / phrases:.2f} times", "<= 1.1"),
    ]


def random_detector(
    folder: Path, fusion: Literal["early", "late"], granularity: str, similarity: str
) -> PromptedDetector:
    """A detector of the sizes and with the vocabulary of a folder, and with its weights if it has some."""
    config = model_config(str(folder))
    config.fusion, config.granularity, config.similarity = fusion, granularity, similarity  # type: ignore[assignment]
    detector = build_detector(config).eval()
    if any(folder.glob("*.safetensors")):
        load_detector(detector, str(folder))
    else:
        assert isinstance(detector.text_encoder, BertEncoder)
        detector.text_encoder.tokenizer.read((folder / VOCABULARY).read_text(encoding="utf-8").splitlines())
    return detector


def made_up_names(lengths: Sequence[int], number: int) -> tuple[str, ...]:
    """Names of so many word pieces each, over and over; no piece comes twice."""
    pieces = count(FIRST_WORD)
    return tuple(" ".join(f"w{next(pieces)}" for _ in range(length)) for length in islice(cycle(lengths), number))


def random_reference(folder: Path, setting: Setting) -> Any:
    """A random Grounding DINO, written to `folder` with a vocabulary in which word number n is "wn".

    Raises:
        InputError: `transformers` is not installed.
    """
    try:
        from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection
    except ImportError as error:
        raise InputError(
            "the benchmarks compare with transformers: pip install 'trex2_lightning[transformers]'"
        ) from error
    torch.manual_seed(0)
    reference = GroundingDinoForObjectDetection(GroundingDinoConfig(**setting.reference)).eval()
    for parameter in reference.parameters():
        if parameter.ndim > 1:  # away from zeros, which layers start with
            parameter += 0.02 * torch.randn_like(parameter)
    # Random logits are ten times those of a trained detector, which the tolerance is meant for.
    reference.model.decoder.layer_norm.weight.mul_(0.1)
    # Near ties, whose order float32 does not settle, shall change the order of the queries and nothing else.
    content = reference.model.query_position_embeddings.weight
    content.copy_(content[:1].expand_as(content))
    # The reference may choose tokens at the border, which are no proposals; with these weights their logits are 0, and
    # those of others above.
    reference.model.enc_output.weight.neg_()
    for module in (reference.model.enc_output, reference.model.enc_output_norm):
        module.bias.zero_()
    reference.save_pretrained(folder)
    _write_vocabulary(folder)
    return reference


def write_settings(folder: Path, setting: Setting) -> None:
    """The same folder without weights, where `transformers` is missing."""
    (folder / "config.json").write_text(
        json.dumps({"model_type": "grounding-dino", **setting.reference}), encoding="utf-8"
    )
    _write_vocabulary(folder)


def _write_vocabulary(folder: Path) -> None:
    pieces = [f"w{number}" for number in range(model_config(str(folder)).text.vocabulary)]
    for number, piece in {0: "[PAD]", 100: "[UNK]", CLS: "[CLS]", SEP: "[SEP]", 103: "[MASK]", DOT: "."}.items():
        pieces[number] = piece
    (folder / VOCABULARY).write_text("\n".join(pieces) + "\n", encoding="utf-8")


def sentences(names: Iterable[str], limit: int) -> list[Tensor]:
    """The reference's tokens (1, T) of "[CLS] red star . ring . [SEP]", in as many chunks as the limit needs."""
    chunks: list[list[int]] = [[]]
    for name in names:
        tokens = [*(int(word[1:]) for word in name.split()), DOT]
        if len(chunks[-1]) + len(tokens) > limit - 2:
            chunks.append([])
        chunks[-1] += tokens
    return [torch.tensor([[CLS, *chunk, SEP]]) for chunk in chunks]


def outputs_differ(theirs: Any, ours: DetectorOutput, num_tokens: int) -> float:
    """The largest difference of the boxes and logits of one image; the order of the queries may be another."""
    order = torch.cdist(theirs.init_reference_points[0], ours.proposals.boxes[-1, 0]).argmin(-1)
    return max(
        difference(theirs.logits[0, :, :num_tokens], ours.queries.logits[-1, 0, order]),
        difference(theirs.pred_boxes[0], ours.queries.boxes[-1, 0, order]),
    )
