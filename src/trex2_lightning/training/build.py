"""Configuration to the module, the data and the metric of a run."""

from __future__ import annotations

import logging

from lightning.pytorch.utilities import rank_zero_only

from trex2_lightning.config import Config, ConfigError, RhythmConfig, to_dict
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.data.records import Records
from trex2_lightning.losses.criterion import Criterion
from trex2_lightning.metrics.counting import CountingMetric
from trex2_lightning.metrics.detection import DetectionMetric, Truth
from trex2_lightning.metrics.lvis import PER_IMAGE, Federated, LvisMetric
from trex2_lightning.models.build import build_detector
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.models.weights import pixel_statistics
from trex2_lightning.prompting.memory_bank import MemoryBank
from trex2_lightning.prompting.training_prompts import TrainingPrompts, trains_text
from trex2_lightning.training.module import DetectionModule

log = logging.getLogger(__name__)


def build_module(config: Config) -> DetectionModule:
    """The detector with its losses and optimizer; a prompt encoder that no iteration trains is frozen.

    Raises:
        InputError: weights to start from cannot be had, or `train.frozen` names what there is not, or leaves the steps
            of a kind nothing to train.
    """
    model = build_detector(config.model)
    rhythm, alignment = config.train.rhythm, config.loss.alignment
    model.train_prompts(text=bool(rhythm.text) or trains_text(alignment), visual=bool(rhythm.visual))
    model.freeze(config.train.frozen)
    _require_trained(model, rhythm, text_in_visual=trains_text(alignment))
    if config.train.checkpoint_activations:
        model.checkpoint_activations()
    criterion = Criterion(config.loss).requires_grad_(bool(rhythm.visual))  # its temperature, where that is learned
    memory_bank = MemoryBank(config.train.memory_bank) if config.train.memory_bank.size else None
    return DetectionModule(
        model,
        criterion,
        TrainingPrompts(config.train.prompt_scope, memory_bank, alignment),
        config.optim,
        config.loss.denoising,
        to_dict(config),
        seed=config.seed,
        max_detections=config.eval.max_detections,
        visual_trained=bool(rhythm.visual),
    )


def _require_trained(model: PromptedDetector, rhythm: RhythmConfig, *, text_in_visual: bool) -> None:
    """Every kind of step must train a part that it uses; noised queries alone are not worth one."""
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    unused = {
        "text": {"visual_encoder", "noised_content"},
        "visual": {"noised_content"} if text_in_visual else {"text_encoder", "noised_content"},
    }
    for kind, others in unused.items():
        if getattr(rhythm, kind) and not trained - others:
            raise ConfigError(
                f"train.rhythm.{kind}={getattr(rhythm, kind)}: train.frozen leaves {kind} steps nothing to train: set "
                f"train.rhythm.{kind}=0, or freeze less"
            )


def build_datamodule(config: Config, kind: type[DetectionDataModule] = DetectionDataModule) -> DetectionDataModule:
    """The data of the run, as that kind of datamodule; the length of the training stream is that of the run."""
    return kind(
        config.data,
        statistics=pixel_statistics(config.model.backbone),
        seed=config.seed,
        total_steps=config.train.max_steps,
        accumulate=config.accumulate,
        rhythm=config.train.rhythm,
        eval_batch_size=config.eval.batch_size,
        eval_group=config.eval.group,
    )


def build_metric(config: Config, records: Records, threshold: float | None = None) -> DetectionMetric:
    """The figures of `eval.metric` against the ground truth of one split.

    Args:
        config: the run.
        records: the split.
        threshold: score from which detections are counted; None: the best one for the split itself.

    Raises:
        ConfigError: the split lacks what `eval.metric` needs.
    """
    truth = {i.id: Truth(i.boxes, i.labels, i.crowd, i.area, i.judged) for i in records.images}
    if config.eval.metric == "lvis":
        federated = {
            image.id: Federated(image.judged.tolist(), sorted({*image.labels.tolist()} - {*image.judged.tolist()}))
            for image in records.images
            if image.judged is not None
        }
        if len(federated) < len(truth):
            raise ConfigError(
                f"eval.metric=lvis needs images that say which categories they judge, but {records.annotations} "
                f"of data.format={config.data.format} does not say it for all"
            )
        if config.eval.max_detections < PER_IMAGE:
            told = "eval.metric=lvis counts the %d best detections of an image, and eval.max_detections=%d gives fewer"
            rank_zero_only(log.warning)(told, PER_IMAGE, config.eval.max_detections)
        return LvisMetric(truth, federated, records.names, records.groups)
    limit = config.eval.max_detections
    if config.eval.metric == "coco":
        return DetectionMetric(truth, records.names, records.groups, max_detections=limit)
    counts = {i.id: i.num_objects for i in records.images if i.num_objects is not None}
    if len(counts) < len(truth):
        raise ConfigError(
            f"eval.metric=counting needs images that say how many objects they have, but "
            f"{records.annotations} of data.format={config.data.format} does not say it for all"
        )
    if most := sum(count > limit for count in counts.values()):
        rank_zero_only(log.warning)("%d images have more objects than eval.max_detections=%d can count", most, limit)
    return CountingMetric(truth, counts, records.names, records.groups, threshold=threshold, max_detections=limit)
