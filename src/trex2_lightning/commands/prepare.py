"""Make an index of a data set in its own format, with an account of what was read."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from trex2_lightning.commands.terminal import aside, console
from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.declaration import Argument, Format, option_name
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats import every_format, format_named
from trex2_lightning.errors import InputError

if TYPE_CHECKING:
    from trex2_lightning.data.index.reading import Index


def main(arguments: list[str], prog: str = "prepare_data.py") -> None:
    """`prepare_data.py FORMAT ANNOTATIONS IMAGES [IMAGES ...] OUTPUT`"""
    options = _parser(prog).parse_args(arguments)

    from trex2_lightning.data.index.reading import open_index
    from trex2_lightning.data.index.writing import build_index, is_current
    from trex2_lightning.data.inventory import audit_split, check, log_audits

    settings = {key: _plain(value) for key, value in vars(options).items() if key != "output"}
    if is_current(options.output, settings):
        console.print(f"{options.output} is up to date", soft_wrap=True)
        return
    with _progress() as progress:
        report = Report(watch=lambda path: _watched(progress, path))
        images = format_named(options.format, "FORMAT").read(vars(options), report)
        try:
            index = build_index(options.output, _counted(progress, images), report, settings)
        except OSError as error:
            raise InputError(
                f"{options.output}: was not written ({error}); make room, or give another place"
            ) from error
    console.print(summary_table(index))
    console.print(f"written to {options.output}", soft_wrap=True)
    audits = [audit_split("the index", open_index(options.output), nameless=report.nameless)]
    log_audits(audits)
    check(audits)


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
    for form in every_format().values():
        if form.indexed:
            _add_command(formats, form)
    return parser


def _add_command(formats: Any, form: Format) -> None:
    command = formats.add_parser(form.name, help=form.help, description=f"Make an index of a data set: {form.help}.")
    for source in form.sources:
        command.add_argument(source.name, type=source.kind, help=source.help)
    if form.has_images:
        command.add_argument(
            "images", type=Path, nargs="+", help="folders, zip or tar files with the images, searched in this order"
        )
    command.add_argument("output", type=Path, help="folder to write the index to")
    for option in form.options:
        command.add_argument(option_name(option), **_settings(option))


def _settings(option: Argument) -> dict[str, Any]:
    """Of argparse's add_argument."""
    settings = {"type": option.kind, "default": option.default, "choices": option.choices or None, "help": option.help}
    return settings | {"metavar": "N"} if option.kind is int else settings


def _plain(value: Any) -> Any:
    """As JSON has it, so that settings compare equal after a way through a file."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value.absolute()) if isinstance(value, Path) else value


def _progress() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=aside, disable=not aside.is_terminal)


def _watched(progress: Progress, path: Path) -> BinaryIO:
    return progress.open(path, "rb", description=f"bytes of {path.name}")


def _counted(progress: Progress, images: Iterator[Annotated]) -> Iterator[Annotated]:
    yield from progress.track(images, total=None, description="images indexed")
