"""A test on `shapes` for each claim about what late and early fusion, phrases and words find."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from statistics import mean

import torch
from torchvision.ops import box_iou

from trex2_lightning.config import Config, override
from trex2_lightning.data.shapes.layout import categories
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.evaluation.report import by_group
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.prompt_tokens import only
from trex2_lightning.prompting.protocols import Prompting, Text
from trex2_lightning.structures import Batch, FeatureMaps, PromptTokens
from trex2_lightning.training.module import DetectionModule

NAME_FORMS = (
    "{}",
    "a {}",
    "a small {} in the picture",
    "a small {} shaped like this one in the picture",
)
NUM_ASKED = 10  # categories whose AP is watched
NUM_OTHERS = (0, 20, 70)  # names that join them
ON_RELATIONS = ["data.test.annotations=relations.json", "data.test.images=relations"]
SAME = 0.5  # IoU at which a box is that of an object


def lengthened(config: Config, module: DetectionModule) -> dict[str, dict[str, float]]:
    """AP on the test split by form of the names and category group: {form: {group: AP}}."""
    names = [category.name for category in categories(config.data.shapes.preset, config.data.shapes.version)]
    asked = {form: Text(tuple(form.format(name) for name in names)) for form in NAME_FORMS}
    report = evaluate(config, module, "test", asked)
    return {form: by_group(evaluation.figures) for form, evaluation in report.rows.items()}


def interference(config: Config, module: DetectionModule) -> dict[str, float]:
    """AP of the same ten frequent categories on the test split, by the number of other names in the prompt."""
    known, draw = categories(config.data.shapes.preset, config.data.shapes.version), random.Random(0)
    watched = draw.sample([i for i, category in enumerate(known) if category.group == "frequent"], NUM_ASKED)
    others = [i for i in range(len(known)) if i not in watched]
    draw.shuffle(others)
    asked = {str(count): Some([*watched, *others[:count]]) for count in NUM_OTHERS}
    report = evaluate(config, module, "test", asked)
    return {
        count: round(mean(evaluation.categories[known[i].name] for i in watched), 4)
        for count, evaluation in report.rows.items()
    }


def relations(config: Config, module: DetectionModule) -> dict[str, float]:
    """What phrases such as "the blue star left of the black ring" find, each image asked for its own four.

    Returns:
        `target`, `lookalike`: shares of the phrases whose best box is that of the object meant, or of one that looks
        like it; and `ap`, by all phrases.
    """
    report = evaluate(override(config, ON_RELATIONS), module, "test", ["hinted_text"])
    evaluation = report.rows["hinted_text"]
    found: Counter[str] = Counter()
    for image, result in zip(report.records.images, evaluation.results, strict=True):
        for label in image.labels.tolist():
            mine = result.labels == label
            if mine.any():
                best = result.boxes[mine][result.scores[mine].argmax()]
                overlap = box_iou(best[None], image.boxes)[0]
                right = image.labels[overlap.argmax()] == label
                found["nothing" if overlap.max() < SAME else "target" if right else "lookalike"] += 1
    asked = sum(len(image.labels) for image in report.records.images)
    shares = {what: round(found[what] / asked, 4) for what in ("target", "lookalike")}
    return shares | {"ap": round(evaluation.figures["ap"], 4)}


class Some(Prompting):
    """Text for some of the categories, as if there were no others."""

    def __init__(self, wanted: Sequence[int]) -> None:
        self.wanted = torch.tensor(wanted)
        self._text = Text()

    def start(self) -> None:
        self._text.start()

    def __call__(self, detector: PromptedDetector, batch: Batch, features: FeatureMaps) -> PromptTokens:
        tokens = self._text(detector, batch, features)
        return only(tokens, torch.isin(tokens.category, self.wanted.to(tokens.category.device))[None])
