"""What a run can learn from: counted, told and refused before it starts."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datamodule_parts import MIXED, datamodule, edit, named_and_nameless

from trex2_lightning.commands import audit as audit_command
from trex2_lightning.config import Config, NamelessConfig, NegativesConfig, SetConfig, SplitConfig
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.odvg import read_odvg
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.index.writing import build_index
from trex2_lightning.data.inventory import NAMES_TOLD, SetAudit, check, log_audits
from trex2_lightning.errors import InputError
from trex2_lightning.training.fit import train


def boxes_of(root: Path, split: str = "train") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((root / f"{split}.json").read_text())["annotations"]
    return found


def changed(root: Path, split: str, *chosen: int, **changes: Any) -> None:
    """Annotations of a split, all of them or those at `chosen`, with other values."""
    boxes = boxes_of(root, split)
    new = [box | changes if not chosen or place in chosen else box for place, box in enumerate(boxes)]
    edit(root / f"{split}.json", annotations=new)


def test_what_is_there_is_counted(tiny_coco: Path) -> None:
    boxes = boxes_of(tiny_coco)
    changed(tiny_coco, "train", 0, iscrowd=1)
    changed(tiny_coco, "train", 1, bbox=[3, 3, 0.5, 9])
    categories = json.loads((tiny_coco / "train.json").read_text())["categories"]
    names = {category["id"]: category["name"] for category in categories}
    edit(tiny_coco / "train.json", categories=[*categories, {"id": 99, "name": "held out"}])
    train_set, val = datamodule(tiny_coco).audits()
    assert (train_set.key, val.key) == ("data.train", "data.val")
    assert (train_set.num_images, train_set.targets, train_set.crowds, train_set.thin) == (6, len(boxes) - 2, 1, 1)
    left = {box["image_id"] for box in boxes[2:]}
    assert train_set.with_targets == len(left)
    assert (train_set.num_names, train_set.found_names) == (4, len({box["category_id"] for box in boxes[2:]}))
    counts = Counter(names[box["category_id"]] for box in boxes[2:]) | Counter({"held out": 0})
    assert dict(train_set.targets_of) == dict.fromkeys([*names.values(), "held out"], 0) | counts
    most = counts.most_common(1)[0][1]
    assert train_set.by_name.partition(",")[0].endswith(f" {most}")
    assert train_set.by_name.endswith(", held out 0")
    assert (train_set.negatives, train_set.judges, val.negatives) == (3, True, None)
    assert val.targets == len(boxes_of(tiny_coco, "val"))


def test_an_index_is_counted_as_its_file_is(tiny_coco: Path) -> None:
    from test_prepared_indexes import prepared

    changed(tiny_coco, "train", 0, iscrowd=1)
    changed(tiny_coco, "train", 1, bbox=[3, 3, 0.5, 9])
    changed(tiny_coco, "train", 2, bbox=[3, 3, 0, 9])
    [files, *_] = datamodule(tiny_coco).audits()
    [index, *_] = datamodule(tiny_coco, train=prepared(tiny_coco, "train")).audits()
    assert index._replace(place=files.place) == files
    assert files.lost["box without area"][0] == 1


def test_of_a_limited_split_its_first_images_are_counted(tiny_coco: Path) -> None:
    [train_set, val] = datamodule(tiny_coco, limit=2).audits()
    assert (train_set.num_images, val.num_images > 2) == (2, True)


def test_every_set_is_counted(tiny_coco: Path) -> None:
    named_and_nameless(tiny_coco)
    files = SetConfig("train.json", "train", text=1.0, visual=1.0)
    sets = {"one": files, "two": SetConfig("train.json", "train", visual=1.0)}
    one, two, nameless, val = datamodule(
        tiny_coco, rhythm=MIXED, sets=sets, nameless=NamelessConfig("nameless.json", "train", 0.5)
    ).audits()
    assert [some.key for some in (one, two, nameless, val)] == [
        "data.sets.one",
        "data.sets.two",
        "data.nameless",
        "data.val",
    ]
    assert (one.negatives, two.negatives, nameless.negatives) == (3, None, None)
    assert nameless.targets == one.targets
    assert (nameless.num_names, nameless.found_names) == (0, 0)


@pytest.mark.parametrize(
    ("split", "changes", "reason"),
    [
        ("train", {"iscrowd": 1}, r"are crowds \(iscrowd=1"),
        ("train", {"bbox": [3, 3, 0.5, 9]}, "are less than a pixel wide or high"),
        ("train", {"bbox": [500, 3, 5, 9]}, r"x box outside its image \(image 1\)"),
        ("val", {"iscrowd": 1}, r"are crowds \(iscrowd=1"),
    ],
)
def test_a_run_that_nothing_can_come_of_is_refused(
    tiny_config: Callable[..., Config], tiny_coco: Path, split: str, changes: dict[str, Any], reason: str
) -> None:
    changed(tiny_coco, split, **changes)
    with pytest.raises(InputError, match=rf"^data\.{split} \(.*{split}\.json\): none of its \d images .*{reason}"):
        train(tiny_config())
    assert not tiny_config().folder.exists()


def test_val_without_a_box_is_refused(tiny_config: Callable[..., Config], tiny_coco: Path) -> None:
    edit(tiny_coco / "val.json", annotations=[])
    with pytest.raises(InputError, match=r"^data\.val .*: there is no box in it; mend the file, or give another one$"):
        train(tiny_config())


def test_a_large_loss_is_a_warning_with_an_example(tiny_coco: Path, caplog: pytest.LogCaptureFixture) -> None:
    changed(tiny_coco, "train", 0, bbox=[500, 3, 5, 9])
    changed(tiny_coco, "train", 1, iscrowd=1)
    audits = datamodule(tiny_coco).audits()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        log_audits(audits)
        check(audits)
    assert "data.train: 1 x box outside its image (image 1)" in caplog.messages
    assert "data.train: 1 x boxes are crowds: no targets" in caplog.messages
    assert sum(record.levelno == logging.INFO for record in caplog.records) == 4


def one(**values: Any) -> SetAudit:
    plain = SetAudit("data.train", "file", 100, 100, 1000, 0, 0, 3, 3, 16, True, {})
    return plain._replace(**values)


def test_of_many_names_both_ends_are_told(tiny_coco: Path) -> None:
    names = [{"id": number, "name": f"n{number}"} for number in range(1, 31)]
    edit(tiny_coco / "train.json", categories=names)
    [train_set, _] = datamodule(tiny_coco).audits()
    assert len(train_set.targets_of) == 2 * NAMES_TOLD
    assert re.fullmatch(r"(n\d+ \d+, ){10}\.\.\.(, n\d+ 0){10}", train_set.by_name)


def test_a_small_loss_is_none(caplog: pytest.LogCaptureFixture) -> None:
    check([one(lost={"box without area": (40, "image 1")}, crowds=40)])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_nothing_to_ask_for_is_refused_where_images_have_no_boxes(caplog: pytest.LogCaptureFixture) -> None:
    check([one(negatives=0)])
    assert "nothing to draw negatives from: training never asks for what is not there" in caplog.text
    with pytest.raises(InputError, match=r"^data\.train: nothing to draw negatives from, so images without boxes"):
        check([one(negatives=0, with_targets=99)])


def test_phrases_that_are_too_rare_for_the_dictionary_are_told(tiny_coco: Path) -> None:
    """A grounding set whose phrases never reach `data.negatives.more_than`."""
    lines = [
        {
            "filename": f"{number}.jpg",
            "height": 30,
            "width": 40,
            "grounding": {"caption": "a dog", "regions": [{"bbox": [1, 2, 9, 9], "phrase": "a dog"}] * (number < 3)},
        }
        for number in (1, 2, 3)
    ]
    (tiny_coco / "odvg.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = Report()
    images = read_odvg(tiny_coco / "odvg.jsonl", ImageStore([tiny_coco / "train"]), report)
    build_index(tiny_coco / "grounding", images, report, {})
    for more_than, negatives in ((5, 0), (1, 1)):
        data = datamodule(
            tiny_coco,
            sets={"g": SetConfig("grounding", text=1.0, kind="grounding")},
            negatives=NegativesConfig(more_than=more_than, foreign=0),
        )
        [grounding, _] = data.audits()
        assert grounding.negatives == negatives
        assert not grounding.judges  # a caption says nothing of what it does not name


def test_detections_without_a_label_map_judge_nothing_else(tiny_coco: Path, caplog: pytest.LogCaptureFixture) -> None:
    instance = {"bbox": [1, 2, 9, 9], "label": 0, "category": "dog"}
    line = {"filename": "1.jpg", "height": 30, "width": 40, "detection": {"instances": [instance]}}
    (tiny_coco / "odvg.jsonl").write_text(json.dumps(line))
    report = Report()
    build_index(
        tiny_coco / "odvg", read_odvg(tiny_coco / "odvg.jsonl", ImageStore([tiny_coco / "train"]), report), report, {}
    )
    audits = datamodule(tiny_coco, train=SplitConfig("odvg")).audits()
    assert not audits[0].judges
    check(audits)
    assert "so negatives teach nothing; prepare ODVG with its label map" in caplog.text


def test_the_command_shows_the_same(tiny_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"base: {Path(__file__).parents[1] / 'tiny.yaml'}\ndata: {{root: {tiny_coco}}}\n")
    audit_command.main([str(file)])
    shown = capsys.readouterr().out
    assert f"data.train ({tiny_coco / 'train.json'}): 6 images, 5 with boxes to learn;" in shown
    assert len(re.findall(r"^    of each name: \w+ block \d+, \w+ block \d+, \w+ block \d+$", shown, re.MULTILINE)) == 2
    changed(tiny_coco, "val", iscrowd=1)
    with pytest.raises(InputError, match=r"^data\.val"):
        audit_command.main([str(file)])
    assert "are crowds (iscrowd=1, as some tools mark brushed masks)" in capsys.readouterr().out
