"""Writes what the documents show of the code: in architecture.md the layers, from the table of the layering test, and
the rooms; in data.md the formats; in licences.md the terms, and which recipes they are of; in security.md the limits of
what strangers send.

`make docs` calls it; `test_generated.py` holds that the pages are what it writes.
"""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import Any

from trex2_lightning.config import Config, load
from trex2_lightning.config.untrusted import MOST, MOST_OF_OPTION
from trex2_lightning.data.annotations import limits as constants
from trex2_lightning.data.formats import every_format
from trex2_lightning.inference.publishing.licences import ingredients
from trex2_lightning.inference.publishing.terms import TERMS
from trex2_lightning.training.provenance import annotations_of, weights_of

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from test_layering import LAYERS, PACKAGE, ROOMS  # noqa: E402

PAGE = ROOT / "docs" / "architecture.md"
WIDTH = 84  # characters of a picture, a common multiple of the numbers of siblings


def generated(page: Path) -> str:
    """The page with all that stands between its marks written anew."""
    text = page.read_text()
    for name, content in parts()[page].items():
        marked = re.compile(rf"(<!-- {name}: [^\n]* -->\n).*?(<!-- end -->)", re.DOTALL)
        if len(marked.findall(text)) != 1:
            raise ValueError(f"{page.name} needs one place `<!-- {name}: ... -->` with its `<!-- end -->`")
        text = marked.sub(lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text)
    return text


def parts() -> dict[Path, dict[str, str]]:
    """Of each page, by their marks."""
    return {
        PAGE: {"picture": picture(LAYERS), "data": picture(ROOMS["data"]), "rooms": rooms()},
        ROOT / "docs" / "data.md": {"formats": formats()},
        ROOT / "docs" / "licences.md": {"terms": terms(), "recipes": recipes()},
        ROOT / "docs" / "security.md": {"limits": limits(), "options": options(), "sizes": sizes()},
    }


def picture(layers: list[list[str]]) -> str:
    """A wall of bricks, the highest layer on top; siblings lie beside one another."""
    lines = []
    above: list[str] = [""]
    for parts in reversed(layers):
        lines.append(_joint(above, parts))
        lines.append("|" + "|".join(part.center(WIDTH // len(parts) - 1) for part in parts) + "|")
        above = parts
    lines.append(_joint(above, [""]))
    return "\n".join(["```text", *lines, "```"])


def rooms() -> str:
    """Every part of the package with its sentence, from above, and the rooms within."""
    lines = ["| room | what it is |", "|---|---|"]
    for part in (part for parts in reversed(LAYERS) for part in parts):
        folder = PACKAGE / part
        if not folder.is_dir():
            lines.append(f"| `{part}.py` | {sentence(folder.with_suffix('.py'))} |")
            continue
        lines.append(f"| `{part}/` | {sentence(folder / '__init__.py')} |")
        inner = [path.parent for path in folder.glob("*/__init__.py")]
        order = [room for others in reversed(ROOMS.get(part, [])) for room in others]
        for room in sorted(inner, key=lambda path: order.index(path.name) if order else path.name):
            lines.append(f"| `{part}/{room.name}/` | {sentence(room / '__init__.py')} |")
    return "\n".join(lines)


def limits() -> str:
    """The constants of annotation files, with what stands behind them."""
    lines = ["| constant of `src/trex2_lightning/data/annotations/limits.py` | at most | |", "|---|---|---|"]
    for name, meaning in re.findall(r"^([A-Z_]+) = \d.*  # (.*)$", Path(constants.__file__).read_text(), re.MULTILINE):
        lines.append(f"| `{name}` | {getattr(constants, name):,} | {meaning} |")
    return "\n".join(lines)


def options() -> str:
    """Of timm, that a checkpoint may have."""
    return fill(", ".join(f"`{name}`" for name in sorted(MOST_OF_OPTION)) + ".", 120)


def sizes() -> str:
    """Of the settings that memory or time grows with."""
    return "\n".join(["| setting | at most |", "|---|---|", *(f"| `{key}` | {most:,} |" for key, most in MOST.items())])


def formats() -> str:
    """The declarations of all formats."""
    lines = ["| format | data set | an image judges | `kind` in `data.sets` | read from |", "|---|---|---|---|---|"]
    for form in every_format().values():
        kinds = ", ".join(f"`{kind}`" for kind in form.kinds) or "none"
        places = ["an index"] * form.indexed + [f"`{form.direct}` files"] * bool(form.direct)
        lines.append(f"| `{form.name}` | {form.data_sets} | {form.judges} | {kinds} | {', '.join(places)} |")
    return "\n".join(lines)


def terms() -> str:
    """The table of licences."""
    lines = ["| what | | licence | commercial use | note | read at |", "|---|---|---|---|---|---|"]
    for one in TERMS:
        cells = (one.name, one.kind, one.licence, one.commercial, one.why, one.source)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@cache
def recipes() -> str:
    """What each experiment file names of the table, with the runs that it starts from."""
    lines = ["| recipe | not free for commercial use | its data |", "|---|---|---|"]
    for file in sorted((ROOT / "experiments").glob("**/*.yaml")):
        if "eval" in file.parts or file.name == "base.yaml":
            continue
        made_of = [part for config in _runs_of(file) for part in ingredients(made_of_what(config))]
        bound = {one.terms.name: None for one in made_of if one.terms and one.terms.commercial != "yes"}
        data = {one.terms.name if one.terms else "yours": None for one in made_of if one.what.startswith("data.")}
        name = file.relative_to(ROOT)
        lines.append(f"| `{name}` | {', '.join(bound) or 'nothing'} | {', '.join(data)} |")
    return "\n".join(lines)


def made_of_what(config: Config) -> dict[str, Any]:
    """As an entry of a checkpoint's provenance, of data that are not there."""
    steps = config.train.rhythm
    used = [n for n, some in config.data.sets.items() if some.text * steps.text + some.visual * steps.visual]
    keys = [f"data.sets.{name}" for name in used] or ["data.train"]
    keys += ["data.nameless"] if config.data.nameless.share else []
    return {"weights": weights_of(config), "data": {key: {"annotations": annotations_of(config, key)} for key in keys}}


@cache
def _runs_of(file: Path) -> list[Config]:
    """The run of an experiment file, after those whose weights it starts from."""
    config = load(file)
    start = Path(config.train.init_from)
    before = ROOT / "experiments" / Path(*start.parts[1:-2]).with_suffix(".yaml") if start.parts else None
    return [*(_runs_of(before) if before and before.is_file() else []), config]


def sentence(file: Path) -> str:
    """The first paragraph of a file's docstring."""
    found = ast.get_docstring(ast.parse(file.read_text()))
    if not found:
        raise ValueError(f"{file} has no docstring that says in a sentence what it is")
    return " ".join(found.split("\n\n")[0].split())


def _joint(above: list[str], below: list[str]) -> str:
    """The line between two layers, with a + wherever one of them has a joint."""
    joints = {WIDTH // len(parts) * i for parts in (above, below) for i in range(len(parts) + 1)}
    return "".join("+" if place in joints else "-" for place in range(WIDTH + 1))


if __name__ == "__main__":
    for file in parts():
        file.write_text(generated(file))
