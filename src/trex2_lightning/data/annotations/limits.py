"""How much of an annotation file is in memory at once, whoever wrote it; docs/security.md lists these numbers."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, AnyStr, BinaryIO, cast

from trex2_lightning.errors import InputError

LONGEST = 2**24  # characters or bytes of one line or one entry
WHOLE_FILE = 2**29  # bytes of a file that is read whole, as are those which say something of all images
OF_AN_IMAGE = 2**24  # bytes of a file that says what is in one image
UNPACKED = 2**28  # bytes that a gzipped file may come to, however short it is
TIMES = 100  # as long as it is a longer one may become; annotations are packed to a fifth or a tenth

HERE = "data/annotations/limits.py"


def whole(file: BinaryIO, path: Path, most: int | None = None) -> bytes:
    """All of a file.

    Args:
        file: of the path.
        path: for messages.
        most: bytes; None: `WHOLE_FILE`.

    Raises:
        InputError: it has more.
    """
    limit = WHOLE_FILE if most is None else most
    content = file.read(limit + 1)
    if len(content) > limit:
        constant = "WHOLE_FILE" if most is None else "OF_AN_IMAGE"
        raise InputError(f"{path}: is longer than {limit:,} bytes ({constant} in {HERE}): take a shorter file")
    return content


def lines_of(file: IO[AnyStr], path: Path) -> Iterator[AnyStr]:
    """The lines of a file, with what ends them.

    Raises:
        InputError: one has more than `LONGEST` characters, and so is none.
    """
    while line := file.readline(LONGEST + 1):
        if len(line) > LONGEST:
            raise InputError(f"{path}: a line is longer than {LONGEST:,} (LONGEST in {HERE}): take a file with lines")
        yield line


def unzipped(file: BinaryIO, path: Path) -> BinaryIO:
    """What a gzipped file holds, of which reading on raises InputError where it comes to far more than it is long."""
    most = max(UNPACKED, TIMES * path.stat().st_size)
    return cast(BinaryIO, io.BufferedReader(_Unzipped(gzip.GzipFile(fileobj=file), path, most)))


class _Unzipped(io.RawIOBase):
    def __init__(self, file: gzip.GzipFile, path: Path, most: int) -> None:
        self._file, self._path, self._most = file, path, most

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        length = self._file.readinto(buffer)
        if self._file.tell() > self._most:
            raise InputError(
                f"{self._path}: comes to more than {self._most:,} bytes, {TIMES} times as long as it is (TIMES in "
                f"{HERE}): unpack it by yourself where you know whose it is"
            )
        return length
