"""The data of a preflight: the run's own, first the steps that take most memory, then steps as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from itertools import cycle, islice
from typing import Any, NamedTuple, cast

from torch.nn.functional import pad
from torch.utils.data import DataLoader, Sampler

from trex2_lightning.config import Config
from trex2_lightning.data.datamodule import DetectionDataModule, TrainLoader
from trex2_lightning.data.records import Records
from trex2_lightning.data.sampling.collate import Example
from trex2_lightning.data.sampling.extremes import (
    Extents,
    extents,
    largest_evaluation_padding,
    largest_training_padding,
    most_boxes,
)
from trex2_lightning.data.sampling.rhythm import exemplar_kind, turn
from trex2_lightning.data.sampling.stream import Sample, TrainStream
from trex2_lightning.errors import InputError
from trex2_lightning.structures import Batch

LOOKED_AT = 5000  # optimizer steps of the run in which its kinds of steps are looked for
BATCHES_LOOKED_AT = 50  # of a kind, for one of the wider orientation
Sides = tuple[int, int]


class WidestStep(NamedTuple):
    """An optimizer step of the run, made to take as much memory as one of its kind can."""

    step: int
    padding: Sides  # height and width
    images: tuple[int, ...] = ()  # in place of its own, as far as they go: those with the most boxes


class PreflightData(DetectionDataModule):
    """Trains `total_steps` optimizer steps of `run`, of which the first half are the widest, and evaluates one batch a
    rank. Afterwards `as_they_come` gives further batches.

    Attributes:
        run: what is preflighted; to be set before `setup`.
        widest: the steps of the first half, when training has begun.
    """

    run: Config
    widest: list[WidestStep]
    _evaluation: Sides

    @property
    def num_widest(self) -> int:
        return self.total_steps // 2

    @property
    def val_records(self) -> Records:
        """A batch for every rank."""
        records = super().val_records
        return records._replace(images=records.images[: self.eval_batch_size * self.run.train.world_size])

    @property
    def num_val_images(self) -> int:
        """Of the run."""
        return len(super().val_records.images)

    def train_dataloader(self) -> DataLoader[Example]:
        loader = super().train_dataloader()
        stream = cast(TrainStream, loader.batch_sampler)
        self.widest = widest_steps(stream, self.run, self.num_widest)
        return self._chosen(loader, [*self.widest, *ordinary_steps(self.run, self.total_steps - self.num_widest)])

    def val_dataloader(self) -> DataLoader[Example]:
        found = extents(super().val_records.images)
        self._evaluation = largest_evaluation_padding(found, self.config, self.eval_batch_size)
        return super().val_dataloader()

    def first_of_each_kind(self) -> Iterator[Batch]:
        """A rank's first batch of the run with text and its first visual one, of those that it has.

        The visual one has names, if any has: without them nothing is aligned.
        """
        loader = super().train_dataloader()
        chosen = self._chosen(loader, first_steps(cast(TrainStream, loader.batch_sampler), self.run))
        yield from cast(Iterator[Batch], islice(chosen, 0, None, self.accumulate))

    def as_they_come(self) -> DataLoader[Example]:
        """Batches of the run behind those that were trained, without end."""
        loader = super().train_dataloader()
        cast(TrainStream, loader.batch_sampler).stop = 2**62
        return loader

    def _chosen(self, loader: DataLoader[Example], steps: Sequence[WidestStep | int]) -> TrainLoader:
        batches = ChosenSteps(cast(TrainStream, loader.batch_sampler), steps)
        return TrainLoader(loader.dataset, batch_sampler=batches, collate_fn=loader.collate_fn, **self._loading)

    def on_before_batch_transfer(self, batch: Batch, *_: Any, **__: Any) -> Batch:
        assert self.trainer is not None
        if not self.trainer.training:
            return widened(batch, self._evaluation)
        step = self.trainer.global_step
        return widened(batch, self.widest[step].padding) if step < len(self.widest) else batch


class ChosenSteps(Sampler[list[Sample]]):
    """The batches of chosen optimizer steps of a stream."""

    def __init__(self, stream: TrainStream, steps: Sequence[WidestStep | int]) -> None:
        self.stream = stream
        self.steps = steps

    def __len__(self) -> int:
        return len(self.steps) * self.stream.accumulate

    def __iter__(self) -> Iterator[list[Sample]]:
        for chosen in self.steps:
            step, images = (chosen, ()) if isinstance(chosen, int) else (chosen.step, chosen.images)
            for samples in batches_of(self.stream, step):
                others = [sample._replace(image=image) for sample, image in zip(samples, images, strict=False)]
                yield others + samples[len(others) :]


def batches_of(stream: TrainStream, step: int) -> Iterator[list[Sample]]:
    """Those of one optimizer step."""
    part = copy(stream)
    part.start = step * stream.accumulate
    part.stop = part.start + stream.accumulate
    return iter(part)


def widest_steps(stream: TrainStream, run: Config, count: int) -> list[WidestStep]:
    """`count` steps, so that each kind of step that the run has (kind of prompt, set and source of images) is there, at
    the end with the most boxes, when the optimizer has its state.

    Raises:
        InputError: there are more kinds.
    """
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for step in range(min(LOOKED_AT, run.train.max_steps)):
        kinds.setdefault(_kind_of(stream, step), []).append(step)
    if len(kinds) > count:
        raise InputError(f"--steps={count}: this run has {len(kinds)} kinds of steps, and each has to be tried")
    sizes = {number: extents(stream.sets[number].images) for number in {kind[-1] for kind in kinds}}
    found = {kind: _widest(stream, run, steps, sizes[kind[-1]]) for kind, steps in kinds.items()}
    plain = [one._replace(images=()) for one in found.values()]
    return [*islice(cycle(plain), count - len(found)), *found.values()]


def ordinary_steps(run: Config, count: int) -> list[int]:
    """The first steps of the run, as many with text as visual ones where it has both."""
    rhythm = run.train.rhythm
    cycle_length = rhythm.visual + rhythm.text
    wanted = {True: count, False: count}
    if rhythm.visual and rhythm.text:
        wanted = {True: count // 2, False: count - count // 2}
    visual = [step for step in range(count * cycle_length) if step % cycle_length < rhythm.visual]
    text = [step for step in range(count * cycle_length) if step % cycle_length >= rhythm.visual]
    return sorted([*visual[: wanted[True]], *text[: wanted[False]]])


def first_steps(stream: TrainStream, run: Config) -> list[int]:
    """The first with text and the first visual one, with names if any has; the same on all ranks."""
    kinds = [_kind_of(stream, step) for step in range(min(LOOKED_AT, run.train.max_steps))]
    text = [step for step, (kind, *_) in enumerate(kinds) if kind == "text"]
    visual = [step for step, (kind, *_) in enumerate(kinds) if kind != "text"]
    named = [step for step in visual if kinds[step][1] != "nameless"]
    return sorted([*text[:1], *(named or visual)[:1]])


def widened(batch: Batch, padding: Sides) -> Batch:
    """With zeros right and below, up to that height and width."""
    pixels, valid = batch.images.pixels, batch.images.valid
    margins = [max(0, side - own) for side, own in zip(padding, pixels.shape[-2:], strict=True)]
    around = (0, margins[1], 0, margins[0])
    return batch._replace(images=batch.images._replace(pixels=pad(pixels, around), valid=pad(valid, around)))


def _kind_of(stream: TrainStream, step: int) -> tuple[Any, ...]:
    place = turn(step, stream.rhythm, stream.sets, cross_image=stream.exemplars.cross_image)
    kind = exemplar_kind(step, stream.seed, stream.exemplars) if place.visual else "text"
    return kind, place.source, place.number


def _widest(stream: TrainStream, run: Config, steps: Sequence[int], found: Extents) -> WidestStep:
    """Of the steps of one kind, and the images of its set; the same on all ranks."""
    first = copy(stream)
    first.rank = 0
    portrait, step, orientation = found.portrait, steps[0], None
    source, number = _kind_of(stream, step)[1:]
    apart = len(stream.sets[number].portrait) > 0 or portrait.all() or not portrait.any()
    mixed = source == "cross_image" or not apart
    padding = largest_training_padding(found, run.data, mixed=mixed)
    if source == "cross_image":  # its images have to share a category, so they stay
        return WidestStep(step, padding)
    if not mixed:
        orientation = padding[0] > padding[1]
        looked_at = steps[:BATCHES_LOOKED_AT]
        of = (one for one in looked_at if portrait[next(batches_of(first, one))[0].image] == orientation)
        step = next(of, steps[0])
    return WidestStep(step, padding, most_boxes(found, run.data.batch_size, orientation))
