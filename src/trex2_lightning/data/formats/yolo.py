"""YOLO's format as Ultralytics has it: `data.yaml`, and beside `images/.../a.jpg` a `labels/.../a.txt`.

A line is `class cx cy w h` in shares of the image, which a confidence may follow; where `data.yaml` has `kpt_shape`,
key points do. Or it is `class x1 y1 x2 y2 x3 y3 ...`, the corners of a polygon, of which the box is taken. An image
without a file of labels has no objects.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from trex2_lightning.data.annotations import limits
from trex2_lightning.data.annotations.cleaning import (
    NO_FILE,
    NO_IMAGE,
    OUTSIDE,
    Annotated,
    annotate,
    as_id,
    count_otherwise,
    is_small_enough,
)
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.images.archives import image_size
from trex2_lightning.data.images.file_names import IMAGE_SUFFIXES, at_home, is_litter
from trex2_lightning.errors import InputError

FAR = 1.99  # shares of an image; key points say 2 where they are seen
OF_OBB = 9  # class and four corners: boxes that are turned; the corners of outlines differ in number
NOTHING = (None, "", "~", "null")  # of a place: as YAML says that there is none


def read_yolo(data: Path, report: Report, split: str = "train") -> Iterator[Annotated]:
    """The images of a split.

    Args:
        data: `data.yaml`: `names`, a list or by number, a folder or list file for every split, and `path`, which these
            are relative to (default: the file's own folder). Its text is taken as it is typed: a name may be `on`.
        split: `train`, `val` or `test`.

    Raises:
        InputError: the file, the split, its images or all of their labels are not there.
    """
    content = read_data_yaml(data, report)
    names = report.declare(_names(content, data))
    points = _key_points(content, data)
    root = _root(content, data)
    files = [file for place in split_places(content, data, split) for file in _images(place, root, report)]
    if not files:
        raise InputError(f"{data}: its '{split}' has no images; correct the path there")
    unique = list(dict.fromkeys(files))
    if len(unique) < len(files):
        report.count("image named twice: used once", split, len(files) - len(unique))
    if not any(_labels_of(image).is_file() for image in unique):
        raise InputError(
            f"{data}: none of the {len(unique)} images of '{split}' has a file of labels; the first one's would be "
            f"{_labels_of(unique[0])}"
        )
    lengths: Counter[int] = Counter()  # of lines
    used: set[int] = set()  # numbers of categories
    for number, image in enumerate(unique):
        where = image.name
        size, lines = image_size(str(image)), _lines(_labels_of(image), report, limits.OF_AN_IMAGE)
        if size is None:
            report.defect(NO_IMAGE if image.is_file() else NO_FILE, where)
        if size is None or lines is None or not is_small_enough(report, where, size):
            continue
        (width, height), boxes, labels, lost = size, [], [], set[str]()
        for line_number, line in enumerate(lines, 1):
            kind, place = _kind(line), f"{where}, line {line_number}"
            lengths[len(line.split())] += 1
            used |= set() if kind is None else {kind}
            corners = _box(line, points)
            if kind is not None and kind not in names:
                report.defect("box of an unknown category", place)
            elif kind is None or corners is None:
                report.defect("line that is not a class and 4 or more numbers", place)
                lost |= {*report.names} if kind is None else {names[kind]}
            elif max(map(abs, corners)) > FAR:
                report.defect("box that is not in shares of the image, or key points without kpt_shape", place)
                lost.add(names[kind])
            else:
                left, top, right, bottom = corners
                boxes.append((left * width, top * height, right * width, bottom * height))
                labels.append(names[kind])
        judged = [name for name in report.names if name not in lost] if lost else None
        yield annotate(report, where, str(image.resolve()), size, boxes, labels, judged=judged, image_id=number)
    if count_otherwise(used, names):
        raise InputError(
            f"{data}: labels of '{split}' go from {min(used)} to {max(used)}, its names from {min(names)} to "
            f"{max(names)}, so each would have its neighbour's name; make them count alike"
        )
    if not points and len(lengths) == 1 and min(lengths) > OF_OBB and lengths.total() > 1:
        report.count(
            "polygon with as many corners as all others: key points without kpt_shape?", split, lengths.total()
        )


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


def read_data_yaml(data: Path, report: Report) -> dict[str, Any]:
    """What the file says, all of it as text.

    Raises:
        InputError: it cannot be read, or is no mapping.
    """
    text = report.read(data)
    try:
        content = yaml.load(text, _TextLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{data}: not YAML without aliases; give the data set's data.yaml") from error
    if not isinstance(content, dict):
        raise InputError(f"{data}: has no 'names'; give the data set's data.yaml")
    return content


class _TextLoader(yaml.BaseLoader):
    """Takes all for text and runs nothing; nor does it know aliases, of which a few can stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def _names(content: dict[str, Any], data: Path) -> list[tuple[int, Any, str]]:
    names = content.get("names")
    listed = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else ()
    numbered = ((as_id(number), name) for number, name in listed)
    result = [(number, name, "") for number, name in numbered if number is not None and number >= 0]
    if not result:
        raise InputError(f"{data}: has no 'names'; list the class names there, in the order of their numbers")
    return result


def _key_points(content: dict[str, Any], data: Path) -> int:
    """How many numbers they are in each line; 0: there are none."""
    match content.get("kpt_shape", ["0", "0"]):
        case [str(count), str(per_point)] if (count + per_point).isdecimal() and len(count + per_point) < 10:
            return int(count) * int(per_point)
    raise InputError(f"{data}: kpt_shape is not two numbers; write [number of points, 2 or 3]")


def split_places(content: dict[str, Any], data: Path, split: str) -> list[Path]:
    """Folders or lists of images that `data.yaml`, whose content is given, names for a split, there or not.

    Raises:
        InputError: it names none.
    """
    given = content.get(split)
    if split == "val" and given in NOTHING:
        given = content.get("valid")
    places = [given] if isinstance(given, str) and given not in NOTHING else given
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise InputError(f"{data}: has no '{split}'; give one of the splits that it has")
    root = _root(content, data)
    # Roboflow writes `../train/images` beside a file that lies in the folder above.
    candidates = [
        (root / at_home(place), root / at_home(place.removeprefix("../"))) for place in map(_with_slashes, places)
    ]
    return [first if first.exists() else second for first, second in candidates]


def _root(content: dict[str, Any], data: Path) -> Path:
    """What the places of splits are relative to."""
    path = content.get("path")
    if path not in NOTHING and not isinstance(path, str):
        raise InputError(f"{data}: its 'path' is not a folder; correct it, or leave it out")
    return data.parent.absolute() / at_home("." if path in NOTHING else path)


def _images(place: Path, root: Path, report: Report) -> list[Path]:
    """The files of a folder; or of a list, whose names stay in the list's folder or below the `root`."""
    report.sources.append(place)
    if place.is_dir():
        report.sources.append(Path(str(_labels_of(place / "x")).removesuffix("x.txt")))
        files = sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        return [path for path in files if not is_litter(path.name)]
    if place.suffix == ".txt" and place.is_file():
        listed = [place.parent / _with_slashes(line.strip()) for line in _lines(place, report) or []]
        inside = [file for file in listed if _is_below(file, place.parent, root)]
        if len(inside) < len(listed):
            report.defect(OUTSIDE, place.name, len(listed) - len(inside))
        return inside
    raise InputError(f"{place}: no such folder or list of images; correct the path in data.yaml")


def _is_below(file: Path, *folders: Path) -> bool:
    """By its name alone: a link may lead anywhere."""
    return any(map(Path(os.path.normpath(file)).is_relative_to, folders))


def _with_slashes(path: str) -> str:
    """As Windows' paths are written elsewhere."""
    return path.replace("\\", "/")


def _labels_of(image: Path) -> Path:
    """`labels` in place of the last `images` of the path; or beside the image, where there are some."""
    beside = image.with_suffix(".txt")
    head, found, tail = beside.as_posix().rpartition("/images/")
    usual = Path(f"{head}/labels/{tail}")
    return usual if found and (usual.is_file() or not beside.is_file()) else beside


def _lines(path: Path, report: Report, most: int | None = None) -> list[str] | None:
    """None: nobody can read them, so nobody knows what the image has."""
    try:
        with path.open("rb") as file:
            content = limits.whole(file, path, most)
        return [line for line in content.decode(json.detect_encoding(content)).splitlines() if line.strip()]
    except OSError:
        report.count("image without a file of labels: taken to have no objects", path.name)
        return []
    except UnicodeDecodeError:
        report.defect("image with labels that are not Unicode", path.name)
        return None


def _kind(line: str) -> int | None:
    """The number of a line's category, which some write as 1.0; None: it is none."""
    first = line.split()[0]
    number, _, rest = first.partition(".")
    return None if rest.strip("0") else as_id(number)


def _box(line: str, key_points: int) -> tuple[float, float, float, float] | None:
    """Corners in shares of the image; None: the line has neither a box nor a polygon.

    Args:
        key_points: how many numbers of each line are theirs.
    """
    try:
        numbers = [float(word) for word in line.split()[1:]]
    except ValueError:
        return None
    if len(numbers) in (4, 5, 4 + key_points, 5 + key_points):
        x, y, width, height = numbers[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if key_points or len(numbers) < 6 or len(numbers) % 2:
        return None
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
