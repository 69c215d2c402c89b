"""`make ablation-prompts`: what each choice of stage 2 is worth on `shapes`, as a table made from runs.

A run that is there already is not repeated, so an interrupted ablation goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trex2_lightning.config import load
from trex2_lightning.evaluation.history import average_precision
from trex2_lightning.evaluation.tables import mean_and_spread, table
from trex2_lightning.studies.sweep import Difference, Trend, finish, folders, verdict

STAGE1 = Path("experiments/demo/stage1.yaml")
ROWS = Path("experiments/ablation/prompts")

PromptAP = dict[str, dict[str, float]]  # by prompt and category group


def rows() -> list[str]:
    """What can be compared: the files of `ROWS`, the paper's recipe first."""
    return ["paper", *sorted(path.stem for path in ROWS.glob("*.yaml") if path.stem != "paper")]


def compare_prompts(
    chosen: Sequence[str], seeds: Sequence[int], jobs: int, output: Path, target: Path, overrides: Sequence[str]
) -> None:
    """Train and evaluate what is not there yet, and write the page.

    Args:
        chosen: some of `rows`.
        seeds: of every row.
        jobs: runs at the same time, on one thread each.
        output: folder of the runs.
        target: file to write.
        overrides: configuration values of every run.
    """
    folder = output / "ablation" / "prompts"

    def train(row: str, seed: int) -> None:
        run = folder / f"{row}_{seed}"
        file = STAGE1 if row == "stage1" else ROWS / f"{row}.yaml"
        own = [f"name=ablation/prompts/{run.name}", f"output={output}", f"seed={seed}", *overrides]
        if row != "stage1" and load(file).train.init_from:
            own.append(f"train.init_from={folder / f'stage1_{seed}' / 'checkpoints' / 'last.ckpt'}")
        finish(run, file, own)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda seed: train("stage1", seed), seeds))
        list(pool.map(lambda run: train(*run), [(row, seed) for seed in seeds for row in chosen]))
    target.write_text(prompt_page(_finished(folder, ["stage1", *rows()])))


def prompt_page(runs: dict[str, dict[int, PromptAP]]) -> str:
    """The tables and the verdicts, as Markdown."""
    paper = load(ROWS / "paper.yaml")
    seeds = {row: len(found) for row, found in runs.items()}
    blocks = [
        "# What each choice of stage 2 is worth on `shapes`",
        "Written by `make ablation-prompts`; do not edit. AP on the test split, mean and standard deviation over the "
        f"seeds, whose number stands in brackets. Stage 1 has {load(STAGE1).train.max_steps} steps of text, each row "
        f"below goes on from it for {paper.train.max_steps} iterations of batch {paper.train.total_batch}, "
        "8 visual to 1 of text. Each row differs from `paper` in what its name says; `best` is the demo's recipe.",
        "Stage 1 knows no visual prompts. `hinted_text` is text that is "
        "told, as interactive prompts are, which categories the image has.",
    ]
    for group in ("seen", "rare", "novel"):
        columns = ["text", "hinted_text", "interactive_box", "interactive_point", "generic_16", "mixed"]
        lines = [[f"{row} ({seeds[row]})", *(_cell(runs[row], way, group) for way in columns)] for row in runs]
        blocks += [f"## {group}", table(["row", *columns], lines)]
    lines = [
        [row, group, *(_cell(runs[row], f"generic_{count}", group) for count in paper.eval.references)]
        for row in ("paper", "best")
        if row in runs
        for group in ("seen", "rare", "novel")
    ]
    counts = [str(count) for count in paper.eval.references]
    blocks += ["## Generic prompts by number of reference images", table(["row", "group", *counts], lines)]
    blocks += ["## The paper's trends", *[f"- {verdict(trend, runs)}" for trend in PROMPT_TRENDS]]
    return "\n\n".join(blocks).replace("\n\n- ", "\n- ").replace("trends\n- ", "trends\n\n- ") + "\n"


def _gain(row: str, way: str, group: str, *, over: tuple[str, str]) -> Difference[PromptAP]:
    """AP of one row and way to prompt less that of another, `over`."""
    return lambda runs, seed: runs[row][seed][way][group] - runs[over[0]][seed][over[1]][group]


