"""Named category vectors: what every way to prompt makes, and what detection takes (T-Rex2, section 3.4).

C categories, D model width, R exemplars, A channels of appearance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trex2_lightning.errors import InputError
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.prompt_tokens import from_vectors, renumbered, together
from trex2_lightning.prompting.prompt_file import PromptArrays, read_prompts, repeated, write_prompts
from trex2_lightning.structures import ExemplarAppearance, PromptSource, PromptTokens


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

    def apart(self) -> dict[str, PromptSet]:
        """Each category as a set of its own, by its name."""
        shown = {name: {name: vectors} for name, vectors in self.appearance.items()}
        return {
            name: PromptSet((name,), vector[None], (source,), shown.get(name, {}))
            for name, vector, source in zip(self.names, self.vectors, self.sources, strict=True)
        }

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


def save_prompts(prompts: PromptSet, path: str | Path, weights: str, network: str = "") -> None:
    """Write the set to a file, as `write_prompts`."""
    shown = {name: seen.numpy() for name, seen in prompts.appearance.items()}
    write_prompts(PromptArrays(prompts.names, prompts.vectors.numpy(), prompts.sources, shown), path, weights, network)


def load_prompts(path: str | Path, width: int, weights: str, network: str = "", *, learned: bool = True) -> PromptSet:
    """Read a set, as `read_prompts`."""
    read = read_prompts(path, width, weights, network, learned=learned)
    shown = {name: torch.from_numpy(seen) for name, seen in read.appearance.items()}
    return PromptSet(read.names, torch.from_numpy(read.vectors), read.sources, shown)


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


def network_fingerprint(detector: PromptedDetector) -> str:
    """Of the network that compares appearance: its name, its settings and its weights; "" where nothing does."""
    appearance = detector.appearance
    return "" if appearance is None else f"{appearance.made_by} {fingerprint(appearance.model)}"
