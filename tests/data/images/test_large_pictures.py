"""Pictures that would become gigabytes, or have other programs run, are refused before they are decoded."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from struct import pack
from typing import Any
from zlib import crc32

import pytest
from PIL import Image

from trex2_lightning.data.formats import every_format
from trex2_lightning.data.images.archives import ImageStore, image_size, open_image
from trex2_lightning.data.images.image_files import ImageError, read_image
from trex2_lightning.data.opening import read_records
from trex2_lightning.errors import InputError


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as error:
        call()
    return str(error.value)


def png(width: int, height: int) -> bytes:
    file = BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def test_a_picture_is_measured_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(png(300, 400))
    monkeypatch.setenv("TREX2_MAX_PIXELS", "120000")
    assert read_image(picture).size == (300, 400)
    monkeypatch.setenv("TREX2_MAX_PIXELS", "119999")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("it was decoded"))
    for given in (picture, picture.read_bytes()):
        told = refusal(lambda: read_image(given))  # noqa: B023
        assert "has 300 x 400 pixels, and TREX2_MAX_PIXELS=119999 are the most" in told
    monkeypatch.setenv("TREX2_MAX_PIXELS", "many")
    assert "TREX2_MAX_PIXELS=many is no number" in refusal(lambda: read_image(picture))


def tiled(side: int, tile: int) -> bytes:
    """A TIFF of one tile, packed by LZW."""
    entries = {256: side, 257: side, 258: 8, 259: 5, 262: 1, 277: 1, 322: tile, 323: tile, 324: 8, 325: 4}
    table = b"".join(pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + pack("<I", 12) + b"\x80\x0b\x60\x50" + pack("<H", len(entries)) + table + bytes(4)


def test_a_tile_may_be_no_larger_than_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is decoded whole: 144 bytes of 16 x 16 pixels took a gigabyte."""
    monkeypatch.setenv("TREX2_MAX_PIXELS", "100000")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("it was decoded"))
    (tmp_path / "a.tif").write_bytes(tiled(16, 512))
    assert image_size(str(tmp_path / "a.tif")) == (16, 16)
    assert "has 512 x 512 pixels, and TREX2_MAX_PIXELS" in refusal(lambda: read_image(tmp_path / "a.tif"))


def test_the_picture_of_half_a_megabyte_is_refused(tmp_path: Path) -> None:
    """13,000 x 13,000: Pillow's own limit lets twice 89 million pass. Made of its head alone."""
    head = bytearray(png(8, 8))
    for side in (13_000, 60_000):
        head[16:24] = side.to_bytes(4, "big") * 2
        head[29:33] = crc32(head[12:29]).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(head)
        assert image_size(str(tmp_path / "a.png")) == (side, side)
        with pytest.raises(ImageError, match=rf"has {side} x {side} pixels, and TREX2_MAX_PIXELS=100000000"):
            read_image(tmp_path / "a.png")
    assert Image.MAX_IMAGE_PIXELS, "Pillow's own limit stays for everything else"


def test_large_pictures_are_told_before_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREX2_MAX_PIXELS", "1000")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    content = {"images": [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 30}], "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps(content | {"categories": [{"id": 1, "name": "dog"}]}))
    told = refusal(lambda: read_records(tmp_path / "a.json", tmp_path, every_format()["coco"]))
    assert "image 7: 40 x 30: image of more pixels than TREX2_MAX_PIXELS=1000" in told


def test_a_member_of_an_archive_comes_to_no_more_than_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", png(50, 50))
        archive.writestr("bad.png", b"\0" * 100_000)
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        info = tarfile.TarInfo("long.png")
        info.size = 100_000
        archive.addfile(info, BytesIO(bytes(100_000)))
    monkeypatch.setenv("TREX2_MAX_PIXELS", "5000")
    store = ImageStore([tmp_path])
    assert read_image(Path(store.find("good.png") or "")).size == (50, 50)
    for name in ("bad.png", "long.png"):
        path = store.find(name)
        assert path
        with pytest.raises(OSError, match="more than 20,000 bytes, 4 for each pixel of TREX2_MAX_PIXELS"):
            open_image(path)
        assert image_size(path) is None
    with pytest.raises(OSError, match="more than 20,000 bytes"):
        open_image(f"{tmp_path}/a.zip::0+{10**18}::huge.png")


def test_a_tar_file_may_say_any_size(tmp_path: Path) -> None:
    """Python's reader fails at some with errors of its own."""
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.png")
        info.pax_headers = {"size": "9" * 20}
        archive.addfile(info)
    assert "not a zip or uncompressed tar file" in refusal(lambda: ImageStore([tmp_path / "a.tar"]))


def test_a_picture_runs_no_other_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow has Ghostscript run what an EPS says, whatever the file is called."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", "EPS")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    assert "cannot identify image file" in refusal(lambda: read_image(tmp_path / "a.jpg"))
    assert image_size(str(tmp_path / "a.jpg")) is None
