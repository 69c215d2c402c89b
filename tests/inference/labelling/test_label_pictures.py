"""Interrupted and resumed, in shards or at once: the same files, and every picture once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from trex2_lightning.__main__ import run
from trex2_lightning.data.images.image_files import read_image
from trex2_lightning.errors import InputError
from trex2_lightning.inference.labelling.label_pictures import Work, Written, label_pictures, write_labels
from trex2_lightning.inference.labelling.labeller import Labeller
from trex2_lightning.inference.labelling.rows import LabelRow, judged_row
from trex2_lightning.inference.labelling.sources import Shard, Source, find_pictures
from trex2_lightning.inference.labelling.uncertain import most_uncertain, write_sheet
from trex2_lightning.structures import Detection

Pictures = Callable[..., Path]
NAMES = [f"{number}.jpg" for number in range(8)] + ["sub/8.jpg", "sub/9.jpg"]
WORK = Work(batch_size=4, workers=0)


def ignored(*_: int | None) -> None:
    """Nobody is told."""


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".txt")}


def done(labeller: Labeller, source: Source, folder: Path, work: Work = WORK) -> Written:
    label_pictures(labeller, source, folder, work, ignored)
    return write_labels(labeller, source, folder, "coco", work)


@pytest.fixture
def source(pictures: Pictures) -> Source:
    folder = pictures(*NAMES)
    (folder / "5.jpg").write_text("torn")
    return find_pictures(str(folder))


@pytest.fixture
def no_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing it takes longer than all else."""
    monkeypatch.setattr("trex2_lightning.inference.labelling.label_pictures.write_sheet", lambda *_: False)


@pytest.fixture
def whole(no_sheet: None, labeller: Labeller, source: Source, tmp_path: Path) -> dict[str, bytes]:
    """The files of a call that nothing interrupts."""
    done(labeller, source, tmp_path / "whole")
    return files_of(tmp_path / "whole")


def test_every_picture_is_labelled_or_named(labeller: Labeller, source: Source, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    label_pictures(labeller, source, tmp_path / "out", WORK, lambda number, total: told.append((number, total)))
    written = write_labels(labeller, source, tmp_path / "out", "coco", WORK)
    assert told == [(0, 10), (4, 10), (8, 10), (10, 10)]
    content = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [name for name in NAMES if name != "5.jpg"]
    assert written.pictures == 10
    assert [name for name, _ in written.skipped] == ["5.jpg"]
    assert (tmp_path / "out" / "skipped.txt").read_text().startswith("5.jpg: cannot be read (")
    numbers = Counter(box["category_id"] for box in content["annotations"])
    assert written.counts == {"red block": numbers[1], "blue block": numbers[2]}
    assert {path.name for path in written.files} == {"labels.json", "uncertain.png", "skipped.txt"}


def test_a_batch_finds_what_the_predictor_finds(
    no_sheet: None, labeller: Labeller, source: Source, tmp_path: Path
) -> None:
    done(labeller, source, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "labels.json").read_text())
    for image in content["images"]:
        found = [box for box in content["annotations"] if box["image_id"] == image["id"]]
        expected = labeller.predictor.detect(source.root / image["file_name"], labeller.prompts, threshold=0.0)
        best, (left, top, right, bottom) = found[0], expected[0].box
        assert len(found) == len(expected)
        assert best["score"] == pytest.approx(expected[0].score, abs=1e-4)
        assert best["bbox"] == pytest.approx((left, top, right - left, bottom - top), abs=0.05)


@pytest.mark.parametrize("stops", [(4, 4), (0, 8, 10)])
def test_interrupted_and_resumed(
    labeller: Labeller, source: Source, tmp_path: Path, whole: dict[str, bytes], stops: tuple[int, ...]
) -> None:
    """In the middle of a line too."""
    folder = tmp_path / "out"
    for stop in stops:

        def interrupt(number: int, _: int, stop: int = stop) -> None:
            if number >= stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            label_pictures(labeller, source, folder, WORK, interrupt)
        [journal] = (folder / "journal").iterdir()
        with journal.open("ab") as file:
            file.write(b'{"rows": [{"name": "0.j')
    done(labeller, source, folder)
    assert files_of(folder) == whole
    rows = [row["name"] for line in journal.read_text().splitlines()[1:] for row in json.loads(line)["rows"]]
    assert Counter(rows) == dict.fromkeys(NAMES, 1)


