"""The page of what a GPU takes: its tables before, while and after they are measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.tables import table
from trex2_lightning.studies.gpu_timing import Taken

UNMEASURED = "not measured"
Region = Literal["eager", "compiled"]
CALLS: dict[Region, str] = {"eager": "make bench-gpu", "compiled": "make bench-gpu ARGS=--compiled"}
HEAD = (
    "# Benchmarks on a GPU\n\n"
    "What stands between the marks is written by `make bench-gpu`, and the last part by `make bench-gpu "
    "ARGS=--compiled`, each on the machine that it names; do not edit it.\n\n"
)


class Bar(NamedTuple):
    """What a figure shall reach."""

    figure: Callable[[], float | None]  # None: what it is compared with was not measured
    unit: str
    sign: Literal[">=", "<="]
    limit: float

    def told(self) -> str:
        """The bar, and once there is a figure whether it is met."""
        figure, bar = self.figure(), f"{self.sign} {self.limit:g}"
        if figure is None:
            return f"{self.unit} {bar}"
        met = figure >= self.limit if self.sign == ">=" else figure <= self.limit
        return f"{self.unit} {bar}: {figure:.3g}, {'met' if met else '**not met**'}"


class Task(NamedTuple):
    """A row of a table."""

    what: tuple[str, ...]  # its first cells
    measure: Callable[[], Taken]
    tell: Callable[[Taken], list[str]]  # the cells of figures
    bars: tuple[Bar, ...] = ()


class Section(NamedTuple):
    """A table."""

    title: str
    text: str
    head: tuple[str, ...]  # of all cells but the bars'
    tasks: Sequence[Task]

    def line(self, task: Task, outcome: Taken | str) -> str:
        """A row's figures with their names, for the terminal."""
        if isinstance(outcome, str):
            return outcome
        named = zip(self.head[len(task.what) :], task.tell(outcome), strict=True)
        return "; ".join(f"{name} {figure}" for name, figure in named if figure)

    def shown(self, found: dict[tuple[str, ...], Taken | str]) -> str:
        """In Markdown.

        Args:
            found: of every task by its title and what it is; a reason where there is nothing to tell.
        """
        lines = []
        for task in self.tasks:
            outcome = found.get((self.title, *task.what), UNMEASURED)
            figures = [outcome] if isinstance(outcome, str) else task.tell(outcome)
            rest = [""] * (len(self.head) - len(task.what) - len(figures))
            lines.append([*task.what, *figures, *rest, "; ".join(bar.told() for bar in task.bars)])
        return "\n\n".join([f"### {self.title}", self.text, table([*self.head, "bars"], lines)])


def check_page(page: Path) -> None:
    """Whether it can be written without a loss.

    Raises:
        InputError: there is no such folder, or the file is another one.
    """
    if not page.parent.is_dir():
        raise InputError(f"there is no folder {page.parent} for --output={page}: make it, or stand in the clone")
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if text and any(len(_marked(name).findall(text)) != 1 for name in CALLS):
        raise InputError(
            f"{page} is not a page of this benchmark, or its marks are damaged: give another --output=FILE"
        )


def write(page: Path, region: Region, content: str, blank: Mapping[Region, str]) -> None:
    """Put the content of a region into the page, and leave the rest as it is.

    Args:
        page: one that passes `check_page`; where it is not there, or empty, it is made.
        region: which.
        content: of it.
        blank: what regions are before they are measured.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    text = text or blank_page(blank)
    page.write_text(_marked(region).sub(lambda _: _between_marks(region, content), text), encoding="utf-8")


def blank_page(blank: Mapping[Region, str]) -> str:
    """The whole page before anything is measured."""
    return HEAD + "\n\n".join(_between_marks(name, blank[name]) for name in CALLS) + "\n"


def _between_marks(name: Region, content: str) -> str:
    return f"<!-- {name}: written by `{CALLS[name]}` -->\n{content}\n<!-- end -->"


def _marked(name: Region) -> re.Pattern[str]:
    return re.compile(rf"<!-- {name}: [^\n]* -->\n.*?<!-- end -->", re.DOTALL)
