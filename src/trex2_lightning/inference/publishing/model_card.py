"""A model card, made from a run: what the detector was made of, what it finds, and fields for people to fill in."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import ModelCard, ModelCardData

from trex2_lightning.config import Config
from trex2_lightning.evaluation.compare import COMPARED
from trex2_lightning.evaluation.history import read_json
from trex2_lightning.evaluation.tables import table
from trex2_lightning.inference.publishing.licences import ingredients
from trex2_lightning.training.module import DetectionModule
from trex2_lightning.training.provenance import Provenance, told

log = logging.getLogger(__name__)

TO_FILL = "[to fill in]"
CARD_FILE = "README.md"
CONTROLS = {  # what each control is beside
    "random_phrases": "text: the names are swapped",
    "foreign_phrases": "text: names of things that are not there",
    "hinted_text": "interactive: words, told as much of the image",
    "wrong_pictures": "interactive_box: boxes read from another picture",
}


class CardFigures(NamedTuple):
    """What one evaluation of the checkpoint found."""

    what: str  # was evaluated
    figures: dict[str, dict[str, dict[str, float]]]  # by metric, row and group


def model_card(
    config: Config, module: DetectionModule, steps: int, evaluations: list[CardFigures], licence: str, name: str
) -> ModelCard:
    """The card of a trained detector.

    Args:
        config: its run.
        module: its trained module.
        steps: that it was trained for.
        evaluations: of this checkpoint.
        licence: by its name on the hub.
        name: that `from_pretrained` takes: of the repository, or of the folder.
    """
    data = ModelCardData(
        license=licence,
        library_name="trex2_lightning",
        pipeline_tag="zero-shot-object-detection",
        tags=["object-detection", "open-vocabulary", config.model.fusion, config.model.granularity],
    )
    sections = {
        f"# {Path(name).name}": _said(config, module),
        "## Use": _use(name, module),
        "## Intended use": f"{TO_FILL} What it is for, and what it must not be used for.",
        "## Limits": f"{TO_FILL} Where it fails, and whom that could harm.",
        "## Training": _training(steps, module.provenance),
        "## Figures": "\n\n".join(_figures(evaluations)) or "None: this checkpoint was not evaluated.",
        "## Licence": _licence(licence, module.provenance),
    }
    body = "\n\n".join(f"{title}\n\n{text}" for title, text in sections.items())
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def evaluations_of(checkpoint: Path) -> list[CardFigures]:
    """What a run's folder says of a checkpoint, if it was evaluated since it was written; else it is told."""
    run = checkpoint.parent.parent
    found = []
    for file in (run / "evaluation.json", *sorted(run.glob("eval/*/evaluation.json"))):
        if not file.is_file():
            continue
        values = read_json(file)
        is_own = Path(str(values.get("checkpoint", ""))).name == checkpoint.name
        if not is_own or file.stat().st_mtime < checkpoint.stat().st_mtime:
            log.warning("%s is of another checkpoint, or of an earlier state: its figures are left out", file)
            continue
        own = file.parent == run
        what = f"the {values.get('split', 'test')} split of its own data" if own else file.parent.name
        found.append(CardFigures(what, {metric: values[metric] for metric in COMPARED if metric in values}))
    return found


def _said(config: Config, module: DetectionModule) -> str:
    model, detector = config.model, module.detector
    asked = "words, and boxes or points on any picture" if module.knows_exemplars else "words alone"
    how = [f"{model.granularity} granularity", f"{model.fusion} fusion", f"backbone {model.backbone.name}"]
    how += [f"text encoder {model.text.name}"]
    how += ["exemplars compared by appearance"] * (detector.appearance is not None)
    how += ["a presence head"] * (detector.presence is not None)
    millions = sum(parameter.numel() for parameter in detector.parameters()) / 1e6
    return f"An open-set object detector, asked with {asked}: {', '.join(how)}; {millions:.1f} million parameters."


def _use(name: str, module: DetectionModule) -> str:
    lines = [
        "from trex2_lightning import Box, Predictor"
        if module.knows_exemplars
        else "from trex2_lightning import Predictor",
        "",
        f'predictor = Predictor.from_pretrained("{name}")',
        'image = predictor.encode("image.jpg")',
        'prompts = predictor.text(("red star", "blue ring"))',
        "for found in predictor.detect(image, prompts):",
        "    print(found.name, found.score, found.box)  # in pixels",
    ]
    if module.knows_exemplars:
        lines += [
            'like_this = predictor.interactive(image, {"cell": [Box(10, 20, 50, 60)]})',
            "print(predictor.detect(image, like_this))",
        ]
    shell = f'trex2 predict image.jpg --model {name} --text "red star"'
    return "\n".join(["```python", *lines, "```", "", "```sh", "pip install trex2_lightning", shell, "```"])


def _training(steps: int, entries: Provenance) -> str:
    lines = [[*told(entry).values()] for entry in entries]
    return f"{steps:,} steps, after those of the runs before it, oldest first:\n\n{table([*told({})], lines)}"


def _figures(evaluations: list[CardFigures]) -> Iterator[str]:
    for what, metrics in evaluations:
        for metric, rows in metrics.items():
            groups = [*dict.fromkeys(group for row in rows.values() for group in row)]
            lines = [
                [name, *(f"{row[group]:.3f}" if group in row else "" for group in groups), CONTROLS.get(name, "")]
                for name, row in rows.items()
            ]
            yield f"{COMPARED[metric]}, {what}:\n\n{table(['asked with', *groups, 'control of'], lines)}"


def _licence(licence: str, entries: Provenance) -> str:
    lines: dict[tuple[str, ...], None] = {}
    for part in (part for entry in entries for part in ingredients(entry)):
        terms = part.terms
        told_of = (terms.name, terms.licence, terms.why) if terms else ("unknown", TO_FILL, "")
        lines[(part.what, *told_of)] = None
    if not lines:
        return f"{licence}. What it was made of is not known."
    made_of = table(["made of", "which is", "under", "note"], lines)
    return f"{licence}. Data and weights that it was made of have terms of their own:\n\n{made_of}"


def is_filled(card: str) -> bool:
    """Whether somebody has filled in all fields."""
    return TO_FILL not in card


def licence_of(folder: Path) -> str:
    """Of a published folder, by its card; "": none."""
    file = folder / CARD_FILE
    if not file.is_file():
        return ""
    head: Any = ModelCard(file.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
    return str(head.license or "")
