from __future__ import annotations

import pytest
import torch

from trex2_lightning.data.sampling.collate import Example, collate_eval, collate_train, pad
from trex2_lightning.data.sampling.rhythm import PromptKind
from trex2_lightning.data.sampling.vocabulary import ForeignNames

NAMES = ("cat", "dog", "cow")


def example(
    height: int,
    width: int,
    labels: list[int],
    image_id: int,
    seed: int = 0,
    skipped: int = 0,
    kind: PromptKind = "text",
) -> Example:
    return Example(
        pixels=torch.full((3, height, width), float(image_id)),
        boxes=torch.full((len(labels), 4), 0.5),
        labels=torch.tensor(labels, dtype=torch.int64),
        size=(2 * height, 2 * width),
        image_id=image_id,
        seed=seed,
        skipped=skipped,
        kind=kind,
    )


def test_padding_is_right_and_below_to_a_multiple_of_32() -> None:
    images = pad([torch.ones(3, 30, 65), torch.ones(3, 33, 10)], [(60, 130), (66, 20)])
    assert images.pixels.shape == (2, 3, 64, 96)
    assert images.valid.dtype == torch.bool
    assert images.sizes.tolist() == [[60, 130], [66, 20]]
    for index, (height, width) in enumerate([(30, 65), (33, 10)]):
        assert images.valid[index].sum() == height * width
        assert images.valid[index, :height, :width].all()
        assert images.pixels[index].sum() == 3 * height * width  # zero outside
        assert images.pixels[index, :, :height, :width].all()


def test_a_multiple_of_32_is_not_padded() -> None:
    images = pad([torch.ones(3, 64, 32)], [(64, 32)])
    assert images.pixels.shape == (1, 3, 64, 32)
    assert images.valid.all()


def test_train_batch() -> None:
    examples = [example(20, 30, [2, 0], 4, seed=5), example(40, 30, [], 7, seed=6, skipped=2)]
    batch = collate_train(examples, NAMES, NAMES, 1, 16)
    assert sorted(batch.prompts.phrases) == sorted(NAMES)
    assert [batch.prompts.phrases[label] for label in batch.targets[0].labels] == ["cow", "cat"]
    assert batch.prompts.judged is None
    assert batch.prompts.exemplars is None
    assert [target.image_id for target in batch.targets] == [4, 7]
    assert batch.targets[1].boxes.shape == (0, 4)
    assert batch.images.sizes.tolist() == [[40, 60], [80, 60]]
    assert batch.skipped == 2


def test_train_vocabulary_follows_from_the_first_key() -> None:
    pool = tuple(f"phrase {number}" for number in range(100))

    def phrases(seed: int) -> tuple[str, ...]:
        return collate_train([example(8, 8, [0], 1, seed)], NAMES, pool, 5, 16).prompts.phrases

    torch.manual_seed(0)
    first = phrases(3)
    torch.manual_seed(1)
    assert phrases(3) == first != phrases(4)


@pytest.mark.parametrize("kind", ["box", "point"])
def test_visual_batch_asks_for_what_it_has_by_exemplars_of_each_image(kind: PromptKind) -> None:
    examples = [example(20, 30, [2, 0, 2], 4, kind=kind), example(40, 30, [], 7, kind=kind)]
    prompts = collate_train(examples, NAMES, NAMES, 80, 1).prompts
    assert sorted(prompts.phrases) == ["cat", "cow"]  # no negatives but what other images have
    assert prompts.exemplars.kind == kind
    assert prompts.exemplars.boxes.shape == (2, 2, 1, 4)
    assert prompts.exemplars.valid.tolist() == [[[True]] * 2, [[False]] * 2]


def test_negatives_of_a_visual_batch_are_phrases_that_it_has_no_exemplars_of() -> None:
    """For the alignment loss alone: the images are not asked for them."""
    examples = [example(20, 30, [2, 2], 4, kind="box"), example(40, 30, [0], 7, kind="box")]
    for count, drawn in ((0, 0), (2, 2), (9, 3)):
        batch = collate_train(examples, NAMES, (*NAMES, " Cat", "ant", "bee"), count, 4)
        assert len(batch.negatives) == drawn
        assert {*batch.negatives} <= {"dog", "ant", "bee"}
        assert sorted(batch.prompts.phrases) == ["cat", "cow"]
    nameless = [some._replace(source="nameless") for some in examples]
    assert collate_train(nameless, NAMES, NAMES, 9, 4).negatives == ()


def test_visual_batch_without_boxes_asks_for_something() -> None:
    prompts = collate_train([example(20, 30, [], 4, kind="box")], NAMES, NAMES, 80, 1).prompts
    assert len(prompts.phrases) == 1
    assert not prompts.exemplars.valid.any()


