"""What T-Rex2 says of visual prompts (section 4; its figures are those of Swin-T), tested by rows of the ladder."""

from __future__ import annotations

from collections.abc import Mapping

from trex2_lightning.studies.sweep import Difference, Trend

PromptAP = Mapping[str, Mapping[str, float]]  # by prompt and category group


def _gain(row: str, way: str, group: str, *, over: tuple[str, str]) -> Difference[PromptAP]:
    """AP of one row and way to prompt less that of another, `over`."""
    return lambda runs, seed: runs[row][seed][way][group] - runs[over[0]][seed][over[1]][group]


PROMPT_TRENDS: list[Trend[PromptAP]] = [
    Trend(
        "Starting from text training lifts generic prompts on seen categories (visual only 14.0, joint 38.7 on COCO)",
        _gain("base", "generic_16", "seen", over=("from_scratch", "generic_16")),
    ),
    Trend(
        "Alignment by equation 9 lifts generic prompts on seen categories (38.7 to 38.8 on COCO, 30.2 to 34.9 on LVIS)",
        _gain("equation_9", "generic_16", "seen", over=("no_alignment", "generic_16")),
    ),
    Trend(
        "Alignment by equation 9 lifts text on seen categories (44.4 to 45.8 on COCO, 32.2 to 34.8 on LVIS)",
        _gain("equation_9", "text", "seen", over=("no_alignment", "text")),
    ),
    Trend(
        "Visual training costs text AP on rare categories (32.1 to 29.0 on LVIS)",
        _gain("stage1", "text", "rare", over=("base", "text")),
    ),
    Trend(
        "Visual prompts beat text on rare categories (generic-16 32.4, text 29.0 on LVIS)",
        _gain("base", "generic_16", "rare", over=("base", "text")),
    ),
    Trend(
        "Interactive prompts beat generic ones on seen categories (56.6 and 38.8 on COCO)",
        _gain("base", "interactive_box", "seen", over=("base", "generic_16")),
    ),
    Trend(
        "Interactive prompts beat text that is told as much (not in the paper) on seen categories",
        _gain("base", "interactive_box", "seen", over=("base", "hinted_text")),
    ),
    Trend(
        "Interactive prompts beat text that is told as much (not in the paper) on novel categories",
        _gain("base", "interactive_box", "novel", over=("base", "hinted_text")),
    ),
    Trend(
        "Mixed prompts beat generic ones on seen categories (42.5 and 38.8 on COCO)",
        _gain("base", "mixed", "seen", over=("base", "generic_16")),
    ),
    Trend(
        "Mixed prompts beat text on rare categories (34.3 and 29.0 on LVIS)",
        _gain("base", "mixed", "rare", over=("base", "text")),
    ),
    Trend(
        "Nameless visual data lowers generic prompts on seen categories (41.1 to 38.8 on COCO)",
        _gain("base", "generic_16", "seen", over=("stars", "generic_16")),
    ),
    Trend(
        "Nameless visual data lifts generic prompts on novel categories (a stand-in for 25.8 to 29.9 on LVIS, rare)",
        _gain("stars", "generic_16", "novel", over=("base", "generic_16")),
    ),
    Trend(
        "Nameless visual data lifts interactive prompts on novel categories (41.1 to 56.6 on COCO)",
        _gain("stars", "interactive_box", "novel", over=("base", "interactive_box")),
    ),
]
