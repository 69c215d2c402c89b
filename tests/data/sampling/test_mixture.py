"""Several data sets in one training: shares, order, what they are asked for, and what is missing."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trex2_lightning.config import DataConfig, NegativesConfig, RhythmConfig, SetConfig, SplitConfig
from trex2_lightning.data.annotations.cleaning import annotate
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.data.index.writing import build_index
from trex2_lightning.data.records import ImageRecord, Records
from trex2_lightning.data.sampling.collate import Example, collate_mixture
from trex2_lightning.data.sampling.mixture import TrainSet, phrase_dictionary, read_mixture
from trex2_lightning.data.sampling.rhythm import turn
from trex2_lightning.data.sampling.stream import Sample, TrainStream
from trex2_lightning.errors import InputError
from trex2_lightning.structures import IMAGENET_PIXELS

RHYTHM = RhythmConfig(visual=2, text=1)
TEXT = RhythmConfig(visual=0, text=1)
IMAGE = ImageRecord(1, Path("x.jpg"), 8, 8, *(torch.empty(0),) * 4)
SETS = [
    TrainSet([IMAGE] * 7, text=3, visual=1, name="boxes"),
    TrainSet([IMAGE] * 5, kind="grounding", text=1, visual=0, name="captions"),
    TrainSet([IMAGE] * 4, kind="nameless", text=0, visual=1, name="things"),
]


def stream(start: int = 0, stop: int = 300, rank: int = 0, world: int = 1) -> list[list[Sample]]:
    made = TrainStream(SETS, 2, 0, rank=rank, world=world, start=start, stop=stop, accumulate=2, rhythm=RHYTHM)
    return list(made)


def test_sets_have_their_shares_of_the_steps_evenly_spread() -> None:
    turns = [turn(step, RHYTHM, SETS) for step in range(240)]
    for part in (turns[:120], turns[120:]):
        counts = Counter((place.visual, place.number) for place in part)
        assert counts == {(False, 0): 30, (False, 1): 10, (True, 0): 40, (True, 2): 40}
    assert {place.source for place in turns if place.number == 1} == {"grounding"}
    assert {place.source for place in turns if place.number == 2} == {"nameless"}


@pytest.mark.parametrize("killed", [1, 37, 150])
def test_a_stream_goes_on_anywhere_and_its_epochs_have_every_image_once(killed: int) -> None:
    """What a killed and resumed run makes of it: tests/training/test_mixture_run.py."""
    batches = stream(stop=killed) + stream(start=killed)
    assert batches == stream()
    for number, some in enumerate(SETS):
        for visual in (False, True):
            own = [s.image for batch in batches for s in batch if s.number == number and (s.kind != "text") == visual]
            size = len(some.images)
            for start in range(0, len(own) - size + 1, size):
                assert sorted(own[start : start + size]) == list(range(size))
    seeds = [sample.seed for batch in batches for sample in batch]
    assert len(set(seeds)) == len(seeds)


def test_ranks_take_the_same_set_and_other_samples() -> None:
    ranks = [stream(rank=rank, world=2) for rank in (0, 1)]
    for first, second in zip(*ranks, strict=True):
        assert {(s.number, s.kind, s.source) for s in first + second} == {
            (first[0].number, first[0].kind, first[0].source)
        }
        assert {s.seed for s in first}.isdisjoint(s.seed for s in second)


def test_another_set_leaves_the_order_of_the_others_alone() -> None:
    alone = TrainStream(SETS[:1], 2, 0, rank=0, world=1, start=0, stop=20, rhythm=TEXT)
    mixed = TrainStream(SETS[:2], 2, 0, rank=0, world=1, start=0, stop=40, rhythm=TEXT)
    own = [batch for batch in mixed if batch[0].number == 0]
    assert own[:20] == list(alone)


def example(labels: list[int], **values: Any) -> Example:
    boxes = torch.full((len(labels), 4), 0.5)
    settings = {"size": (8, 8), "image_id": 1} | values
    return Example(torch.zeros(3, 8, 8), boxes, torch.tensor(labels), **settings)


def test_a_batch_asks_for_the_names_of_its_own_set() -> None:
    sets = [TrainSet([], ("cat", "dog"), ("dog",)), TrainSet([], ("red car", "man"), ("tree",))]
    batch = collate_mixture([example([0], number=1)], sets, 5, 4)
    assert sorted(batch.prompts.phrases) == ["red car", "tree"]


def test_a_caption_judges_its_own_phrases_and_what_is_drawn_but_not_those_of_others() -> None:
    sets = [TrainSet([], ("red car", "man"), ("tree", "man"), kind="grounding")]
    pair = [
        example([0], source="grounding", judged=torch.tensor([], dtype=torch.long)),
        example([1], source="grounding"),
    ]
    prompts = collate_mixture(pair, sets, 5, 4).prompts
    assert prompts.judged is not None
    judged = dict(zip(prompts.phrases, prompts.judged.T.tolist(), strict=True))
    assert judged == {"red car": [True, False], "man": [False, True], "tree": [True, True]}


def records(names: tuple[str, ...], *labels: list[int]) -> Records:
    images = [IMAGE._replace(labels=torch.tensor(some, dtype=torch.long)) for some in labels]
    return Records(images, names, tuple(range(len(names))), ("",) * len(names), Path("x.json"))


def test_the_dictionary_has_annotated_categories_and_frequent_phrases_whatever_their_case() -> None:
    detection = records(("cat", "unseen"), [0, 0], [0])
    captions = records(("A man", "a dog", "Cat"), [0], [0, 1], [2])
    more = records(("a man",), [0])
    kinds = SetConfig(kind="detection"), SetConfig(kind="grounding"), SetConfig(kind="grounding")
    sets = list(zip((detection, captions, more), kinds, strict=True))
    assert phrase_dictionary(sets, 2) == ("cat", "A man")
    assert phrase_dictionary(sets, 3) == ("cat",)


def test_a_batch_says_which_set_it_is_of() -> None:
    sets = [TrainSet([], ("cat",), name="one"), TrainSet([], ("man",), name="two")]
    assert collate_mixture([example([0], number=1)], sets, 0, 4).data_set == "two"


@pytest.mark.parametrize(
    ("some", "use"),
    [
        (SetConfig("a.json", kind="grounding", text=1, format="lvis"), "detection"),
        (SetConfig("a.json", text=1, format="fsc147"), "evaluation alone"),
    ],
)
def test_a_format_is_asked_for_what_it_has(tmp_path: Path, some: SetConfig, use: str) -> None:
    with pytest.raises(InputError, match=rf"^data\.sets\.a\.kind={some.kind}: the format {some.format} is for {use}; "):
        read_mixture(DataConfig(root=str(tmp_path), sets={"a": some}), RhythmConfig())


def test_what_is_missing_is_named_with_the_command_that_prepares_it(tmp_path: Path) -> None:
    sets = {
        "o365": SetConfig("indexes/o365", text=1, format="objects365"),
        "flickr": SetConfig("indexes/flickr", text=1, format="goldg"),
        "own": SetConfig("a.json", text=1),
        "unused": SetConfig("indexes/unused"),
    }
    with pytest.raises(InputError) as caught:
        read_mixture(DataConfig(root=str(tmp_path), sets=sets), RHYTHM)
    assert f"trex2 prepare objects365 ANNOTATIONS IMAGES {tmp_path}/indexes/o365" in str(caught.value)
    assert f"trex2 prepare goldg ANNOTATIONS IMAGES {tmp_path}/indexes/flickr" in str(caught.value)
    assert f"{tmp_path}/a.json is a file of the format coco to be put there" in str(caught.value)
    assert "unused" not in str(caught.value)


def test_what_has_no_steps_is_told_of(tiny_coco: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    used, visual = SetConfig("train.json", "train", text=1), SetConfig("train.json", "train", visual=1)
    sets = {"used": used, "forgotten": SetConfig("train.json", "train"), "visual": visual}
    read_mixture(DataConfig(root=str(tiny_coco), sets=sets), RhythmConfig())  # of text alone
    told = [record.getMessage() for record in caplog.records if "is not trained on" in record.getMessage()]
    assert [line.split()[0] for line in told] == ["data.train", "data.sets.forgotten", "data.sets.visual"]
    assert told[2].endswith("its weights are text=0, visual=1, and steps text=1, visual=0")


def test_a_set_that_is_a_file_is_read_as_its_format_has_it(tiny_coco: Path) -> None:
    content = json.loads((tiny_coco / "train.json").read_text())
    for image in content["images"]:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    (tiny_coco / "train.json").write_text(json.dumps(content))
    some = SetConfig("train.json", "train", text=1, format="lvis")
    [whole] = read_mixture(DataConfig(root=str(tiny_coco), sets={"a": replace(some, format="coco")}), RHYTHM)
    [federated] = read_mixture(DataConfig(root=str(tiny_coco), sets={"a": some}), RHYTHM)
    assert [image.judged for image in whole.images] == [None] * 6
    for image in federated.images:
        assert image.judged is not None
        assert image.judged.tolist() == sorted(set(image.labels.tolist()))
    with pytest.raises(InputError, match=r"^data\.sets\.a\.format=lvsi is no format: take one of coco, "):
        read_mixture(DataConfig(root=str(tiny_coco), sets={"a": replace(some, format="lvsi")}), RHYTHM)
    with pytest.raises(InputError, match=r"train\.json: objects365 is read from an index alone; make an index of it"):
        read_mixture(DataConfig(root=str(tiny_coco), sets={"a": replace(some, format="objects365")}), RHYTHM)


def test_a_set_without_names_is_refused_where_text_is_made_of_it(tmp_path: Path) -> None:
    report = Report()
    report.nameless = True
    build_index(tmp_path / "things", [annotate(report, "", "a.jpg", (9, 9), [(1, 2, 3, 4)], ["x"])], report, {})
    with pytest.raises(
        InputError, match=r"things: its categories have no names: it is for data\.sets\.a\.kind=nameless"
    ):
        read_mixture(DataConfig(root=str(tmp_path), sets={"a": SetConfig("things", text=1)}), RHYTHM)
    sets = {"a": SetConfig("things", visual=1, kind="nameless")}
    assert len(read_mixture(DataConfig(root=str(tmp_path), sets=sets), RHYTHM)) == 1


def test_training_batches_come_from_all_sets(tiny_coco: Path) -> None:
    sets = {
        "one": SetConfig("train.json", "train", text=1),
        "two": SetConfig("val.json", "val", kind="grounding", text=1),
    }
    config = DataConfig(
        root=str(tiny_coco), val=SplitConfig("val.json", "val"), sets=sets, size=64, batch_size=2, num_workers=0
    )
    config.negatives = NegativesConfig(count=1, more_than=0)
    data = DetectionDataModule(
        config, statistics=IMAGENET_PIXELS, seed=0, total_steps=6, accumulate=1, rhythm=TEXT, eval_batch_size=1
    )
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 6
    assert data.num_train_images == 9
    ids = [{target.image_id for target in batch.targets} for batch in batches]
    assert all(len(some) <= 2 for some in ids)
    assert [batch.prompts.judged is not None for batch in batches].count(True) == 3


def test_phrases_are_told_by_the_set_that_they_are_from(tiny_coco: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("street lamp\n")
    sets = {
        "one": SetConfig("train.json", "train", text=1, visual=1),
        "two": SetConfig("val.json", "val", kind="grounding", text=1),
        "three": SetConfig("test.json", "test", kind="nameless", visual=1),
    }
    config = DataConfig(root=str(tiny_coco), val=SplitConfig("val.json", "val"), sets=sets)
    config.negatives = NegativesConfig(source="both", dictionary=str(words), foreign=4)
    data = DetectionDataModule(
        config, statistics=IMAGENET_PIXELS, seed=0, total_steps=6, accumulate=1, rhythm=RHYTHM, eval_batch_size=1
    )
    data.setup("fit")
    blocks = ("red block", "green block", "blue block")
    told = {source: tuple(phrases) for source, phrases in data.train_phrases.items()}
    assert {"accordion", "zebra"} <= set(told.pop("data.negatives.foreign"))
    assert told == {
        "data.sets.one": blocks,
        "data.sets.two": blocks,
        "data.negatives.dictionary": ("street lamp",),
    }


def test_a_visual_batch_has_jittered_exemplars_and_background_where_all_is_judged() -> None:
    sets = [TrainSet([], ("cat", "dog"), ("dog",))]
    shown = example([0], kind="box")._replace(boxes=torch.tensor([[0.5, 0.5, 0.2, 0.2]]))
    plain = collate_mixture([shown], sets, 5, 4)
    batch = collate_mixture([shown], sets, 5, 4, jitter=0.1, background=2)
    assert plain.background is None
    assert plain.prompts.exemplars is not None
    assert batch.prompts.exemplars is not None
    assert plain.prompts.exemplars.boxes.equal(shown.boxes[None, None])
    assert 0 < (batch.prompts.exemplars.boxes - shown.boxes).abs().max() <= 0.02 + 1e-6
    assert batch.targets[0].boxes.equal(shown.boxes)  # what is to be found stays
    assert batch.background is not None
    assert batch.background.valid.all()
    unsure = collate_mixture([shown._replace(judged=torch.tensor([0]))], sets, 5, 4, background=2)
    assert unsure.background is None
    assert collate_mixture([example([0])], sets, 5, 4, jitter=0.1, background=2).background is None
