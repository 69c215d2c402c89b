"""The page of the fusion ablation: tables by cell, and what became of the claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from trex2_lightning.config import Config
from trex2_lightning.evaluation.costs import NUM_NAMES
from trex2_lightning.evaluation.tables import mean_and_spread, table
from trex2_lightning.studies import claims
from trex2_lightning.studies.sweep import Difference, Runs, Trend, verdict

SHOWN_GROUPS = ("seen", "frequent", "common", "rare", "composed", "novel")
STEPS = ("image", "prompt", "decode")
CACHED = {"nothing": STEPS, "prompts": ("image", "decode"), "prompts, image": ("decode",)}  # what is left to do
TIME_NOISE = 0.05  # a smaller share of the time is no difference


class Cell(NamedTuple):
    """A trained cell of one seed."""

    ap: dict[str, dict[str, float]]  # by prompt and category group
    measures: dict[str, Any]  # as `fusion_ablation.measured` gives them
    seconds_per_step: float
    memory_gib: float


Measured = Callable[[Cell], float]


def page(cells: Runs[Cell], config: Config, relation_steps: int) -> str:
    """The tables and the verdicts, as Markdown.

    Args:
        cells: by name and seed.
        config: of any of them.
        relation_steps: for how long cells went on with relational phrases.
    """
    some = next(iter(next(iter(cells.values())).values())).measures
    train, size = config.train, config.data.size
    forms, others = list(some["lengthened"]), list(some["interference"])
    blocks = [
        "# Fusion and granularity on `shapes`",
        f"Written by `make ablation-fusion`; do not edit. Each cell was trained for {train.max_steps} steps of batch "
        f"{train.total_batch} on the same pictures in the same order, and differs from the others in "
        "`model.granularity` and `model.fusion` alone. Mean and standard deviation over the seeds, whose number stands "
        "in brackets. (phrase, late) is T-Rex2 and (word, early) Grounding DINO, both small and from random weights: "
        "what is found here need not hold for large, pretrained ones.",
        "## AP by category group",
        "Test split, all names at once. `random` is the control: seen categories when other names are asked for. "
        "`composed` and `novel` were held out of training, where no word of a novel shape ever came.",
        _table(
            cells,
            ["cell", *SHOWN_GROUPS, "random"],
            [*map(_text, SHOWN_GROUPS), lambda cell: cell.ap["random_phrases"]["seen"]],
        ),
        "## Training",
        "Median time of a step and peak resident memory, on one thread each while other trainings ran beside.",
        _table(
            cells,
            ["cell", "million parameters", "seconds a step", "GiB"],
            [
                lambda cell: cell.measures["parameters"] / 1e6,
                lambda cell: cell.seconds_per_step,
                lambda c: c.memory_gib,
            ],
        ),
        "## Latency by step",
        f"Milliseconds for one picture of {size} x {size} and {NUM_NAMES} names, on {some['threads']} threads with "
        "nothing else running. Decoding includes the scores of all names.",
        _table(
            cells,
            ["cell", *STEPS, "total"],
            [*(_cost("latency", NUM_NAMES, (step,)) for step in STEPS), _cost("latency", NUM_NAMES, STEPS)],
            digits=1,
        ),
        "## Latency by number of names",
        "Milliseconds. Every cell can keep encoded prompts and what `encode_image` made of a picture; with early "
        "fusion that is less, as its encoder runs in decoding. Early fusion reads "
        f"{config.model.max_tokens} tokens at once, and asks for more in several passes.",
        _by_names(cells, "latency", digits=1),
        "## Floating-point operations by number of names",
        "Billions, of matrix products, convolutions and attention; sampling and all else is not counted.",
        _by_names(cells, "gflops", digits=2),
        "## One vector whatever the phrase's length",
        "AP on seen categories, tokens of all names together, and milliseconds of decoding, as every name is "
        "lengthened. The further words were never trained: AP says how much they disturb, not what a text encoder that "
        "knows them would make of them.",
        *(
            _table(
                cells,
                [what, *(f"{form.format('NAME')}" for form in forms)],
                [_of("lengthened", f, key) for f in forms],
                digits,
            )
            for what, key, digits in (("AP", "seen", 3), ("tokens", "tokens", 0), ("milliseconds", "milliseconds", 1))
        ),
        "## No interference from long text",
        f"AP of the same {claims.NUM_ASKED} frequent categories as other names join the prompt. They compete for the "
        "same queries and detections too. Training asked for all seen names in every batch, never for so few.",
        _table(
            cells, ["cell", *(f"{count} others" for count in others)], [_of("interference", count) for count in others]
        ),
        "## Deep interaction",
        'Phrases such as "the blue star left of the black ring". A picture has four stars, left and right of two '
        "things (or above and below), and is asked for its four phrases. `meant` and `other` are the shares of the "
        "phrases whose best box is that of the star meant, or of another star: one of four is right by chance, a half "
        "for who knows the side or the neighbour alone. Zero-shot is the cell as it is, which has met none of the "
        f"words of relation; `trained` went on for {relation_steps} steps with such phrases, on other pictures.",
        _table(
            cells,
            ["cell", *(f"{when}: {what}" for when in ("zero-shot", "trained") for what in ("meant", "other", "AP"))],
            [_of("relations", when, what) for when in ("names", "phrases") for what in ("target", "lookalike", "ap")],
        ),
        "## The claims",
        "Differences by seed: of AP, of the share of phrases, or by which share the time is longer.",
        "\n".join(f"- {verdict(trend, cells)}" for trend in FUSION_TRENDS),
    ]
    return "\n\n".join(blocks) + "\n"


def _table(cells: Runs[Cell], head: Sequence[str], columns: Iterable[Measured], digits: int = 3) -> str:
    columns = list(columns)
    return table(head, [[f"{name} ({len(found)})", *_row(found, columns, digits)] for name, found in cells.items()])


def _by_names(cells: Runs[Cell], kind: str, digits: int) -> str:
    """A row for each cell and for what it has kept, a column for each number of names."""
    counts = list(next(iter(next(iter(cells.values())).values())).measures[kind])
    lines = [
        [f"{name} ({len(found)})", kept, *_row(found, [_cost(kind, count, steps) for count in counts], digits)]
        for name, found in cells.items()
        for kept, steps in CACHED.items()
    ]
    return table(["cell", "cached", *counts], lines)


def _row(found: Mapping[int, Cell], columns: Iterable[Measured], digits: int) -> list[str]:
    return [mean_and_spread(map(column, found.values()), digits) for column in columns]


def _text(group: str) -> Measured:
    return lambda cell: cell.ap["text"][group]


def _cost(kind: str, count: str, steps: Sequence[str]) -> Measured:
    return lambda cell: sum(cell.measures[kind][count][step] for step in steps)


def _of(*keys: str) -> Measured:
    def value(cell: Cell) -> float:
        found = cell.measures
        for key in keys:
            found = found[key]
        return float(found)  # type: ignore[arg-type]

    return value


def _more(column: Measured, one: str, other: str) -> Difference[Cell]:
    """By how much the figure of `one` is above that of `other`."""
    return lambda cells, seed: column(cells[one][seed]) - column(cells[other][seed])


def _slower(column: Measured, one: str, other: str) -> Difference[Cell]:
    """The share by which the time of `one` is longer than that of `other`."""
    return lambda cells, seed: column(cells[one][seed]) / column(cells[other][seed]) - 1


def _lost(before: Measured, after: Measured) -> Measured:
    return lambda cell: before(cell) - after(cell)


_LENGTHENED = _lost(*(_of("lengthened", form, "seen") for form in (claims.NAME_FORMS[0], claims.NAME_FORMS[-1])))
_DISTURBED = _lost(*(_of("interference", str(count)) for count in (claims.NUM_OTHERS[0], claims.NUM_OTHERS[-1])))
_CHOSEN = _of("relations", "phrases", "target")

FUSION_TRENDS: list[Trend[Cell]] = [
    Trend("Early fusion finds more on seen categories, by phrase", _more(_text("seen"), "phrase_early", "phrase_late")),
    Trend("Early fusion finds more on seen categories, by word", _more(_text("seen"), "word_early", "word_late")),
    Trend("Words find more on seen categories, late", _more(_text("seen"), "word_late", "phrase_late")),
    Trend("Words find more on seen categories, early", _more(_text("seen"), "word_early", "phrase_early")),
    Trend(
        "One vector: long names cost Grounding DINO more AP on seen categories than T-Rex2",
        _more(_LENGTHENED, "word_early", "phrase_late"),
    ),
    *(
        Trend(
            f"Cheaper: with {count} names and prompts cached, Grounding DINO takes longer than T-Rex2",
            _slower(_cost("latency", count, CACHED["prompts"]), "word_early", "phrase_late"),
            TIME_NOISE,
        )
        for count in ("10", "100", "2000")
    ),
    Trend(
        "No interference: 70 further names cost Grounding DINO more AP than T-Rex2",
        _more(_DISTURBED, "word_early", "phrase_late"),
    ),
    Trend(
        "Deep interaction: early fusion learns relations better, by phrase",
        _more(_CHOSEN, "phrase_early", "phrase_late"),
    ),
    Trend("Deep interaction: early fusion learns relations better, by word", _more(_CHOSEN, "word_early", "word_late")),
    *(
        Trend(
            f"Open vocabulary: T-Rex2 finds more {group} categories than Grounding DINO",
            _more(_text(group), "phrase_late", "word_early"),
        )
        for group in ("composed", "novel")
    ),
]
