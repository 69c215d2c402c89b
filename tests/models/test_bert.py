"""BERT's words: a checkpoint carries its vocabulary, and names do not see one another."""

from __future__ import annotations

import pytest
import torch
from hub_reference import CLS, DOT, NAMES, PIECES, SEP

from trex2_lightning.config import TextConfig
from trex2_lightning.errors import InputError
from trex2_lightning.models.bert import WordPieces
from trex2_lightning.models.text import BertEncoder, PhraseError


def encoder_of(granularity: str, context_length: int = 8) -> BertEncoder:
    torch.manual_seed(0)
    config = TextConfig(
        "custom-bert", width=32, layers=2, heads=2, context_length=context_length, vocabulary=len(PIECES)
    )
    encoder = BertEncoder(config, width=24, granularity=granularity).eval()  # type: ignore[arg-type]
    encoder.tokenizer.read(PIECES)
    return encoder


def test_words_are_lower_case_pieces_of_the_vocabulary() -> None:
    pieces = WordPieces(len(PIECES))
    pieces.read(PIECES)
    assert [PIECES[number] for number in pieces("Red CATS, moonstone")] == ["red", "cat", "##s", "[UNK]", "[UNK]"]


def test_the_vocabulary_is_in_the_state_dict() -> None:
    encoder, other = encoder_of("word"), encoder_of("word")
    other.tokenizer = WordPieces(len(PIECES))
    with pytest.raises(InputError, match=r"model\.text\.pretrained"):
        other(NAMES)
    other.load_state_dict(encoder.state_dict())
    assert other.tokenizer.pieces == PIECES
    torch.testing.assert_close(other(NAMES).embed, encoder(NAMES).embed)
    assert not WordPieces(5).get_extra_state().any()


@pytest.mark.parametrize("pieces", [PIECES[:-1], [*PIECES[:-1], "x" * 33], ["other", *PIECES[1:]]])
def test_a_vocabulary_of_another_bert_is_refused(pieces: list[str]) -> None:
    with pytest.raises(InputError):
        WordPieces(len(PIECES)).read(pieces)


def test_a_sentence_has_its_special_tokens_around_and_between_the_names() -> None:
    prompts = encoder_of("word")(NAMES[:2])
    assert prompts.category.tolist() == [-1, 0, 0, -1, 1, -1, -1]  # [CLS] red star . ring . [SEP]
    assert prompts.position.tolist() == [0, 0, 1, 2, 0, 1, 0]
    expected = torch.block_diag(torch.ones(1, 1), torch.ones(3, 3), torch.ones(2, 2), torch.ones(1, 1))
    assert torch.equal(prompts.attend, expected.bool())


def test_names_as_rows_equal_one_sentence_with_a_block_mask() -> None:
    encoder = encoder_of("word")
    prompts = encoder(NAMES)
    tokens = [CLS]
    for name in NAMES:
        tokens += [*encoder.tokenizer(name), DOT]
    bert = encoder.tower
    x = bert.words(torch.tensor([[*tokens, SEP]])) + bert.positions(prompts.position) + bert.segments.weight[0]
    sentence = bert.encoder(bert.norm(x), mask=~prompts.attend)
    torch.testing.assert_close(prompts.embed, encoder.norm(encoder.projection(sentence)), rtol=1e-4, atol=1e-5)


def test_a_phrase_is_the_output_at_cls_and_does_not_depend_on_its_neighbours() -> None:
    encoder = encoder_of("phrase")
    prompts = encoder(NAMES)
    assert prompts.embed.shape == (1, 4, 24)
    torch.testing.assert_close(prompts.embed[:, :1], encoder(NAMES[:1]).embed)


@pytest.mark.parametrize("granularity", ["phrase", "word"])
def test_a_name_is_never_truncated(granularity: str) -> None:
    encoder = encoder_of(granularity, context_length=5)
    assert encoder(("a blue moon",)).valid.all()  # 5 with start and end
    with pytest.raises(PhraseError, match=r"6 tokens.*reads 5"):
        encoder(("a very blue moon",))
    with pytest.raises(PhraseError, match="empty"):
        encoder(("red", " "))
