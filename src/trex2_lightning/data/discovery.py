"""What lies in a folder: which files annotate which split, in which format, and what nothing reads.

A split is told by a word in the name of its file, or of a folder above: `train`, `val` or `valid`, `test`, `reference`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from trex2_lightning.data.annotations.declaration import Format
from trex2_lightning.data.annotations.json_files import json_lists
from trex2_lightning.data.annotations.reading_report import BROKEN, Report
from trex2_lightning.data.formats import every_format
from trex2_lightning.data.formats.yolo import NOTHING, read_data_yaml, split_places
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.images.file_names import IMAGE_SUFFIXES, is_litter
from trex2_lightning.data.index.reading import SUMMARY
from trex2_lightning.errors import InputError

UNSPLIT = "whole"  # what names no split
WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
WORDS |= {"test": "test", "testing": "test", "reference": "reference"}
PICTURES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
ANNOTATIONS = {".csv", ".json", ".jsonl", ".odgt", ".xml"}
DEPTH = 2  # folders below the given one that are looked into
LOOKED_FOR = 50  # pictures by which their folder is found
FIRST_BYTES = 2**16  # bytes that show what a file is
FEDERATED = b'"neg_category_ids"'  # only LVIS says what an image does not judge
COCO_LIST = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
INDEX = "index"  # of any format, made by trex2 prepare


class SplitSource(NamedTuple):
    """A split as the reader of its format takes it."""

    annotations: Path
    form: Format | None  # None: an index
    arguments: dict[str, Any]  # values of the reader's sources and options, and `images`, the places where they are


class FolderContent(NamedTuple):
    """What was found in a folder."""

    form: str
    splits: dict[
        str, SplitSource
    ]  # by `train`, `val`, `test`, `reference`; `UNSPLIT` alone where nothing names a split
    left_out: dict[str, str]  # files that could have been one, and why they are none


def discover(folder: Path, form: str = "") -> FolderContent:
    """Find the splits of a data set.

    Args:
        folder: as it was unpacked.
        form: to look for; "": any of `FINDERS`.

    Raises:
        InputError: there is no such folder; no format was found in it, or several; or no split to train on.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give an experiment file, or the folder of a data set")
    if form and form not in FINDERS:
        raise InputError(f"data.format={form}: in a folder are found {', '.join(FINDERS)}; docs/data.md has the others")
    left_out: dict[str, str] = {}
    found: dict[str, dict[str, SplitSource]] = {}
    for name in [form] if form else FINDERS:
        if splits := _by_split(FINDERS[name](folder, left_out), folder, left_out):
            found[name] = splits
    if not found:
        raise InputError(
            f"{folder}: no annotations of {', '.join(FINDERS)} were found in it; of other formats "
            "trex2 prepare makes an index, FOLDER/train, which is found (docs/data.md)"
        )
    if len(found) > 1:
        raise InputError(f"{folder} has annotations in several formats: choose by data.format={' or '.join(found)}")
    [(name, splits)] = found.items()
    if "train" in splits and UNSPLIT in splits:
        left_out[str(splits.pop(UNSPLIT).annotations)] = "its name says no split, and others' do"
    if not {"train", UNSPLIT} & set(splits):
        raise InputError(f"{folder}: has {', '.join(splits)} and nothing to train on; name a file or a folder `train`")
    return FolderContent(name, splits, left_out)


def unused_files(folder: Path, used: set[Path]) -> Counter[str]:
    """How many pictures and other annotation files nothing reads, by suffix; hidden ones are not looked at."""
    counts: Counter[str] = Counter()
    for path in folder.rglob("*"):
        kind, hidden = path.suffix.lower(), any(part.startswith(".") for part in path.relative_to(folder).parts)
        if kind in PICTURES | ANNOTATIONS and not hidden and path.resolve() not in used and path.is_file():
            counts[kind] += 1
    return counts


def split_named(path: Path, folder: Path) -> str:
    """The split that a name says, the file's own first, then those of the folders above it."""
    parts = path.relative_to(folder).parts
    for part in (Path(parts[-1]).stem, *reversed(parts[:-1])):
        for word in re.findall("[a-z]+", part.lower()):
            if word in WORDS:
                return WORDS[word]
    return UNSPLIT


def _by_split(
    found: Iterator[tuple[str, SplitSource]], folder: Path, left_out: dict[str, str]
) -> dict[str, SplitSource]:
    """One source a split; of COCO's own several files that of the instances."""
    listed: dict[str, list[SplitSource]] = {}
    for split, source in found:
        listed.setdefault(split, []).append(source)
    chosen = {}
    for split, sources in listed.items():
        instances = [source for source in sources if source.annotations.stem.startswith("instances")]
        best = instances if len(sources) > 1 and instances else sources
        if len(best) > 1:
            names = " and ".join(str(source.annotations.relative_to(folder)) for source in best[:2])
            what = f"the {split} split" if split != UNSPLIT else "no split by their names"
            raise InputError(f"{folder}: {names} are both of {what}; leave one of them there, or name their splits")
        chosen[split] = best[0]
        left_out |= {str(s.annotations): f"{best[0].annotations.name} is there" for s in sources if s is not best[0]}
    return chosen


def _indexes(folder: Path, _: dict[str, str]) -> Iterator[tuple[str, SplitSource]]:
    for place in _folders(folder):
        if (place / SUMMARY).is_file():
            yield split_named(place, folder) if place != folder else UNSPLIT, SplitSource(place, None, {})


