"""Make an index of a data set in its own format, with an account of what was read."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from trex2_lightning.data.annotations.annotated import Annotated, Report
from trex2_lightning.data.formats.coco import read_coco
from trex2_lightning.data.formats.crowdhuman import PARTS, read_crowdhuman
from trex2_lightning.data.formats.goldg import read_goldg
from trex2_lightning.data.formats.hiertext import LEVELS, read_hiertext
from trex2_lightning.data.formats.lvis import read_lvis
from trex2_lightning.data.formats.objects365 import read_objects365
from trex2_lightning.data.formats.odvg import read_odvg
from trex2_lightning.data.formats.openimages import read_openimages
from trex2_lightning.data.formats.sa1b import read_sa1b
from trex2_lightning.data.formats.voc import read_voc
from trex2_lightning.data.formats.yolo import read_yolo
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.index.reading import Index
from trex2_lightning.data.index.writing import build_index, is_current
from trex2_lightning.errors import InputError

Read = Callable[[argparse.Namespace, Report], Iterator[Annotated]]


class Format(NamedTuple):
    """A data set's format on the command line."""

    help: str
    sources: dict[str, str]  # positional arguments, files of annotations, with their meaning
    read: Read
    options: Mapping[str, dict[str, Any]] = MappingProxyType({})  # of argparse's add_argument
    has_images: bool = True  # takes places of the images; else the annotations say where they are


def _store(options: argparse.Namespace, report: Report) -> ImageStore:
    store = ImageStore(options.images)
    report.sources.extend(store.archives)
    return store


FORMATS: dict[str, Format] = {
    "coco": Format(
        "COCO's format",
        {"annotations": "JSON file, or a folder of Roboflow or ODinW with _annotations.coco.json"},
        lambda options, report: read_coco(_in_folder(options.annotations), _store(options, report), report),
    ),
    "lvis": Format(
        "LVIS, with what each image does not judge",
        {"annotations": "lvis_v1_train.json or the like"},
        lambda options, report: read_lvis(options.annotations, _store(options, report), report),
    ),
    "objects365": Format(
        "Objects365 v1 or v2",
        {"annotations": "objects365_train.json or zhiyuan_objv2_train.json"},
        lambda options, report: read_objects365(options.annotations, _store(options, report), report),
    ),
    "odvg": Format(
        "ODVG's JSON Lines, detection or grounding",
        {"annotations": "file with a JSON object for every image"},
        lambda options, report: read_odvg(options.annotations, _store(options, report), report, options.label_map),
        {"--label-map": {"type": Path, "help": "JSON of label to name; default: the category that an instance names"}},
    ),
    "openimages": Format(
        "Open Images V7",
        {
            "annotations": "oidv6-train-annotations-bbox.csv or the like",
            "classes": "oidv7-class-descriptions-boxable.csv",
        },
        lambda options, report: read_openimages(
            options.annotations, options.classes, _store(options, report), report, options.labels, options.hierarchy
        ),
        {
            "--labels": {"type": Path, "help": "verified labels, which say what is absent; default: nothing is known"},
            "--hierarchy": {
                "type": Path,
                "help": "bbox_labels_600_hierarchy.json; default: no class is another's kind",
            },
        },
    ),
    "goldg": Format(
        "GoldG, Flickr30k Entities and mixed GQA as MDETR has them",
        {"annotations": "final_flickr_separateGT_train.json or final_mixed_train.json"},
        lambda options, report: read_goldg(options.annotations, _store(options, report), report),
    ),
    "crowdhuman": Format(
        "CrowdHuman",
        {"annotations": "annotation_train.odgt"},
        lambda options, report: read_crowdhuman(options.annotations, _store(options, report), report, options.part),
        {"--part": {"choices": list(PARTS), "default": "visible", "help": "of a person; default: what is visible"}},
    ),
    "hiertext": Format(
        "HierText",
        {"annotations": "train.jsonl or train.jsonl.gz"},
        lambda options, report: read_hiertext(options.annotations, _store(options, report), report, options.level),
        {"--level": {"choices": list(LEVELS), "default": "word", "help": "of text; default: word"}},
    ),
    "sa1b": Format(
        "SA-1B with pseudo labels, categories without names",
        {"annotations": "folder with a JSON file for every image"},
        lambda options, report: read_sa1b(options.annotations, _store(options, report), report, options.more_than),
        {
            "--more-than": {
                "type": int,
                "default": 1,
                "metavar": "N",
                "help": "keep images where a category has more than N instances; default: 1",
            }
        },
    ),
    "voc": Format(
        "Pascal VOC's XML files",
        {"annotations": "folder with the XML files"},
        lambda options, report: read_voc(options.annotations, _store(options, report), report, options.split),
        {"--split": {"type": Path, "help": "text file with an image's name a line; default: all"}},
    ),
    "yolo": Format(
        "YOLO's text files",
        {"data": "data.yaml"},
        lambda options, report: read_yolo(options.data, report, options.split),
        {"--split": {"default": "train", "help": "train (default), val or test"}},
        has_images=False,
    ),
}