def test_shards_and_the_last_call_make_the_same_files(
    labeller: Labeller, source: Source, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """The last call does what no shard has done."""
    folder, looked = tmp_path / "out", []
    for number in (3, 1):
        work = WORK._replace(shard=Shard(number, 3))
        label_pictures(labeller, source, folder, work, lambda one, total: looked.append((one, total)))
    assert looked == [(0, 2), (2, 2), (0, 4), (4, 4)]
    label_pictures(labeller, source, folder, WORK, lambda one, total: looked.append((one, total)))
    assert looked[4:] == [(6, 10), (10, 10)]
    write_labels(labeller, source, folder, "coco", WORK)
    assert files_of(folder) == whole


def test_workers_change_nothing(labeller: Labeller, source: Source, tmp_path: Path, whole: dict[str, bytes]) -> None:
    done(labeller, source, tmp_path / "out", WORK._replace(workers=2))
    assert files_of(tmp_path / "out") == whole


def test_a_picture_that_came_later_is_labelled_too(
    no_sheet: None, labeller: Labeller, source: Source, tmp_path: Path, pictures: Pictures
) -> None:
    done(labeller, source, tmp_path / "out")
    more = find_pictures(str(pictures("3b.jpg")))
    assert done(labeller, more, tmp_path / "out").pictures == 11
    content = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert "3b.jpg" in [image["file_name"] for image in content["images"]]


def test_files_of_others_are_not_replaced(labeller: Labeller, source: Source, tmp_path: Path) -> None:
    truth = tmp_path / "VOC" / "Annotations" / "1.xml"
    truth.parent.mkdir(parents=True)
    truth.write_text("ground truth")
    with pytest.raises(InputError, match="Annotations is from elsewhere, and labels would replace it: give another"):
        label_pictures(labeller, source, tmp_path / "VOC", WORK, ignored)
    assert [path.name for path in (tmp_path / "VOC").iterdir()] == ["Annotations"]


def test_a_folder_of_another_calibration_is_refused(
    no_sheet: None, labeller: Labeller, source: Source, tmp_path: Path
) -> None:
    """`trex2 calibrate` leaves the weights as they are."""
    done(labeller, source, tmp_path / "out")
    labeller.predictor.module.detector.calibration.threshold += 0.1
    with pytest.raises(InputError, match="was begun with other calibration: give another folder"):
        label_pictures(labeller, source, tmp_path / "out", WORK, ignored)


def test_the_sheet_shows_the_nearest_scores(tmp_path: Path, pictures: Pictures) -> None:
    least, box = {"cell": 0.5}, (1.0, 2.0, 30.0, 40.0)
    root = pictures(*(f"{place}.jpg" for place in range(14)))
    scores = [0.1 + 0.03 * place for place in range(14)]  # 0.49, the last, is nearest
    rows = [judged_row(f"{p}.jpg", (60, 60), [Detection("cell", s, box)], least) for p, s in enumerate(scores)]
    doubtful = most_uncertain([*rows, LabelRow("none.jpg", 60, 60)], least)
    assert [row.name for row, _ in doubtful] == [f"{place}.jpg" for place in range(13, 1, -1)]
    (root / "13.jpg").unlink()
    assert write_sheet(root, doubtful, least, tmp_path / "sheet.png")
    assert read_image(tmp_path / "sheet.png").width > 1000
    assert not write_sheet(root, (), least, tmp_path / "nothing.png")


@pytest.mark.ci
def test_killed_twice_200_pictures_have_the_same_files(
    visual_checkpoint: Path, pictures: Pictures, tmp_path: Path
) -> None:
    """On photographs, where there are some."""
    if data := os.environ.get("TREX2_DATA"):
        listed = [str(path) for path in islice(sorted(Path(data, "groceries", "test").glob("*.jpg")), 200)]
    else:
        listed = [str(pictures(*(f"{n}.jpg" for n in range(200))) / f"{n}.jpg") for n in range(200)]
    (tmp_path / "list.txt").write_text("\n".join(listed))
    base = ["label", str(tmp_path / "list.txt"), "--ckpt", str(visual_checkpoint), "--text", "red block"]
    base += ["--threshold", "0.01", "--workers", "1", "--output"]
    for lines in (3, 9):
        command = [sys.executable, "-m", "trex2_lightning", *base, str(tmp_path / "out")]
        process = subprocess.Popen(command, start_new_session=True)
        journal = tmp_path / "out" / "journal" / "1-of-1.jsonl"
        while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out" / "labels.json").exists()
    for folder in ("out", "whole"):
        run([*base, str(tmp_path / folder)])
    assert len(json.loads((tmp_path / "out" / "labels.json").read_text())["images"]) == 200
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert (tmp_path / "out" / "uncertain.png").read_bytes() == (tmp_path / "whole" / "uncertain.png").read_bytes()
