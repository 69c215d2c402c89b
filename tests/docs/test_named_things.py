"""The documents speak of what exists: files, links, targets, settings, parameters."""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest
from documents import DOCS, ROOT, code, snippets

from trex2_lightning import structures
from trex2_lightning.config import Config

LINK = re.compile(r"\]\(([^)\s]+)\)")
TARGET = re.compile(r"\bmake ([a-z][\w-]*)")
FILE = re.compile(r"(?<![\w/.])(?:scripts|experiments|docs|src|tests)/[\w./-]*")
KEY = re.compile(rf"(?<![\w./-])(?:{'|'.join(field.name for field in fields(Config))})(?:\.[a-z]\w*)+(?![\w/(])")


def missing_links(path: Path) -> list[str]:
    links = [link.split("#")[0] for link in LINK.findall(path.read_text()) if "://" not in link]
    return [link for link in links if not (path.parent / link).exists()]


def missing_files(text: str) -> list[str]:
    return [name for name in FILE.findall(text) if not (ROOT / name.rstrip(".")).exists()]


def missing_targets(text: str) -> set[str]:
    targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(TARGET.findall(text)) - set(targets)


def unknown_keys(text: str) -> set[str]:
    return {key for key in KEY.findall(text) if not is_key(key) and not is_file(key)}


@cache
def is_key(key: str) -> bool:
    kind: object = Config
    for name in key.split("."):
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
            continue
        hints = get_type_hints(kind) if is_dataclass(kind) else {}
        if name not in hints:
            return False
        kind = hints[name]
    return True


def is_file(name: str) -> bool:
    """data/records.py, train.json and model.safetensors look like keys."""
    return name.endswith((".py", ".json", ".tgz", ".safetensors"))


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_what_a_document_names_exists(path: Path) -> None:
    assert missing_links(path) == []
    assert missing_files(code(path)) == []
    assert missing_targets(code(path)) == set()
    assert unknown_keys(code(path)) == set()


def test_no_two_documents_say_the_same() -> None:
    """No long line stands in two of them, but for figures, which the README takes from the results."""
    found: dict[str, str] = {}
    for path in DOCS:
        for line in path.read_text().splitlines():
            if len(line) > 80 and not line.startswith(("|", "python ", "make ")):
                assert found.setdefault(line, path.name) == path.name, line


def test_the_checks_themselves(tmp_path: Path) -> None:
    path = tmp_path / "x.md"
    path.write_text("[a](gone.md) [b](https://x.y/z) [c](x.md#d) `make tset`\n```\nmake test\nscripts/gone.py\n```\n")
    assert missing_links(path) == ["gone.md"]
    assert missing_files(code(path)) == ["scripts/gone.py"]
    assert missing_targets(code(path)) == {"tset"}
    assert unknown_keys("train.max_stps=3 train.max_steps=4 model.text optim.py train.json") == {"train.max_stps"}
    assert unknown_keys("data.sets.mine.text data.sets.mine.txt") == {"data.sets.mine.txt"}


def test_deviations_name_settings() -> None:
    keys = set(KEY.findall(code(ROOT / "docs" / "deviations.md")))
    assert {"model.prior", "loss.denoising.queries", "optim.clip_norm", "data.negatives.count"} <= keys


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_python_examples_compile_and_import_what_exists(path: Path) -> None:
    for block in snippets(path):
        for node in ast.walk(ast.parse(block.content)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")


def test_the_parameter_table_is_what_its_snippet_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    path = ROOT / "docs" / "interface.md"
    exec(next(block.content for block in snippets(path) if "numel" in block.content), {})
    counted: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        _, part, count = line.split()
        counted.setdefault(part, []).append(count)
    rows = re.findall(r"^\| `?(\w+)`?[^|]* \| ([\d,]+) \| ([\d,]+) \|$", path.read_text(), re.MULTILINE)
    assert {part: list(counts) for part, *counts in rows} == counted


def test_the_interface_has_every_structure_with_its_fields() -> None:
    kinds = {
        name: kind for name, kind in vars(structures).items() if isinstance(kind, type) and hasattr(kind, "_fields")
    }
    rows = dict(
        re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", (ROOT / "docs" / "interface.md").read_text(), re.MULTILINE)
    )
    assert set(kinds) - set(rows) == set()
    for name, kind in kinds.items():
        told = set(re.findall(r"`(\w+)[^`]*`", rows[name]))
        assert set(kind._fields) - told == set(), name
        assert told - set(kind._fields) == set(), name
