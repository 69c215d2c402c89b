"""docs/security.md names tests that there are, and nothing in the package reads what could run code."""

from __future__ import annotations

import re

import pytest
from documents import ROOT

PAGE = ROOT / "docs" / "security.md"
SOURCES = sorted((ROOT / "src" / "trex2_lightning").rglob("*.py"))
COULD_RUN = re.compile(
    r"pickle\.loads?\b|allow_pickle=True|read_pickle|weights_only=False|yaml\.(unsafe_|full_)?load\(|shell=True"
    r"|os\.system|(?<![\w.])(eval|exec)\(|torch\.load\("
)
ALLOWED = {
    "yaml.load(": r"yaml\.load\(\w+, (yaml\.BaseLoader|_TextLoader)\)",
    "torch.load(": r"torch\.load\(.*weights_only=True\)",
}


def test_the_tests_of_the_page_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text())
    assert len(named) > 20
    assert [test for test in named if f"def {test[1]}(" not in (ROOT / test[0]).read_text()] == []


@pytest.mark.parametrize("line", ["torch.load(path)", "np.load(p, allow_pickle=True)", "yaml.load(t)", "eval(t)"])
def test_a_reading_that_could_run_code_is_found(line: str) -> None:
    assert dangers(line)


def test_no_reading_could_run_code() -> None:
    found = {file.name: dangers(file.read_text()) for file in SOURCES}
    assert {name: lines for name, lines in found.items() if lines} == {}


def dangers(source: str) -> list[str]:
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("#", '"""'))]
    return [
        line
        for line in lines
        for match in COULD_RUN.finditer(line)
        if not re.search(ALLOWED.get(match[0], r"(?!)"), line)
    ]
