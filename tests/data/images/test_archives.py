from __future__ import annotations

import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from trex2_lightning.data.images.archives import ImageStore, image_size, open_image
from trex2_lightning.data.images.image_files import ImageError, read_image
from trex2_lightning.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train/a.png is red, train/b.png green."""
    (tmp_path / "files" / "train").mkdir(parents=True)
    for name, color in (("a", "red"), ("b", "lime")):
        Image.new("RGB", (4, 3), color).save(tmp_path / "files" / "train" / f"{name}.png")
    return tmp_path / "files"


def pack(folder: Path, kind: str) -> Path:
    archive = folder.parent / f"shards/{kind}.{kind[:3]}"
    archive.parent.mkdir(exist_ok=True)
    if kind.startswith("tar"):
        with tarfile.open(archive, "w:gz" if kind == "tar.gz" else "w") as tar:
            tar.add(folder / "train", "./train" if kind == "tar_dotted" else "train")
        return archive
    method = {"zip_stored": zipfile.ZIP_STORED, "zip_deflated": zipfile.ZIP_DEFLATED, "zip_bz2": zipfile.ZIP_BZIP2}
    with zipfile.ZipFile(archive, "w", method[kind]) as content:
        content.mkdir("train")
        for path in sorted((folder / "train").iterdir()):
            content.write(path, f"train/{path.name}")
    return archive


@pytest.mark.parametrize("kind", ["zip_stored", "zip_deflated", "tar", "tar_dotted"])
def test_a_member_is_what_the_file_was(folder: Path, kind: str) -> None:
    for place in (pack(folder, kind), folder.parent / "shards"):  # the archive itself, and as a shard in a folder
        store = ImageStore([place])
        for name in ("a.png", "train/b.png"):  # the folder that holds all may be left out
            path = store.find(name)
            assert path
            with open_image(path) as member:
                assert member.read() == (folder / "train" / Path(name).name).read_bytes()
            assert image_size(path) == (4, 3)
            expected = (255, 0, 0) if name == "a.png" else (0, 255, 0)
            assert read_image(Path(path), (3, 4)).getpixel((0, 0)) == expected
        assert store.find("train/c.png") is None


def test_places_are_searched_in_order_and_never_left(folder: Path) -> None:
    store = ImageStore([folder, folder / "train"])
    assert store.find("b.png") == str(folder / "train" / "b.png")
    assert store.find("gone.png", "train/a.png") == str(folder / "train" / "a.png")
    (folder.parent / "c.png").write_bytes((folder / "train" / "a.png").read_bytes())
    for name in ("../c.png", str(folder.parent / "c.png"), "train", "", "..", "/", "a\0.png", "x" * 5000, "\ud800"):
        assert store.find(name) is None


@pytest.mark.parametrize("kind", ["folder", "zip_deflated"])
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("train\\a.png", "train/a.png"),
        ("C:\\Users\\me\\train\\b.png", "train/b.png"),
        ("..\\..\\label-studio\\media\\upload\\4\\a.png", "train/a.png"),
        ("/data/local-files/?d=photos/train/a.png", "train/a.png"),
        ("file:///mnt/photos/train/b.png", "train/b.png"),
        ("TRAIN/A.PNG", "train/a.png"),
        ("train/b.PNG", "train/b.png"),
        ("train/Gr%C3%B6%C3%9Fe%20%C3%A9.png", "train/Größe é.png"),
        (unicodedata.normalize("NFD", "train/Größe é.png"), "train/Größe é.png"),
        ("other/a.png", ""),
        ("/elsewhere/c.png", ""),
    ],
)
def test_names_that_another_system_or_tool_wrote(folder: Path, kind: str, name: str, meant: str) -> None:
    (folder / "train" / "Größe é.png").write_bytes((folder / "train" / "a.png").read_bytes())
    found = ImageStore([folder if kind == "folder" else pack(folder, kind)]).find(name)
    assert (found or "").endswith(meant)
    assert bool(found) == bool(meant)


def test_a_name_that_may_be_one_of_two_files_is_none(folder: Path) -> None:
    (folder / "val").mkdir()
    (folder / "val" / "a.png").write_bytes(b"")
    store = ImageStore([folder])
    assert store.find("/mnt/a.png") is None
    assert store.find("/mnt/val/a.png") == str(folder / "val" / "a.png")
    assert store.find("/mnt/b.png") == str(folder / "train" / "b.png")


def test_what_macos_leaves_in_archives_is_no_image(folder: Path) -> None:
    archive = folder.parent / "train.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.write(folder / "train" / "a.png", "train/a.png")
        content.writestr("__MACOSX/train/._a.png", b"Mac OS X")
        content.writestr(".DS_Store", b"")
        content.writestr("train\\b.png", (folder / "train" / "b.png").read_bytes())
    (folder.parent / "._train.zip").write_bytes(b"Mac OS X")
    store = ImageStore([folder.parent])
    assert store.archives == [archive]
    assert [bool(store.find(name)) for name in ("a.png", "b.png", "train/a.png", "._a.png", ".DS_Store")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_an_archive_that_changed_is_an_unreadable_image(folder: Path) -> None:
    archive = pack(folder, "zip_deflated")
    path = ImageStore([archive]).find("b.png")
    assert path
    content = archive.read_bytes()
    archive.write_bytes(b"\xff" * len(content))
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(Path(path))
    archive.write_bytes(content[:50])
    with pytest.raises(ImageError, match="shorter than it was"):
        read_image(Path(path))
    assert image_size(path) is None


def test_the_size_is_that_of_the_image_as_it_is_seen(tmp_path: Path) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        path = tmp_path / f"{orientation}.jpg"
        Image.new("RGB", (4, 3)).save(path, exif=exif)
        assert image_size(str(path)) == read_image(path).size == ((4, 3) if orientation < 5 else (3, 4))


def test_what_is_no_archive_is_refused(folder: Path) -> None:
    broken = folder.parent / "broken.zip"
    broken.write_text("no zip")
    for place, message in (
        (broken, "not a zip or uncompressed tar file"),
        (pack(folder, "tar.gz"), "not a zip or uncompressed tar file"),
        (pack(folder, "zip_bz2"), "otherwise than by deflate"),
        (folder / "gone", "give a folder, a zip file or an uncompressed tar file"),
    ):
        with pytest.raises(InputError, match=message):
            ImageStore([place])
