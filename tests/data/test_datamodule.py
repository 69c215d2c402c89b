from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from trex2_lightning.config import (
    AugmentConfig,
    DataConfig,
    ExemplarsConfig,
    NamelessConfig,
    NegativesConfig,
    RhythmConfig,
    ShapesConfig,
    SplitConfig,
)
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.data.formats import every_format
from trex2_lightning.data.formats.coco import read_coco
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.images.transforms import ImageError
from trex2_lightning.data.index.writing import build_index
from trex2_lightning.data.records import ImageRecord
from trex2_lightning.data.sampling.mixture import TrainSet, with_nameless
from trex2_lightning.data.sampling.rhythm import turn
from trex2_lightning.data.sampling.sharing import SharedCategories
from trex2_lightning.data.sampling.stream import Sample, TrainStream
from trex2_lightning.data.shapes import rendering
from trex2_lightning.errors import InputError
from trex2_lightning.structures import Batch

TEXT = RhythmConfig()
ALL_AUGMENTATIONS = AugmentConfig(vertical_flip=0.5, color_jitter=0.3, crop=0.5)


def datamodule(
    root: Path, stage: str = "fit", steps: int = 6, accumulate: int = 1, rhythm: RhythmConfig = TEXT, **values: Any
) -> DetectionDataModule:
    settings = {"batch_size": 2, "num_workers": 0, "negatives": NegativesConfig(count=1), **values}
    config = DataConfig(root=str(root), size=48, max_size=96, train_sizes=[32, 48], **settings)
    module = DetectionDataModule(
        config, seed=3, total_steps=steps, accumulate=accumulate, rhythm=rhythm, eval_batch_size=2
    )
    module.prepare_data()
    module.setup(stage)
    return module


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fingerprint(batch: Batch) -> tuple[Any, ...]:
    ids = tuple(target.image_id for target in batch.targets)
    boxes = [target.boxes.tolist() for target in batch.targets]
    exemplars = batch.prompts.exemplars
    shown = None if exemplars is None else (exemplars.kind, exemplars.boxes.tolist())
    return ids, batch.images.pixels.sum().item(), batch.prompts.phrases, boxes, shown


# Prepared indexes


def prepared(root: Path, split: str) -> SplitConfig:
    """The split as an index that has all that its COCO file has."""
    report = Report()
    images = read_coco(root / f"{split}.json", ImageStore([root / split]), report)
    build_index(root / "indexes" / split, images, report, {})
    return SplitConfig(f"indexes/{split}")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_index_trains_and_evaluates_as_its_file_does(tiny_coco: Path, num_workers: int) -> None:
    files = datamodule(tiny_coco, num_workers=num_workers)
    index = datamodule(
        tiny_coco, train=prepared(tiny_coco, "train"), val=prepared(tiny_coco, "val"), num_workers=num_workers
    )
    assert index.names == files.names
    assert [*map(fingerprint, index.train_dataloader())] == [*map(fingerprint, files.train_dataloader())]
    assert [*map(fingerprint, index.val_dataloader())] == [*map(fingerprint, files.val_dataloader())]


def test_a_limit_takes_an_index_s_first_images_with_boxes(tiny_coco: Path) -> None:
    found = datamodule(tiny_coco, train=prepared(tiny_coco, "train"), limit=3).train_records.images
    assert [image.id for image in found] == [1, 2, 3]


def test_a_limit_is_one_of_val_too_where_that_is_the_training_split(tiny_coco: Path) -> None:
    """A few images can be learned by heart, and evaluated alone."""
    train = SplitConfig("train.json", "train")
    module = datamodule(tiny_coco, train=train, val=train, limit=3)
    assert [image.id for image in module.val_records.images] == [1, 2, 3]
    assert sum(len(batch.targets) for batch in module.val_dataloader()) == 3
    assert len(datamodule(tiny_coco, train=train, limit=1).val_records.images) == 3
    assert len(datamodule(tiny_coco, train=train, val=train).val_records.images) == 6


def test_without_its_index_a_run_ends_with_the_command_that_makes_it(tiny_coco: Path) -> None:
    with pytest.raises(InputError, match=r"indexes/lvis: no index is there; make it with scripts/prepare_data\.py"):
        datamodule(tiny_coco, train=SplitConfig("indexes/lvis"))


# The stream

IMAGE = ImageRecord(1, Path("x.jpg"), 8, 8, *(torch.empty(0),) * 4)


