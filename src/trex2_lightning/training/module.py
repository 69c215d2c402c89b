"""Where model, losses and metrics meet: the LightningModule of every stage and every fusion."""

from __future__ import annotations

from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.optim import AdamW

from trex2_lightning.config import DenoisingConfig, OptimConfig, migrate
from trex2_lightning.losses.criterion import Criterion
from trex2_lightning.losses.denoising import noise_queries
from trex2_lightning.metrics.detection import DetectionMetric, ImageResult
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.prompt_tokens import fitting
from trex2_lightning.ops.scores import category_scores, rank, to_pixels
from trex2_lightning.prompting.memory_bank import MemoryBank
from trex2_lightning.prompting.protocols import Prompting
from trex2_lightning.prompting.region_classifier import RegionClassifier
from trex2_lightning.prompting.scope import Scope, share_prompts, with_negatives
from trex2_lightning.structures import Batch, FeatureMaps, PromptTokens, Targets
from trex2_lightning.training.optim import adamw, schedule


class Measurement(NamedTuple):
    """What the images of a split are asked with, and the metric that counts what is found."""

    prompting: Prompting
    metric: DetectionMetric


class Asked(NamedTuple):
    """What the images of a training batch are asked for; C categories."""

    prompts: PromptTokens
    targets: tuple[Targets, ...]  # B, in terms of the C categories
    judged: Tensor | None  # (B, C) bool, as in `Prompts`
    num_categories: int  # C


