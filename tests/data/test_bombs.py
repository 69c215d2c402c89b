"""Short files that would become gigabytes are refused by the name of the limit; the limits are made small here."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trex2_lightning.data.annotations import limits
from trex2_lightning.data.annotations.json_files import json_lines, json_lists, json_whole
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.odvg import read_odvg
from trex2_lightning.data.formats.openimages import read_openimages
from trex2_lightning.data.formats.sa1b import read_sa1b
from trex2_lightning.data.formats.voc import read_voc
from trex2_lightning.data.formats.yolo import read_yolo
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

Pictures = Callable[..., Path]
SMALL = {"LONGEST": 2000, "WHOLE_FILE": 5000, "OF_AN_IMAGE": 3000, "UNPACKED": 10_000, "TIMES": 10}
ENDLESS = " " * 20_000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(limits, name, value)
    monkeypatch.setattr("trex2_lightning.data.annotations.json_files.WINDOW", 100)


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    def write(*names: str) -> Path:
        (tmp_path / "pictures").mkdir(exist_ok=True)
        for name in names:
            Image.new("RGB", (40, 30)).save(tmp_path / "pictures" / name)
        return tmp_path / "pictures"

    return write


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


# Annotation files


@pytest.mark.parametrize(
    "text",
    [
        '{"info": "' + "x" * 9000 + '", "images": []}',
        '{"images": [{"file_name": "' + "x" * 9000 + '"}]}',
        '{"images": [' + "[" * 9000,
        '{"images": [' + "1" * 9000,
    ],
    ids=["value", "entry", "brackets", "digits"],
)
def test_an_entry_of_json_has_an_end(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    told = refusal(lambda: [*json_lists(tmp_path / "a.json", Report())])
    assert "LONGEST in data/annotations/limits.py" in told or "recursion" in told.lower()


def test_a_long_list_is_read_entry_by_entry(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"images": [{"id": number} for number in range(1000)]}))
    assert len([*json_lists(tmp_path / "a.json", Report())]) == 1000


def test_a_line_has_an_end(tmp_path: Path, pictures: Pictures) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": "' + "x" * 9000)
    assert "LONGEST in data/annotations/limits.py" in refusal(lambda: [*json_lines(tmp_path / "a.jsonl", Report())])
    classes = tmp_path / "classes.csv"
    classes.write_text("/m/1,dog\n")
    for text in (f"ImageID,LabelName,{ENDLESS}", "a," * 9000):
        (tmp_path / "a.csv").write_text(text)
        store = ImageStore([pictures("a.jpg")])
        told = refusal(lambda: [*read_openimages(tmp_path / "a.csv", classes, store, Report())])  # noqa: B023
        assert "LONGEST in data/annotations/limits.py" in told


class Endless(RawIOBase):
    """Gives blanks, and fails where somebody asks for all."""

    given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.given += len(buffer)
        assert self.given < 10 * limits.LONGEST, "it is read whole"
        buffer[:] = b" " * len(buffer)
        return len(buffer)


def test_an_endless_line_is_not_waited_for() -> None:
    file: Any = BufferedReader(Endless(), 100)
    assert "LONGEST in" in refusal(lambda: [*limits.lines_of(file, Path("a.jsonl"))])


def test_a_gzipped_file_comes_to_a_few_times_its_length(tmp_path: Path) -> None:
    plain = json.dumps({"images": [{"id": 1}] * 9000})
    packed = tmp_path / "a.json.gz"
    packed.write_bytes(gzip.compress(plain.encode()))
    assert packed.stat().st_size < len(plain) / 100
    told = refusal(lambda: [*json_lists(packed, Report())])
    assert "TIMES in data/annotations/limits.py" in told
    assert "unpack it by yourself" in told
    (tmp_path / "a.json").write_text(plain)
    assert len([*json_lists(tmp_path / "a.json", Report())]) == 9000, "as it is told"
    lines = tmp_path / "a.jsonl.gz"
    lines.write_bytes(gzip.compress(b'{"a": 1}\n' * 9000))
    assert "TIMES in" in refusal(lambda: [*json_lines(lines, Report())])
    blank = tmp_path / "b.json.gz"
    blank.write_bytes(gzip.compress(ENDLESS.encode()))
    assert "TIMES in" in refusal(lambda: [*json_lists(blank, Report())])


def test_short_gzipped_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps({"images": [{"id": 1}] * 900}).encode()))
    assert len([*json_lists(tmp_path / "a.json.gz", Report())]) == 900


def test_files_that_are_read_whole_are_short(tmp_path: Path, pictures: Pictures) -> None:
    store = ImageStore([pictures("a.jpg")])
    folder = tmp_path / "annotations"
    folder.mkdir()
    long = folder / "long.json"
    long.write_text(f"[1, {ENDLESS} 1]")
    assert "WHOLE_FILE in data/annotations/limits.py" in refusal(lambda: json_whole(long, Report(), list))
    lines = tmp_path / "a.jsonl"
    lines.write_text("{}")
    assert "WHOLE_FILE in" in refusal(lambda: [*read_odvg(lines, store, Report(), long)])
    assert "OF_AN_IMAGE in" in refusal(lambda: [*read_sa1b(folder, store, Report())])
    (folder / "a.xml").write_text(f"<annotation>{ENDLESS}</annotation>")
    assert "OF_AN_IMAGE in" in refusal(lambda: [*read_voc(folder, store, Report())])
    (tmp_path / "data.yaml").write_text("train: pictures\nnames: [dog]")
    (tmp_path / "pictures/a.txt").write_text(ENDLESS)
    assert "OF_AN_IMAGE in" in refusal(lambda: [*read_yolo(tmp_path / "data.yaml", Report())])
    (tmp_path / "data.yaml").write_text(f"names: [dog] #{ENDLESS}")
    assert "WHOLE_FILE in" in refusal(lambda: [*read_yolo(tmp_path / "data.yaml", Report())])


@pytest.mark.parametrize("depth", [10_000])
def test_json_may_be_nested_however_deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int) -> None:
    monkeypatch.setattr(limits, "LONGEST", 10**6)
    monkeypatch.setattr(limits, "WHOLE_FILE", 10**6)
    (tmp_path / "a.json").write_text("[" * depth)
    for reader in (lambda p: [*json_lists(p, Report())], lambda p: json_whole(p, Report(), list)):
        assert refusal(lambda: reader(tmp_path / "a.json"))  # noqa: B023
    (tmp_path / "a.jsonl").write_text("[" * depth + '\n{"a": 1}\n')
    report = Report()
    assert len([*json_lines(tmp_path / "a.jsonl", report)]) == 1
    assert report.counts["line that is not JSON"] == 1


LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha">{}]><annotation><filename>&j;</filename></annotation>'.format(
    "".join(
        f'<!ENTITY {b} "&{a};&{a};&{a};&{a};&{a};&{a};&{a};&{a};">'
        for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )
)


def test_xml_that_defines_entities_is_none(tmp_path: Path, pictures: Pictures) -> None:
    """Whichever expat there is: those before 2.4 have no limit of their own."""
    (tmp_path / "xml").mkdir()
    secret = '<!DOCTYPE a [<!ENTITY j SYSTEM "file:///etc/hostname">]><annotation><filename>&j;</filename></annotation>'
    for encoding in ("utf-8", "utf-16"):
        for text in (LAUGHS, secret):
            (tmp_path / "xml/a.xml").write_bytes(text.encode(encoding))
            report = Report()
            assert [*read_voc(tmp_path / "xml", ImageStore([pictures("a.jpg")]), report)] == []
            assert report.counts == {"annotation file that is not XML": 1}
    (tmp_path / "xml/a.xml").write_text("<!DOCTYPE annotation><annotation><filename>a.jpg</filename></annotation>")
    assert len([*read_voc(tmp_path / "xml", ImageStore([pictures("a.jpg")]), Report())]) == 1


@pytest.mark.parametrize("key", ["path", "train", "names", "kpt_shape"])
def test_yaml_with_aliases_is_none(tmp_path: Path, key: str) -> None:
    laughs = ["a: &a [ha, ha]"] + [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdef", "bcdefg", strict=True)
    ]
    lines = {"path": ".", "train": "images", "names": "[dog]"} | {key: "*g"}
    (tmp_path / "data.yaml").write_text("\n".join([*laughs, *(f"{k}: {v}" for k, v in lines.items())]))
    assert "not YAML without aliases" in refusal(lambda: [*read_yolo(tmp_path / "data.yaml", Report())])


def test_numbers_of_thousands_of_digits_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python refuses to read them with an error of its own."""
    monkeypatch.setattr(limits, "OF_AN_IMAGE", 5000)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "images/a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("9" * 4500 + " .5 .5 .5 .5\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [dog]\n")
    report = Report()
    [image] = read_yolo(tmp_path / "data.yaml", report)
    assert len(image.boxes) == 0
    (tmp_path / "data.yaml").write_text("names: {" + "9" * 900 + ": dog}\ntrain: images\n")
    assert "has no 'names'" in refusal(lambda: [*read_yolo(tmp_path / "data.yaml", Report())])
