"""A file imports strictly lower layers or its own folder, and of `config` only its own type."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "trex2_lightning"
LAYERS = [
    {"errors"},
    {"structures", "config"},
    {"ops"},
    {"layers"},
    {"models", "losses", "data", "metrics"},
    {
        "optim",
        "pictures",
        "prompt_set",
        "protocols",
        "memory_bank",
        "costs",
        "history",
        "prepare",
        "bench_input",
        "bench_index",
    },
    {"module"},
    {"callbacks"},
    {"build"},
    {"run"},
    {"predict", "benchmarks", "claims"},
    {"tuning", "sweep"},
    {"cli", "fusion_page"},
    {"demo", "ablation", "ablation_fusion", "bench", "compare", "dashboard"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
READS_ALL_OF_CONFIG = {
    "optim",
    "build",
    "run",
    "predict",
    "benchmarks",
    "claims",
    "cli",
    "demo",
    "ablation",
    "fusion_page",
    "ablation_fusion",
}
FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if file != PACKAGE / "__init__.py"]


def part_of(file: Path) -> str:
    """The module or folder of the package that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(source: str) -> list[tuple[str, str]]:
    """(part, name taken from it) of every import of the package, wherever in the file it stands."""
    paths = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            paths += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write absolute imports"
            paths += [f"{node.module}.{alias.name}" for alias in node.names]
    return [(path.split(".")[1], path.split(".")[-1]) for path in paths if path.startswith("trex2_lightning.")]


def violations(part: str, source: str) -> list[str]:
    found = imported(source)
    wrong = [f"imports {other}, which is not below" for other, _ in found if other != part and not below(other, part)]
    if part not in READS_ALL_OF_CONFIG:
        wrong += [f"imports {name} of config" for other, name in found if other == "config" and not is_config(name)]
    if part == "callbacks":
        wrong += ["knows a model" for other, _ in found if other == "models"]
    return wrong


def below(other: str, part: str) -> bool:
    return LEVEL[other] < LEVEL[part]


def is_config(name: str) -> bool:
    return name.endswith("Config")


def test_every_part_has_one_layer() -> None:
    assert {part_of(file) for file in FILES} == set(LEVEL)
    assert sum(map(len, LAYERS)) == len(LEVEL)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports(file: Path) -> None:
    assert violations(part_of(file), file.read_text()) == []


@pytest.mark.parametrize(
    ("part", "source", "allowed"),
    [
        ("models", "from trex2_lightning.layers.mlp import MLP", True),
        ("models", "from trex2_lightning.models.backbone import Backbone", True),
        ("models", "from trex2_lightning.losses.criterion import Criterion", False),
        ("ops", "def f():\n    import trex2_lightning.layers.mlp", False),
        ("layers", "from trex2_lightning import models", False),
        ("data", "from trex2_lightning.config import DataConfig", True),
        ("data", "from trex2_lightning.config import load", False),
        ("data", "from trex2_lightning import config", False),
        ("cli", "from trex2_lightning.config import load", True),
        ("callbacks", "from trex2_lightning.module import DetectionModule", True),
        ("callbacks", "from trex2_lightning.models.detector import PromptedDetector", False),
    ],
)
def test_the_check_itself(part: str, source: str, allowed: bool) -> None:
    assert (violations(part, source) == []) == allowed
