"""The ladder's page: AP of every row, and whether its idea is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import mean, variance
from typing import NamedTuple

from trex2_lightning.evaluation.tables import mean_and_spread, table
from trex2_lightning.studies.prompt_rows import BASE, row
from trex2_lightning.studies.prompt_trends import PROMPT_TRENDS, PromptAP
from trex2_lightning.studies.sweep import AP_NOISE, verdict

WAYS = ("text", "hinted_text", "interactive_box", "generic_16", "mixed")
JUDGED_GROUPS = {"seen": "trained", "novel": "held-out"}
# What an idea is judged by: names are asked for what is trained alone, and told names are a control.
JUDGED = (("text", "seen"), *product(("interactive_box", "generic_16", "mixed"), JUDGED_GROUPS))
OF_TRENDS = (
    "Of the base alone, without nameless things and, on `shapes`, without appearance, which the demo has "
    "([results.md](results.md)). In brackets the difference that the claim promises, seed by seed: below 0 is the "
    "contrary. After stage 1 the base also has steps of text, five of nine. No runs: screened above."
)
ONE_SEED = 0.02  # a smaller difference of two single runs is none


class LadderRun(NamedTuple):
    """A finished run."""

    ap: Mapping[str, PromptAP]  # by data set that was evaluated
    seconds: float | None  # per step, where it is known


class Ladder(NamedTuple):
    """The finished rows on one kind of data."""

    name: str
    steps: int
    screening: bool
    runs: Mapping[str, Mapping[int, LadderRun]]  # by row and seed; the base is among them

    @property
    def title(self) -> str:
        return f"{self.name}, {self.steps} steps{', screening' if self.screening else ''}"


class Change(NamedTuple):
    """What a row adds to one of the judged figures of the base."""

    figure: str
    gain: float  # AP, mean over the seeds that both have
    noise: float  # what does not count


def prompt_page(ladders: Sequence[Ladder]) -> str:
    """Tables and verdicts as Markdown."""
    blocks = [
        "# What each idea is worth in stage 2",
        "Written by `make ablation-prompts`; do not edit. AP on the test split of trained / held-out categories, mean "
        "and standard deviation over the seeds, whose number stands in brackets. Each row changes the base by what it "
        "says, `a+b` by both; all rows have the same number of steps, of images and of steps that show exemplars of "
        "named things, and start from the same stage 1 of their seed, which knows no visual prompts; on photographs "
        "appearance answers them. Steps of nameless things (`stars`, `kinds_...`) stand in place of four of the base's "
        "five steps of text in nine, so what they cost text is that too. "
        "`hinted_text` is text that is told, as interactive prompts are, which categories the image has. Seconds a "
        "step are the median, one thread, of a machine that did other work too. Scores are as they were learned: "
        "nothing is fitted to val afterwards. Where a frozen network compares boxes with exemplars, a score is the "
        "learned one times the root of the category's share of likeness.",
        "An idea is judged by its differences from the base of the same seed: in text on trained categories, and in "
        "interactive, generic and mixed prompts on both. Noise is two standard errors of such a difference, its spread "
        f"over seeds taken of all rows of the table together, and at least {AP_NOISE}; where there is one seed alone, "
        f"{ONE_SEED}. An idea is kept where something rises by more than noise, and the judged figures on average. "
        "A screening has one seed: what is kept there was worth whole runs, and no more.",
    ]
    for ladder in ladders:
        blocks += [f"## {ladder.title}", *_tables(ladder), "\n".join(f"- {line}" for line in verdicts(ladder))]
    for ladder in ladders:
        if ladder.name == "shapes" and not ladder.screening:
            runs = {one: {seed: run.ap["shapes"] for seed, run in own.items()} for one, own in ladder.runs.items()}
            trends = "\n".join(f"- {verdict(trend, runs)}" for trend in PROMPT_TRENDS)
            blocks += ["## The paper's trends", OF_TRENDS, trends]
    return "\n\n".join(blocks) + "\n"


def verdicts(ladder: Ladder) -> list[str]:
    """A sentence for each row but the base."""
    return [
        f"`{one}` ({row(one).what}): {sentence(changes(ladder, one))}"
        for one in ladder.runs
        if one not in (BASE, "stage1")
    ]


def changes(ladder: Ladder, one: str) -> list[Change]:
    """What a row adds to each judged figure; none where it shares no seed with the base."""
    found = []
    for way, group in JUDGED:
        own = _differences(ladder, one, way, group)
        if own:
            spread = _spread([_differences(ladder, other, way, group) for other in ladder.runs])
            noise = ONE_SEED if spread is None else max(AP_NOISE, 2 * spread / len(own) ** 0.5)
            found.append(Change(f"{way} {JUDGED_GROUPS[group]}", mean(own), noise))
    return found


def sentence(found: Sequence[Change]) -> str:
    """Whether an idea is kept, and why."""
    if not found:
        return "no seed in common with the base."
    outside = [change for change in found if abs(change.gain) > change.noise]
    if not outside:
        most = max(found, key=lambda change: abs(change.gain))
        return f"**within the spread** (at most {most.gain:+.3f}, {most.figure}, noise {most.noise:.3f})."
    listed = ", ".join(f"{change.figure} {change.gain:+.3f} (noise {change.noise:.3f})" for change in outside)
    kept = max(change.gain for change in outside) > 0 and mean(change.gain for change in found) > 0
    return f"**{'kept' if kept else 'not kept'}**: {listed}; {mean(change.gain for change in found):+.3f} on average."


def _tables(ladder: Ladder) -> list[str]:
    """One for each data set that was evaluated."""
    names = list(dict.fromkeys(name for own in ladder.runs.values() for run in own.values() for name in run.ap))
    blocks = []
    for name in names:
        lines = []
        for one, own in ladder.runs.items():
            cells = [" / ".join(_cell(own, name, way, group) for group in JUDGED_GROUPS).strip(" /") for way in WAYS]
            seconds = [run.seconds for run in own.values() if run.seconds is not None]
            lines.append([f"{one} ({len(own)})", *cells, f"{mean(seconds):.2f}" if seconds else ""])
        blocks.append(table([name, *WAYS, "s a step"], lines))
    return blocks


def _cell(own: Mapping[int, LadderRun], name: str, way: str, group: str) -> str:
    found = (run.ap.get(name, {}).get(way, {}).get(group) for run in own.values())
    return mean_and_spread(value for value in found if value is not None)


def _differences(ladder: Ladder, one: str, way: str, group: str) -> list[float]:
    """From the base's of the same seed; of several data sets the mean."""
    own, base = ladder.runs[one], ladder.runs[BASE]
    found = []
    for seed in sorted(own.keys() & base.keys()):
        pairs = [(own[seed].ap.get(name, {}), base[seed].ap[name]) for name in base[seed].ap]
        gains = [a[way][group] - b[way][group] for a, b in pairs if group in a.get(way, {}) and group in b.get(way, {})]
        if gains:
            found.append(mean(gains))
    return found


def _spread(rows: Sequence[Sequence[float]]) -> float | None:
    """The standard deviation of a difference over seeds, of all rows together; None: none has two seeds."""
    several = [own for own in rows if len(own) > 1 and any(own)]
    if not several:
        return None
    degrees = sum(len(own) - 1 for own in several)
    return (sum((len(own) - 1) * variance(own) for own in several) / degrees) ** 0.5
