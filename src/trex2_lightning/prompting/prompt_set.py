"""Named category vectors: what every way to prompt makes, and what detection takes (T-Rex2, section 3.4).

C categories, D model width, R exemplars, A channels of appearance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from trex2_lightning.errors import InputError
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.prompt_tokens import from_vectors
from trex2_lightning.prompting.prompt_file import PromptArrays, read_prompts, repeated, write_prompts
from trex2_lightning.structures import ExemplarAppearance, PromptSource, PromptTokens

Mix = Literal["half", "mean"]


class PromptSet(NamedTuple):
    """Categories by name, each with the vector that finds it.

    A detector that reads words finds what is `asked_by_name` by the words of its name instead: there the name is the
    phrase, and the vector the mean of its words.
    """

    names: tuple[str, ...]  # C, all different
    vectors: Tensor  # (C, D) float32, on the CPU
    sources: tuple[PromptSource, ...]  # C, what each vector was made from
    appearance: Mapping[str, Tensor] = {}  # (m, A) float32 on the CPU, of each category that has m exemplars

    def apart(self) -> dict[str, PromptSet]:
        """Each category as a set of its own, by its name."""
        shown = {name: {name: vectors} for name, vectors in self.appearance.items()}
        return {
            name: PromptSet((name,), vector[None], (source,), shown.get(name, {}))
            for name, vector, source in zip(self.names, self.vectors, self.sources, strict=True)
        }

    def tokens(self, device: torch.device) -> PromptTokens:
        """The vectors as any image is asked with them, on the detector's device."""
        tokens = from_vectors(self.vectors[None].to(device))
        shown = [(self.names.index(name), vectors) for name, vectors in self.appearance.items()]
        if not shown:
            return tokens
        joined = torch.cat([vectors for _, vectors in shown])[None].to(device)
        category = torch.tensor([place for place, vectors in shown for _ in vectors], device=device)
        valid = torch.ones_like(joined[..., 0], dtype=torch.bool)
        return tokens._replace(appearance=ExemplarAppearance(joined, valid, category))


def mixed(
    written: Mapping[str, Tensor],
    shown: Sequence[Mapping[str, tuple[Tensor, Tensor]]],
    width: int,
    mix: Mix,
    *,
    learned: bool,
) -> PromptSet:
    """Categories of phrases and of exemplars in n images; one that has both gets the mean of their vectors.

    Args:
        written: vector (D,) of each phrase.
        shown: of each image the vector (D,) and the appearance (m, A) of the exemplars of a category; A = 0: none.
        width: D.
        mix: weight of a phrase's vector, as of `Predictor.mixed`.
        learned: exemplars' vectors mean something; else that of a category with a phrase is the phrase's.
    """
    names = tuple(dict.fromkeys(name for row in [written, *shown] for name in row))
    vectors, appearance = torch.zeros(len(names), width), {}
    sources: list[PromptSource] = []
    for place, name in enumerate(names):
        own, rows = [written[name]] if name in written else [], [row[name] for row in shown if name in row]
        sources.append(("mixed" if own else "generic") if rows else "text")
        visual = [vector for vector, _ in rows] if learned or not own else []
        if visual and mix == "half":
            visual = [torch.stack(visual).mean(0)]
        vectors[place] = torch.stack([*own, *visual]).mean(0)
        if rows and rows[0][1].numel():
            appearance[name] = torch.cat([seen for _, seen in rows]).cpu()
    return PromptSet(names, vectors, tuple(sources), appearance)


def from_one_source(prompts: PromptSet, source: PromptSource) -> PromptSet:
    """The same prompts, all of that source."""
    sources: list[PromptSource] = [source] * len(prompts.names)
    return prompts._replace(sources=tuple(sources))


def without_exemplars(prompts: PromptSet, named: Collection[PromptSource]) -> PromptSet:
    """The categories whose exemplars have no appearance, as none of a phrase has, or that are made from `named`."""
    rows = enumerate(zip(prompts.names, prompts.sources, strict=True))
    kept = [place for place, (name, source) in rows if name not in prompts.appearance or source in named]
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
