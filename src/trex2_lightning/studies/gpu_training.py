"""A training step on a GPU, its parts and its memory, beside that of Grounding DINO of `transformers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from trex2_lightning.config import DenoisingConfig, LossConfig, OptimConfig
from trex2_lightning.losses.criterion import Criterion
from trex2_lightning.losses.denoising import noise_queries
from trex2_lightning.structures import Prompts
from trex2_lightning.studies.gpu_models import (
    OURS,
    PEER,
    Bench,
    Fusion,
    compiled,
    precision,
    ratio_of,
)
from trex2_lightning.studies.gpu_page import Bar, Region, Section, Task
from trex2_lightning.studies.gpu_timing import Laps, Taken, gibibytes, milliseconds, timed
from trex2_lightning.training.optim import adamw

TRAINING_TITLES: dict[Region, str] = {"eager": "Training step", "compiled": "Training step, compiled"}
STEP_PARTS = ("image", "prompts", "decode", "criterion", "backward", "optimizer")
WHOLE = "forward"  # of what is compiled as one, parts are not told
Finished = Callable[[torch.Tensor, Laps], None]


class Trained(NamedTuple):
    """Who is trained, and how."""

    who: str
    compiled: bool = False
    checkpointed: bool = False


def training_section(bench: Bench, region: Region) -> Section:
    """A row for every detector and every way to train it."""
    work = bench.work
    cases = [case for case in _cases(region) if bench.has_peer or case.who != PEER]
    return Section(
        TRAINING_TITLES[region],
        f"{work.trained} images of {work.setting.height} x {work.setting.width} pixels, bfloat16 by autocast, "
        f"{work.boxes} boxes an image, fused AdamW with clipped gradients. The image's part is backbone and neck, of "
        f"{OURS['late']} the encoder too; decode is all from there to the predictions. Ours have {work.noised} noised "
        f"queries an image and as many negative ones, which {PEER} lacks; it has the losses of all its decoder layers. "
        "A part ends when the device gets there. Memory is the peak of all tensors: weights, optimizer, activations.",
        (
            "what",
            *(f"{part}, ms" for part in STEP_PARTS),
            "all, ms",
            "images/s",
            "peak, GiB",
            f"times as fast as {PEER}",
        ),
        [_task(bench, region, case) for case in cases],
    )


def _cases(region: Region) -> Iterator[Trained]:
    yield Trained(PEER)
    faster = region == "compiled"
    if faster:
        yield Trained(PEER, faster)
    yield Trained(OURS["early"], faster)
    yield Trained(OURS["late"], faster)
    if not faster:
        yield Trained(OURS["late"], checkpointed=True)


def _names(bench: Bench, case: Trained) -> int:
    return bench.work.late_names if case.who == OURS["late"] else bench.work.setting.few


def _row(bench: Bench, case: Trained) -> str:
    how = ", compiled" * case.compiled + ", activation checkpointing" * case.checkpointed
    return f"{case.who}, {_names(bench, case)} names{how}"


def _task(bench: Bench, region: Region, case: Trained) -> Task:
    own, peer = (TRAINING_TITLES[region], _row(bench, case)), (TRAINING_TITLES[region], _row(bench, Trained(PEER)))

    def speedup() -> float | None:
        return ratio_of(bench.seconds(*peer), bench.seconds(*own))

    def tell(taken: Taken) -> list[str]:
        faster = speedup()
        return [
            *(milliseconds(taken.parts.get(part)) for part in STEP_PARTS),
            milliseconds(taken.seconds),
            f"{bench.work.trained / taken.seconds:.1f}",
            gibibytes(taken.peak),
            "" if faster is None or own == peer else f"{faster:.2f}",
        ]

    def share() -> float | None:
        return ratio_of(bench.peak(*own), bench.peak(*peer))

    bars: tuple[Bar, ...] = ()
    if case.checkpointed:
        bars = (Bar(lambda: bench.peak(*own), "GiB", "<=", 12),)
    elif case.who == OURS["late"]:
        bars = (Bar(speedup, "times as fast", ">=", 4.2 if case.compiled else 3.4),)
        bars += () if case.compiled else (Bar(lambda: bench.peak(*own), "GiB", "<=", 20),)
    elif case.who == OURS["early"] and not case.compiled:
        bars = (Bar(speedup, "times as fast", ">=", 2.5), Bar(share, "of its memory", "<=", 0.5))
    return Task((own[1],), lambda: _measure(bench, case), tell, bars)


def _measure(bench: Bench, case: Trained) -> Taken:
    step = _reference_step(bench, case) if case.who == PEER else _own_step(bench, case)
    return timed(step, bench.device, bench.work)


def _own_step(bench: Bench, case: Trained) -> Callable[[Laps], None]:
    """What `training_step` does of `training.module`, and the trainer after it."""
    fusion: Fusion = "early" if case.who == OURS["early"] else "late"
    detector = bench.detector(fusion).train()
    detector.train_prompts(text=True, visual=False)
    if case.checkpointed:
        detector.checkpoint_activations()
    check = compiled(detector) if case.compiled else lambda: None
    images, names = bench.images(bench.work.trained), bench.names(_names(bench, case))
    targets = bench.targets(bench.work.trained, len(names))
    criterion, denoising = Criterion(LossConfig()), DenoisingConfig(queries=bench.work.noised)
    generator, finish = torch.Generator().manual_seed(0), _finish(detector)

    def step(lap: Laps) -> None:
        with precision(bench.device, torch.bfloat16):
            features = detector.encode_image(images)
            lap("image")
            prompts = detector.encode_prompts(Prompts(names))
            lap("prompts")
            noised = noise_queries(targets, len(names), detector.selection.num_queries, denoising, generator)
            output = detector.decode(features, prompts, noised)
            lap("decode")
            terms = criterion(output, targets, None, noised)
            loss = torch.stack(list(terms.values())).sum()
            lap("criterion")
        finish(loss, lap)
        check()

    return step


def _reference_step(bench: Bench, case: Trained) -> Callable[[Laps], None]:
    reference = bench.reference().train()
    reference.config.auxiliary_loss = True
    images, names = bench.images(bench.work.trained), bench.names(_names(bench, case))
    [sentence] = bench.chunks(names)
    tokens = sentence.expand(bench.work.trained, -1)
    targets = bench.targets(bench.work.trained, len(names))
    labels = [{"class_labels": target.labels, "boxes": target.boxes} for target in targets]
    finish = _finish(reference)
    laps: list[Laps] = []  # of this step
    if case.compiled:
        reference.compile()
    else:
        _note_parts(reference, laps)

    def step(lap: Laps) -> None:
        laps[:] = [lap]
        with precision(bench.device, torch.bfloat16):
            loss = reference(
                images.pixels, input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=labels
            ).loss
            lap(WHOLE if case.compiled else "criterion")
        finish(loss, lap)

    return step


def _note_parts(reference: Any, laps: list[Laps]) -> None:
    """The reference encodes prompts, then images; its encoder, with the fusion, and its decoder come after both."""
    losses = reference.loss_function

    def criterion(*given: Any, **named: Any) -> Any:
        laps[0]("decode")
        return losses(*given, **named)

    reference.model.text_projection.register_forward_hook(lambda *_: laps[0]("prompts"))
    reference.model.encoder.register_forward_pre_hook(lambda *_: laps[0]("image"))
    reference.loss_function = criterion


def _finish(model: nn.Module) -> Finished:
    """Backward pass, clipping and the optimizer's step, as in training."""
    config = OptimConfig()
    optimizer = adamw(model, config)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def finish(loss: torch.Tensor, lap: Laps) -> None:
        loss.backward()
        lap("backward")
        clip_grad_norm_(trained, config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        lap("optimizer")

    return finish
