"""Where model, losses and metrics meet: the LightningModule of every stage and every fusion."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import AdamW

from trex2_lightning import optim
from trex2_lightning.config import DenoisingConfig, OptimConfig
from trex2_lightning.losses.criterion import Criterion
from trex2_lightning.losses.denoising import noise_queries
from trex2_lightning.metrics.detection import DetectionMetric, ImageResult
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.detections import category_scores, rank, to_pixels
from trex2_lightning.ops.prompt_scope import Scope, share_prompts
from trex2_lightning.structures import Batch, Images, Prompts, PromptTokens


class DetectionModule(L.LightningModule):
    """Trains a detector and evaluates it with COCO AP.

    Args:
        detector: the model.
        criterion: output and targets to weighted loss terms.
        optimizer: learning rates and schedule.
        denoising: how ground truth is noised.
        resolved_config: plain values, written into every checkpoint so that it can be rebuilt from the file alone.
        seed: of the denoising.
        max_detections: kept per image in evaluation.
        prompt_scope: whose exemplars an image is asked with in a visual iteration.
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
    ) -> None:
        super().__init__()
        self.detector = detector
        self.criterion = criterion
        self.metric: DetectionMetric | None = None  # of the split to be evaluated, set by its caller
        self.phrases: tuple[str, ...] | None = None  # asked for in evaluation in place of the category names
        self.skipped_images = 0  # unreadable training images met so far on this rank
        self._optimizer = optimizer
        self._denoising = denoising
        self._resolved_config = resolved_config
        self._seed = seed
        self._max_detections = max_detections
        self._prompt_scope: Scope = prompt_scope
        self._encoded: PromptTokens | None = None  # all phrases of the evaluation under way

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One iteration with text or with visual prompts, as the batch has them."""
        features = self.detector.encode_image(batch.images)
        prompts = self.detector.encode_prompts(batch.prompts, features)
        phrases, targets, shown, kind = batch.prompts.phrases, batch.targets, None, "loss"
        if batch.prompts.boxes is not None:
            shown, kind = prompts.valid, "visual_loss"
            prompts, phrases, places = share_prompts(prompts, phrases, self._prompt_scope)
            targets = tuple(target._replace(labels=places[target.labels]) for target in targets)
        noised = noise_queries(
            targets,
            len(phrases),
            self.detector.selection.num_queries,
            self._denoising,
            self._denoising_generator(batch_idx),
        )
        output = self.detector.decode(features, prompts, noised)
        terms = self.criterion(output, targets, batch.prompts.judged, noised, shown)
        loss = torch.stack(list(terms.values())).sum()
        self.skipped_images += batch.skipped
        self.log("loss", loss, prog_bar=True)
        self.log_dict({f"{kind}/{name}": term for name, term in terms.items()})
        self.log("data/skipped_images", float(self.skipped_images))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        if self.trainer.global_step == self.trainer.max_steps:
            self.trainer.should_stop = True  # makes Lightning validate, and so save, the last step too

    def on_validation_epoch_start(self) -> None:
        self._encoded = None  # the weights have changed
        if self.metric is not None:
            self.metric.reset()

    def validation_step(self, batch: Batch, *_: Any) -> list[ImageResult]:  # type: ignore[override]
        """Detections in pixels of the original files; the metric takes them in too."""
        results = self.detect(batch.images, self._encode_phrases(batch), [t.image_id for t in batch.targets])
        if self.metric is not None:
            self.metric.update(results)
        return results

    def on_validation_epoch_end(self) -> None:
        self._log_figures("val")

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def test_step(self, batch: Batch, *_: Any) -> list[ImageResult]:  # type: ignore[override]
        return self.validation_step(batch)

    def on_test_epoch_end(self) -> None:
        self._log_figures("test")

    def detect(self, images: Images, prompts: PromptTokens, image_ids: list[int]) -> list[ImageResult]:
        """The best detections of each image, in pixels of the original file, best first."""
        output = self.detector.decode(self.detector.encode_image(images), prompts)
        scores = category_scores(output.queries.logits[-1], prompts.category, prompts.valid)
        best = rank(scores, output.queries.boxes[-1].float(), self._max_detections)
        boxes = to_pixels(best.boxes, images.sizes)
        return [ImageResult(image_id, boxes[i], best.scores[i], best.labels[i]) for i, image_id in enumerate(image_ids)]

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        optimizer: AdamW = optim.adamw(self.detector, self._optimizer)
        scheduler = optim.schedule(optimizer, self._optimizer, self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self._resolved_config

    def _encode_phrases(self, batch: Batch) -> PromptTokens:
        """All names are encoded once per evaluation."""
        if self._encoded is None:
            self._encoded = self.detector.encode_prompts(Prompts(self.phrases or batch.prompts.phrases))
        return self._encoded

    def _denoising_generator(self, batch_idx: int) -> torch.Generator:
        """Noise that depends on the place in the run alone, so that a resumed run draws the same."""
        position = batch_idx * self.trainer.world_size + self.trainer.global_rank
        return torch.Generator().manual_seed(self._seed * 1_000_003 + position)

    def _log_figures(self, split: str) -> None:
        if self.metric is not None:
            figures = self.metric.compute()
            self.log_dict({f"{split}/{name}": value for name, value in figures.items()}, prog_bar=False)
