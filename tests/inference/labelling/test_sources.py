"""What there is to label, by which names, and in which batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trex2_lightning.errors import InputError
from trex2_lightning.inference.labelling.sources import Shard, Source, find_pictures, groups_of, leave_out

Pictures = Callable[..., Path]


def test_a_folder_has_those_of_its_folders_and_nothing_hidden(pictures: Pictures) -> None:
    folder = pictures("b.jpg", "a/c.PNG", "a/b/d.jpeg", ".thumbs/e.jpg", "._f.jpg")
    (folder / "g.txt").write_text("")
    assert find_pictures(str(folder)) == Source(folder, ("a/b/d.jpeg", "a/c.PNG", "b.jpg"))


def test_a_pattern(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pictures("x/a.jpg", "x/y/b.jpg", "x/y/c.png", "d.jpg")
    monkeypatch.chdir(folder)
    expected = Source(folder / "x", ("a.jpg", "y/b.jpg"))
    assert find_pictures("x/**/*.jpg") == find_pictures(f"{folder}/x/**/*.jpg") == expected


def test_a_list_is_relative_to_its_folder_and_keeps_its_order(pictures: Pictures, tmp_path: Path) -> None:
    folder = pictures("x/a.jpg", "x/b.jpg", "x/y/c.jpg")
    (tmp_path / "few.txt").write_text(f"pictures/x/y/c.jpg\n\n{folder}/x/a.jpg\npictures/x/y/c.jpg\n")
    assert find_pictures(str(tmp_path / "few.txt")) == Source(folder / "x", ("y/c.jpg", "a.jpg"))


def test_a_list_may_lead_out_of_its_folder(pictures: Pictures) -> None:
    folder = pictures("x/a.jpg", "y/b.jpg")
    (folder / "x" / "few.txt").write_text("a.jpg\n../y/b.jpg\n../x/a.jpg\n")
    assert find_pictures(str(folder / "x" / "few.txt")) == Source(folder, ("x/a.jpg", "y/b.jpg"))


def test_a_single_picture(pictures: Pictures) -> None:
    folder = pictures("a.jpg")
    assert find_pictures(str(folder / "a.jpg")) == Source(folder, ("a.jpg",))


@pytest.mark.parametrize("given", ["gone", "*.jpg", "empty.txt", "."])
def test_nothing_to_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n")
    with pytest.raises(InputError, match="there is no picture; give a folder, a pattern in quotes"):
        find_pictures(given)


SEVEN = Source(Path("x"), tuple("abcdefg"))


def test_shards_have_whole_batches_and_all_of_them_once() -> None:
    shards = [groups_of(SEVEN, 2, Shard(number, 3), ()) for number in (1, 2, 3)]
    assert shards == [[("a", "b"), ("g",)], [("c", "d")], [("e", "f")]]
    assert groups_of(SEVEN, 2, Shard(), ()) == [("a", "b"), ("c", "d"), ("e", "f"), ("g",)]


def test_what_is_done_leaves_the_other_batches_as_they_were() -> None:
    assert groups_of(SEVEN, 2, Shard(), {"a", "b", "f"}) == [("c", "d"), ("e",), ("g",)]


def test_pictures_may_be_left_out(pictures: Pictures) -> None:
    source = find_pictures(str(pictures("a.jpg", "b.jpg", "c.jpg", "d.jpg")))
    other = {source.root.resolve() / "b.jpg", Path("elsewhere/c.jpg")}
    assert leave_out(source, other, None).names == ("a.jpg", "c.jpg", "d.jpg")
    assert leave_out(source, other, 2).names == ("a.jpg", "c.jpg")
