"""Every setting decides something: a field that is told and not used cannot exist."""

from __future__ import annotations

import ast
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import NamedTuple, get_args, get_origin, get_type_hints

import pytest

from trex2_lightning.config import Config

PACKAGE = Path(__file__).parents[2] / "src" / "trex2_lightning"
Field = tuple[type, str]


class Reads(NamedTuple):
    """What a file does with attributes and names."""

    attributes: set[str]
    names: set[str]


def reads(source: str) -> Reads:
    nodes = list(ast.walk(ast.parse(source)))
    loaded = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    return Reads(loaded, {node.id for node in nodes if isinstance(node, ast.Name)})


def sections(kind: type) -> dict[type, set[str]]:
    """All dataclasses of a configuration, with the fields that hold one."""
    found: dict[type, set[str]] = {kind: set()}
    for name, hint in get_type_hints(kind).items():
        inner = get_args(hint)[1] if get_origin(hint) is dict else hint
        if is_dataclass(inner) and isinstance(inner, type):
            for section, holders in sections(inner).items():
                found.setdefault(section, set()).update(holders)
            found[inner].add(name)
    return found


def unread(kind: type, files: list[str]) -> list[str]:
    """Fields that no file reads which has their section at hand, by its class or by the field that holds it.

    `size` alone is read in many places; where nobody names `MemoryBankConfig` or `.memory_bank` it is another size.
    """
    looked_at = [reads(source) for source in files]
    return [
        f"{section.__name__}.{field.name}"
        for section, holders in sections(kind).items()
        for field in fields(section)
        if not any(
            field.name in file.attributes and (section.__name__ in file.names or holders & file.attributes)
            for file in looked_at
        )
    ]


def test_every_field_is_read_outside_of_config() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if "config" not in path.relative_to(PACKAGE).parts]
    assert unread(Config, [path.read_text() for path in files]) == []


@dataclass
class PartConfig:
    size: int = 0


@dataclass
class WholeConfig:
    part: PartConfig
    parts: dict[str, PartConfig]
    seed: int = 0


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(x: WholeConfig): x.seed, x.part.size, x.parts", []),
        ("def f(x: WholeConfig): x.seed, x.part, x.parts", ["PartConfig.size"]),
        ("def f(x: WholeConfig): x.seed, x.part; x.size = x.parts", ["PartConfig.size"]),
        ("def f(x: PartConfig): x.size, x.seed", ["WholeConfig.part", "WholeConfig.parts", "WholeConfig.seed"]),
        ("def f(x: WholeConfig): image.size, x.seed", ["PartConfig.size", "WholeConfig.part", "WholeConfig.parts"]),
    ],
)
def test_the_check_itself(source: str, expected: list[str]) -> None:
    assert sorted(unread(WholeConfig, [source])) == expected
