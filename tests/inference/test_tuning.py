"""Prompt tuning: the loss is that of training, it falls, and nothing but the vectors changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from trex2_lightning.config import Config
from trex2_lightning.data.formats.coco import FORMAT as COCO
from trex2_lightning.data.opening import read_records
from trex2_lightning.data.records import Records
from trex2_lightning.errors import InputError
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.inference.tuning import exemplars, tune
from trex2_lightning.structures import Box, Prompts
from trex2_lightning.training.build import build_datamodule, build_module

NAMES = ("red block", "green block", "blue block")


@pytest.fixture
def config(tiny_config: Callable[..., Config]) -> Config:
    return tiny_config("train.rhythm.visual=1", "eval.batch_size=1")


@pytest.fixture
def records(tiny_coco: Path) -> Records:
    return read_records(tiny_coco / "val.json", tiny_coco / "val", COCO)


def test_the_loss_falls_and_the_detector_stays(predictor: Predictor, records: Records, tmp_path: Path) -> None:
    start = predictor.generic(exemplars(records, NAMES[:2]))
    vectors = start.vectors.clone()
    weights = {name: weight.clone() for name, weight in predictor.module.state_dict().items()}
    tuned = tune(predictor, records, start, steps=10, lr=0.05)
    assert tuned.loss_after < 0.95 * tuned.loss_before
    assert tuned.prompts.names == start.names
    assert tuned.prompts.sources == ("tuned", "tuned")
    assert ((tuned.prompts.vectors - vectors).abs().amax(1) > 0.1).all()
    assert torch.equal(start.vectors, vectors)
    assert all(torch.equal(weight, weights[name]) for name, weight in predictor.module.state_dict().items())
    assert all(parameter.grad is None for parameter in predictor.module.parameters())

    again = tune(predictor, records, tuned.prompts, steps=0)
    assert again.loss_before == again.loss_after == pytest.approx(tuned.loss_after, rel=1e-5)
    predictor.save(tuned.prompts, tmp_path / "tuned.safetensors")
    assert torch.equal(predictor.load(tmp_path / "tuned.safetensors").vectors, tuned.prompts.vectors)


def test_what_an_image_does_not_judge_teaches_no_negatives(predictor: Predictor, records: Records) -> None:
    marked = records.images[0]
    start = predictor.text((records.names[marked.labels[0]],))
    bare = [
        image._replace(boxes=image.boxes[:0], labels=image.labels[:0], crowd=image.crowd[:0])
        for image in records.images
    ]
    before = tune(predictor, records._replace(images=[marked, *bare]), start, steps=0).loss_before * (1 + len(bare))
    alone = tune(predictor, records._replace(images=[marked]), start, steps=0).loss_before
    unjudged = [image._replace(judged=torch.zeros(0).long()) for image in bare]
    after = tune(predictor, records._replace(images=[marked, *unjudged]), start, steps=0).loss_before * (1 + len(bare))
    assert after == pytest.approx(alone, rel=1e-5)
    assert before > alone + 1e-3


def test_tuned_vectors_are_asked_with_also_where_appearance_is_compared(
    tiny_config: Callable[..., Config], records: Records
) -> None:
    config = tiny_config("model.appearance.name=backbone")
    module = build_module(config)
    module.known_names = NAMES
    predictor = Predictor(config, module)
    start = predictor.generic(exemplars(records, NAMES[:2]))
    assert start.appearance.keys() == {*NAMES[:2]}
    one, other = (tune(predictor, records, start, steps, lr=0.5).prompts for steps in (0, 2))
    image = records.images[0].path
    assert predictor.detect(image, one, threshold=0) != predictor.detect(image, other, threshold=0)


def test_the_loss_is_that_of_training(predictor: Predictor, config: Config, records: Records) -> None:
    """In whatever order the categories come; without noised queries."""
    data = build_datamodule(config)
    data.setup("validate")
    module, losses = predictor.module, []
    with torch.no_grad():
        for batch in data.val_dataloader():
            features = module.detector.encode_image(batch.images)
            output = module.detector.decode(features, module.detector.encode_prompts(Prompts(NAMES)))
            losses.append(sum(module.criterion(output, batch.targets).values()))
    for names in (NAMES, NAMES[::-1]):
        assert tune(predictor, records, predictor.text(names), steps=0).loss_before == pytest.approx(
            float(sum(losses) / len(losses)), rel=1e-4
        )


def test_crowds_are_no_targets(predictor: Predictor, records: Records) -> None:
    first, *others = records.images
    crowd = first._replace(
        boxes=torch.cat([first.boxes, torch.tensor([[2.0, 3.0, 40.0, 44.0]])]),
        labels=torch.cat([first.labels, torch.tensor([1])]),
        crowd=torch.cat([first.crowd, torch.tensor([True])]),
        area=torch.cat([first.area, torch.tensor([1558.0])]),
    )
    start = predictor.text(NAMES)
    expected = tune(predictor, records, start, steps=0).loss_before
    assert tune(predictor, records._replace(images=[crowd, *others]), start, steps=0).loss_before == expected
    object_ = crowd._replace(crowd=torch.zeros_like(crowd.crowd))
    assert tune(predictor, records._replace(images=[object_, *others]), start, steps=0).loss_before != expected


def test_exemplars_are_the_boxes_of_the_categories_in_each_image(tmp_path: Path) -> None:
    boxes = [(1, 1, [0, 0, 5, 5], 0), (1, 1, [5, 5, 10, 10], 0), (1, 2, [1, 1, 2, 2], 0), (2, 2, [3, 3, 4, 4], 0)]
    boxes += [(2, 1, [0, 0, 20, 20], 1), (3, 3, [0, 0, 9, 9], 0)]
    keys = ("image_id", "category_id", "bbox", "iscrowd")
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 20, "height": 20} for i in (1, 2, 3)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(("cell", "ring", "star"), 1)],
        "annotations": [{"id": i} | dict(zip(keys, box, strict=True)) for i, box in enumerate(boxes)],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    for i in (1, 2, 3):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{i}.png")
    records = read_records(tmp_path / "a.json", tmp_path, COCO)
    assert [marked for _, marked in exemplars(records, ("ring", "cell"))] == [
        {"cell": [Box(0, 0, 5, 5), Box(5, 5, 15, 15)], "ring": [Box(1, 1, 3, 3)]},
        {"ring": [Box(3, 3, 7, 7)]},
    ]


def test_categories_that_cannot_be_tuned(predictor: Predictor, records: Records) -> None:
    with pytest.raises(InputError, match="has no category 'dog', only red block, green block, blue block"):
        tune(predictor, records, predictor.text(("red block", "dog")))
    without = records._replace(images=[records.images[-1]])  # an image without boxes
    with pytest.raises(InputError, match="has no box of 'red block': annotate some"):
        exemplars(without, NAMES)
