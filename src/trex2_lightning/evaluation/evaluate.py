"""A split of a data set evaluated by several protocols in one pass."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from trex2_lightning.config import Config
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.data.inventory import audit_split, check_images, check_usable
from trex2_lightning.data.records import Records
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.generic_prompts import encode_references
from trex2_lightning.evaluation.known_data import warn_of_known_data
from trex2_lightning.evaluation.reliability import reliability
from trex2_lightning.evaluation.report import Evaluation, EvaluationReport
from trex2_lightning.metrics.detection import DetectionMetric
from trex2_lightning.metrics.regions import RegionAccuracy
from trex2_lightning.ops.boxes import xyxy_to_cxcywh
from trex2_lightning.prompting.protocol_names import (
    BY_LEARNED_VECTORS,
    FROM_REFERENCES,
    OWN_EXEMPLARS,
    PROTOCOLS,
    TEXT_CONTROLS,
    TEXT_PROTOCOLS,
)
from trex2_lightning.prompting.protocols import Prompting, Text, promptings
from trex2_lightning.prompting.region_classifier import RegionClassifier
from trex2_lightning.structures import PromptSource
from trex2_lightning.training.build import build_datamodule, build_metric
from trex2_lightning.training.module import DetectionModule, Measurement
from trex2_lightning.training.trainer import build_evaluator

log = logging.getLogger(__name__)


def evaluate(
    config: Config,
    module: DetectionModule,
    split: Literal["val", "test"],
    protocols: Sequence[str] | Mapping[str, Prompting] | None = None,
    *,
    is_checked: bool = False,
) -> EvaluationReport:
    """Evaluate a split by several protocols in one pass, in which every image is encoded once.

    Visual-G takes its exemplars from the images of `data.reference`. All draws follow from the run's seed. Where a
    test split is counted, the val split is evaluated before it and gives every row its threshold.

    Args:
        config: the run.
        module: its trained module.
        split: of the data set.
        protocols: some of `protocol_names.PROTOCOLS`, or `exemplars`, of which those that the run trained for are
            taken; or other promptings by their row. None: those of `eval.protocols`, or else `text` and its controls,
            and all if the run trained visual prompts.
        is_checked: the split went through `check_split`.

    Raises:
        InputError: there is no such protocol, nothing that the run trained for, the data set does not allow it, or one
            of its images cannot be read.
    """
    chosen = protocols if isinstance(protocols, Mapping) else trained_protocols(protocols, config, module)
    thresholds: dict[str, float] = {}
    if config.eval.metric == "counting" and split == "test":
        counted = evaluate(config, module, "val", chosen).rows
        thresholds = {row: evaluation.figures["threshold"] for row, evaluation in counted.items()}
    trainer = build_evaluator(config)
    data, records = read_split(config, split)
    if not is_checked:
        check_split(f"data.{split}", config, records, trainer.global_rank, trainer.world_size)
    references, support = None, {}
    if FROM_REFERENCES & set(chosen):
        references = encode_references(module, trainer, data, records.names, max(config.eval.references))
        support = {count: data.support(count) for count in config.eval.references}
    whole, shown = data.whole(split), data.reference_records if support else None
    forms = [records] if whole is records else [records, whole]
    warn_of_known_data(f"data.{split}", forms, shown, module.provenance)
    asked = chosen
    if not isinstance(asked, Mapping):
        given = _given_exemplars(records) if OWN_EXEMPLARS in chosen else None
        of_references = (references, config.eval.references, given, config.eval.aggregation)
        asked = promptings(asked, records.names, config.seed, *of_references, learned=module.visual_trained)
        if not asked and "region_classification" not in chosen:
            raise InputError(f"{records.annotations}: its names do not allow {', '.join(chosen)}: ask with text too")
    module.protocols = {
        row: Measurement(prompting, build_metric(config, records, thresholds.get(row)))
        for row, prompting in asked.items()
    }
    module.max_detections = config.eval.max_detections  # of a benchmark, where a run's were others
    if "region_classification" in chosen:
        module.regions = RegionClassifier(Text(), RegionAccuracy(records.groups))
    step = trainer.validate if split == "val" else trainer.test
    step(module, datamodule=data, verbose=False)
    least = _lowest_scores(module, [prompting for prompting, _ in module.protocols.values()])
    rows = {
        row: _evaluation(module.figures[row], metric, records, least[prompting.source])
        for row, (prompting, metric) in module.protocols.items()
    }
    regions = module.regions.accuracy.compute() if module.regions else {}
    left_out = _left_out(rows, records)
    module.protocols, module.regions = {}, None
    return EvaluationReport(rows, regions, records, support, left_out)


def check_split(key: str, config: Config, records: Records, rank: int = 0, world: int = 1) -> None:
    """What can be known before hours of work: there is something to find, and images can be read, which ranks share.

    Raises:
        InputError: no image has a box that counts, or some cannot be read.
    """
    if config.eval.metric != "counting":  # which knows images by their number of objects alone
        check_usable(audit_split(key, records, evaluated=True))
    check_images(key, records.images, config.data.num_workers, rank, world)


def read_split(config: Config, split: Literal["val", "test"]) -> tuple[DetectionDataModule, Records]:
    """The run's data, set up for an evaluation, and its records."""
    data = build_datamodule(config)
    data.setup("validate" if split == "val" else "test")
    return data, data.val_records if split == "val" else data.test_records


