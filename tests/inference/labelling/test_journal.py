"""What is on disk when a process is killed, and what the next one makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trex2_lightning.errors import InputError
from trex2_lightning.inference.labelling.journal import ROOT, Journal, pictures_in
from trex2_lightning.inference.labelling.rows import LabelRow, judged_row
from trex2_lightning.inference.labelling.sources import Shard
from trex2_lightning.structures import Detection

HEAD = {"phrases": ("cell",), ROOT: "/pictures"}
FOUND = Detection("cell", 0.75, (1.0, 2.0, 3.5, 4.25))
ROWS = [
    LabelRow("a.jpg", 40, 30, (FOUND, FOUND._replace(score=0.5)), FOUND),
    LabelRow("b.jpg", 40, 30),
    LabelRow("c.jpg", skipped="cannot be read"),
    LabelRow(os.fsdecode(b"d\xff.jpg"), 1, 2, (FOUND._replace(name="Zelle ä"),)),
]


def test_rows_come_back_in_any_order(tmp_path: Path) -> None:
    with Journal(tmp_path, HEAD, Shard()) as journal:
        journal.add(ROWS[:3])
        journal.add(ROWS[3:])
        names = [row.name for row in ROWS]
        assert list(journal.rows(names)) == ROWS
    with Journal(tmp_path, HEAD, Shard()) as journal:
        assert list(journal.rows(names[::-1])) == ROWS[::-1]
        assert all(name in journal for name in names)
        assert "e.jpg" not in journal


def test_a_batch_that_was_being_written_is_as_if_it_had_never_been(tmp_path: Path) -> None:
    with Journal(tmp_path, HEAD, Shard()) as journal:
        journal.add(ROWS[:1])
        before = (tmp_path / "journal" / "1-of-1.jsonl").read_bytes()
        journal.add(ROWS[1:])
    file = tmp_path / "journal" / "1-of-1.jsonl"
    for end in (len(before), len(before) + 1, file.stat().st_size - 1):
        file.write_bytes(file.read_bytes()[:end])
        with Journal(tmp_path, HEAD, Shard()) as journal:
            assert [row.name in journal for row in ROWS] == [True, False, False, False]
            journal.add(ROWS[1:])
            assert list(journal.rows([row.name for row in ROWS])) == ROWS


@pytest.mark.parametrize("written", ["", '{"head": {"phr'])
def test_a_kill_within_the_first_line(tmp_path: Path, written: str) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "1-of-1.jsonl").write_text(written)
    assert pictures_in(tmp_path) == set()
    with Journal(tmp_path, HEAD, Shard()) as journal:
        journal.add(ROWS)
    assert pictures_in(tmp_path) == {Path("/pictures", row.name) for row in ROWS}


def test_a_shard_knows_what_others_wrote_and_leaves_their_files_alone(tmp_path: Path) -> None:
    with Journal(tmp_path, HEAD, Shard(2, 3)) as journal:
        journal.add(ROWS[:2])
    other = tmp_path / "journal" / "2-of-3.jsonl"
    other.write_bytes(other.read_bytes() + b'{"rows": [{"na')  # it is at work
    content = other.read_bytes()
    with Journal(tmp_path, HEAD, Shard()) as journal:
        journal.add(ROWS[2:])
        assert list(journal.rows([row.name for row in ROWS])) == ROWS
    assert other.read_bytes() == content


def test_another_request_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path, HEAD, Shard()).add(ROWS)
    with pytest.raises(InputError, match=r"was begun with other phrases: give another folder by --output"):
        Journal(tmp_path, HEAD | {"phrases": ("dust",)}, Shard(1, 2))


def test_a_folder_without_a_journal(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing was labelled there; give the --output of an earlier call"):
        pictures_in(tmp_path)


def test_a_doubt_is_what_lies_nearest_its_threshold() -> None:
    least = {"cell": 0.5, "dust": 0.2}
    candidates = [FOUND, Detection("cell", 0.4999999, FOUND.box), Detection("dust", 0.21, FOUND.box)]
    row = judged_row("a.jpg", (30, 40), candidates, least)
    assert (row.width, row.height) == (40, 30)
    assert [found.name for found in row.found] == ["cell", "dust"]  # 0.5 after rounding is below it all the same
    assert row.doubt == Detection("cell", 0.5, FOUND.box)
    assert judged_row("a.jpg", (30, 40), [], least) == LabelRow("a.jpg", 40, 30)
