"""What one person has on the page: pictures, prompts, and what was found; nobody else sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from uuid import uuid4

from PIL import Image

from trex2_lightning.data.images.image_files import ImageError, read_image
from trex2_lightning.errors import InputError
from trex2_lightning.inference.inputs import as_phrases
from trex2_lightning.inference.labelling.label_files import coco_content
from trex2_lightning.inference.labelling.rows import LabelRow, judged_row
from trex2_lightning.inference.serving.served_detector import ServedDetector, Wanted
from trex2_lightning.inference.serving.serving_limits import (
    MIB,
    ServingLimits,
    TooLargeError,
    check_picture,
    too_many_bytes,
)
from trex2_lightning.prompting.prompt_file import check_wanted
from trex2_lightning.prompting.prompt_set import PromptSet
from trex2_lightning.structures import Detection, Exemplar

MOST_PICTURES = 24


class Session:
    """Pictures by name, and categories by name, each of a phrase, of marks in pictures, or of a prompt file.

    Args:
        served: the detector.
        limits: of the server.

    Attributes:
        sizes: height and width of each picture, in its order.
        marks: what is marked in each picture, by category.
        phrases: categories that are phrases.
        loaded: categories of prompt files.
        negative: categories whose objects are not wanted.
        threshold: lowest score that is shown; None: the checkpoint's own of each category.
    """

    def __init__(self, served: ServedDetector, limits: ServingLimits) -> None:
        self._served, self._limits, self._owner = served, limits, uuid4().hex
        self._pictures: dict[str, bytes] = {}
        self._found: dict[str, list[Detection]] = {}  # of each picture that was looked at, whatever the score
        self._least: dict[str, float] = {}  # the checkpoint's threshold of what was looked for
        self._unwanted: frozenset[str] = frozenset()  # of what was looked for
        self.sizes: dict[str, tuple[int, int]] = {}
        self.marks: dict[str, dict[str, list[Exemplar]]] = {}
        self.phrases: list[str] = []
        self.loaded: dict[str, PromptSet] = {}
        self.negative: set[str] = set()
        self.threshold: float | None = None

    async def add_picture(self, name: str, data: bytes) -> Image.Image:
        """Take a picture file, in place of one of the same name; returns it, decoded.

        Raises:
            InputError: it is no picture, or too much with those that are there.
        """
        check_picture(data, name, self._limits)
        try:
            picture = await asyncio.to_thread(read_image, data)
        except ImageError as error:
            raise InputError(f"{name}: is damaged: send it anew") from error
        others = {other: content for other, content in self._pictures.items() if other != name}
        if len(others) >= MOST_PICTURES:
            raise InputError(f"{name}: {MOST_PICTURES} pictures are here already: reload the page to begin anew")
        if sum(map(len, [data, *others.values()])) > self._limits.max_upload * MIB:
            raise TooLargeError(f"{name}: {too_many_bytes(self._limits)}")
        self._pictures[name], self.sizes[name] = data, (picture.height, picture.width)
        self.marks.pop(name, None)
        self._found.pop(name, None)
        return picture

    def add_phrase(self, phrase: str) -> None:
        """Take a phrase as a category of its own.

        Raises:
            InputError: it is empty, or a sentence of several.
        """
        if not phrase.strip():
            raise InputError("the phrase is empty: write what to look for")
        self.phrases = list(dict.fromkeys([*self.phrases, *as_phrases(phrase.strip())]))

    @property
    def names(self) -> tuple[str, ...]:
        """The categories, in the order of phrases, marks and files."""
        marked = [name for marks in self.marks.values() for name in marks]
        return tuple(dict.fromkeys([*self.phrases, *marked, *self.loaded]))

    def origin(self, name: str) -> str:
        """What the category is made from, in words."""
        marks = [mark for marks in self.marks.values() for mark in marks.get(name, ())]
        told = ["phrase"] if name in self.phrases else []
        told += [f"{len(marks)} {'mark' if len(marks) == 1 else 'marks'}"] if marks else []
        told += ["file"] if name in self.loaded else []
        return ", ".join(told)

    def remove(self, name: str) -> None:
        """A category with all that it is made from."""
        self.phrases = [phrase for phrase in self.phrases if phrase != name]
        for marks in self.marks.values():
            marks.pop(name, None)
        self.loaded.pop(name, None)
        self.negative.discard(name)

    async def look(self) -> None:
        """Look for the categories in all pictures, anew.

        Raises:
            InputError: as `Predictor.mixed`, `join` and `Predictor.detect`; or there is no picture.
        """
        if not self._pictures:
            raise InputError("there is no picture to look at: drop some")
        pictures, names = dict(self._pictures), self.names
        negative = frozenset(self.negative.intersection(names))
        check_wanted(names, negative)
        prompts = await self._prompts()
        least = await self._served.ask(self._served.thresholds, prompts)
        found = {}
        for name, data in pictures.items():
            if self._pictures.get(name) is not data:  # replaced meanwhile, or the person has left
                continue
            found[name] = await self._served.ask(self._served.find, self._owner, data, prompts, 0.0, negative)
        self._found = {name: all for name, all in found.items() if self._pictures.get(name) is pictures[name]}
        self._least, self._unwanted = least, negative

    def rows(self) -> list[LabelRow]:
        """What is shown of each picture that was looked at: all from the threshold on, without the detector."""
        least = self._least if self.threshold is None else dict.fromkeys(self._least, self.threshold)
        return [judged_row(name, self.sizes[name], found, least) for name, found in self._found.items()]

    @property
    def own_threshold(self) -> float:
        """The lowest of the checkpoint's that is asked; 0: none is."""
        return min(self._least.values(), default=0.0)

    @property
    def best(self) -> Detection | None:
        """What was found with the best score, whether it is shown or not."""
        return max((found[0] for found in self._found.values() if found), key=lambda d: d.score, default=None)

    def coco(self) -> bytes:
        """What is shown, as a file in COCO's format.

        Raises:
            InputError: nothing was looked at.
        """
        if not self._found:
            raise InputError("nothing was looked for yet: press Detect")
        content = coco_content(self.rows(), [name for name in self._least if name not in self._unwanted])
        return json.dumps(content).encode()

    async def save(self) -> bytes:
        """A prompt file of all categories.

        Raises:
            InputError: there is none, or as `look`.
        """
        check_wanted(self.names)
        return await self._served.ask(self._served.written, await self._prompts())

    async def load(self, name: str, data: bytes) -> Sequence[str]:
        """Take the categories of a prompt file, in place of loaded ones of the same name; returns their names.

        Raises:
            InputError: as `Predictor.load`.
        """
        prompts = await self._served.ask(self._served.read, data, name)
        self.loaded |= prompts.apart()
        return prompts.names

    async def close(self) -> None:
        """Keep nothing."""
        self._pictures, self._found = {}, {}
        await self._served.ask(self._served.forget, self._owner)

    async def _prompts(self) -> PromptSet:
        marked = ((name, {c: tuple(m) for c, m in marks.items()}) for name, marks in self.marks.items())
        references = tuple((self._pictures[name], marks) for name, marks in marked if marks)
        wanted = Wanted(tuple(self.phrases), references, tuple(self.loaded.values()))
        return await self._served.ask(self._served.prompts, self._owner, wanted)