def trained_protocols(protocols: Sequence[str] | None, config: Config, module: DetectionModule) -> Sequence[str]:
    """The protocols asked for, or else those of `eval.protocols`, that mean something to a run with that training.

    Raises:
        InputError: there is no such protocol, or nothing that the run trained for.
    """
    listed: Sequence[str] = [protocols] if isinstance(protocols, str) else protocols or config.eval.protocols
    if unknown := [protocol for protocol in listed if protocol not in (*PROTOCOLS, OWN_EXEMPLARS)]:
        where = "protocols" if protocols else "eval.protocols"
        raise InputError(f"{where}: {unknown[0]} is none of {', '.join((*PROTOCOLS, OWN_EXEMPLARS))}")
    if not listed:
        listed = PROTOCOLS if module.knows_exemplars else ("text", *TEXT_CONTROLS)
    by_example = set(PROTOCOLS) | {OWN_EXEMPLARS} if module.knows_exemplars else set()
    unlearned = set() if module.visual_trained else BY_LEARNED_VECTORS
    chosen = [protocol for protocol in listed if protocol in {*TEXT_PROTOCOLS, *(by_example - unlearned)}]
    if not chosen:
        raise InputError(
            f"this checkpoint was trained with text alone, so {', '.join(listed)} cannot be evaluated: "
            "take one of stage 2"
        )
    if left_out := [protocol for protocol in listed if protocol not in chosen]:
        log.warning("this checkpoint was trained with text alone: %s left out", ", ".join(left_out))
    return chosen


def _lowest_scores(module: DetectionModule, asked: Iterable[Prompting]) -> dict[PromptSource, float]:
    """The checkpoint's threshold of each kind of prompt."""
    calibration, compares = module.detector.calibration, module.detector.appearance is not None
    return {
        source: calibration.lowest_score(source, compared=compares and source != "text")
        for source in {prompting.source for prompting in asked}
    }


def _evaluation(figures: dict[str, float], metric: DetectionMetric, records: Records, threshold: float) -> Evaluation:
    """What a row found, in what share of the images it reached the threshold, and how far its scores can be trusted.

    The last takes true boxes.
    """
    results, images = metric.results(), {image.id: image for image in records.images}
    if results:
        reached = sum(bool((result.scores >= threshold).any()) for result in results)
        figures = figures | {"positive_rate": reached / len(results)}
    if not any(len(image.boxes) for image in images.values()):
        return Evaluation(figures, results, metric.per_category)
    kept = reliability(results, images, len(records.names))
    return Evaluation(figures | kept.figures(), results, metric.per_category, kept)


def _left_out(rows: Mapping[str, Evaluation], records: Records) -> tuple[str, ...]:
    """Images that could be read before and not any more, so that the figures are without them; the log names some."""
    seen = {result.image_id for evaluation in rows.values() for result in evaluation.results}
    missing = tuple(str(image.path) for image in records.images if image.id not in seen) if rows else ()
    if missing:
        log.warning("figures are without %d images that could not be read: %s", len(missing), ", ".join(missing[:3]))
    return missing


def _given_exemplars(records: Records) -> dict[int, Tensor]:
    """The data set's own exemplars of each image, cxcywh in [0, 1]."""
    given = {}
    for image in records.images:
        if image.exemplars is None:
            raise InputError(
                f"{records.annotations}: its images have no exemplars, as those of counting benchmarks have: "
                "set data.format, or leave the protocol exemplars out"
            )
        given[image.id] = xyxy_to_cxcywh(image.exemplars / torch.tensor([image.width, image.height] * 2))
    return given
