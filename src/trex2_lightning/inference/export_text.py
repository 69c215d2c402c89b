"""How a text encoder makes tokens of phrases, for a runtime without PyTorch."""

from __future__ import annotations

import open_clip
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from trex2_lightning.inference.exported import ExportedText
from trex2_lightning.models.text import BertEncoder, TextEncoder


def exported_text(encoder: TextEncoder) -> ExportedText:
    """What stands around a phrase's tokens, and what they become."""
    words = encoder.granularity == "word"
    if isinstance(encoder, BertEncoder):
        start, end, dot = (encoder.tokenizer.special(piece) for piece in ("[CLS]", "[SEP]", "."))
        before, after, around = ([], [dot], [[start], [end]]) if words else ([start], [end], [])
    else:
        clip = open_clip.SimpleTokenizer()
        before, after, around = [clip.sot_token_id], [clip.eot_token_id], []
    return ExportedText(
        reads="bert" if isinstance(encoder, BertEncoder) else "clip",
        words=words,
        context_length=encoder.context_length,
        before=before,
        after=after,
        around=around,
        without_word=encoder.without_word,
    )


def tokenizer_of(encoder: TextEncoder) -> Tokenizer:
    """The same tokens by the tokenizers library; of CLIP's, of text that is clean (`phrase_rows.cleaned`)."""
    return encoder.tokenizer.library if isinstance(encoder, BertEncoder) else _clip_tokenizer()


def _clip_tokenizer() -> Tokenizer:
    clip = open_clip.SimpleTokenizer()
    bpe = models.BPE(
        vocab=clip.encoder,
        merges=list(clip.bpe_ranks),
        continuing_subword_prefix="",
        end_of_word_suffix="</w>",
    )
    tokenizer = Tokenizer(bpe)
    words = pre_tokenizers.Split(Regex(clip.pat.pattern), behavior="removed", invert=True)
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_of])
    tokenizer.add_special_tokens(["<start_of_text>", "<end_of_text>"])
    return tokenizer