def main(arguments: list[str], prog: str = "prepare_data.py") -> None:
    """`prepare_data.py FORMAT ANNOTATIONS IMAGES [IMAGES ...] OUTPUT`"""
    options = _parser(prog).parse_args(arguments)
    settings = {key: _plain(value) for key, value in vars(options).items() if key != "output"}
    console = Console()
    if is_current(options.output, settings):
        console.print(f"{options.output} is up to date", soft_wrap=True)
        return
    with _progress(console) as progress:
        report = Report(watch=lambda path: _watched(progress, path))
        images = FORMATS[options.format].read(options, report)
        try:
            index = build_index(options.output, _counted(progress, images), report, settings)
        except OSError as error:
            raise InputError(
                f"{options.output}: was not written ({error}); make room, or give another place"
            ) from error
    console.print(summary_table(index))
    console.print(f"written to {options.output}", soft_wrap=True)


def summary_table(index: Index) -> Table:
    """What was read, and what was left out or mended, with the place of the first."""
    table = Table("what", "number", "first")
    table.add_row("images", f"{len(index):,}", "")
    table.add_row("boxes", f"{index.num_boxes:,}", "")
    table.add_row("categories or phrases", f"{len(index.names):,}", escape(", ".join(index.names[:3])))
    for reason, number in sorted(index.summary["counts"].items()):
        table.add_row(f"[yellow]{reason}[/yellow]", f"{number:,}", escape(index.summary["examples"][reason]))
    return table


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog,
        description="Make an index of a data set, which training opens at once and all workers share.",
    )
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    for name, form in FORMATS.items():
        command = formats.add_parser(name, help=form.help, description=f"Make an index of a data set: {form.help}.")
        for source, meaning in form.sources.items():
            command.add_argument(source, type=Path, help=meaning)
        if form.has_images:
            command.add_argument(
                "images", type=Path, nargs="+", help="folders, zip or tar files with the images, searched in this order"
            )
        command.add_argument("output", type=Path, help="folder to write the index to")
        for option, settings in form.options.items():
            command.add_argument(option, **settings)
    return parser


def _in_folder(annotations: Path) -> Path:
    return annotations / "_annotations.coco.json" if annotations.is_dir() else annotations


def _plain(value: Any) -> Any:
    """As JSON has it, so that settings compare equal after a way through a file."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value.absolute()) if isinstance(value, Path) else value


def _progress(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console)


def _watched(progress: Progress, path: Path) -> BinaryIO:
    return progress.open(path, "rb", description=f"bytes of {path.name}")


def _counted(progress: Progress, images: Iterator[Annotated]) -> Iterator[Annotated]:
    yield from progress.track(images, total=None, description="images indexed")
