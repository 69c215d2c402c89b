"""A detector that many ask at once: one thread, and what it has seen of their pictures."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from trex2_lightning.errors import InputError
from trex2_lightning.inference.encoding import EncodedImage
from trex2_lightning.inference.marks import Marks
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.inference.search import thresholds_of
from trex2_lightning.inference.serving.serving_limits import MIB
from trex2_lightning.inference.thresholds import Threshold
from trex2_lightning.prompting.prompt_set import Mix, PromptSet, join
from trex2_lightning.structures import Detection

T = TypeVar("T")


class Wanted(NamedTuple):
    """What is looked for, as a person says it."""

    phrases: tuple[str, ...] = ()
    references: tuple[tuple[bytes, Marks], ...] = ()  # picture files, and what is marked in them
    loaded: tuple[PromptSet, ...] = ()  # of prompt files
    mix: Mix = "half"


class ServedDetector:
    """Answers one request after the other, in a thread of its own, so that none sees anything of another's.

    `ask` is for everybody; the other methods are what can be asked, and run in the thread alone. `owner` is whoever
    asks, whose pictures are looked at once for any number of prompts.

    Args:
        predictor: to be used by nobody else.
        memory: MiB of image features that are kept.
    """

    def __init__(self, predictor: Predictor, memory: int) -> None:
        self._predictor, self._seen = predictor, FeatureCache(memory * MIB)
        self._thread = ThreadPoolExecutor(1, "detector")

    async def ask(self, work: Callable[..., T], *arguments: Any) -> T:
        """Have one of the methods below called with the arguments, behind all that was asked before."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def prompts(self, owner: str, wanted: Wanted) -> PromptSet:
        """Raises InputError as `Predictor.mixed` and `join`."""
        references = [(self._encoded(owner, picture), marks) for picture, marks in wanted.references]
        return join(self._predictor.mixed(wanted.phrases, references, wanted.mix), *wanted.loaded)

    def find(
        self, owner: str, picture: bytes, prompts: PromptSet, threshold: Threshold, negative: Collection[str]
    ) -> list[Detection]:
        """Raises InputError as `Predictor.detect`."""
        image, search = self._encoded(owner, picture), self._predictor.search(prompts, threshold, negative)
        return search(image.features, torch.tensor([image.size]))[0]

    def present(self, owner: str, picture: bytes, prompts: PromptSet) -> dict[str, float] | None:
        """As `Predictor.present`; None: the detector does not say."""
        if self._predictor.module.detector.presence is None:
            return None
        return self._predictor.present(self._encoded(owner, picture), prompts)

    def thresholds(self, prompts: PromptSet) -> dict[str, float]:
        """The checkpoint's own, by category."""
        return thresholds_of(self._predictor.module, prompts)

    def written(self, prompts: PromptSet) -> bytes:
        """The content of a prompt file."""
        with tempfile.TemporaryDirectory() as folder:
            self._predictor.save(prompts, path := Path(folder, "prompts.safetensors"))
            return path.read_bytes()

    def read(self, data: bytes, called: str) -> PromptSet:
        """The prompts of a file's content, which messages call so.

        Raises:
            InputError: as `Predictor.load`.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "prompts.safetensors")
            path.write_bytes(data)
            try:
                return self._predictor.load(path)
            except InputError as error:
                raise InputError(str(error).replace(str(path), called)) from error

    def forget(self, owner: str) -> None:
        """What was seen for them."""
        self._seen.forget(owner)

    def kept(self) -> dict[str, int]:
        """Bytes of what was seen, by owner."""
        return self._seen.sizes()

    def _encoded(self, owner: str, picture: bytes) -> EncodedImage:
        return self._seen.encoded(owner, picture, self._predictor.encode)


class FeatureCache:
    """What was seen of pictures lately. Beyond `most` bytes, the oldest goes of the owner that has most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[tuple[str, bytes], tuple[EncodedImage, int]] = {}  # oldest use first

    def encoded(self, owner: str, picture: bytes, encode: Callable[[bytes], EncodedImage]) -> EncodedImage:
        """Of the owner's picture, by `encode` where it is not kept."""
        key = owner, sha256(picture).digest()
        if key in self._kept:
            self._kept[key] = self._kept.pop(key)
            return self._kept[key][0]
        image = encode(picture)
        self._kept[key] = image, sum(tensor.nbytes for tensor in _tensors(image))
        while (sizes := self.sizes()) and sum(sizes.values()) > self._most:
            largest = max(sizes, key=lambda owner: sizes[owner])
            del self._kept[next(key for key in self._kept if key[0] == largest)]
        return image

    def sizes(self) -> dict[str, int]:
        """Bytes that are kept for each owner."""
        found: dict[str, int] = {}
        for (owner, _), (_, size) in self._kept.items():
            found[owner] = found.get(owner, 0) + size
        return found

    def forget(self, owner: str) -> None:
        """All that is kept for the owner."""
        self._kept = {key: value for key, value in self._kept.items() if key[0] != owner}


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)
