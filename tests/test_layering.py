"""Imports go down only, and siblings do not know one another; this table is the only list of layers.

`docs/architecture.md` shows it, generated.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "trex2_lightning"
# From below; parts of one line are siblings. Within `data` and `models` the rooms have an order of their own.
LAYERS = [
    ["errors"],
    ["structures"],
    ["config"],
    ["ops"],
    ["layers"],
    ["models", "losses", "metrics", "data"],
    ["prompting"],
    ["training"],
    ["evaluation"],
    ["inference"],
    ["finetuning"],
    ["studies"],
    ["commands"],
    ["__main__"],
]
ROOMS = {
    "data": [
        ["images"],
        ["records"],
        ["annotations"],
        ["formats"],
        ["index"],
        ["opening"],
        ["sampling", "shapes", "discovery", "division"],
        ["splits", "inventory"],
        ["datamodule"],
    ],
}
WHOLE_CONFIG = {
    "training",
    "evaluation",
    "inference",
    "finetuning",
    "studies",
    "commands",
}  # others take their own part of it
MOST_LINES = 300
FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if file != PACKAGE / "__init__.py"]
TESTS = sorted(Path(__file__).parent.rglob("*.py"))


def level(layers: list[list[str]], part: str) -> int:
    return next(number for number, parts in enumerate(layers) if part in parts)


def imported(source: str) -> list[tuple[str, ...]]:
    """The path of every import of the package, wherever in the file it stands, and the name taken from it."""
    paths = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            paths += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write absolute imports"
            paths += [f"{node.module}.{alias.name}" for alias in node.names]
    return [tuple(path.split(".")[1:]) for path in paths if path.startswith("trex2_lightning.")]


def violations(place: str, source: str) -> list[str]:
    """What a file at `place`, such as `data/index/reading`, imports against the rules."""
    part, *rest = place.split("/")
    wrong = []
    for path in imported(source):
        other = path[0]
        if other != part and level(LAYERS, other) >= level(LAYERS, part):
            wrong.append(f"imports {other}, which is not below")
        rooms = ROOMS.get(part)
        if other == part and rooms and rest and path[1] != rest[0] and level(rooms, path[1]) >= level(rooms, rest[0]):
            wrong.append(f"imports {part}/{path[1]}, which is not below")
        if other == "config" and part not in {"config", *WHOLE_CONFIG} and not path[-1].endswith("Config"):
            wrong.append(f"imports {path[-1]} of config")
        if place.startswith("training/callbacks/") and other == "models":
            wrong.append("knows a model")
    return wrong


def place_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE).with_suffix("")).removesuffix("/__init__")


def test_every_part_has_one_layer() -> None:
    parts = [part for line in LAYERS for part in line]
    assert sorted(parts) == sorted({place_of(file).split("/")[0] for file in FILES})
    assert len(set(parts)) == len(parts)
    for part, rooms in ROOMS.items():
        found = {place_of(file).split("/")[1] for file in FILES if place_of(file).startswith(f"{part}/")}
        assert sorted(room for line in rooms for room in line) == sorted(found)


def test_the_top_of_the_package_has_few_files() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 6


@pytest.mark.parametrize("file", FILES, ids=place_of)
def test_imports(file: Path) -> None:
    assert violations(place_of(file), file.read_text()) == []


@pytest.mark.parametrize("file", [*FILES, *TESTS], ids=lambda file: str(file.relative_to(PACKAGE.parents[1])))
def test_a_file_is_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize(
    ("place", "source", "allowed"),
    [
        ("models/late", "from trex2_lightning.layers.mlp import MLP", True),
        ("models/late", "from trex2_lightning.models.backbone import Backbone", True),
        ("models/late", "from trex2_lightning.losses.criterion import Criterion", False),
        ("ops/boxes", "def f():\n    import trex2_lightning.layers.mlp", False),
        ("layers/mlp", "from trex2_lightning import models", False),
        ("data/records", "from trex2_lightning.config import DataConfig", True),
        ("data/records", "from trex2_lightning.config import load", False),
        ("data/records", "from trex2_lightning import config", False),
        ("data/index/reading", "from trex2_lightning.data.formats.coco import read_coco", True),
        ("data/formats/coco", "from trex2_lightning.data.index.reading import Index", False),
        ("data/shapes/layout", "from trex2_lightning.data.sampling.collate import pad", False),
        ("commands/train", "from trex2_lightning.config import load", True),
        ("evaluation/report", "from trex2_lightning.studies.sweep import verdict", False),
        ("training/callbacks/resources", "from trex2_lightning.training.module import DetectionModule", True),
        ("training/callbacks/resources", "from trex2_lightning.models.detector import PromptedDetector", False),
    ],
)
def test_the_check_itself(place: str, source: str, allowed: bool) -> None:
    assert (violations(place, source) == []) == allowed


# The same thing at another level: a command and its work, what is built for a room, a data set's format and its metric.
SHARED_MODULES = {"build", "compare", "dashboard", "demo", "evaluate", "export", "lvis", "preflight"}
SHARED_NAMES = {"FORMAT", "log", "main"}  # of every format, of every module, of every command


def test_a_module_s_name_is_used_once() -> None:
    stems = Counter(file.stem for file in FILES if file.name != "__init__.py")
    assert {stem for stem, count in stems.items() if count > 1} == SHARED_MODULES


def test_a_class_a_function_and_a_table_have_a_name_of_their_own() -> None:
    names = Counter(name for file in FILES if file.name != "__init__.py" for name in defined(file.read_text()))
    assert {name for name, count in names.items() if count > 1} == SHARED_NAMES


def defined(source: str) -> set[str]:
    """The public names that a module gives to something of its own."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return {name for name in found if not name.startswith("_")}
