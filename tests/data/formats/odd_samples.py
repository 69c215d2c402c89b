"""A format's files as a value that can be changed, and written; see `oddities.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple


class Sample:
    """Files of a data set, as text or as JSON holds them, and how they are written."""

    def __init__(self, files: dict[str, Any], picture: str = "images/a.jpg") -> None:
        self.files = deepcopy(files)
        self.picture = picture
        self.written: dict[str, Callable[[str], bytes]] = {}
        self.called: dict[str, str] = {}  # new names of categories by old

    def text(self, file: str) -> str:
        content = self.files[file]
        return content if isinstance(content, str) else json.dumps(content)

    def write(self, folder: Path, picture: bytes) -> None:
        for file in self.files:
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.written.get(file, str.encode)(self.text(file)))
        (folder / self.picture).parent.mkdir(parents=True, exist_ok=True)
        (folder / self.picture).write_bytes(picture)

    def rename(self, old: str, new: str) -> None:
        """In the text of all files."""
        for file in self.files:
            if isinstance(self.files[file], str):
                self.files[file] = self.files[file].replace(old, new)
            else:
                self.files[file] = json.loads(
                    json.dumps(self.files[file], ensure_ascii=False).replace(old, json.dumps(new)[1:-1])
                )

    def call(self, old: str, new: str) -> None:
        """Let the category that is called `old` by now be expected as `new`."""
        first = next((name for name, changed in self.called.items() if changed == old), old)
        self.called[first] = new


class Place(NamedTuple):
    """A value in a JSON tree."""

    holder: Any  # the dict or list that has it
    key: Any

    @property
    def value(self) -> Any:
        return self.holder[self.key]


def marked(sample: Sample) -> None:
    """Every box a crowd, difficult or to be ignored, as the format has it."""
    for place in places_in(sample):
        if place.key in ("iscrowd", "ignore"):
            place.holder[place.key] = 1
        if place.key == "legible":
            place.holder[place.key] = False
    for file, content in sample.files.items():
        if isinstance(content, str):
            sample.files[file] = content.replace("<difficult>0", "<difficult>1")
            if "IsGroupOf" in content:
                sample.files[file] = content.removesuffix("0\n") + "1\n"


def places_in(sample: Sample) -> list[Place]:
    """All values of all files that are JSON."""

    def below(tree: Any) -> Iterator[Place]:
        items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
        for key, value in list(items):
            yield Place(tree, key)
            yield from below(value)

    return [place for content in sample.files.values() for place in below(content)]
