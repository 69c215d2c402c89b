"""Named category vectors: what every way to prompt makes, what detection takes, and their file (T-Rex2, section 3.4).

C categories, D model width, R exemplars, A channels of appearance.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from trex2_lightning.errors import InputError
from trex2_lightning.ops.prompt_tokens import from_vectors, renumbered, together
from trex2_lightning.structures import ExemplarAppearance, PromptSource, PromptTokens

log = logging.getLogger(__name__)

FILE_FORMAT = "trex2_lightning.prompts"
FILE_VERSION = "2"
READABLE = ("1", FILE_VERSION)  # the first had no appearance, and one word for all prompts of exemplars
APPEARANCE = "appearance."  # and the number of the category: the name of a tensor


class PromptSet(NamedTuple):
    """Categories by name, each with the vector that finds it.

    A detector that reads words finds what is made from `text` by the words of its name instead: there the name is the
    phrase, and the vector the mean of its words.
    """

    names: tuple[str, ...]  # C, all different
    vectors: Tensor  # (C, D) float32, on the CPU
    sources: tuple[PromptSource, ...]  # C, what each vector was made from
    appearance: Mapping[str, Tensor] = {}  # (m, A) float32 on the CPU, of each category that has m exemplars

    @property
    def written(self) -> tuple[str, ...]:
        """The names that were made from text alone."""
        return tuple(name for name, source in zip(self.names, self.sources, strict=True) if source == "text")

    def tokens(self, device: torch.device, words: PromptTokens | None = None) -> PromptTokens:
        """What any image is asked with.

        Args:
            device: where the detector is.
            words: of the names `written`; they find these in the vectors' place.
        """
        tokens = from_vectors(self.vectors[None].to(device))
        if words is not None:
            written = torch.tensor([source == "text" for source in self.sources], device=device)
            place, others = written.nonzero()[:, 0], (~written).nonzero()[:, 0]
            tokens = together(renumbered(words, place), renumbered(from_vectors(tokens.embed[:, others]), others))
        shown = [(self.names.index(name), vectors) for name, vectors in self.appearance.items()]
        if not shown:
            return tokens
        joined = torch.cat([vectors for _, vectors in shown])[None].to(device)
        category = torch.tensor([place for place, vectors in shown for _ in vectors], device=device)
        valid = torch.ones_like(joined[..., 0], dtype=torch.bool)
        return tokens._replace(appearance=ExemplarAppearance(joined, valid, category))


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


def sources_of(text: PromptTokens, visual: PromptTokens) -> tuple[PromptSource, ...]:
    """Of C categories, by where their phrases and their exemplars are valid."""
    written, shown = text.valid.any(0).tolist(), visual.valid.any(0).tolist()
    return tuple(("mixed" if w else "generic") if s else "text" for w, s in zip(written, shown, strict=True))


def rows_of(
    names: tuple[str, ...], rows: Sequence[Mapping[str, Tensor]], width: int, device: torch.device
) -> PromptTokens:
    """Prompt tokens (n, C, D) of n rows of vectors (D,) by name, valid where a row has the category."""
    vectors = torch.zeros(len(rows), len(names), width, device=device)
    valid = torch.zeros(len(rows), len(names), dtype=torch.bool, device=device)
    for i, row in enumerate(rows):
        for name, vector in row.items():
            vectors[i, names.index(name)] = vector
            valid[i, names.index(name)] = True
    return from_vectors(vectors, valid)


def from_one_source(prompts: PromptSet, source: PromptSource) -> PromptSet:
    """The same prompts, all of that source."""
    sources: list[PromptSource] = [source] * len(prompts.names)
    return prompts._replace(sources=tuple(sources))


def without_exemplars(prompts: PromptSet) -> PromptSet:
    """The categories whose exemplars have no appearance, as none of a phrase has."""
    kept = [place for place, name in enumerate(prompts.names) if name not in prompts.appearance]
    names, sources = tuple(prompts.names[place] for place in kept), tuple(prompts.sources[place] for place in kept)
    return PromptSet(names, prompts.vectors[kept], sources)


def join(*sets: PromptSet) -> PromptSet:
    """The categories of all sets, in their order.

    Raises:
        InputError: two of them have one name.
    """
    names = tuple(name for prompts in sets for name in prompts.names)
    if twice := repeated(names):
        raise InputError(f"the category '{twice}' is given twice: leave one out, or give it another name")
    sources = tuple(source for prompts in sets for source in prompts.sources)
    appearance = {name: shown for prompts in sets for name, shown in prompts.appearance.items()}
    return PromptSet(names, torch.cat([prompts.vectors for prompts in sets]), sources, appearance)


def save_prompts(prompts: PromptSet, path: Path, weights: str, network: str = "") -> None:
    """Write the set to a `.safetensors` file, which needs no reference images any more.

    Args:
        prompts: at least one category.
        path: of the file; its folder is made.
        weights: `fingerprint` of the detector that made the vectors.
        network: name and `fingerprint` of the network that made their appearance.
    """
    metadata = {
        "format": FILE_FORMAT,
        "version": FILE_VERSION,
        "names": json.dumps(prompts.names),
        "sources": json.dumps(prompts.sources),
        "weights": weights,
        "network": network,
    }
    tensors = {f"{APPEARANCE}{prompts.names.index(name)}": shown for name, shown in prompts.appearance.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"vectors": prompts.vectors.contiguous()} | tensors, path, metadata)


def load_prompts(path: Path, width: int, weights: str, network: str = "") -> PromptSet:
    """Read a set; nothing that the file holds is executed.

    Args:
        path: a file of `save_prompts`.
        width: D of the detector that is to take it.
        weights: `fingerprint` of that detector. With other weights the same numbers mean something else, so they are
            refused: their detections would be nonsense without any sign of it.
        network: name and `fingerprint` of the network that compares appearance; "": none, and what the file has of it
            is left out.

    Raises:
        InputError: no such file, not safetensors (a pickle), another format or version, names that are missing,
            repeated or not as many as vectors, vectors that are not finite or of another width, or other weights
            of the detector or of the network.
    """
    metadata, tensors = _read(path)

    def check(right: bool, reason: str) -> None:
        if not right:
            raise InputError(f"{path}: {reason}; write the prompts anew with --save-prompts")

    check(metadata.get("format") == FILE_FORMAT, "is safetensors, but has no prompts of this project")
    version = metadata.get("version")
    check(version in READABLE, f"has prompts of version {version}, and this program reads {' and '.join(READABLE)}")
    names, sources = _texts(metadata, "names"), _texts(metadata, "sources")
    check(names is not None, "has no names of its categories")
    if version == "1" and sources is not None:
        sources = tuple("generic" if source == "visual" else source for source in sources)
    known = set(get_args(PromptSource))
    check(sources is not None and set(sources) <= known, "does not say what its vectors were made from")
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
    shown = {key.removeprefix(APPEARANCE): tensors[key] for key in tensors if key.startswith(APPEARANCE)}
    if shown and not network:
        log.warning("%s: this detector does not compare appearance, so that of the prompts is left out", path)
        shown = {}
    check(not shown or metadata.get("network") == network, "has the appearance that another network saw")
    places = {str(place): name for place, name in enumerate(names)}
    check(shown.keys() <= places.keys(), "has the appearance of a category without a name")
    for tensor in shown.values():
        fits = tensor.dtype == torch.float32 and tensor.ndim == 2 and bool(tensor.isfinite().all())
        check(fits, "has appearance that is no finite 32-bit numbers of shape (exemplars, channels)")
    return PromptSet(names, vectors, sources, {places[place]: tensor for place, tensor in shown.items()})


def fingerprint(detector: nn.Module) -> str:
    """SHA-256 of all weights, in hexadecimal: the same on every machine.

    Without what compares appearance, which makes no vector and has a fingerprint of its own.
    """
    digest = hashlib.sha256()
    for name, tensor in detector.state_dict().items():
        if name.startswith("appearance."):
            continue
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