def stream(points: float = 0.5, cross_image: float = 0.0, **values: Any) -> list[list[Sample]]:
    settings = {"sets": [some(5)], "batch_size": 2, "seed": 0, "rank": 0, "world": 1, "start": 0, "stop": 10}
    exemplars = ExemplarsConfig(points=points, cross_image=cross_image)
    return list(TrainStream(**(settings | values), exemplars=exemplars))


def some(number: int, **values: Any) -> TrainSet:
    """A set of so many images, of which nothing but their number matters."""
    return TrainSet([IMAGE] * number, **values)


def test_every_epoch_is_another_permutation() -> None:
    images = [sample.image for batch in stream() for sample in batch]
    epochs = [images[start : start + 5] for start in range(0, 20, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_no_two_positions_share_a_seed() -> None:
    seeds = [sample.seed for batch in stream(stop=500) for sample in batch]
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert set(seeds).isdisjoint(sample.seed for batch in stream(stop=500, seed=1) for sample in batch)


def test_ranks_share_the_stream_of_one() -> None:
    ranks = [stream(batch_size=2, world=2, rank=rank) for rank in (0, 1)]
    assert [[*first, *second] for first, second in zip(*ranks, strict=True)] == stream(batch_size=4)


def test_a_later_start_is_the_rest() -> None:
    assert stream(start=4) == stream()[4:]
    assert stream(start=4, accumulate=2, rhythm=MIXED) == stream(accumulate=2, rhythm=MIXED)[4:]
    assert len(TrainStream([some(5)], 2, 0, rank=0, world=1, start=4, stop=10)) == 10


# The rhythm

MIXED = RhythmConfig(visual=2, text=1)


def test_eight_visual_steps_then_one_with_text() -> None:
    turns = [turn(step, RhythmConfig(visual=8, text=1), [some(5)]) for step in range(19)]
    assert [place.visual for place in turns] == ([True] * 8 + [False]) * 2 + [True]
    assert [place.before for place in turns] == [*range(8), 0, *range(8, 16), 1, 16]


@pytest.mark.parametrize("rhythm", [TEXT, RhythmConfig(visual=1, text=0), RhythmConfig(visual=3, text=2)])
def test_a_step_has_as_many_of_its_kind_before_it_as_there_were(rhythm: RhythmConfig) -> None:
    turns = [turn(step, rhythm, [some(5)]) for step in range(40)]
    for visual in (True, False):
        before = [place.before for place in turns if place.visual == visual]
        assert before == list(range(len(before)))


def test_all_batches_of_a_step_are_of_one_kind_on_all_ranks() -> None:
    ranks = [stream(stop=60, world=2, rank=rank, accumulate=2, rhythm=MIXED) for rank in (0, 1)]
    steps = [
        {sample.kind for rank in ranks for batch in rank[2 * s : 2 * s + 2] for sample in batch} for s in range(30)
    ]
    assert all(len(kinds) == 1 for kinds in steps)
    assert [kinds == {"text"} for kinds in steps] == [False, False, True] * 10


def test_each_kind_has_a_stream_of_its_own() -> None:
    """Text batches are those of a run with text alone, whatever lies between; visual ones are others."""
    mixed = stream(stop=30, accumulate=2, rhythm=MIXED)
    text = [batch for batch in mixed if batch[0].kind == "text"]
    assert text == stream(stop=10, accumulate=2)
    visual = [sample for batch in mixed for sample in batch if sample.kind != "text"]
    for epoch in range(8):
        assert sorted(sample.image for sample in visual[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
    assert {sample.seed for sample in visual}.isdisjoint(sample.seed for batch in text for sample in batch)


@pytest.mark.parametrize(("points", "low", "high"), [(0.0, 0, 0), (0.5, 160, 240), (1.0, 400, 400)])
def test_share_of_steps_with_points(points: float, low: int, high: int) -> None:
    batches = stream(stop=400, rhythm=RhythmConfig(visual=1, text=0), points=points)
    assert low <= sum(batch[0].kind == "point" for batch in batches) <= high


# Where the images of visual steps come from

VISUAL = RhythmConfig(visual=1, text=0)
SHARED = SharedCategories([torch.tensor(labels) for labels in ([0], [0, 1], [1], [2, 2], [2])])


@pytest.mark.parametrize(("cross_image", "nameless"), [(0.3, 0.0), (0.0, 0.25), (0.5, 0.3), (1.0, 0.7), (0.1, 1.0)])
def test_shares_of_the_sources_are_exact_and_evenly_spread(cross_image: float, nameless: float) -> None:
    turns = [
        turn(step, MIXED, with_nameless([some(5)], [IMAGE], nameless), cross_image=cross_image) for step in range(300)
    ]
    sources = [place.source for place in turns if place.visual]
    assert len(sources) == 200
    assert all(place.source == "any" for place in turns if not place.visual)
    for part in (sources[:100], sources[100:]):
        assert part.count("nameless") == pytest.approx(100 * nameless, abs=1)
        assert part.count("cross_image") == pytest.approx(100 * (1 - nameless) * cross_image, abs=1)


@pytest.mark.parametrize("source", ["any", "cross_image", "nameless"])
def test_a_step_has_as_many_of_its_source_before_it_as_there_were(source: str) -> None:
    turns = [turn(step, MIXED, with_nameless([some(5)], [IMAGE], 0.3), cross_image=0.4) for step in range(90)]
    before = [place.before for place in turns if place.visual and place.source == source]
    assert before == list(range(len(before)))
    assert len(before) > 10


def sources(nameless: float = 0.4, **values: Any) -> list[list[Sample]]:
    settings = {"rhythm": MIXED, "sets": with_nameless([some(5, shared=SHARED)], [IMAGE] * 7, nameless)}
    return stream(**(settings | {"cross_image": 0.5} | values))


def test_every_image_that_shares_a_category_comes_first_equally_often_and_the_others_share_it() -> None:
    batches = sources(rhythm=VISUAL, cross_image=1.0, nameless=0.0, batch_size=2, stop=60)
    firsts = [batch[0].image for batch in batches]
    for epoch in range(12):
        assert sorted(firsts[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
    neighbours = {(0, 1), (1, 0), (1, 2), (2, 1), (3, 4), (4, 3)}
    assert {(batch[0].image, batch[1].image) for batch in batches} == neighbours


def test_every_nameless_image_comes_equally_often() -> None:
    images = [sample.image for batch in sources(stop=700) for sample in batch if sample.source == "nameless"]
    assert len(images) > 300
    for epoch in range(len(images) // 7):
        assert sorted(images[7 * epoch : 7 * epoch + 7]) == [0, 1, 2, 3, 4, 5, 6]


def test_a_batch_has_one_source_and_other_sources_leave_text_and_the_rest_alone() -> None:
    batches = sources(stop=200, accumulate=2)
    assert all(len({sample.source for sample in batch}) == 1 for batch in batches)
    steps = [{sample.source for batch in batches[2 * s : 2 * s + 2] for sample in batch} for s in range(100)]
    assert all(len(found) == 1 for found in steps)
    assert [b for b in batches if b[0].kind == "text"] == stream(stop=66, accumulate=2)
    plain = [[(s.image, s.seed) for s in b] for b in batches if b[0].kind != "text" and b[0].source == "any"]
    alone = [[(s.image, s.seed) for s in b] for b in stream(stop=len(plain), accumulate=2, rhythm=VISUAL)]
    assert plain == alone
    seeds = [sample.seed for batch in batches for sample in batch]
    assert len(set(seeds)) == len(seeds)


def test_all_sources_resume_exactly_and_ranks_agree_on_them() -> None:
    assert sources(start=37, stop=80, accumulate=3) == sources(stop=80, accumulate=3)[37:]
    ranks = [sources(world=2, rank=rank, stop=60) for rank in (0, 1)]
    for first, second in zip(*ranks, strict=True):
        assert (first[0].kind, first[0].source) == (second[0].kind, second[0].source)
        assert [sample.seed for sample in first] != [sample.seed for sample in second]


def named_and_nameless(root: Path) -> None:
    """Every object of `nameless.json` is a category of its own; the images are those of the training split."""
    content = json.loads((root / "train.json").read_text())
    objects = [item | {"category_id": item["id"]} for item in content["annotations"]]
    names = [{"id": item["id"], "name": f"thing {item['id']}"} for item in objects]
    (root / "nameless.json").write_text(json.dumps(content | {"annotations": objects, "categories": names}))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_nameless_batches_have_exemplars_and_no_phrases(tiny_coco: Path, num_workers: int) -> None:
    named_and_nameless(tiny_coco)
    nameless = NamelessConfig(images="train", share=0.5)
    module = datamodule(tiny_coco, steps=12, rhythm=VISUAL, nameless=nameless, num_workers=num_workers)
    assert module.names == ("red block", "green block", "blue block")
    batches = list(module.train_dataloader())
    assert [not batch.prompts.phrases for batch in batches] == [False, True] * 6
    for batch in batches[1::2]:
        labels = torch.cat([target.labels for target in batch.targets])
        assert batch.prompts.exemplars.boxes.shape[1] == max(len(labels), 1)
        assert sorted(labels.tolist()) == list(range(len(labels)))  # one object, one category
        assert batch.prompts.exemplars.valid.sum() == len(labels)
    named = datamodule(tiny_coco, steps=6, rhythm=VISUAL)
    pixels = [fingerprint(batch)[:2] for batch in named.train_dataloader()]
    assert [fingerprint(batch)[:2] for batch in batches[::2]] == pixels


def test_cross_image_batches_share_a_category_and_say_so(tiny_coco: Path) -> None:
    exemplars = ExemplarsConfig(cross_image=0.5)
    batches = list(datamodule(tiny_coco, steps=12, rhythm=VISUAL, exemplars=exemplars).train_dataloader())
    assert [batch.cross_image for batch in batches] == [False, True] * 6
    for batch in batches[1::2]:
        assert batch.prompts.exemplars.valid.any(-1).all(0).any(), "no category is in both images"


def test_cross_image_batches_need_images_that_share_a_category(tiny_coco: Path) -> None:
    edit(tiny_coco / "train.json", annotations=[])
    module = datamodule(tiny_coco, rhythm=VISUAL, exemplars=ExemplarsConfig(cross_image=0.5))
    with pytest.raises(InputError, match=r"no two images .* set data\.exemplars\.cross_image=0"):
        module.train_dataloader()


def test_unreadable_nameless_images_are_replaced_by_nameless_ones(tiny_coco: Path) -> None:
    named_and_nameless(tiny_coco)
    folder = tiny_coco / "nameless"
    folder.mkdir()
    for path in (tiny_coco / "train").iterdir():
        (folder / path.name).write_bytes(path.read_bytes()[: 100 if path.stem == "1" else None])
    values = {"rhythm": VISUAL, "nameless": NamelessConfig(share=1.0)}
    ids = [t.image_id for b in datamodule(tiny_coco, steps=3, **values).train_dataloader() for t in b.targets]
    assert sorted(ids) == [2, 2, 3, 4, 5, 6]
    for path in folder.iterdir():
        truncate(path)
    with pytest.raises(ImageError, match=r"nor can any other .* data\.nameless\.images"):
        list(datamodule(tiny_coco, **values).train_dataloader())


# Training batches


def test_train_batches_hold_the_objects_where_they_are(tiny_coco: Path) -> None:
    """Every box's centre has the color that its phrase names, whatever the augmentation."""
    matches = []
    for batch in datamodule(tiny_coco, steps=15, augment=AugmentConfig(vertical_flip=0.5, crop=0.5)).train_dataloader():
        for index, target in enumerate(batch.targets):
            height, width = (int(batch.images.valid[index].any(axis).sum()) for axis in (1, 0))
            for box, label in zip(target.boxes.tolist(), target.labels.tolist(), strict=True):
                pixel = batch.images.pixels[index, :, int(box[1] * height), int(box[0] * width)]
                color = ("red", "green", "blue")[int(pixel.argmax())]
                matches.append(batch.prompts.phrases[label] == f"{color} block")
    assert len(matches) > 20
    assert sum(matches) / len(matches) > 0.9  # objects may cover each other


def test_items_depend_on_their_key_alone(tiny_coco: Path) -> None:
    torch.manual_seed(0)
    first = [fingerprint(batch) for batch in datamodule(tiny_coco, augment=ALL_AUGMENTATIONS).train_dataloader()]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    again = [fingerprint(b) for b in datamodule(tiny_coco, augment=ALL_AUGMENTATIONS, num_workers=2).train_dataloader()]
    assert again == first
    assert torch.equal(torch.get_rng_state(), state)  # the model's random numbers are left alone


def test_images_without_boxes_are_trained_on(tiny_coco: Path) -> None:
    batches = list(datamodule(tiny_coco, steps=3).train_dataloader())  # one epoch
    assert sorted(target.image_id for batch in batches for target in batch.targets) == [1, 2, 3, 4, 5, 6]
    assert any(len(target.boxes) == 0 for batch in batches for target in batch.targets)


def test_exemplars_lie_on_their_own_image_after_augmentation(tiny_coco: Path) -> None:
    rhythm = RhythmConfig(visual=1, text=0)
    num_exemplars = 0
    for batch in datamodule(tiny_coco, steps=15, rhythm=rhythm, augment=ALL_AUGMENTATIONS).train_dataloader():
        prompts = batch.prompts
        for index, target in enumerate(batch.targets):
            for category in range(len(prompts.phrases)):
                chosen = prompts.exemplars.boxes[index, category][prompts.exemplars.valid[index, category]].tolist()
                assert all(box in target.boxes[target.labels == category].tolist() for box in chosen)
                num_exemplars += len(chosen)
    assert num_exemplars > 20


def test_limit_takes_the_first_images_with_boxes(tiny_coco: Path) -> None:
    path = tiny_coco / "train.json"
    annotations = [item for item in json.loads(path.read_text())["annotations"] if item["image_id"] != 1]
    edit(path, annotations=annotations)
    module = datamodule(tiny_coco, limit=2)
    assert [image.id for image in module.train_records.images] == [2, 3]
    assert {t.image_id for batch in module.train_dataloader() for t in batch.targets} == {2, 3}
    edit(path, annotations=[])
    with pytest.raises(InputError, match=r"no image has boxes, and data\.limit=2"):
        datamodule(tiny_coco, limit=2).train_dataloader()


def test_crowds_are_not_targets(tiny_coco: Path) -> None:
    for split in ("train", "val"):
        path = tiny_coco / f"{split}.json"
        crowds = [item | {"iscrowd": 1} for item in json.loads(path.read_text())["annotations"]]
        edit(path, annotations=crowds)
    module = datamodule(tiny_coco)
    for loader in (module.train_dataloader(), module.val_dataloader()):
        assert all(len(target.boxes) == 0 for batch in loader for target in batch.targets)


def test_held_out_names_are_never_negatives(tiny_coco: Path) -> None:
    path = tiny_coco / "train.json"
    edit(path, categories=[*json.loads(path.read_text())["categories"], {"id": 9, "name": "held-out block"}])
    module = datamodule(tiny_coco, steps=10, negatives=NegativesConfig(count=80))
    assert {len(batch.prompts.phrases) for batch in module.train_dataloader()} == {3}


def test_unreadable_images_are_replaced_counted_and_reported_once(
    tiny_coco: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truncate(tiny_coco / "train" / "2.jpg")
    module = datamodule(tiny_coco, steps=6)  # two epochs
    with caplog.at_level(logging.WARNING):
        batches = list(module.train_dataloader())
    ids = [target.image_id for batch in batches for target in batch.targets]
    assert len(ids) == 12
    assert 2 not in ids
    assert ids.count(3) == 4  # its own two places, and those of image 2
    assert sum(batch.skipped for batch in batches) == 2
    [message] = caplog.messages
    assert "2.jpg: cannot be read" in message


def test_all_images_unreadable_is_an_error(tiny_coco: Path) -> None:
    for path in (tiny_coco / "train").iterdir():
        truncate(path)
    with pytest.raises(ImageError) as error:
        list(datamodule(tiny_coco).train_dataloader())
    assert "nor can any other training image" in str(error.value)
    assert "\n" not in str(error.value)


# Evaluation batches


def test_eval_batches_are_the_file_in_order(tiny_coco: Path) -> None:
    module = datamodule(tiny_coco, "test")
    batches = list(module.test_dataloader())
    assert [target.image_id for batch in batches for target in batch.targets] == [1, 2, 3]
    assert module.names == ("red block", "green block", "blue block")
    for batch in batches:
        assert batch.prompts.phrases == module.names
    for target, record in zip(batches[0].targets, module.test_records.images, strict=False):
        size = torch.tensor([record.width, record.height])
        corners = torch.cat(
            [target.boxes[:, :2] - target.boxes[:, 2:] / 2, target.boxes[:, :2] + target.boxes[:, 2:] / 2], 1
        )
        torch.testing.assert_close(corners * size.repeat(2), record.boxes)
        assert torch.equal(target.labels, record.labels)
    assert batches[0].images.sizes.tolist() == [[r.height, r.width] for r in module.test_records.images[:2]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_image_ends_evaluation_with_its_name(tiny_coco: Path, num_workers: int) -> None:
    truncate(tiny_coco / "val" / "3.jpg")
    with pytest.raises(ImageError) as error:
        list(datamodule(tiny_coco, num_workers=num_workers).val_dataloader())
    assert str(error.value).startswith(str(tiny_coco / "val" / "3.jpg"))
    assert "restore the file" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif("TREX2_DATA" not in os.environ, reason="TREX2_DATA names no folder with real photographs")
@pytest.mark.parametrize("name", ["bccd", "coco128"])
def test_real_photographs(name: str) -> None:
    module = datamodule(Path(os.environ["TREX2_DATA"]) / name, "validate")
    batches = list(module.val_dataloader())
    assert sum(len(batch.targets) for batch in batches) == len(module.val_records.images) > 0
    for batch in batches:
        assert batch.images.pixels.isfinite().all()
        assert all((target.boxes >= 0).all() and (target.boxes <= 1).all() for target in batch.targets)


# Splits


def test_only_the_splits_in_use_must_exist(tiny_coco: Path) -> None:
    (tiny_coco / "test.json").unlink()
    module = datamodule(tiny_coco, "fit")
    assert len(module.train_records.images) == 6
    assert len(module.val_records.images) == 3
    with pytest.raises(InputError, match=r"test\.json: no such annotation file; set data\.root="):
        module.setup("test")


def test_setup_reads_a_file_once(tiny_coco: Path) -> None:
    module = datamodule(tiny_coco, "fit")
    (tiny_coco / "val.json").unlink()
    module.setup("validate")
    assert len(module.val_records.images) == 3


def test_missing_data_set_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set data\.root="):
        datamodule(tmp_path / "nowhere")


def test_shapes_are_rendered_before_they_are_read(tiny_coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def prepare(config: ShapesConfig, root: str | Path = "") -> Path:
        asked.append((config, root))
        return tiny_coco

    def prepare_nameless(config: ShapesConfig, root: Path) -> None:
        asked.append((config, root))
        named_and_nameless(root)

    monkeypatch.setattr(rendering, "prepare", prepare)
    monkeypatch.setattr(rendering, "prepare_nameless", prepare_nameless)
    module = datamodule(Path("cache"), format="shapes", shapes=ShapesConfig(preset="hard"))
    assert asked == [(ShapesConfig(preset="hard"), "cache")] * len(asked)  # nothing nameless, which nobody asked for
    assert len(module.train_records.images) == 6
    datamodule(Path("cache"), format="shapes", nameless=NamelessConfig(images="train", share=0.1))
    assert asked[-1] == (ShapesConfig(), tiny_coco)


@pytest.mark.parametrize("name", ["pascal", "voc", "COCO"])
def test_a_format_that_is_not_read_from_files_is_told_before_anything_is_built(tmp_path: Path, name: str) -> None:
    known = ", ".join(sorted([*(form.name for form in every_format().values() if form.direct), "shapes"]))
    assert {"coco", "lvis", "roboflow", "fsc147", "fscd_lvis", "shapes"} <= set(known.split(", "))
    with pytest.raises(
        InputError, match=rf"^data\.format={name} is none of {known}, .*prepare_data\.py makes an index"
    ):
        datamodule(tmp_path / "nowhere", format=name)


# Resume


class Recorder(lightning.LightningModule):
    """Trains one weight and notes every batch; at step `die_at` it fails."""

    def __init__(self, die_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.die_at = die_at
        self.seen: list[Any] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.global_step == self.die_at:
            raise RuntimeError("killed")
        self.seen.append(fingerprint(batch))
        return (self.weight - batch.images.pixels.mean()).square().sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(root: Path, folder: Path, model: Recorder, ckpt: Path | None = None, num_workers: int = 0) -> lightning.Trainer:
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=10,
        accumulate_grad_batches=2,
        val_check_interval=8,
        use_distributed_sampler=False,
        callbacks=[ModelCheckpoint(folder, filename="{step}", every_n_train_steps=5, save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = datamodule(root, steps=10, accumulate=2, rhythm=MIXED, augment=ALL_AUGMENTATIONS, num_workers=num_workers)
    trainer.fit(model, data, ckpt_path=ckpt)
    return trainer


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("error:You're resuming from a checkpoint")
def test_resume_sees_exactly_the_batches_that_are_left(tiny_coco: Path, tmp_path: Path, num_workers: int) -> None:
    whole = Recorder()
    fit(tiny_coco, tmp_path / "whole", whole)
    assert len(whole.seen) == 20

    killed, resumed = Recorder(die_at=7), Recorder()
    with pytest.raises(RuntimeError, match="killed"):
        fit(tiny_coco, tmp_path / "killed", killed)
    trainer = fit(tiny_coco, tmp_path / "killed", resumed, tmp_path / "killed" / "step=5.ckpt", num_workers)
    assert trainer.global_step == 10
    assert killed.seen == whole.seen[:14]
    assert resumed.seen == whole.seen[10:]
    assert resumed.weight.item() == whole.weight.item()
