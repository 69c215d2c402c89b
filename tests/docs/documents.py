"""What the documents are made of: blocks of commands, Python snippets, and code within a line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").glob("*.md"))
COMMANDS = ("", "sh")  # languages of blocks whose lines are commands
SHOWN = ("bibtex", "mermaid", "text", "yaml")  # and of those that nobody runs
_FENCE = re.compile(r"^(?:<!-- not run: ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")


class Block(NamedTuple):
    """A fenced block of a document."""

    place: str  # document and line, for messages
    language: str
    content: str
    reason: str | None  # why it is not run, from the comment `<!-- not run: REASON -->` right before it


class Command(NamedTuple):
    """One command of a block."""

    place: str
    line: str  # with continuation lines joined, as the document has it
    words: list[str]
    reason: str | None


def blocks(path: Path) -> list[Block]:
    text = path.read_text()
    found = []
    for match in _FENCE.finditer(text):
        reason, language, content = match.groups()
        line = text.count("\n", 0, match.start(2)) + 1
        found.append(Block(f"{path.name}:{line}", language, content, reason))
    return found


def commands(path: Path) -> list[Command]:
    found = []
    for block in blocks(path):
        if block.language in COMMANDS:
            for line in re.sub(r"\\\n\s*", "", block.content).splitlines():
                if words := shlex.split(line, comments=True):
                    found.append(Command(block.place, line, words, block.reason))
    return found


def snippets(path: Path) -> list[Block]:
    return [block for block in blocks(path) if block.language == "python"]


def spans(path: Path) -> list[str]:
    """Code within a line of text."""
    return _SPAN.findall(_FENCE.sub("", path.read_text()))


def code(path: Path) -> str:
    """All that a document shows as code, one piece a line."""
    return "\n".join([block.content for block in blocks(path) if block.language != "bibtex"] + spans(path))
