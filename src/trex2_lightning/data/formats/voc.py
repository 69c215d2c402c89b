"""Pascal VOC (http://host.robots.ox.ac.uk/pascal/VOC/): one XML file an image.

Coordinates count pixels from 1 and include the last, as the VOC development kit has them. `difficult` objects are
neither targets nor false positives. Names are numbered as they first occur; all files are looked through for them
first, so that an image whose box is lost can say which of them it still judges.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from trex2_lightning.data.annotations import limits
from trex2_lightning.data.annotations.cleaning import NO_BOX, Annotated, annotate, as_truth, locate
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.limits import whole
from trex2_lightning.data.annotations.reading_report import Report, clean
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.images.file_names import IMAGE_SUFFIXES, is_litter, stays_inside
from trex2_lightning.errors import InputError


def read_voc(annotations: Path, store: ImageStore, report: Report, split: Path | None = None) -> Iterator[Annotated]:
    """The images of a folder of XML files.

    Args:
        annotations: the folder, `Annotations`.
        split: a text file with one image's name a line (`ImageSets/Main/train.txt`); None: all of the folder.

    Raises:
        InputError: there is no such folder or split, or no XML file.
    """
    if not annotations.is_dir():
        raise InputError(f"{annotations}: no such folder; give the one with the XML files")
    report.sources.append(annotations)
    files = sorted(path for path in annotations.glob("*.[xX][mM][lL]") if not is_litter(path.name))
    if split:
        there = {file.stem: file for file in files}
        files = [there.get(name, annotations / f"{name}.xml") for name in _split(split, report)]
    if not files:
        raise InputError(f"{split or annotations}: names no image; give a folder of XML files")
    trees = (_parse(file, Report()) for file in files)
    labels = [name for tree in trees if tree is not None for name in _labels(tree) if name]
    spelt = dict(reversed([(name.casefold(), name) for name in labels]))  # as each occurs first
    report.declare((n, spelt[key], "") for n, key in enumerate(dict.fromkeys(map(str.casefold, labels)), 1))
    for place, file in enumerate(files):
        tree = _parse(file, report)
        if tree is None:
            continue
        name = tree.findtext("filename") or ""
        size = _number(tree, "size/width"), _number(tree, "size/height")
        by_stem = [f"{file.stem}{suffix}" for suffix in IMAGE_SUFFIXES]
        found = locate(report, store, file.name, name.strip(), *by_stem, size=size if all(size) else None)
        if not found or not report.is_new(found[0], file.name):
            continue
        boxes, names, difficult = [], [], []
        for item, label in zip(tree.iter("object"), _labels(tree), strict=True):
            if not label:
                report.defect("box without a name: its image judges nothing", file.name)
                continue
            boxes.append(_box(item))
            names.append(spelt[label.casefold()])
            difficult.append(as_truth(item.findtext("difficult", "0")))
            if difficult[-1] is None:
                report.defect("box whose difficult is neither 0 nor 1: taken for 0", file.name)
        judged: list[str] | None = None if all(_labels(tree)) else []
        yield annotate(report, file.name, *found, boxes, names, [*map(bool, difficult)], judged=judged, image_id=place)


FORMAT = Format(
    name="voc",
    help="Pascal VOC's XML files",
    data_sets="Pascal VOC",
    judges="all categories",
    kinds=("detection",),
    reader=read_voc,
    sources=(Argument("annotations", "folder with the XML files"),),
    options=(Argument("split", "text file with an image's name a line; default: all"),),
)


def _parse(file: Path, report: Report) -> ElementTree.Element | None:
    try:
        with file.open("rb") as opened:
            return _tree(whole(opened, file, limits.OF_AN_IMAGE))
    except InputError:
        raise
    except OSError:
        report.defect("annotation file missing", file.name)
    except (expat.ExpatError, LookupError, ValueError, AssertionError):  # LookupError: an encoding that nobody knows
        report.defect("annotation file that is not XML", file.name)
    return None


def _tree(content: bytes) -> ElementTree.Element:
    """What `ElementTree.fromstring` gives, but for a file that defines entities, of which a few become gigabytes."""
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def refuse(*_: Any) -> None:
        raise ValueError("it defines entities")

    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    parser.Parse(content, True)
    return builder.close()


def _labels(tree: ElementTree.Element) -> list[str]:
    return [clean(item.findtext("name")) for item in tree.iter("object")]


def _split(path: Path, report: Report) -> list[str]:
    lines = report.read(path).decode("utf-8-sig", errors="replace").splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    inside = [name for name in names if stays_inside(name)]
    if len(inside) < len(names):
        report.defect("annotation file outside its folder", path.name, len(names) - len(inside))
    names = inside
    unique = list(dict.fromkeys(names))
    if len(unique) < len(names):
        report.count("image named twice: used once", path.name, len(names) - len(unique))
    return unique


def _box(item: ElementTree.Element) -> tuple[float, ...]:
    box = item.find("bndbox")
    sides = [_number(box, side) for side in ("xmin", "ymin", "xmax", "ymax")] if box is not None else [None]
    if None in sides:
        return NO_BOX
    left, top, right, bottom = (float(side or 0) for side in sides)
    return left - 1, top - 1, right, bottom


def _number(element: ElementTree.Element, path: str) -> float | None:
    try:
        return float(element.findtext(path) or "")
    except ValueError:
        return None
