"""Which steps a preflight takes, and what it makes of their batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trex2_lightning.config import Config, RhythmConfig, override
from trex2_lightning.data.records import ImageRecord
from trex2_lightning.data.sampling.mixture import TrainSet
from trex2_lightning.data.sampling.sharing import SharedCategories
from trex2_lightning.data.sampling.stream import TrainStream
from trex2_lightning.errors import InputError
from trex2_lightning.structures import Batch, Images, Prompts
from trex2_lightning.training.preflight_data import ChosenSteps, first_steps, ordinary_steps, widened, widest_steps

TinyConfig = Callable[..., Config]
LANDSCAPE, PORTRAIT = (60, 90), (90, 60)  # height, width; 64 pixels and more, so 64 x 96 padded


def records(*sizes: tuple[int, int]) -> list[ImageRecord]:
    """Image i has i boxes."""
    return [
        ImageRecord(
            *(i, Path("x.jpg"), width, height),
            *(torch.zeros(i, 4), torch.zeros(i, dtype=torch.long), torch.zeros(i, dtype=torch.bool), torch.zeros(i)),
        )
        for i, (height, width) in enumerate(sizes)
    ]


def stream(*sets: TrainSet, rhythm: RhythmConfig, rank: int = 0, accumulate: int = 2) -> TrainStream:
    return TrainStream(sets, 2, 0, rank=rank, world=2, start=0, stop=8, accumulate=accumulate, rhythm=rhythm)


def mixture() -> list[TrainSet]:
    """Text of two sets, the second in one step of ten; visual steps of the first and of one without names."""
    wide = TrainSet(records(*[LANDSCAPE] * 6), text=0.9, visual=0.5, name="wide")
    both = TrainSet(records(*[LANDSCAPE, PORTRAIT] * 3), text=0.1, visual=0, name="both", kind="grounding")
    return [wide, both, TrainSet(records(*[PORTRAIT] * 6), text=0, visual=0.5, name="sa", kind="nameless")]


@pytest.fixture
def run(tiny_config: TinyConfig) -> Config:
    return tiny_config("train.max_steps=1000", "train.rhythm={visual: 2, text: 1}")


def test_every_kind_of_step_is_tried_at_last_with_the_most_boxes(run: Config) -> None:
    """Text of two sets, boxes and points of two."""
    taken = stream(*mixture(), rhythm=run.train.rhythm)
    steps = widest_steps(taken, run, 8)
    batches = list(ChosenSteps(taken, steps))
    assert len(batches) == len(ChosenSteps(taken, steps)) == 16
    kinds = [
        {(sample.kind, sample.number) for batch in batches[2 * i : 2 * i + 2] for sample in batch} for i in range(8)
    ]
    expected = {("text", 0), ("text", 1), ("box", 0), ("box", 2), ("point", 0), ("point", 2)}
    assert [len(kind) for kind in kinds] == [1] * 8
    assert set().union(*kinds[2:]) == expected
    assert [step.images for step in steps] == [()] * 2 + [(5, 4)] * 6
    assert all([sample.image for sample in batch] == [5, 4] for batch in batches[4:])
    assert len({sample.seed for batch in batches[4:6] for sample in batch}) == 4
    padding = {kind.pop()[1]: step.padding for kind, step in zip(kinds, steps, strict=True)}
    assert padding == {0: (64, 96), 1: (96, 96), 2: (96, 64)}, "one orientation, both in a batch, and the other"
    other = widest_steps(stream(*mixture(), rhythm=run.train.rhythm, rank=1), run, 8)
    assert other == steps, "the same on all ranks"


def test_steps_that_cannot_hold_all_kinds_are_refused(run: Config) -> None:
    with pytest.raises(InputError, match="--steps=5: this run has 6 kinds of steps"):
        widest_steps(stream(*mixture(), rhythm=run.train.rhythm), run, 5)


def test_the_first_text_batch_and_the_first_visual_one_with_names(run: Config) -> None:
    wide, both, nameless = mixture()
    rhythm = run.train.rhythm
    taken = stream(nameless._replace(visual=0.9), wide._replace(visual=0.1), both, rhythm=rhythm)
    text, visual = first_steps(taken, run)
    sets = {step: next(iter(ChosenSteps(taken, [step])))[0].number for step in range(visual + 1)}
    assert {sets[step] for step in range(visual) if step % 3 != 2} == {0}, "all nameless"
    assert (text, sets[visual]) == (2, 1)
    assert first_steps(taken, override(run, ["train.max_steps=2"])) == [0], "neither names nor text are there yet"
    assert first_steps(stream(nameless, wide._replace(visual=0), rhythm=rhythm), run) == [0, 2]


def test_a_cross_image_step_keeps_its_images(run: Config) -> None:
    """Others might share no category."""
    images = records(*[LANDSCAPE] * 6)
    taken = stream(
        TrainSet(images, shared=SharedCategories([torch.tensor([0])] * 6)), rhythm=RhythmConfig(visual=1, text=0)
    )
    taken.exemplars.cross_image = 0.5
    steps = widest_steps(taken, run, 4)
    sources = [next(iter(ChosenSteps(taken, [step])))[0].source for step in steps]
    assert {source: step.images for source, step in zip(sources, steps, strict=True)} == {
        "cross_image": (),
        "any": (5, 4),
    }


@pytest.mark.parametrize(
    ("rhythm", "expected"),
    [
        ("{visual: 0, text: 1}", [0, 1, 2, 3, 4]),
        ("{visual: 3, text: 1}", [0, 1, 3, 7, 11]),
        ("{visual: 9, text: 2}", [0, 1, 9, 10, 20]),
        ("{visual: 1, text: 0}", [0, 1, 2, 3, 4]),
    ],
)
def test_both_kinds_are_timed_however_rare_one_is(tiny_config: TinyConfig, rhythm: str, expected: list[int]) -> None:
    assert ordinary_steps(tiny_config(f"train.rhythm={rhythm}"), 5) == expected


def test_what_is_added_to_a_batch_is_padding() -> None:
    images = Images(torch.ones(2, 3, 32, 64), torch.ones(2, 32, 64, dtype=torch.bool), torch.tensor([[30, 60]] * 2))
    wide = widened(Batch(images, Prompts(("x",)), ()), (64, 32)).images
    assert (wide.pixels.shape, wide.valid.shape) == ((2, 3, 64, 64), (2, 64, 64))
    assert (wide.pixels.sum(), wide.valid.sum()) == (images.pixels.sum(), images.valid.sum())
    assert wide.valid[:, :32].all()
