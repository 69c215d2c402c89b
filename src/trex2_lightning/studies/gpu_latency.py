"""What detectors take on a GPU to find what they are asked for, beside Grounding DINO of `transformers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.structures import FeatureMaps, Prompts, PromptTokens
from trex2_lightning.studies.gpu_models import (
    OURS,
    PEER,
    PRECISIONS,
    Bench,
    Fusion,
    compiled,
    precision,
    ratio_of,
)
from trex2_lightning.studies.gpu_page import Bar, Region, Section, Task
from trex2_lightning.studies.gpu_timing import Laps, Taken, milliseconds, timed

LATENCY_TITLES: dict[Region, str] = {"eager": "Latency", "compiled": "Latency, compiled"}
Reused = Literal["", "cached", "again"]  # all is computed; prompts are cached; the image is


class Case(NamedTuple):
    """Who is asked for what."""

    who: str
    names: int
    asked: Reused
    dtype: str
    batch: int
    compiled: bool = False

    @property
    def row(self) -> tuple[str, str, str]:
        """Its first cells."""
        told = {"": "", "cached": ", vectors cached", "again": ", asking a cached image again"}[self.asked]
        how = ", compiled" if self.compiled else ""
        return f"{self.who}, {self.names} names{told}{how}", self.dtype, str(self.batch)


def latency_section(bench: Bench, region: Region) -> Section:
    """A row for every detector, number of names, type and batch."""
    setting = bench.work.setting
    cases = [case for case in _cases(bench, region) if bench.has_peer or case.who != PEER]
    return Section(
        LATENCY_TITLES[region],
        f"{setting.height} x {setting.width} pixels, no gradients. bfloat16 is autocast; float32 has its matrix "
        "products in TF32 where the card has it, as the package sets it. The image, its prompts and the scores of all "
        "names are computed, but for what is said to be cached. More names than a detector reads at once are asked in "
        "parts.",
        ("what", "precision", "batch", "ms", "ms an image", f"times as fast as {PEER}, {setting.few} names"),
        [_task(bench, region, case) for case in cases],
    )


def _cases(bench: Bench, region: Region) -> Iterator[Case]:
    few, many = bench.work.setting.few, bench.work.setting.many
    early, late = OURS["early"], OURS["late"]
    if region == "compiled":
        for batch in bench.work.batches:
            yield Case(PEER, few, "", "bfloat16", batch)
            for who, asked in ((PEER, ""), (early, ""), (late, "cached"), (late, "again")):
                yield Case(who, few, asked, "bfloat16", batch, compiled=True)  # type: ignore[arg-type]
        return
    for dtype in PRECISIONS:
        for batch in bench.work.batches:
            yield Case(PEER, few, "", dtype, batch)
            yield Case(early, few, "", dtype, batch)
            yield Case(late, few, "cached", dtype, batch)
            yield Case(late, few, "again", dtype, batch)
            yield Case(late, many, "cached", dtype, batch)
    yield Case(PEER, many, "", "bfloat16", min(bench.work.batches))
    yield Case(early, many, "", "bfloat16", min(bench.work.batches))


def _task(bench: Bench, region: Region, case: Case) -> Task:
    title, few = LATENCY_TITLES[region], bench.work.setting.few
    peer = Case(PEER, few, "", case.dtype, case.batch).row

    def speedup() -> float | None:
        return ratio_of(bench.seconds(title, *peer), bench.seconds(title, *case.row))

    def tell(taken: Taken) -> list[str]:
        faster = speedup()
        own = case.row == peer
        told = "" if faster is None or own else f"{faster:.2f}"
        return [milliseconds(taken.seconds), milliseconds(taken.seconds / case.batch), told]

    return Task(case.row, lambda: _measure(bench, case), tell, tuple(_bars(bench, title, case, speedup)))


def _bars(bench: Bench, title: str, case: Case, speedup: Callable[[], float | None]) -> Iterator[Bar]:
    """Of bfloat16: the issue's."""
    setting, single = bench.work.setting, case.batch == 1
    if case.dtype != "bfloat16" or case.who == PEER:
        return
    least = {
        (OURS["early"], "", False): 2.0,
        (OURS["late"], "cached", False): 3.6,
        (OURS["late"], "cached", True): 6.5,
        (OURS["late"], "again", False): 10.0,
    }.get((case.who, case.asked, case.compiled))
    if single and case.names == setting.few and least is not None:
        yield Bar(speedup, "times as fast", ">=", least)
    if single and case.names == setting.many and case.asked == "cached":
        few = case._replace(names=setting.few).row
        more = f"times what {setting.few} names take"
        yield Bar(lambda: ratio_of(bench.seconds(title, *case.row), bench.seconds(title, *few)), more, "<=", 1.1)
    if (
        case.batch == max(bench.work.batches)
        and case.names == setting.few
        and case.asked == "cached"
        and not case.compiled
    ):
        yield Bar(lambda: ratio_of(bench.seconds(title, *case.row), case.batch / 1000), "ms an image", "<=", 8)


def _measure(bench: Bench, case: Case) -> Taken:
    dtype = PRECISIONS[case.dtype]
    with torch.no_grad():
        with precision(bench.device, dtype):
            step = _reference_step(bench, case) if case.who == PEER else _own_step(bench, case)

        def run(lap: Laps) -> None:
            with precision(
                bench.device, dtype
            ):  # every time: autocast keeps the weights that it has cast until it ends
                step(lap)

        return timed(run, bench.device, bench.work)


def _reference_step(bench: Bench, case: Case) -> Callable[[Laps], object]:
    reference, images = bench.reference(), bench.images(case.batch)
    chunks = [tokens.expand(case.batch, -1) for tokens in bench.chunks(bench.names(case.names))]
    if case.compiled:
        reference.compile()
    return lambda _: [ask(reference, images.pixels, tokens) for tokens in chunks]


def _own_step(bench: Bench, case: Case) -> Callable[[Laps], object]:
    fusion: Fusion = "early" if case.who == OURS["early"] else "late"
    detector, images = bench.detector(fusion), bench.images(case.batch)
    asked = Prompts(bench.names(case.names))
    check = compiled(detector) if case.compiled else lambda: None
    prompts = detector.encode_prompts(asked) if case.asked == "cached" else None
    features = detector.encode_image(images) if case.asked == "again" else None

    def step(_: Laps) -> None:
        known = detector.encode_image(images) if features is None else features
        find(detector, known, detector.encode_prompts(asked) if prompts is None else prompts)
        check()

    return step


def ask(reference: Any, pixels: Tensor, tokens: Tensor) -> Any:
    """The reference's output for images (B, 3, H, W) and tokens (B, T)."""
    return reference(pixels, input_ids=tokens, attention_mask=torch.ones_like(tokens))


def find(detector: PromptedDetector, features: FeatureMaps, prompts: PromptTokens) -> Tensor:
    """Scores (B, Q, C)."""
    return detector.scores(detector.decode(features, prompts))
