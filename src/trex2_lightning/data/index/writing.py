"""Builds an index from a reader in one pass: beside its place, and renamed when it is complete.

What an interruption leaves has a name that begins with a dot and ends in `.unfinished`, and no `index.json`. Memory
does not grow with the images; of the names, which a grounding set has many of, all are kept.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trex2_lightning.data.annotations.cleaning import NO_FILE, NO_IMAGE, Annotated
from trex2_lightning.data.annotations.reading_report import Report, clean
from trex2_lightning.data.index.columns import ColumnWriter
from trex2_lightning.data.index.reading import COLUMNS, EVERYTHING, SUMMARY, VERSION, Index
from trex2_lightning.errors import InputError


def build_index(folder: Path, images: Iterable[Annotated], report: Report, settings: dict[str, Any]) -> Index:
    """Write a reader's images to `folder`, in place of what index may be there.

    Args:
        images: the reader.
        report: the same that the reader has.
        settings: what else made the index what it is, as JSON has it; see `is_current`.

    Raises:
        InputError: from the reader; no image could be used; or `folder` is there and is no index.
    """
    folder = folder.absolute()
    if folder.exists() and not (folder / SUMMARY).is_file():
        raise InputError(f"{folder}: is there and is no index; give another place to write to, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".unfinished", dir=folder.parent))
    try:
        writer = _Writer(building, report)
        for image in images:
            writer.add(image)
        if not writer.num_images:
            raise InputError(f"no image could be used ({_told(report)}); check the annotations and the images' place")
        summary = {
            "version": VERSION,
            "settings": settings,
            "sources": [_state(path) for path in report.sources],
            "counts": dict(report.counts),
            "examples": report.examples,
            "category_ids": report.category_ids,
            "groups": report.groups,
            "nameless": report.nameless,
            **_place_of_pictures(writer.root, folder),
            "columns": writer.close(),
        }
        (building / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        building.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Index(folder)


def is_current(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether `folder` has a whole index, made with these settings from files that have not changed since.

    One that lacks images is not: they may have been fetched by now.
    """
    try:
        index = Index(folder)
        sources = index.summary["sources"]
        unchanged = all(_state(Path(source["path"])) == source for source in sources)
        complete = not set(index.summary["counts"]) & {NO_FILE, NO_IMAGE}
        return complete and unchanged and index.summary["settings"] == settings and not index.broken()
    except (InputError, OSError):
        return False


class _Writer:
    """The columns of an index that is being built."""

    def __init__(self, folder: Path, report: Report) -> None:
        self._report = report
        self._columns = {name: ColumnWriter(folder / f"{name}.npy", *form) for name, form in COLUMNS.items()}
        self._labels: dict[str, int] = {}  # by name without case
        self._images_of: list[int] = []
        self._next_nameless = 0
        self.root: str | None = None  # the innermost folder that has all pictures; "": there is none

    @property
    def num_images(self) -> int:
        return self._columns["images"].length

    def add(self, image: Annotated) -> None:
        columns, place = self._columns, self.num_images
        if not place:
            for name in self._report.names:
                self._label(name)
        labels = self._own_labels(image.names) if self._report.nameless else [self._label(n) for n in image.names]
        judged = [self._label(name) for name in image.judged or ()]
        path, boxes, known = (columns[name].length for name in ("paths", "boxes", "judged"))
        self._widen_root(image.path)
        path_bytes = columns["paths"].add_text(image.path)
        columns["boxes"].add(image.boxes)
        columns["labels"].add(labels)
        columns["crowd"].add(image.crowd)
        columns["area"].add(image.area)
        columns["judged"].add(judged)
        image_id = place if image.id is None else image.id
        num_judged = EVERYTHING if image.judged is None else len(judged)
        row = (image_id, image.width, image.height, path, path_bytes, boxes, len(labels), known, num_judged)
        columns["images"].add([row])
        if not self._report.nameless:
            for label in set(labels):
                self._images_of[label] += 1

    def _widen_root(self, path: str) -> None:
        if self.root is None or (self.root and not path.startswith(f"{self.root}/")):
            own = str(Path(path.partition("::")[0]).parent)
            try:
                self.root = os.path.commonpath([self.root or own, own]) if Path(own).is_absolute() else ""
            except ValueError:  # on two drives of Windows
                self.root = ""

    def close(self) -> dict[str, dict[str, int]]:
        self._columns["name_images"].add(self._images_of)
        return {name: column.close() for name, column in self._columns.items()}

    def _label(self, name: str) -> int:
        label = self._labels.get(name)
        if label is not None:
            return label
        key = clean(name).casefold()  # the text encoder sees no case
        label = self._labels.setdefault(key, len(self._images_of))
        if label == len(self._images_of):
            self._columns["names"].add_text(clean(name))
            self._columns["name_stops"].add([self._columns["names"].length])
            self._images_of.append(0)
        self._labels[name] = label
        return label

    def _own_labels(self, keys: Iterable[str]) -> list[int]:
        """Labels that no other image has."""
        listed = list(keys)
        own = {key: self._next_nameless + number for number, key in enumerate(dict.fromkeys(listed))}
        self._next_nameless += len(own)
        return [own[key] for key in listed]


def _place_of_pictures(root: str | None, folder: Path) -> dict[str, str]:
    """The folder of all pictures as it is called now, and as it lies from the index, to be found when both moved."""
    if not root or not root.strip("/"):
        return {}
    try:
        return {"root": root, "root_from_index": os.path.relpath(root, folder.resolve())}
    except ValueError:  # the index on another drive of Windows
        return {"root": root, "root_from_index": root}


def _state(path: Path) -> dict[str, Any]:
    """What tells a changed source; of a folder how many files it holds, their bytes and the newest of their times."""
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    states = [file.stat() for file in files]
    return {
        "path": str(path.absolute()),
        "files": len(files),
        "bytes": sum(state.st_size for state in states),
        "changed": max((state.st_mtime_ns for state in states), default=0),
    }


def _told(report: Report) -> str:
    return ", ".join(f"{number} x {reason}" for reason, number in report.counts.items()) or "nothing was there"
