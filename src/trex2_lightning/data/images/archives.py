"""Images in folders, or packed in zip and tar files: a path that any worker can open without a table of contents.

An image in a folder has the path of its file, one in an archive `ARCHIVE::START+LENGTH::NAME`: where its bytes are, so
that reading it is one seek in whatever process, and no worker keeps a list of a million members. A `z` behind the
length marks bytes deflated by zip.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from PIL import ExifTags, Image

from trex2_lightning.data.images.file_names import Listing, can_be, is_file, is_litter, stays_inside
from trex2_lightning.errors import InputError

MEMBER = re.compile(r"(?P<archive>.+?)::(?P<start>\d+)\+(?P<length>\d+)(?P<deflated>z?)::")
ARCHIVES = (".zip", ".tar")
_LIMIT = Lock()
# What Pillow's formats raise on bytes that are no image.
# Of what Pillow reads; not EPS, of which it has another program run what the file says.
PICTURE_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF", "TGA")
MAX_PIXELS = "TREX2_MAX_PIXELS"  # of the environment, not of the settings, which may be a stranger's checkpoint's
MOST_PIXELS = 100_000_000  # of an image, where it says nothing
PACKED_BYTES = 4  # of a file, packed, for each pixel that an image may have
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, Image.DecompressionBombError)


class ImageStore:
    """The images of a data set by the names that its annotations give them.

    Args:
        places: folders, zip files and uncompressed tar files; a folder may hold such files as shards. A name is looked
            for in one after the other.
        look: False: a name that nothing is found by is taken to be one of a file in the first place, a folder.

    Attributes:
        archives: the zip and tar files; where they change, paths into them are wrong.

    Raises:
        InputError: a place is missing, or an archive cannot be read.
    """

    def __init__(self, places: Sequence[Path], *, look: bool = True) -> None:
        self.places = [place.resolve() for place in places]
        self.archives = list(self._find_archives()) if look else []
        self._look = look
        self._folders = [place for place in self.places if place.is_dir()]
        self._members: dict[str, str] = {}
        self._listing: Listing | None = None  # made where a name is not there as it is spelt
        for archive in self.archives:
            members = {name: path for name, path in _members(archive) if not is_litter(name)}
            for name, path in members.items():
                self._members.setdefault(name, path)
            if len({name.partition("/")[0] for name in members}) == 1:  # one folder holds all: name or leave it
                for name, path in members.items():
                    self._members.setdefault(name.partition("/")[2], path)

    def find(self, *names: str) -> str | None:
        """The path of the first of `names` that is there, or of what one of them means, spelt otherwise (`Listing`).

        A name that leads out of its place never does: of such, what its end means there is found.
        """
        for name in names:
            if found := self._find(name):
                return found
        inside = [] if self._look else [name for name in names if stays_inside(name) and can_be(name)]
        return str(self._folders[0] / inside[0]) if inside else None

    def _find(self, name: str) -> str | None:
        if stays_inside(name):
            for folder in self._folders:
                if is_file(folder / name):
                    return str(folder / name)
            if name in self._members:
                return self._members[name]
        if self._listing is None:
            self._listing = Listing(self._folders, self._members)
        return self._listing.find(name)

    def _find_archives(self) -> Iterator[Path]:
        for place in self.places:
            if place.is_dir():
                try:
                    inside = sorted(path for path in place.iterdir() if path.suffix in ARCHIVES)
                    yield from (path for path in inside if not is_litter(path.name))
                except OSError as error:
                    raise InputError(f"{place}: cannot be read ({error.strerror}); give a folder that can") from error
            elif place.suffix in ARCHIVES and place.is_file():
                yield place
            else:
                raise InputError(f"{place}: give a folder, a zip file or an uncompressed tar file with the images")


def open_image(path: Path | str) -> BinaryIO:
    """The bytes of a file, or of an archive's member.

    Raises:
        OSError: there is no such file, or it is shorter than it was.
    """
    found = MEMBER.match(str(path))
    if not found:
        return Path(path).open("rb")
    length, most = int(found["length"]), PACKED_BYTES * most_pixels()
    too_long = f"comes to more than {most:,} bytes, {PACKED_BYTES} for each pixel of {MAX_PIXELS}"
    if length > most:
        raise OSError(too_long)
    with Path(found["archive"]).open("rb") as archive:
        archive.seek(int(found["start"]))
        content = archive.read(length)
    if len(content) < length:
        raise OSError("the archive is shorter than it was when it was indexed")
    if not found["deflated"]:
        return io.BytesIO(content)
    try:
        unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
        plain = unpacking.decompress(content, most)
    except zlib.error as error:
        raise OSError(str(error)) from error
    if unpacking.unconsumed_tail:
        raise OSError(too_long)
    if not unpacking.eof:
        raise OSError("its packed bytes end too early")
    return io.BytesIO(plain)


def most_pixels() -> int:
    """That an image may have: what `MAX_PIXELS` says.

    Raises:
        InputError: it says no number.
    """
    said = os.environ.get(MAX_PIXELS, str(MOST_PIXELS))
    if not said.isdecimal() or len(said) > 18:
        raise InputError(f"{MAX_PIXELS}={said[:40]} is no number of pixels: give one such as {MOST_PIXELS}")
    return int(said)


def decoded_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of the most that is decoded at once: an image, or a tile of a TIFF, which may be far larger."""
    tags = getattr(image, "tag_v2", {})
    width, height = (tags.get(tag) for tag in (ExifTags.Base.TileWidth, ExifTags.Base.TileLength))
    tiles = [(width, height)] if isinstance(width, int) and isinstance(height, int) else []
    return max([image.size, *tiles], key=lambda size: size[0] * size[1])


