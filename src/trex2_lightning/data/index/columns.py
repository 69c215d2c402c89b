"""Columns on disk, `.npy` files, that are written row by row and read at any place."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator, Sequence
from io import FileIO
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_magic, write_array_header_1_0
from numpy.typing import NDArray

_AT_ONE_PLACE = Lock()
BYTES_AT_ONCE = 2**24  # bytes that are read at once for a checksum


class Column:
    """A column of which rows are read at their place.

    Raises:
        OSError, ValueError: there is no such file, or it is no column.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        read_magic(self._file)
        shape, _, self._dtype = read_array_header_1_0(self._file)
        self._begin = self._file.tell()
        self._length, self._row = shape[0], shape[1:]
        self._row_bytes = self._dtype.itemsize * math.prod(self._row)
        if self._begin + self._length * self._row_bytes > path.stat().st_size:
            raise ValueError(f"{path.name} is shorter than its head says")

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows from `start` to `stop`, as an array of one's own.

        Raises:
            OSError: the file is shorter than it was.
        """
        if not 0 <= start <= stop <= self._length:  # what another column says may be anything
            raise OSError(f"{self.path}: has no rows {start} to {stop}")
        content = bytearray((stop - start) * self._row_bytes)
        if content and _read_at(self._file, self._begin + start * self._row_bytes, content) < len(content):
            raise OSError(f"{self.path}: is shorter than it was")
        return np.frombuffer(content, self._dtype).reshape(stop - start, *self._row)

    def checksum(self) -> int:
        """CRC-32 of the rows."""
        crc = 0
        for start in range(0, self._length * self._row_bytes, BYTES_AT_ONCE):
            block = bytearray(min(BYTES_AT_ONCE, self._length * self._row_bytes - start))
            found = _read_at(self._file, self._begin + start, block)
            crc = zlib.crc32(memoryview(block)[:found], crc)
        return crc


def _read_at(file: FileIO, place: int, content: bytearray) -> int:
    """Fill `content` with what a file has at a place; how many bytes that were.

    At a position of its own: processes that share the file do not move one another's. Windows knows no such reading;
    there no process is forked, so threads alone share a file.
    """
    if hasattr(os, "preadv"):
        return os.preadv(file.fileno(), [content], place)
    with _AT_ONE_PLACE:
        file.seek(place)
        return file.readinto(content)


class ColumnWriter:
    """Rows to an `.npy` file, whose head is written last, when their number is known."""

    def __init__(self, path: Path, dtype: np.dtype[Any], row: tuple[int, ...] = ()) -> None:
        self.length = 0
        self._dtype = dtype
        self._row = row
        self._crc = 0
        self._file = path.open("wb")
        self._head()

    def add(self, rows: NDArray[Any] | Sequence[Any]) -> None:
        """Append rows of the column's shape."""
        content = np.asarray(rows, dtype=self._dtype)
        self.length += len(content)
        self._append(content.tobytes())

    def add_text(self, text: str) -> int:
        """Append the UTF-8 bytes of `text`, of a path those of its name, and return how many they are."""
        content = os.fsencode(text)
        self.length += len(content)
        self._append(content)
        return len(content)

    def close(self) -> dict[str, int]:
        """The file's length and the CRC-32 of its rows."""
        size = self._file.tell()
        self._file.seek(0)
        self._head()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return {"bytes": size, "crc32": self._crc}

    def _append(self, content: bytes) -> None:
        self._crc = zlib.crc32(content, self._crc)
        self._file.write(content)

    def _head(self) -> None:
        """NumPy leaves room in it for any number of rows, so that it can be written over."""
        shape = (self.length, *self._row)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        write_array_header_1_0(self._file, {"descr": descr, "fortran_order": False, "shape": shape})


class Strings(Sequence[str]):
    """Strings of two columns: all their text, and where each ends in it."""

    def __init__(self, text: Column, stops: Column) -> None:
        self._text = text
        self._stops = stops

    def __len__(self) -> int:
        return len(self._stops)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        start, stop = [0, *self._stops.read(max(place - 1, 0), place + 1).tolist()][-2:]
        return self._text.read(start, stop).tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        text, stops = self._text.read(0, len(self._text)).tobytes(), self._stops.read(0, len(self)).tolist()
        return (text[start:stop].decode() for start, stop in pairwise([0, *stops]))
