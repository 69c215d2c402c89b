"""The documents show layers, rooms and formats as they are, and no other document has a list of the layers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import DOCS
from generated import LAYERS, PACKAGE, PAGE, generated, parts, picture

QUESTION = re.compile(r"^\| (.*\?) \| `([\w/.]+)` \|$", re.MULTILINE)
PATH = re.compile(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?|structures\.py)`")


@pytest.mark.parametrize("page", parts(), ids=lambda page: page.name)
def test_a_page_is_what_the_code_says(page: Path) -> None:
    assert generated(page) == page.read_text(), "run `make docs`"


def test_the_picture_has_every_layer_in_its_place() -> None:
    bricks = [re.findall(r"\w+", line) for line in picture(LAYERS).splitlines() if line.startswith("|")]
    assert bricks == LAYERS[::-1]
    assert len({len(line) for line in picture(LAYERS).splitlines()[1:-1]}) == 1


def test_a_page_without_marks_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing is marked here")
    monkeypatch.setattr("generated.parts", lambda: {page: {"picture": "a wall"}})
    with pytest.raises(ValueError, match="needs one place"):
        generated(page)


def test_a_moved_layer_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generated.LAYERS", [*LAYERS[:-2], LAYERS[-1], LAYERS[-2]])
    assert generated(PAGE) != PAGE.read_text()


def test_every_question_is_answered_by_a_file() -> None:
    answers = dict(QUESTION.findall(PAGE.read_text()))
    assert len(answers) >= 20
    assert [name for name in answers.values() if not (PACKAGE / name).is_file()] == []


def test_every_path_of_the_page_exists() -> None:
    paths = set(PATH.findall(PAGE.read_text()))
    assert len(paths) > 40
    root = PACKAGE.parents[1]
    assert [path for path in paths if not ((PACKAGE / path).exists() or (root / path).exists())] == []


@pytest.mark.parametrize("path", [path for path in DOCS if path != PAGE], ids=lambda path: path.name)
def test_no_other_document_lists_the_layers(path: Path) -> None:
    """A list of them is known by a line that orders three rooms, or by rows of them."""
    text = path.read_text()
    rooms = "|".join(part for parts in LAYERS for part in parts)
    name = rf"`?(?:{rooms})`?"
    assert re.findall(rf"(?:{name}\s*(?:<|->|\|)\s*){{2}}{name}", text) == []
    assert len(re.findall(rf"^[|\s`]*(?:src/trex2_lightning/)?(?:{rooms})(?:/|\.py)", text, re.MULTILINE)) < 4