def too_large(width: int, height: int) -> str:
    """What is wrong with an image of this size, to stand behind its name; "": nothing."""
    most = most_pixels()
    if width * height <= most:
        return ""
    return (
        f"has {width} x {height} pixels, and {MAX_PIXELS}={most} are the most: make it smaller, or set {MAX_PIXELS} in "
        "the environment where it is meant"
    )


def opened_image(file: BinaryIO) -> Image.Image:
    """A file as Pillow opens it, which reads its head alone; whoever decodes asks `too_large` before.

    Raises:
        OSError: it is none of `PICTURE_FORMATS`.
    """
    with _LIMIT:  # Pillow's own limit knows no other number
        own, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=_known_formats())
        finally:
            Image.MAX_IMAGE_PIXELS = own


@cache
def _known_formats() -> tuple[str, ...]:
    """Those of `PICTURE_FORMATS` that this Pillow reads."""
    Image.init()
    return tuple(name for name in PICTURE_FORMATS if name in Image.OPEN)


def image_size(path: str) -> tuple[int, int] | None:
    """Width and height of an image as it is seen, turned by its EXIF orientation; None: not an image."""
    try:
        with open_image(path) as file, opened_image(file) as image:
            if too_large(*image.size):
                return image.size  # a PNG is decoded for what it says of its orientation
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return image.size[::-1] if turned else image.size
    except UNREADABLE:
        return None


def _members(archive: Path) -> Iterator[tuple[str, str]]:
    try:
        if archive.suffix == ".tar":
            with tarfile.open(archive, "r:") as tar:
                for member in tar:
                    if member.isfile():
                        yield _name(member.name), f"{archive}::{member.offset_data}+{member.size}::{member.name}"
            return
        with zipfile.ZipFile(archive) as content, archive.open("rb") as raw:
            for info in content.infolist():
                if info.is_dir():
                    continue
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
                    raise InputError(f"{archive}: {info.filename} is encrypted or compressed otherwise than by deflate")
                raw.seek(info.header_offset + 26)  # lengths of name and extra field, which the contents may differ in
                start = info.header_offset + 30 + sum(int.from_bytes(raw.read(2), "little") for _ in range(2))
                mark = "z" if info.compress_type == zipfile.ZIP_DEFLATED else ""
                yield _name(info.filename), f"{archive}::{start}+{info.compress_size}{mark}::{info.filename}"
    except InputError:
        raise
    except (tarfile.TarError, zipfile.BadZipFile, *UNREADABLE, ArithmeticError) as error:  # sizes may be any numbers
        raise InputError(
            f"{archive}: not a zip or uncompressed tar file ({error}); unpack it, or pack it anew"
        ) from error


def _name(member: str) -> str:
    return member.replace("\\", "/").removeprefix("./")