def test_nameless_batch_has_as_many_categories_as_its_images_have_and_no_phrases() -> None:
    labels = ([700, 4, 700], [], [9])
    examples = [example(20, 30, some, number, kind="box") for number, some in enumerate(labels)]
    batch = collate_train([some._replace(source="nameless") for some in examples], NAMES, NAMES, 80, 1)
    assert batch.prompts.phrases == ()
    assert [target.labels.tolist() for target in batch.targets] == [[2, 0, 2], [], [1]]
    assert batch.prompts.exemplars.valid.any(-1).tolist() == [[True, False, True], [False] * 3, [False, True, False]]
    assert not batch.cross_image
    empty = collate_train([examples[1]._replace(source="nameless")], NAMES, NAMES, 80, 1)
    assert empty.prompts.exemplars.valid.tolist() == [[[False]]]


def test_cross_image_batch_is_a_visual_one_that_says_so() -> None:
    examples = [example(20, 30, [2, 0], number, kind="point") for number in range(2)]
    plain = collate_train(examples, NAMES, NAMES, 80, 1)
    batch = collate_train([some._replace(source="cross_image") for some in examples], NAMES, NAMES, 80, 1)
    assert (plain.cross_image, batch.cross_image) == (False, True)
    assert batch.prompts.phrases == plain.prompts.phrases
    assert batch.prompts.exemplars.boxes.equal(plain.prompts.exemplars.boxes)


def test_eval_batch_asks_for_all_names_in_order() -> None:
    batch = collate_eval([example(20, 30, [2, 0], 4)], NAMES)
    assert batch.prompts.phrases == NAMES
    assert batch.targets[0].labels.tolist() == [2, 0]
    assert batch.skipped == 0


def test_what_an_image_does_not_judge_is_no_negative_of_it() -> None:
    sure, unsure = example(20, 30, [0], 1), example(20, 30, [2], 2)._replace(judged=torch.tensor([2]))
    prompts = collate_train([sure, unsure], NAMES, NAMES, 1, 16).prompts
    asked = dict(zip(prompts.phrases, prompts.judged.T.tolist(), strict=True))
    assert asked == {"cat": [True, False], "dog": [True, False], "cow": [True, True]}
    visual = collate_train([some._replace(kind="box") for some in (sure, unsure)], NAMES, NAMES, 1, 16).prompts
    asked = dict(zip(visual.phrases, visual.judged.T.tolist(), strict=True))
    assert asked == {"cat": [True, False], "cow": [True, True]}


def test_a_caption_judges_its_own_phrases_and_what_was_drawn_for_all() -> None:
    """A phrase of the dictionary is taken as absent (T-Rex2, section 3.3); one of another caption may well be there."""
    examples = [example(20, 30, [0], 1), example(20, 30, [2, 0], 2), example(20, 30, [], 3)]
    grounding = [some._replace(source="grounding", judged=some.labels) for some in examples]
    prompts = collate_train(grounding, NAMES, ("tree", "car"), 2, 16).prompts
    asked = dict(zip(prompts.phrases, prompts.judged.T.tolist(), strict=True))
    everywhere = [True] * 3
    assert asked == {"cat": [True, True, False], "cow": [False, True, False], "tree": everywhere, "car": everywhere}


def test_negatives_are_drawn_out_of_what_is_judged_where_every_image_says_it() -> None:
    pool = tuple(f"phrase {number}" for number in range(100))
    first = example(20, 30, [0], 1)._replace(judged=torch.tensor([0, 1]))
    second = example(20, 30, [], 2)._replace(judged=torch.tensor([], dtype=torch.int64))
    assert sorted(collate_train([first, second], NAMES, pool, 5, 16).prompts.phrases) == ["cat", "dog"]
    prompts = collate_train([second], NAMES, pool, 5, 16).prompts  # something has to be asked
    assert len(prompts.phrases) == 5
    assert not prompts.judged.any()


def test_an_image_that_lists_what_it_judges_does_not_judge_foreign_names() -> None:
    foreign = ForeignNames(("harp", "raft"), 9)
    sure, unsure = example(20, 30, [0], 1), example(20, 30, [2], 2)._replace(judged=torch.tensor([2]))
    prompts = collate_train([sure, unsure], NAMES, NAMES, 0, 16, foreign).prompts
    asked = dict(zip(prompts.phrases, prompts.judged.T.tolist(), strict=True))
    mine = {"harp": [True, False], "raft": [True, False]}
    assert asked == {"cat": [True, False], "cow": [True, True], **mine}
    for given in ([unsure, unsure], [sure._replace(source="grounding")], [sure._replace(kind="box")]):
        assert not {"harp", "raft"} & {*collate_train(given, NAMES, NAMES, 0, 16, foreign).prompts.phrases}
