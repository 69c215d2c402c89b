"""YOLO's format as Ultralytics has it: `data.yaml`, and beside `images/.../a.jpg` a `labels/.../a.txt`.

A line is `class cx cy w h` in shares of the image, or `class x1 y1 x2 y2 x3 y3 ...`, the corners of a polygon, of which
the box is taken. An image without a file of labels has no objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from trex2_lightning.data.annotations.cleaning import NO_FILE, NO_IMAGE, Annotated, annotate
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.images.archives import image_size
from trex2_lightning.errors import InputError

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def read_yolo(data: Path, report: Report, split: str = "train") -> Iterator[Annotated]:
    """The images of a split.

    Args:
        data: `data.yaml`: `names`, a list or by number, a folder or list file for every split, and `path`, which these
            are relative to (default: the file's own folder).
        split: `train`, `val` or `test`.

    Raises:
        InputError: the file, the split or its images are not there.
    """
    content = _parse(data, report)
    names = report.declare(_names(content, data))
    files = [file for place in split_places(content, data, split) for file in _images(place, report)]
    if not files:
        raise InputError(f"{data}: its '{split}' has no images; correct the path there")
    unique = list(dict.fromkeys(files))
    if len(unique) < len(files):
        report.count("image named twice: used once", split, len(files) - len(unique))
    for number, image in enumerate(unique):
        where = image.name
        size, lines = image_size(str(image)), _lines(_labels_of(image), report)
        if size is None:
            report.defect(NO_IMAGE if image.is_file() else NO_FILE, where)
        if size is None or lines is None:
            continue
        (width, height), boxes, labels = size, [], []
        for line_number, line in enumerate(lines, 1):
            numbers = _numbers(line)
            if numbers is None:
                report.defect("line that is not a class and 4 or more numbers", f"{where}, line {line_number}")
            elif numbers[0] not in names:
                report.defect("box of an unknown category", f"{where}, line {line_number}")
            else:
                left, top, right, bottom = _box(numbers[1:])
                boxes.append((left * width, top * height, right * width, bottom * height))
                labels.append(names[int(numbers[0])])
        yield annotate(report, where, str(image.resolve()), size, boxes, labels, image_id=number)


FORMAT = Format(
    name="yolo",
    help="YOLO's text files",
    data_sets="YOLO (Ultralytics)",
    judges="all categories",
    kinds=("detection",),
    reader=read_yolo,
    sources=(Argument("data", "data.yaml"),),
    options=(Argument("split", "train (default), val or test", str, "train"),),
    has_images=False,
)


def _parse(data: Path, report: Report) -> dict[str, Any]:
    with report.open(data) as file:
        try:
            content = yaml.safe_load(file.read())
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{data}: not YAML; give the data set's data.yaml") from error
    if not isinstance(content, dict):
        raise InputError(f"{data}: has no 'names'; give the data set's data.yaml")
    return content


def _names(content: dict[str, Any], data: Path) -> list[tuple[int, Any, str]]:
    names = content.get("names")
    listed = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else ()
    result = [(number, str(name), "") for number, name in listed if type(number) is int]
    if not result:
        raise InputError(f"{data}: has no 'names'; list the class names there, in the order of their numbers")
    return result


def split_places(content: dict[str, Any], data: Path, split: str) -> list[Path]:
    """Folders or lists of images that `data.yaml`, whose content is given, names for a split, there or not.

    Raises:
        InputError: it names none.
    """
    given = content.get(split)
    if split == "val" and given is None:
        given = content.get("valid")
    places = [given] if isinstance(given, str) else given
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise InputError(f"{data}: has no '{split}'; give one of the splits that it has")
    root = data.parent.absolute() / str(content.get("path") or ".")
    # Roboflow writes `../train/images` beside a file that lies in the folder above.
    candidates = [(root / place, root / place.removeprefix("../")) for place in places]
    return [first if first.exists() else second for first, second in candidates]


def _images(place: Path, report: Report) -> list[Path]:
    report.sources.append(place)
    if place.is_dir():
        report.sources.append(Path(str(_labels_of(place / "x")).removesuffix("x.txt")))
        return sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGES)
    if place.suffix == ".txt" and place.is_file():
        return [place.parent / line.strip() for line in _lines(place, report) or []]
    raise InputError(f"{place}: no such folder or list of images; correct the path in data.yaml")


def _labels_of(image: Path) -> Path:
    """`labels` in place of the last `images` of the path."""
    head, found, tail = str(image.with_suffix(".txt")).rpartition("/images/")
    return Path(f"{head}/labels/{tail}") if found else image.with_suffix(".txt")


def _lines(path: Path, report: Report) -> list[str] | None:
    """None: nobody can read them, so nobody knows what the image has."""
    try:
        return [line for line in path.read_bytes().decode("utf-8-sig").splitlines() if line.strip()]
    except OSError:
        report.count("image without a file of labels: taken to have no objects", path.name)
        return []
    except UnicodeDecodeError:
        report.defect("image with labels that are not UTF-8", path.name)
        return None


def _numbers(line: str) -> list[float] | None:
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        return None
    return numbers if len(numbers) == 5 or (len(numbers) >= 7 and len(numbers) % 2) else None


def _box(numbers: list[float]) -> tuple[float, float, float, float]:
    if len(numbers) == 4:
        x, y, width, height = numbers
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
