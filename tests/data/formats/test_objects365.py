from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from coco_files import SIZED, one_box, written

from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.coco import read_coco
from trex2_lightning.data.formats.objects365 import read_objects365
from trex2_lightning.data.images.archives import ImageStore

Pictures = Callable[..., Path]
# See test_every_format.py.
SAMPLE: Any = ({"a.json": one_box(file_name="x/y/a.jpg")}, ["a.json"], [], ["dog"])


def test_objects365_finds_files_by_the_end_of_their_names(pictures: Pictures) -> None:
    names = ["images/v1/patch8/objects365_v1_7.jpg", "images/v2/patch16/objects365_v2_3.jpg"]
    content = one_box() | {"images": [SIZED | {"id": number, "file_name": name} for number, name in enumerate(names)]}
    store = ImageStore([pictures("patch8/objects365_v1_7.jpg", "objects365_v2_3.jpg")])
    file, report = written(store.places[0].parent / "a.json", content), Report()
    images = list(read_objects365(file, store, report))
    assert [Path(image.path).name for image in images] == ["objects365_v1_7.jpg", "objects365_v2_3.jpg"]
    assert not report.counts
    assert list(read_coco(file, store, report)) == []
    assert report.counts == {"image file missing": 2}