def _coco(folder: Path, _: dict[str, str]) -> Iterator[tuple[str, SplitSource]]:
    yield from _json_files(folder, "coco", federated=False)


def _lvis(folder: Path, _: dict[str, str]) -> Iterator[tuple[str, SplitSource]]:
    yield from _json_files(folder, "lvis", federated=True)


def _json_files(folder: Path, name: str, *, federated: bool) -> Iterator[tuple[str, SplitSource]]:
    form = every_format()[name]
    for place in _folders(folder):
        for file in _files(place, ".json", ".json.gz"):
            is_coco = COCO_LIST.search(_first_bytes(file))
            if is_coco and _holds(file, FEDERATED) == federated:
                split = split_named(file, folder)
                images = _place_of(_file_names(file), split, file, folder)
                yield split, SplitSource(file, form, {"annotations": file, "images": [images]})


def _yolo(folder: Path, left_out: dict[str, str]) -> Iterator[tuple[str, SplitSource]]:
    for file in _files(folder, ".yaml", ".yml"):
        try:
            content = read_data_yaml(file, Report())
        except InputError:  # of something else
            continue
        if "names" not in content:
            continue
        for key in ("train", "val", "valid", "test"):
            if content.get(key) in NOTHING or (key == "valid" and content.get("val") not in NOTHING):
                continue
            split = WORDS[key]
            places = split_places(content, file, split)
            if split == "train" or all(place.exists() for place in places):
                yield split, SplitSource(file, every_format()["yolo"], {"data": file, "split": split})
            else:  # Roboflow's file names splits that the export has not
                left_out[f"{file}, {split}"] = f"{places[0]} is not there"


def _voc(folder: Path, _: dict[str, str]) -> Iterator[tuple[str, SplitSource]]:
    form = every_format()["voc"]
    for place in _folders(folder):
        files = _files(place, ".xml")[:LOOKED_FOR]
        if not files or b"<annotation" not in _first_bytes(files[0]):
            continue
        pictures = [f"{file.stem}{suffix}" for file in files for suffix in IMAGE_SUFFIXES]
        split = split_named(place / "x", folder)
        images = [_place_of(pictures, split, place / "x", folder, share=1 / 3)]
        lists = {name: place.parent / "ImageSets" / "Main" / f"{name}.txt" for name in ("train", "val", "test")}
        listed = {name: file for name, file in lists.items() if file.is_file()}
        for name, file in listed.items():
            yield name, SplitSource(place, form, {"annotations": place, "images": images, "split": file})
        if not listed:
            yield split, SplitSource(place, form, {"annotations": place, "images": images, "split": None})


FINDERS = {"coco": _coco, "lvis": _lvis, "yolo": _yolo, "voc": _voc, INDEX: _indexes}


def _folders(folder: Path) -> list[Path]:
    """The folder and those in it, to a depth of `DEPTH`; not what lies in an index, nor hidden ones."""
    found, level = [folder], [folder]
    for _ in range(DEPTH):
        below = [path for place in level if not (place / SUMMARY).is_file() for path in sorted(place.iterdir())]
        level = [path for path in below if path.is_dir() and not path.name.startswith(".")]
        found += level
    return found


def _files(place: Path, *ends: str) -> list[Path]:
    """Whose names end so, in any case, but for what macOS leaves beside each."""
    files = sorted(path for path in place.iterdir() if path.name.lower().endswith(ends))
    return [path for path in files if path.is_file() and not is_litter(path.name)]


def _first_bytes(file: Path) -> bytes:
    return next(_blocks(file, FIRST_BYTES), b"")


def _holds(file: Path, text: bytes) -> bool:
    """Whether the file has the bytes anywhere; it may be one of gigabytes."""
    before = b""
    for block in _blocks(file, 2**22):
        if text in before + block:
            return True
        before = block[-len(text) :]
    return False


def _blocks(file: Path, size: int) -> Iterator[bytes]:
    """As its reader sees it: unpacked, in UTF-8; what is broken ends it, which the reader will say better."""
    with suppress(InputError, *BROKEN), Report().open(file) as stream:
        while block := stream.read(size):
            yield block


def _file_names(file: Path) -> list[str]:
    """Of the first pictures of a file; none where it cannot be read, which its reader will say better."""
    try:
        images = (entry for key, entry in json_lists(file, Report()) if key == "images" and isinstance(entry, dict))
        return [str(entry.get("file_name", "")) for entry in islice(images, LOOKED_FOR)]
    except InputError:
        return []


def _place_of(names: Sequence[str], split: str, file: Path, folder: Path, share: float = 1.0) -> Path:
    """The folder that has most of the pictures; of equals the one beside the file, or of the split's name.

    Args:
        names: of some pictures.
        split: of the file.
        file: that names them.
        folder: of the data set.
        share: of the names that can be there at most; no other folder is looked into once one has them.
    """
    places = sorted(
        _folders(folder),
        key=lambda place: (place.name != file.stem, place != file.parent, split_named(place / "x", folder) != split),
    )
    best, most = file.parent, 0
    for place in places:
        store = ImageStore([place])
        count = sum(store.find(name) is not None for name in names)
        if count > most:
            best, most = place, count
        if most >= share * len(names):
            break
    if names and not most:
        raise InputError(f"{file}: its pictures, such as {names[0]}, are not in {folder}; put them there")
    return best
