from html.entities import html5

import open_clip
import pytest
import torch

from trex2_lightning.config import TextConfig
from trex2_lightning.errors import InputError
from trex2_lightning.models.text import ClipEncoder, PhraseError, text_tower

CONFIG = TextConfig(name="custom", width=32, layers=2, heads=2, context_length=12)
PHRASES = ("red star", "a rather long phrase about one ring", "x")


@pytest.fixture
def encoder():
    return random_encoder("phrase")


def random_encoder(granularity):
    torch.manual_seed(0)
    return ClipEncoder(CONFIG, width=24, granularity=granularity)


def test_trimming_the_context_changes_nothing(encoder):
    full = open_clip.SimpleTokenizer(context_length=encoder.tower.context_length)(
        list(PHRASES)
    )  # padded to the whole context
    assert max(map(len, encoder.rows(PHRASES))) < full.shape[1]
    tower = text_tower(CONFIG)
    tower.load_state_dict(encoder.tower.state_dict())
    expected = encoder.norm(encoder.projection(tower(full)))
    torch.testing.assert_close(encoder(PHRASES).embed[0], expected)


def test_a_phrase_does_not_depend_on_its_neighbours(encoder):
    torch.testing.assert_close(encoder(PHRASES).embed[:, :1], encoder(PHRASES[:1]).embed)


def test_words_are_the_tower_s_outputs_one_by_one_and_end_of_text_closes_a_name(encoder):
    words = random_encoder("word")(PHRASES)
    assert words.category.tolist() == [0, 0, -1, *[1] * 7, -1, 2, -1]
    assert words.position.tolist() == [0, 1, 2, *range(8), 0, 1]
    closing = words.embed[:, words.category == -1]
    torch.testing.assert_close(closing, encoder(PHRASES).embed)  # end-of-text is the phrase's vector
    alone = random_encoder("word")(("red",))
    torch.testing.assert_close(words.embed[:, :1], alone.embed[:, :1])  # causal: "red" does not see "star"


def test_the_tower_is_trained(encoder):
    encoder(PHRASES).embed.square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize("phrase", ["", "  "])
def test_an_empty_phrase_is_refused(encoder, phrase):
    with pytest.raises(PhraseError, match="empty"):
        encoder(("red star", phrase))


def test_a_phrase_longer_than_the_context_is_refused_and_never_truncated(encoder):
    ten = encoder(("one two three four five six seven eight nine ten",))  # 12 with start and end
    assert ten.embed.shape == (1, 1, 24)
    with pytest.raises(PhraseError, match=r"13 tokens.*reads 12"):
        encoder(("one two three four five six seven eight nine ten eleven",))


@pytest.mark.parametrize(
    ("phrase", "reason"),
    [
        ("one two three four five six seven eight nine ten eleven", "13 tokens.*reads 12"),
        ("\U0001f40c" * 7, "tokens.*reads 12"),  # few characters, several tokens each
        (" ", "empty"),
    ],
)
def test_phrases_are_checked_as_they_would_be_encoded(encoder, phrase, reason):
    with pytest.raises(PhraseError, match=reason):
        encoder((phrase,))
    encoder.check(PHRASES)
    with pytest.raises(PhraseError, match=reason):
        encoder.check((*PHRASES, phrase))


def test_only_phrases_that_may_be_too_long_are_tokenised(encoder, monkeypatch):
    seen = []
    monkeypatch.setattr(encoder, "tokens", seen.append)
    encoder.check(("red star", "12345 7890", "12345 78901", "\u00fc"))
    assert seen == ["12345 78901", "\u00fc"]


def test_no_ascii_character_is_two_tokens():
    """CLIP's tokenizer reads `&nGt;` as HTML, for more bytes than other names have of their length."""
    tokenizer = open_clip.SimpleTokenizer()
    characters = [chr(code) for code in range(1, 128)]
    for phrase in (*(c * 9 for c in characters), *(f"a{c}" * 4 for c in characters), *(f"&{name}" for name in html5)):
        assert len(tokenizer.encode(phrase)) <= len(phrase), phrase


def test_the_text_side_of_a_published_clip_is_taken():
    tower = text_tower(TextConfig(name="ViT-B-32-quickgelu"))
    assert (tower.context_length, tower.width, tower.output_dim) == (77, 512, 512)


@pytest.mark.parametrize(("name", "reason"), [("no-such-clip", "no-such-clip"), ("ViT-B-16-SigLIP", "causal")])
def test_other_text_towers_are_refused(name, reason):
    with pytest.raises(InputError, match=reason):
        text_tower(TextConfig(name=name))


@pytest.mark.parametrize(
    "error", [FileNotFoundError("no\nnetwork"), RuntimeError("no\nnetwork"), OSError("no\nnetwork")]
)
def test_a_clip_that_cannot_be_fetched_is_told_in_one_line(monkeypatch, error):
    def create(*_, **__):
        raise error

    monkeypatch.setattr(open_clip, "create_model", create)
    with pytest.raises(InputError, match=r"^model\.text\.name=ViT-B-32.*no network.*model\.text\.pretrained=FILE"):
        text_tower(TextConfig(name="ViT-B-32", pretrained="openai"))
