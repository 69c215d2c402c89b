"""What there is to label: the pictures of a folder, a pattern or a list, by names that every output file gives them."""

from __future__ import annotations

import os
from collections.abc import Collection, Container, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from trex2_lightning.data.images.file_names import IMAGE_SUFFIXES
from trex2_lightning.errors import InputError

SHEET, LINKS = "uncertain.png", "yolo"  # of the output, which hold pictures


class Source(NamedTuple):
    """Pictures, each once; the same ones have the same order on every machine."""

    root: Path  # the folder that names are relative to
    names: tuple[str, ...]  # with slashes on every system


class Shard(NamedTuple):
    """One of several equal parts of the work, counted from 1."""

    number: int = 1
    parts: int = 1

    def __str__(self) -> str:
        return f"{self.number}-of-{self.parts}"


def find_pictures(given: str, output: Path | None = None) -> Source:
    """The pictures of a folder and of those in it, of a pattern such as `photos/**/*.jpg`, or of a list.

    Args:
        given: a folder, a picture, a pattern, or a `.txt` file with a path a line, relative to the file's folder.
        output: folder of labels, whose own pictures are none to label.

    Raises:
        InputError: there is no such thing, or no picture in it.
    """
    path = Path(given)
    if path.is_dir():
        source = Source(path, tuple(sorted(_below(path))))
    elif path.suffix == ".txt" and path.is_file():
        source = _relative(path.parent / line for line in _lines(path))
    elif path.is_file():
        source = _relative([path])
    else:
        source = _relative(file for file in sorted(_matching(path)) if _is_picture(file.name))
    if output is not None:
        source = _without_output(source, output)
    if not source.names:
        raise InputError(
            f"{given}: there is no picture; give a folder, a pattern in quotes, a video, or a .txt file with a picture "
            f"a line (pictures end in {', '.join(IMAGE_SUFFIXES)})"
        )
    return source


def groups_of(source: Source, size: int, shard: Shard, done: Container[str]) -> list[tuple[str, ...]]:
    """What a shard has still to do, a batch at a time.

    Batches are the same whoever takes them and wherever it was interrupted: with others' company a picture would be
    padded otherwise, and its scores would differ in their last digits.
    """
    starts = range(0, len(source.names), size)[shard.number - 1 :: shard.parts]
    groups = (tuple(n for n in source.names[start : start + size] if n not in done) for start in starts)
    return [group for group in groups if group]


def leave_out(source: Source, files: Collection[Path], most: int | None) -> Source:
    """The pictures of the source but for those files, at most so many."""
    root = source.root.resolve()
    names = tuple(name for name in source.names if root / name not in files)
    return source._replace(names=names[:most])


def _without_output(source: Source, output: Path) -> Source:
    root, output = source.root.resolve(), output.resolve()
    if not output.is_relative_to(root):
        return source
    sheet, links = ((output / name).relative_to(root).as_posix() for name in (SHEET, LINKS))
    names = (name for name in source.names if name != sheet and not name.startswith(f"{links}/"))
    return source._replace(names=tuple(names))


def _relative(files: Iterable[Path]) -> Source:
    """Relative to the folder that holds them all."""
    # With `..` in it a file would have several names, and one that leads out of the folder.
    absolute = [file.parent.resolve() / file.name if ".." in file.parts else file.absolute() for file in files]
    if not absolute:
        return Source(Path(), ())
    root = Path(os.path.commonpath([file.parent for file in absolute]))
    return Source(root, tuple(dict.fromkeys(file.relative_to(root).as_posix() for file in absolute)))


def _matching(pattern: Path) -> Iterator[Path]:
    start = Path(pattern.anchor)
    return start.glob(str(pattern.relative_to(start)))


def _below(folder: Path) -> Iterator[str]:
    """Without what is hidden, as systems and tools keep thumbnails there."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, file).relative_to(folder).as_posix() for file in files if _is_picture(file))


def _is_picture(file: str) -> bool:
    path = Path(file)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a text file with a picture a line") from error
