"""Published Grounding DINO weights on COCO val2017 by this package alone, beside the AP that their authors publish.

Logits have parity from random weights; this is the test of all around them, from files to AP. As both authors evaluate
(`demo/test_ap_on_coco.py` of IDEA-Research/GroundingDINO, `configs/mm_grounding_dino` and `GroundingDINOHead` of
open-mmlab/mmdetection): float32, pictures of 800 to 1333 pixels one at a time, all 80 names at once, of a category's
tokens the mean of the sigmoids, the 300 best pairs of a box and a category, no suppression, and of those COCO's 100 for
each category. What is left of differences: docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from trex2_lightning.config import for_benchmark, for_evaluation
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.evaluation.report import write_evaluation
from trex2_lightning.evaluation.tables import table
from trex2_lightning.inference.pretrained import load_pretrained
from trex2_lightning.training.build import build_metric

BENCHMARK = Path("experiments/eval/coco.yaml")
RECIPE = (
    *("data.size=800", "data.max_size=1333", "eval.batch_size=1", "eval.max_detections=300"),
    *("train.precision=32-true", "train.float32_matmul_precision=highest"),
)
OF_EACH_CATEGORY = "eval.max_detections=100"  # of an image and a category, as pycocotools counts
# AP in percent as the authors' READMEs have it. The base model was trained on COCO too, the others never saw it.
PUBLISHED = {
    "IDEA-Research/grounding-dino-tiny": 48.4,
    "IDEA-Research/grounding-dino-base": 56.7,
    "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg": 50.4,
    "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_grit": 50.5,
    "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det": 50.6,
    "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_grit_v3det": 50.4,
}


class Verified(NamedTuple):
    """One model's AP in percent."""

    model: str
    ap: float
    published: float | None  # None: not known of this model

    def cells(self) -> tuple[str, ...]:
        """The model, AP, the published one and the difference."""
        known = ("-", "-")
        if self.published is not None:
            known = (f"{self.published:.1f}", f"{self.ap - self.published:+.1f}")
        return (self.model, f"{self.ap:.1f}", *known)


def verify(model: str, overrides: Sequence[str], output: Path) -> Verified:
    """Evaluate a model as its authors do, and write the evaluation's files.

    Args:
        model: a repository of the hub, or the folder that one was downloaded to, of the repository's name.
        overrides: where the data is (`data.root`) and where the model runs, and whatever is not to be as published.
        output: folder.

    Raises:
        InputError: as `load_pretrained` and `evaluate`.
    """
    trained, module = load_pretrained(model)
    config = for_evaluation(for_benchmark(trained, BENCHMARK), [*RECIPE, *overrides])
    report = evaluate(config, module, "test", ["text"])
    metric = build_metric(for_evaluation(config, [OF_EACH_CATEGORY]), report.records)
    metric.update(report.rows["text"].results)
    figures = metric.compute()
    rows = {"text": report.rows["text"]._replace(figures=report.rows["text"].figures | figures)}
    write_evaluation({"": report._replace(rows=rows)}, output, {"model": model})
    known = {name.rpartition("/")[2]: ap for name, ap in PUBLISHED.items()}
    return Verified(model, 100 * figures["ap"], known.get(Path(model).name))


def verification_table(found: Iterable[Verified]) -> str:
    """In Markdown, a line for each model."""
    return table(("model", "AP here", "published", "difference"), [one.cells() for one in found])
