"""Training batches that are filled up with foreign names: which, when, and the same after a restart."""

from __future__ import annotations

import json
from pathlib import Path

from datamodule_parts import MIXED, VISUAL, datamodule, edit, fingerprint

from trex2_lightning.config import NegativesConfig
from trex2_lightning.data.sampling import foreign

TRAINING = tuple((Path(foreign.__file__).parent / "foreign_training.txt").read_text().splitlines())
BLOCKS = {"red block", "green block", "blue block"}


def negatives(root: Path, **values: object) -> list[set[str]]:
    """What each text batch is asked for beside the set's own names."""
    batches = datamodule(root, **{"steps": 12, "negatives": NegativesConfig(count=3), **values}).train_dataloader()
    return [set(batch.prompts.phrases) - BLOCKS for batch in batches if batch.prompts.exemplars is None]


def test_text_batches_are_filled_up_with_names_of_training_alone(tiny_coco: Path) -> None:
    module = datamodule(tiny_coco, steps=60, negatives=NegativesConfig(count=1))
    drawn: set[str] = set()
    for batch in module.train_dataloader():
        assert len(batch.prompts.phrases) == len(set(batch.prompts.phrases)) == 16
        assert batch.prompts.judged is None
        drawn |= set(batch.prompts.phrases) - BLOCKS
    assert drawn <= set(TRAINING)
    assert len(drawn) > 150
    assert "data.negatives.foreign" in module.train_phrases


def test_without_them_or_with_many_names_there_are_none(tiny_coco: Path) -> None:
    assert negatives(tiny_coco, negatives=NegativesConfig(count=3, foreign=0)) == [set()] * 12
    assert negatives(tiny_coco, negatives=NegativesConfig(count=3, foreign=3)) == [set()] * 12
    assert [len(some) for some in negatives(tiny_coco, negatives=NegativesConfig(count=3, foreign=4))] == [1] * 12


def test_a_held_out_name_is_never_drawn(tiny_coco: Path) -> None:
    path = tiny_coco / "train.json"
    held_out = [{"id": 9 + number, "name": name} for number, name in enumerate(TRAINING[:150])]
    edit(path, categories=[*json.loads(path.read_text())["categories"], *held_out])
    assert set().union(*negatives(tiny_coco)) <= set(TRAINING[150:])


def test_they_follow_from_the_place_in_the_run(tiny_coco: Path) -> None:
    def batches(start: int) -> list[object]:
        loader = datamodule(tiny_coco, steps=9, rhythm=MIXED, negatives=NegativesConfig(count=1)).train_dataloader()
        loader.batch_sampler.start = start  # as a run that is resumed there
        return [fingerprint(batch) for batch in loader]

    assert batches(0) == batches(0)
    assert batches(4) == batches(0)[4:]


def test_visual_batches_are_asked_for_what_they_show(tiny_coco: Path) -> None:
    module = datamodule(tiny_coco, rhythm=VISUAL, negatives=NegativesConfig(count=3))
    assert all(set(batch.prompts.phrases) <= BLOCKS for batch in module.train_dataloader())
    assert "data.negatives.foreign" not in module.train_phrases


def test_federated_sets_get_none(tiny_coco: Path) -> None:
    """An image says there what it judges; nothing is known of other names."""
    for split in ("train", "val"):
        path = tiny_coco / f"{split}.json"
        images = json.loads(path.read_text())["images"]
        edit(path, images=[image | {"neg_category_ids": [], "not_exhaustive_category_ids": []} for image in images])
    assert negatives(tiny_coco, format="coco") != [set()] * 12
    assert negatives(tiny_coco, format="lvis") == [set()] * 12
