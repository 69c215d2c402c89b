"""Which images stand for a category, and where they come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trex2_lightning.config import DataConfig, RhythmConfig, SplitConfig
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.data.records import ImageRecord, Records
from trex2_lightning.data.sampling.references import (
    References,
    Support,
    draw_references,
    places_of,
    relabelled,
    support,
)
from trex2_lightning.data.shapes import rendering
from trex2_lightning.structures import IMAGENET_PIXELS

NAMES = ("cat", "dog", "cow")


def records(*labels: list[int], crowd: tuple[int, ...] = (), names: tuple[str, ...] = NAMES) -> Records:
    """Image i + 1 has boxes of `labels[i]`; those in images `crowd` are crowds."""
    images = [
        ImageRecord(
            id=number,
            path=Path(f"{number}.jpg"),
            width=9,
            height=9,
            boxes=torch.arange(4.0 * len(own)).view(-1, 4),
            labels=torch.tensor(own, dtype=torch.int64),
            crowd=torch.full((len(own),), number in crowd),
            area=torch.arange(float(len(own))),
        )
        for number, own in enumerate(labels, 1)
    ]
    return Records(images, names, tuple(range(len(names))), ("",) * len(names), Path("x.json"))


MANY = records(*[[0, 0]] * 20, *[[0, 1]] * 3, [], [2], crowd=(25,))


def draw(some: Records, limit: int, seed: int) -> References:
    """For all names of the file."""
    return draw_references(some, some.names, limit, seed).references


def by_category(references: References) -> dict[int, list[int]]:
    """Image ids in the order of the draw."""
    places = sorted((category, place, i) for i, own in references.items() for category, place in own.items())
    return {category: [i for c, _, i in places if c == category] for category in {c for c, _, _ in places}}


def test_up_to_the_limit_and_all_where_there_are_fewer() -> None:
    drawn = by_category(draw(MANY, 16, seed=0))
    assert drawn.keys() == {0, 1}  # the cow is a crowd
    assert len(set(drawn[0])) == 16
    assert set(drawn[0]) <= set(range(1, 24))
    assert sorted(drawn[1]) == [21, 22, 23]


def test_fewer_references_are_the_beginning_of_more() -> None:
    whole = by_category(draw(MANY, 20, seed=0))
    for limit in (1, 4, 16):
        some = by_category(draw(MANY, limit, seed=0))
        assert some == {category: images[:limit] for category, images in whole.items()}


def test_the_seed_draws() -> None:
    assert draw(MANY, 3, seed=1) == draw(MANY, 3, seed=1)
    assert len({tuple(by_category(draw(MANY, 1, seed))[0]) for seed in range(50)}) > 10


def test_the_name_draws() -> None:
    """Two categories of the same images have others, and whatever number the file gives to a category."""
    drawn = by_category(draw(records(*[[0, 1]] * 20), 5, seed=0))
    assert drawn[0] != drawn[1]
    turned = records(*[[0, 1]] * 20, names=("dog", "cat", "cow"))
    assert by_category(draw(turned, 5, seed=0)) == {0: drawn[1], 1: drawn[0]}


def test_the_support_is_all_boxes_of_a_category_in_the_images_drawn_for_it() -> None:
    """Not those of another category that an image shows too, and no crowd."""
    some = records([0, 0, 1], [0, 1], [1, 1, 1])
    first = some.images[0]._replace(crowd=torch.tensor([False, True, False]))
    some = some._replace(images=[first, *some.images[1:]])
    drawn = {1: {0: 0, 1: 1}, 2: {0: 1}, 3: {1: 0}}
    assert support(some, drawn, 1, 7) == Support(2, {"cat": 1, "dog": 3, "cow": 0}, 3)
    assert support(some, drawn, 2, 7) == Support(3, {"cat": 2, "dog": 4, "cow": 0}, 1)
    told = "6 exemplars of 3 categories in 3 images, fewest 0 of cow; 1 boxes of the reference split left out"
    assert str(support(some, drawn, 2, 7)) == told


def test_labels_are_those_of_the_names_asked_for() -> None:
    """The reference file has another order, and a category that nobody asks for."""
    found = relabelled(records([0, 1, 2], [1], names=("hen", "dog", "cat")), NAMES)
    assert found.names == NAMES
    assert [image.labels.tolist() for image in found.images] == [[1, 0], [1]]
    assert found.images[0].boxes.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert found.images[0].area.tolist() == [1, 2]


def test_the_draw_of_names_that_the_file_lists_otherwise() -> None:
    """Other categories, another order, and another spelling; the draw is that of the name asked for."""
    some = records([0, 2], [1], [2], [1, 1], crowd=(3,), names=("hen", "Dog", "cat"))
    drawn = draw_references(some, NAMES, 16, seed=0)
    assert drawn.references == {1: {0: 0}, 2: {1: drawn.references[2][1]}, 4: {1: drawn.references[4][1]}}
    assert [image.id for image in drawn.records.images] == [1, 2, 4]
    assert [image.labels.tolist() for image in drawn.records.images] == [[0], [1], [1, 1]]
    assert (drawn.records.names, drawn.num_boxes) == (NAMES, 4)
    plain = records([0, 2], [1], [2], [1, 1], crowd=(3,), names=("hen", "dog", "cat"))
    assert draw_references(plain, NAMES, 16, seed=0).references == drawn.references


def test_names_that_differ_in_case_or_blanks_are_one_unless_both_are_there() -> None:
    assert places_of(["Cat", " dog  house", "hen"], ["dog house", "cat"]) == [1, 0, -1]
    assert places_of(["Q", "q"], ["q", "Q"]) == [1, 0]
    assert places_of(["Q", "q"], ["q"]) == [-1, 0]
    assert places_of(["q"], ["Q", "q "]) == [-1]


def test_what_an_image_judges_has_the_new_labels_too() -> None:
    """A category that nobody asks for is judged no more; what judges all goes on doing so."""
    some = records([0], [1], [2], names=("hen", "dog", "cat"))
    judged = [torch.tensor([2, 0, 1]), torch.tensor([0]), None]
    images = [image._replace(judged=own) for image, own in zip(some.images, judged, strict=True)]
    found = [image.judged for image in relabelled(some._replace(images=images), NAMES).images]
    assert [None if own is None else own.tolist() for own in found] == [[0, 1], [], None]


# In the datamodule


def datamodule(config: DataConfig) -> DetectionDataModule:
    return DetectionDataModule(
        config,
        statistics=IMAGENET_PIXELS,
        seed=0,
        total_steps=1,
        accumulate=1,
        rhythm=RhythmConfig(),
        eval_batch_size=2,
    )


def small(root: Path, **values: SplitConfig) -> DataConfig:
    return DataConfig(root=str(root), size=48, max_size=96, num_workers=0, **values)


def test_each_drawn_image_is_given_once(tiny_coco: Path) -> None:
    data = datamodule(small(tiny_coco))
    drawn = data.draw_references(("green block", "blue block", "red block"), 2)
    batches = list(data.predict_dataloader())
    targets = {target.image_id: target for batch in batches for target in batch.targets}
    assert sum(len(batch.targets) for batch in batches) == len(targets)
    assert targets.keys() == drawn.keys()
    content = json.loads((tiny_coco / "train.json").read_text())  # its order is red, green, blue
    for image_id, target in targets.items():
        labels = [[2, 0, 1][item["category_id"] - 1] for item in content["annotations"] if item["image_id"] == image_id]
        assert target.labels.tolist() == labels
        assert drawn[image_id].keys() <= set(labels)


@pytest.mark.parametrize(("given", "split"), [(SplitConfig(), "train"), (SplitConfig("val.json", "val"), "val")])
def test_references_are_training_images_or_those_of_the_configured_split(
    tiny_coco: Path, given: SplitConfig, split: str
) -> None:
    data = datamodule(small(tiny_coco, reference=given))
    data.setup("predict")
    assert data.reference_records.annotations == tiny_coco / f"{split}.json"


def test_shapes_has_a_reference_split(tiny_coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("val", "val.json"):
        (tiny_coco / name).rename(tiny_coco / name.replace("val", "reference"))
    monkeypatch.setattr(rendering, "prepare", lambda *_: tiny_coco)
    data = datamodule(DataConfig(format="shapes"))
    data.setup("predict")
    assert data.reference_records.annotations == tiny_coco / "reference.json"
