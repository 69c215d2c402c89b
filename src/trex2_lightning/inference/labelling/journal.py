"""What was found so far, on disk: a line for every batch, so that a kill loses at most the batch at work.

A shard writes a file of its own and reads all of them; so the last of several, or one without a shard, has everything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from trex2_lightning.errors import InputError
from trex2_lightning.inference.labelling.rows import LabelRow, from_plain, to_plain
from trex2_lightning.inference.labelling.sources import Shard

FOLDER = "journal"
ROOT = "folder of the pictures"  # key of the head that every journal has


class Journal:
    """The rows of a folder, by picture.

    Args:
        folder: its journals are in `journal` there.
        head: what was asked for, and under `ROOT` the folder that names are relative to; a journal of anything else is
            refused.
        shard: whose rows `add` writes.

    Raises:
        InputError: it was begun with something else.
    """

    def __init__(self, folder: Path, head: Mapping[str, Any], shard: Shard) -> None:
        self._head = json.loads(json.dumps(head))
        self._own = folder / FOLDER / f"{shard}.jsonl"
        self._own.parent.mkdir(parents=True, exist_ok=True)
        self._places: dict[str, tuple[Path, int]] = {}  # file of a row, and where its line begins
        for file in sorted(self._own.parent.glob("*.jsonl")):
            end = self._read(file)
            if file == self._own:
                os.truncate(file, end)  # half a line, of a kill
        self._file = self._own.open("ab")
        if not self._file.tell():
            self._write({"head": self._head})

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def add(self, rows: Sequence[LabelRow]) -> None:
        """Once it returns, they are on disk."""
        start = self._file.tell()
        self._write({"rows": [to_plain(row) for row in rows]})
        self._places |= {row.name: (self._own, start) for row in rows}

    def rows(self, names: Iterable[str]) -> Iterator[LabelRow]:
        """Those of the names, in their order, a batch at a time in memory."""
        files: dict[Path, BinaryIO] = {}
        last: tuple[Path, int] | None = None
        try:
            for name in names:
                place = file, start = self._places[name]
                if place != last:
                    if file not in files:
                        files[file] = file.open("rb")
                    files[file].seek(start)
                    line = json.loads(files[file].readline())
                    last, known = place, {row["name"]: row for row in line["rows"]}
                yield from_plain(known[name])
        finally:
            for opened in files.values():
                opened.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _write(self, content: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(content).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, file: Path) -> int:
        """Notes where the file's rows are; returns where its last whole line ends."""
        start = 0
        with file.open("rb") as opened:
            for line in opened:
                if not line.endswith(b"\n"):
                    break
                content = json.loads(line)
                if content.get("head", self._head) != self._head:
                    raise InputError(
                        f"{file} was begun with other {_difference(content['head'], self._head)}: give another folder "
                        f"by --output, or remove {file.parent.parent}"
                    )
                self._places |= {row["name"]: (file, start) for row in content.get("rows", ())}
                start += len(line)
        return start


def pictures_in(folder: Path) -> set[Path]:
    """The files that the journals of a folder know, whatever was asked for.

    Raises:
        InputError: there are none.
    """
    files = sorted((folder / FOLDER).glob("*.jsonl"))
    if not files:
        raise InputError(f"{folder}: nothing was labelled there; give the --output of an earlier call")
    found: set[Path] = set()
    for file in files:
        whole = [json.loads(line) for line in file.read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"]
        for head, *lines in [whole] if whole else []:  # nothing whole: killed as it began
            found |= {Path(head["head"][ROOT], row["name"]) for line in lines for row in line["rows"]}
    return found


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return ", ".join(key for key in {**one, **other} if one.get(key) != other.get(key))
