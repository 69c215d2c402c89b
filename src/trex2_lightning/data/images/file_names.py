"""What a name in an annotation file may mean: the same file, spelt as another system or tool does.

Windows writes backslashes, labelling tools a path of their machine or percent signs, macOS takes letters apart, and
cameras, or those who save anew, change the case of an extension.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class Listing:
    """Files by the ends of their paths, whatever case and spelling they are written in.

    Args:
        files: (name, path) of each file, where a name is relative to its folder or archive.
    """

    def __init__(self, files: Iterable[tuple[str, str]]) -> None:
        self._whole: dict[str, str] = {}  # the first of a name, as places are searched in their order
        self._ends: dict[str, str | None] = {}  # by the last part; None: several files have it
        for name, path in files:
            key = _key(name)
            self._whole.setdefault(key, path)
            last = key.rpartition("/")[2]
            self._ends[last] = path if self._ends.get(last, path) == path else None

    def find(self, name: str) -> str | None:
        """The file that a name can only mean.

        Of a path of another machine it is the longest end that is there, or the only file that is called so. A name
        that could be one of a file here means that alone, not what has its end in another folder.
        """
        parts = [part for part in PurePosixPath(_key(plain(name))).parts if part not in ("/", "..")]
        if not parts:
            return None
        if stays_inside(name):
            return self._whole.get("/".join(parts))
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((self._whole[end] for end in ends if end in self._whole), self._ends.get(parts[-1]))


def stays_inside(name: str) -> bool:
    """Whether a file of that name is in the folder that the name is relative to, on whichever system."""
    path = PurePosixPath(name.replace("\\", "/"))
    return not path.is_absolute() and ".." not in path.parts and not (path.parts and path.parts[0].endswith(":"))


def plain(name: str) -> str:
    """A name without what tools put around it: `file:` and `?d=` of addresses, percent signs, backslashes, a drive."""
    name = unquote(name.rpartition("?d=")[2].removeprefix("file://")).replace("\\", "/")
    return name[2:] if name[1:2] == ":" else name


def walk(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, path) of all files of a folder and its folders, without those that a system leaves there."""
    for place, _, files in os.walk(folder):
        inside = Path(place).relative_to(folder)
        for file in sorted(files):
            name = (inside / file).as_posix()
            if not is_litter(name):
                yield name, str(folder / name)


def is_litter(name: str) -> bool:
    """Whether macOS or Windows made it for itself: `._a.jpg` is no image, whatever it is called."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] in (".DS_Store", "Thumbs.db", "desktop.ini")


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
