"""Images in folders, or packed in zip and tar files: a path that any worker can open without a table of contents.

An image in a folder has the path of its file, one in an archive `ARCHIVE::START+LENGTH::NAME`: where its bytes are, so
that reading it is one seek in whatever process, and no worker keeps a list of a million members. A `z` behind the
length marks bytes deflated by zip.
"""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image

from trex2_lightning.data.images.file_names import Listing, is_file, is_litter, stays_inside
from trex2_lightning.errors import InputError

MEMBER = re.compile(r"(?P<archive>.+?)::(?P<start>\d+)\+(?P<length>\d+)(?P<deflated>z?)::")
ARCHIVES = (".zip", ".tar")
# What Pillow's formats raise on bytes that are no image.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


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
        inside = [name for name in names if stays_inside(name)]
        for name in inside:
            for folder in self._folders:
                if is_file(folder / name):
                    return str(folder / name)
            if name in self._members:
                return self._members[name]
        if self._listing is None:
            self._listing = Listing(self._folders, self._members)
        for name in names:
            if found := self._listing.find(name):
                return found
        return str(self._folders[0] / inside[0]) if inside and not self._look else None

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
    length = int(found["length"])
    with Path(found["archive"]).open("rb") as archive:
        archive.seek(int(found["start"]))
        content = archive.read(length)
    if len(content) < length:
        raise OSError("the archive is shorter than it was when it was indexed")
    try:
        return io.BytesIO(zlib.decompress(content, -zlib.MAX_WBITS) if found["deflated"] else content)
    except zlib.error as error:
        raise OSError(str(error)) from error


def image_size(path: str) -> tuple[int, int] | None:
    """Width and height of an image as it is seen, turned by its EXIF orientation; None: not an image."""
    try:
        with open_image(path) as file, Image.open(file) as image:
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
    except (tarfile.TarError, zipfile.BadZipFile, OSError) as error:
        raise InputError(
            f"{archive}: not a zip or uncompressed tar file ({error}); unpack it, or pack it anew"
        ) from error


def _name(member: str) -> str:
    return member.replace("\\", "/").removeprefix("./")