# Of T-Rex2, section 4; its figures are those of Swin-T.
PROMPT_TRENDS: list[Trend[PromptAP]] = [
    Trend(
        "Starting from text training lifts generic prompts on seen categories (visual only 14.0, joint 38.7 on COCO)",
        _gain("paper", "generic_16", "seen", over=("from_scratch", "generic_16")),
    ),
    Trend(
        "Alignment lifts generic prompts on seen categories (38.7 to 38.8 on COCO, 30.2 to 34.9 on LVIS)",
        _gain("paper", "generic_16", "seen", over=("no_alignment", "generic_16")),
    ),
    Trend(
        "Alignment lifts text on seen categories (44.4 to 45.8 on COCO, 32.2 to 34.8 on LVIS)",
        _gain("paper", "text", "seen", over=("no_alignment", "text")),
    ),
    Trend(
        "Visual training costs text AP on rare categories (32.1 to 29.0 on LVIS)",
        _gain("stage1", "text", "rare", over=("paper", "text")),
    ),
    Trend(
        "Visual prompts beat text on rare categories (generic-16 32.4, text 29.0 on LVIS)",
        _gain("paper", "generic_16", "rare", over=("paper", "text")),
    ),
    Trend(
        "Interactive prompts beat generic ones on seen categories (56.6 and 38.8 on COCO)",
        _gain("paper", "interactive_box", "seen", over=("paper", "generic_16")),
    ),
    Trend(
        "Interactive prompts beat text that is told as much (not in the paper) on seen categories",
        _gain("paper", "interactive_box", "seen", over=("paper", "hinted_text")),
    ),
    Trend(
        "Interactive prompts beat text that is told as much (not in the paper) on novel categories",
        _gain("paper", "interactive_box", "novel", over=("paper", "hinted_text")),
    ),
    Trend(
        "Boxes beat points on seen categories (56.6 and 54.3 on COCO)",
        _gain("paper", "interactive_box", "seen", over=("paper", "interactive_point")),
    ),
    Trend(
        "More reference images help: 16 over 1 on seen categories (38.8 and 29.2 on COCO)",
        _gain("paper", "generic_16", "seen", over=("paper", "generic_1")),
    ),
    Trend(
        "More reference images help: 32 over 16 on seen categories (41.3 and 38.8 on COCO)",
        _gain("paper", "generic_32", "seen", over=("paper", "generic_16")),
    ),
    Trend(
        "Mixed prompts beat generic ones on seen categories (42.5 and 38.8 on COCO)",
        _gain("paper", "mixed", "seen", over=("paper", "generic_16")),
    ),
    Trend(
        "Mixed prompts beat text on rare categories (34.3 and 29.0 on LVIS)",
        _gain("paper", "mixed", "rare", over=("paper", "text")),
    ),
    Trend(
        "Nameless visual data lowers generic prompts on seen categories (41.1 to 38.8 on COCO)",
        _gain("paper", "generic_16", "seen", over=("nameless", "generic_16")),
    ),
    Trend(
        "Nameless visual data lifts generic prompts on novel categories (a stand-in for 25.8 to 29.9 on LVIS, rare)",
        _gain("nameless", "generic_16", "novel", over=("paper", "generic_16")),
    ),
    Trend(
        "Nameless visual data lifts interactive prompts on novel categories (41.1 to 56.6 on COCO)",
        _gain("nameless", "interactive_box", "novel", over=("paper", "interactive_box")),
    ),
]


def _cell(found: dict[int, PromptAP], way: str, group: str) -> str:
    return mean_and_spread(run[way][group] for run in found.values() if group in run.get(way, {}))


def _finished(folder: Path, rows: Sequence[str]) -> dict[str, dict[int, PromptAP]]:
    """AP of every finished run in the folder."""
    runs: dict[str, dict[int, PromptAP]] = {}
    for row in rows:
        for seed, run in folders(folder, row).items():
            runs.setdefault(row, {})[seed] = average_precision(run)
    return runs
