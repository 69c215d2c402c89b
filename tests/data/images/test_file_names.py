"""Which folders a name leads to, and which files it cannot mean; what is found is in `test_archives.py`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trex2_lightning.data.images import file_names
from trex2_lightning.data.images.archives import PICTURE_FORMATS
from trex2_lightning.data.images.file_names import IMAGE_SUFFIXES, Listing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train/a.jpg", "train/B.jpg", "val/c.jpg", "val/deep/d.jpg", "top.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


@pytest.fixture
def listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that are listed, as it happens; a walk lists all."""
    told: list[str] = []

    def telling(scandir: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def tell(place: Any) -> Any:
            told.append(Path(place).relative_to(folder).as_posix())
            return scandir(place)

        return tell

    monkeypatch.setattr(os, "scandir", telling(os.scandir))
    return told


def test_only_folders_that_a_name_leads_to_are_listed_and_each_once(folder: Path, listed: list[str]) -> None:
    listing = Listing([folder], {})
    assert listing.find("train/b.JPG") == str(folder / "train" / "B.jpg")
    assert listed == [".", "train"]
    assert listing.find("Train/gone.jpg") is None
    assert listing.find("gone/a.jpg") is None
    assert listing.find("C:\\photos\\train\\a.jpg") == str(folder / "train" / "a.jpg")
    assert listed == [".", "train"]


def test_all_folders_are_walked_through_once_for_a_name_of_which_no_end_is_there(
    folder: Path, listed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = Listing([folder], {})
    assert listing.find("/mnt/photos/d.jpg") == str(folder / "val" / "deep" / "d.jpg")
    assert "val/deep" in listed
    before = len(listed)
    assert listing.find("/mnt/photos/gone.jpg") is None
    assert len(listed) == before
    monkeypatch.setattr(file_names, "NAMES_WALKED", 4)  # there are five files
    assert Listing([folder], {}).find("/mnt/photos/d.jpg") is None


def test_what_is_remembered_is_bounded(folder: Path, listed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_names, "NAMES_KEPT", 0)  # the last used folder is kept in any case
    listing = Listing([folder], {})
    for name in ("train/A.jpg", "train/b.jpg", "val/C.jpg"):
        assert listing.find(name)
    assert listed == [".", "train"] * 2 + [".", "val"]


def test_a_spelling_that_could_be_one_of_two_files_is_none(folder: Path) -> None:
    for name in ("x.PNG", "X.png", "é.png"):
        (folder / "train" / name).write_bytes(b"")
    listing = Listing([folder], {"train/y.png": "first", "train/Y.png": "second"})
    assert listing.find("train/x.png") is None
    assert listing.find("train/%58.png") == str(folder / "train" / "X.png")  # what it says, once decoded
    assert listing.find("train/y.PNG") is None
    assert listing.find("train\\Y.png") == "second"


def test_every_format_that_is_read_is_known_by_its_suffix() -> None:
    """So that no folder's pictures are passed over in silence."""
    known = {form for suffix, form in Image.registered_extensions().items() if suffix in IMAGE_SUFFIXES}
    assert known == set(PICTURE_FORMATS)