class DetectionModule(L.LightningModule):
    """Trains a detector and evaluates it with COCO AP, by one protocol or by several in one pass.

    Before an evaluation its caller sets `protocols`, and `regions` if boxes are to be classified; the first protocol is
    the one that is logged. After it `figures` has the figures of each.

    Args:
        detector: the model.
        criterion: output and targets to weighted loss terms.
        optimizer: learning rates and schedule.
        denoising: how ground truth is noised.
        resolved_config: plain values, written into every checkpoint so that it can be rebuilt from the file alone.
        seed: of the denoising.
        max_detections: kept per image in evaluation.
        prompt_scope: whose exemplars an image is asked with in a visual iteration.
        memory_bank: further negatives of visual iterations, saved with the checkpoints.
        visual_trained: whether this run trains visual prompts, or the one that its weights come from did; saved with
            the checkpoints, because the configuration tells only the first.
    """

    def __init__(
        self,
        detector: PromptedDetector,
        criterion: Criterion,
        optimizer: OptimConfig,
        denoising: DenoisingConfig,
        resolved_config: dict[str, Any],
        *,
        seed: int,
        max_detections: int,
        prompt_scope: Scope,
        memory_bank: MemoryBank | None = None,
        visual_trained: bool = False,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.criterion = criterion
        self.protocols: dict[str, Measurement] = {}
        self.regions: RegionClassifier | None = None
        self.figures: dict[str, dict[str, float]] = {}
        self.visual_trained = visual_trained
        self.skipped_images = 0  # unreadable training images met so far on this rank
        self.left_out_categories = 0  # for which early fusion had no room, so far on this rank
        self._optimizer = optimizer
        self._denoising = denoising
        self._resolved_config = resolved_config
        self._seed = seed
        self._max_detections = max_detections
        self._prompt_scope: Scope = prompt_scope
        self._memory_bank = memory_bank

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One iteration with text or with visual prompts, as the batch has them."""
        features = self.detector.encode_image(batch.images)
        own = self.detector.encode_prompts(batch.prompts, features)
        generator = self._generator(batch_idx)
        shown, kind = None, "loss"
        if batch.prompts.boxes is not None:
            shown, kind = (own.valid, "visual_loss") if batch.prompts.phrases else (None, "nameless_loss")
        prompts, targets, judged, num_categories = self._fitted(self._asked(own, batch, generator), generator)
        noised = noise_queries(targets, num_categories, self.detector.selection.num_queries, self._denoising, generator)
        output = self.detector.decode(features, prompts, noised)
        terms = self.criterion(output, targets, judged, noised, shown)
        loss = torch.stack(list(terms.values())).sum()
        self.skipped_images += batch.skipped
        self.log("loss", loss, prog_bar=True)
        self.log_dict({f"{kind}/{name}": term for name, term in terms.items()})
        self.log("data/skipped_images", float(self.skipped_images))
        if self.detector.max_tokens is not None:
            self.log("data/left_out_categories", float(self.left_out_categories))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        if self.trainer.global_step == self.trainer.max_steps:
            self.trainer.should_stop = True  # makes Lightning validate, and so save, the last step too

    def on_validation_epoch_start(self) -> None:
        for prompting, metric in self.protocols.values():
            prompting.start()
            metric.reset()
        if self.regions is not None:
            self.regions.start()

    def validation_step(self, batch: Batch, *_: Any) -> list[ImageResult]:  # type: ignore[override]
        """Encode the images once and find what each protocol asks for.

        Returns:
            What the first protocol found, in pixels of the original files.
        """
        features = self.detector.encode_image(batch.images)
        image_ids = [target.image_id for target in batch.targets]
        found = []
        for prompting, metric in self.protocols.values():
            prompts = prompting(self.detector, batch, features)
            found.append(self.detect(features, prompts, batch.images.sizes, image_ids))
            metric.update(found[-1])
        if self.regions is not None:
            self.regions.update(self.detector, batch, features)
        return found[0] if found else []

    def on_validation_epoch_end(self) -> None:
        self._log_figures("val")

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def test_step(self, batch: Batch, *_: Any) -> list[ImageResult]:  # type: ignore[override]
        return self.validation_step(batch)

    def on_test_epoch_end(self) -> None:
        self._log_figures("test")

    def detect(
        self, features: FeatureMaps, prompts: PromptTokens, sizes: Tensor, image_ids: list[int]
    ) -> list[ImageResult]:
        """The best detections of each image, best first; none of a category that is not valid there.

        Args:
            features: of the images.
            prompts: of batch size 1 or B.
            sizes: (B, 2) height and width of the original files, in whose pixels the boxes are.
            image_ids: B of them.
        """
        output = self.detector.decode(features, prompts)
        scores = category_scores(output.queries.logits[-1], prompts.category, prompts.valid)
        best = rank(scores, output.queries.boxes[-1].float(), self._max_detections)
        boxes = to_pixels(best.boxes, sizes)
        results = []
        for i, image_id in enumerate(image_ids):
            asked = best.scores[i] > 0  # exactly 0 is the score of what is not valid
            results.append(ImageResult(image_id, boxes[i, asked], best.scores[i, asked], best.labels[i, asked]))
        return results

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        optimizer: AdamW = adamw(self.detector, self._optimizer)
        scheduler = schedule(optimizer, self._optimizer, self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self._resolved_config
        checkpoint["visual_trained"] = self.visual_trained
        if self._memory_bank is not None:
            checkpoint["memory_bank"] = self._memory_bank.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        migrate(checkpoint, "the checkpoint")  # the trainer reads the file by itself
        self.visual_trained |= checkpoint["visual_trained"]
        if self._memory_bank is not None:
            self._memory_bank.load_state_dict(checkpoint.get("memory_bank", {}))

    def _asked(self, own: PromptTokens, batch: Batch, generator: torch.Generator) -> Asked:
        """What the images of a batch are asked for, of its prompts as they were encoded."""
        judged = batch.prompts.judged
        if batch.prompts.boxes is None:
            return Asked(own, batch.targets, judged, len(batch.prompts.phrases))
        prompts, places = self._share(own, batch, generator)
        targets = tuple(target._replace(labels=places[target.labels]) for target in batch.targets)
        num_categories = prompts.embed.shape[1]
        if judged is not None:  # of what other ranks ask for nothing is known
            judged = judged.new_zeros(len(judged), num_categories).index_copy(1, places, judged)
        return Asked(prompts, targets, judged, num_categories)

    def _fitted(self, asked: Asked, generator: torch.Generator) -> Asked:
        """Without the categories, and their boxes, for which the detector has no room: a batch never ends a run.

        What an image is not asked for it need not find. Negatives are left out first.
        """
        prompts, targets, judged, num_categories = asked
        limit = self.detector.max_tokens
        if limit is None or len(prompts.category) <= limit:
            return asked
        prompts, numbers = fitting(prompts, torch.cat([target.labels for target in targets]), limit, generator)
        kept = numbers >= 0
        targets = tuple(
            target._replace(labels=numbers[target.labels[known]], boxes=target.boxes[known])
            for target, known in zip(targets, [kept[target.labels] for target in targets], strict=True)
        )
        left = int(kept.sum())
        self.left_out_categories += num_categories - left
        return Asked(prompts, targets, None if judged is None else judged[:, kept], left)

    def _share(self, own: PromptTokens, batch: Batch, generator: torch.Generator) -> tuple[PromptTokens, Tensor]:
        """What the images are asked with in a visual iteration, and the places of the batch's categories in it."""
        phrases, judged = batch.prompts.phrases, batch.prompts.judged
        prompts, names, places = share_prompts(own, phrases, self._prompt_scope, others=batch.cross_image)
        if self._memory_bank is not None and phrases:  # named things may be in nameless pictures, unmarked
            if judged is None:
                prompts = with_negatives(prompts, self._memory_bank.draw(names, generator, batch.data_set))
            self._memory_bank.add(phrases, own, batch.data_set)
        return prompts, places

    def _generator(self, batch_idx: int) -> torch.Generator:
        """Randomness that depends on the place in the run alone, so that a resumed run draws the same."""
        position = batch_idx * self.trainer.world_size + self.trainer.global_rank
        return torch.Generator().manual_seed(self._seed * 1_000_003 + position)

    def _log_figures(self, split: str) -> None:
        self.figures = {name: protocol.metric.compute() for name, protocol in self.protocols.items()}
        if self.figures:
            first = next(iter(self.figures.values()))
            self.log_dict({f"{split}/{name}": value for name, value in first.items()}, prog_bar=False)
