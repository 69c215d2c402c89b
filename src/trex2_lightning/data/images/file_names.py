"""What a name in an annotation file may mean: the same file, spelt as another system or tool does.

Windows writes backslashes, labelling tools a path of their machine or percent signs, macOS takes letters apart, and
cameras, or those who save anew, change the case of an extension.
"""

from __future__ import annotations

import os
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote

import numpy as np

IMAGE_SUFFIXES = (  # the usual ones first, as some readers try one after the other
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    *(".avif", ".dib", ".gif", ".jfif", ".jp2", ".pgm", ".ppm", ".tga"),
)
NAMES_KEPT = 2**22  # names in folders that are remembered, some 40 bytes each
EMPTY_FOLDER = 2**5  # names that take the memory of a folder without any
NAMES_WALKED = 2**22  # files below all folders: of more, none is found by its last part alone


class Listing:
    """Files by the names that annotations give them, whatever case and spelling they are written in.

    A folder is listed when a name leads to it. All folders are walked through, once, for a name of another machine of
    which no end is there.

    Args:
        folders: searched in their order.
        members: paths of further files by their names, searched after the folders.
    """

    def __init__(self, folders: Sequence[Path], members: Mapping[str, str]) -> None:
        self._folders = folders
        self._names: dict[Path, _Names] = {}  # of folders that were listed, the last used one last
        self._kept = 0  # of `NAMES_KEPT`
        self._members = members
        self._member_names = _Names(members, _key)
        self._member_ends = _Names(members, _last_key)
        self._file_ends: _Names | None = None

    def find(self, name: str) -> str | None:
        """The file that a name can only mean; None: there is none, or several could be meant.

        Of a path of another machine it is the longest end that is there, or the only file that is called so. A name
        that could be one of a file here means that alone, not what has its end in another folder.
        """
        parts = [part for part in PurePosixPath(plain(name)).parts if part not in ("/", "..")]
        if not parts:
            return None
        if stays_inside(name):
            return self._at(parts)
        ends = (self._at(parts[start:]) for start in range(len(parts)))
        return next(filter(None, ends), None) or self._only(_key(parts[-1]))

    def _at(self, parts: Sequence[str]) -> str | None:
        """The file at a path, the first of the places that have one."""
        for folder in self._folders:
            if found := self._below(folder, parts):
                return _meant(found, str(folder.joinpath(*parts)))
        name = "/".join(parts)
        found = self._member_names.find(_key(name))
        return self._members.get(_meant(found, name) or "")

    def _below(self, folder: Path, parts: Sequence[str]) -> list[str]:
        """All files whose path could be meant."""
        places = [folder / name for name in self._listed(folder).find(_key(parts[0]))]
        if len(parts) > 1:
            return [file for place in places for file in self._below(place, parts[1:])]
        return [str(place) for place in places if is_file(place)]

    def _listed(self, folder: Path) -> _Names:
        names = self._names.pop(folder, None)
        if names is None:
            names = _Names(_entries(folder), _key)
            self._kept += len(names) + EMPTY_FOLDER
            while self._names and self._kept > NAMES_KEPT:
                self._kept -= len(self._names.pop(next(iter(self._names)))) + EMPTY_FOLDER
        self._names[folder] = names
        return names

    def _only(self, last: str) -> str | None:
        """The only file whose name has that last part."""
        if self._file_ends is None:
            walked = _Names(islice(chain.from_iterable(map(_walk, self._folders)), NAMES_WALKED + 1), _last_key)
            self._file_ends = walked if len(walked) <= NAMES_WALKED else _Names((), _last_key)
        files = [*self._file_ends.find(last), *map(self._members.__getitem__, self._member_ends.find(last))]
        return _meant([*dict.fromkeys(files)])


class _Names:
    """Many names, by what they mean: some 40 bytes each."""

    def __init__(self, names: Iterable[str], key: Callable[[str], str]) -> None:
        self._key = key
        self._text = bytearray()
        self._stops = array("q", [0])
        hashes = array("q")
        for name in names:
            self._text += os.fsencode(name)
            self._stops.append(len(self._text))
            hashes.append(hash(key(name)))
        self._order = np.argsort(np.asarray(hashes, np.int64), kind="stable")
        self._hashes = np.asarray(hashes, np.int64)[self._order]

    def __len__(self) -> int:
        return len(self._order)

    def find(self, key: str) -> list[str]:
        """Different names with that key, in their order."""
        start, stop = (np.searchsorted(self._hashes, hash(key), side) for side in ("left", "right"))
        named = (
            os.fsdecode(bytes(self._text[self._stops[place] : self._stops[place + 1]]))
            for place in self._order[start:stop].tolist()
        )
        return [name for name in dict.fromkeys(named) if self._key(name) == key]


def stays_inside(name: str) -> bool:
    """Whether a file of that name is in the folder that the name is relative to, on whichever system."""
    path = PurePosixPath(name.replace("\\", "/"))
    with_drive = bool(PurePath(name).drive) or (
        path.parts and path.parts[0].endswith(":")
    )  # `C:a.jpg` on Windows alone
    return not path.is_absolute() and ".." not in path.parts and not with_drive


def is_file(path: Path) -> bool:
    """Whether there is such a file; no error for what no file can be called, or where nobody may look."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def can_be(name: str) -> bool:
    """Whether any file can be called so."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def plain(name: str) -> str:
    """A name without what tools put around it: `file:` and `?d=` of addresses, percent signs, backslashes, a drive."""
    name = unquote(name.rpartition("?d=")[2].removeprefix("file://")).replace("\\", "/")
    return name[2:] if name[1:2] == ":" else name


def at_home(path: str) -> Path:
    """With the home folder in place of a `~` that no shell has replaced."""
    return Path(path).expanduser() if path == "~" or path.startswith("~/") else Path(path)


def is_litter(name: str) -> bool:
    """Whether macOS or Windows made it for itself: `._a.jpg` is no image, whatever it is called."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] in (".DS_Store", "Thumbs.db", "desktop.ini")


def _entries(folder: Path) -> Iterator[str]:
    """Of what is in a folder the names, without those that a system leaves there; none of what cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if not is_litter(entry.name))
    except OSError:
        return


def _walk(folder: Path) -> Iterator[str]:
    """Paths of all files of a folder and its folders."""
    for place, _, files in os.walk(folder):
        yield from (path for file in files if not is_litter(path := f"{place}/{file}"))


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _last_key(path: str) -> str:
    return _key(path.rpartition("/")[2])


def _meant(found: Sequence[str], usual: str = "") -> str | None:
    """Of what could be meant the usual, or the only one."""
    return usual if usual in found else found[0] if len(found) == 1 else None
