"""Named category vectors: what every way to prompt makes, what detection takes, and their file (T-Rex2, section 3.4).

C categories, D model width.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from trex2_lightning.errors import InputError
from trex2_lightning.structures import PromptTokens

Source = Literal["text", "visual", "mixed", "tuned"]

FILE_FORMAT = "trex2_lightning.prompts"
FILE_VERSION = "1"


class PromptSet(NamedTuple):
    """Categories by name, each with the vector that finds it.

    A detector that reads words finds what is made from `text` by the words of its name instead: there the name is the
    phrase, and the vector the mean of its words.
    """

    names: tuple[str, ...]  # C, all different
    vectors: Tensor  # (C, D) float32, on the CPU
    sources: tuple[Source, ...]  # C, what each vector was made from


def check_wanted(names: Sequence[str], negative: Collection[str] = ()) -> None:
    """Some of the names are looked for, and the `negative` ones are of them.

    Raises:
        InputError: one of the two is not so.
    """
    unknown = [name for name in negative if name not in names]
    if unknown:
        raise InputError(f"the negative '{unknown[0]}' is none of the categories {', '.join(names)}: prompt it too")
    if not set(names) - set(negative):
        raise InputError("there is nothing to look for: give a phrase, a box, a point or a prompt file")


def sources_of(text: PromptTokens, visual: PromptTokens) -> tuple[Source, ...]:
    """Of C categories, by where their phrases and their exemplars are valid."""
    written, shown = text.valid.any(0).tolist(), visual.valid.any(0).tolist()
    return tuple(("mixed" if w else "visual") if s else "text" for w, s in zip(written, shown, strict=True))


def join(*sets: PromptSet) -> PromptSet:
    """The categories of all sets, in their order.

    Raises:
        InputError: two of them have one name.
    """
    names = tuple(name for prompts in sets for name in prompts.names)
    if twice := repeated(names):
        raise InputError(f"the category '{twice}' is given twice: leave one out, or give it another name")
    sources = tuple(source for prompts in sets for source in prompts.sources)
    return PromptSet(names, torch.cat([prompts.vectors for prompts in sets]), sources)


def save_prompts(prompts: PromptSet, path: Path, weights: str) -> None:
    """Write the set to a `.safetensors` file, which needs no reference images any more.

    Args:
        prompts: at least one category.
        path: of the file; its folder is made.
        weights: `fingerprint` of the detector that made the vectors.
    """
    metadata = {
        "format": FILE_FORMAT,
        "version": FILE_VERSION,
        "names": json.dumps(prompts.names),
        "sources": json.dumps(prompts.sources),
        "weights": weights,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"vectors": prompts.vectors.contiguous()}, path, metadata)


def load_prompts(path: Path, width: int, weights: str) -> PromptSet:
    """Read a set; nothing that the file holds is executed.

    Args:
        path: a file of `save_prompts`.
        width: D of the detector that is to take it.
        weights: `fingerprint` of that detector. With other weights the same numbers mean something else, so they are
            refused: their detections would be nonsense without any sign of it.

    Raises:
        InputError: no such file, not safetensors (a pickle), another format or version, names that are missing,
            repeated or not as many as vectors, vectors that are not finite or of another width, or other weights.
    """
    metadata, tensors = _read(path)

    def check(right: bool, reason: str) -> None:
        if not right:
            raise InputError(f"{path}: {reason}; write the prompts anew with --save-prompts")

    check(metadata.get("format") == FILE_FORMAT, "is safetensors, but has no prompts of this project")
    version = metadata.get("version")
    check(version == FILE_VERSION, f"has prompts of version {version}, and this program reads version {FILE_VERSION}")
    names, sources = _texts(metadata, "names"), _texts(metadata, "sources")
    check(names is not None, "has no names of its categories")
    check(sources is not None and set(sources) <= set(get_args(Source)), "does not say what its vectors were made from")
    vectors = tensors.get("vectors", torch.empty(0))
    check(
        vectors.dtype == torch.float32 and vectors.ndim == 2,
        "lacks the tensor 'vectors', 32-bit numbers of shape (categories, width)",
    )
    check(
        len(names) == len(sources) == len(vectors),
        f"has {len(vectors)} vectors, {len(names)} names and {len(sources)} sources",
    )
    check(repeated(names) is None, f"has the name '{repeated(names)}' twice")
    check(vectors.shape[1] == width, f"has vectors of width {vectors.shape[1]}, and this detector's have {width}")
    check(bool(vectors.isfinite().all()), "has vectors with numbers that are not finite")
    check(metadata.get("weights") == weights, "was made by a detector with other weights, to which they mean nothing")
    return PromptSet(names, vectors, sources)


def fingerprint(detector: nn.Module) -> str:
    """SHA-256 of all weights, in hexadecimal: the same on every machine."""
    digest = hashlib.sha256()
    for name, tensor in detector.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def repeated(names: tuple[str, ...]) -> str | None:
    """The first name that occurs more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise InputError(f"no prompt file {path}: --save-prompts writes one")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(
            f"{path} is no safetensors file, or damaged: give one that --save-prompts has written"
        ) from error


def _texts(metadata: dict[str, str], key: str) -> Any:
    """The tuple of texts that JSON under `key` lists; None where it does not."""
    try:
        values = json.loads(metadata[key])
    except (KeyError, ValueError):
        return None
    return tuple(values) if isinstance(values, list) and all(isinstance(value, str) for value in values) else None
