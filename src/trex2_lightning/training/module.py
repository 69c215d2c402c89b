"""Where model, losses and metrics meet: the LightningModule of every stage and every fusion."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from trex2_lightning.config import DenoisingConfig, OptimConfig, migrate
from trex2_lightning.losses.criterion import Criterion
from trex2_lightning.losses.denoising import noise_queries
from trex2_lightning.losses.matcher import NotFiniteError
from trex2_lightning.metrics.detection import DetectionMetric, ImageResult
from trex2_lightning.models.calibration import unfitted_scores
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.scores import rank, to_pixels
from trex2_lightning.prompting.finding import find_objects
from trex2_lightning.prompting.protocols import Prompting
from trex2_lightning.prompting.region_classifier import RegionClassifier
from trex2_lightning.prompting.training_prompts import TrainingPrompts
from trex2_lightning.structures import Batch, FeatureMaps, Prompts, PromptSource, PromptTokens
from trex2_lightning.training.divergence import FiniteSteps
from trex2_lightning.training.optim import adamw, regroup, schedule, set_rates
from trex2_lightning.training.resuming import count_batches_anew


class Measurement(NamedTuple):
    """What the images of a split are asked with, and the metric that counts what is found."""

    prompting: Prompting
    metric: DetectionMetric


class LossTerms(NamedTuple):
    """What a batch is trained with."""

    terms: dict[str, Tensor]  # () each, weighted: their sum is the loss
    left_out: int  # categories for which the detector had no room


class DetectionModule(L.LightningModule):
    """Trains a detector and evaluates it with COCO AP, by one protocol or by several in one pass.

    Before an evaluation its caller sets `protocols`, `regions` if boxes are to be classified, and `max_detections` if
    it wants others than the training; the first protocol is the one that is logged. After it `figures` has the figures
    of each.

    Args:
        detector: the model.
        criterion: output and targets to weighted loss terms.
        training_prompts: what a training batch is asked with; its memory bank is saved with the checkpoints.
        optimizer: learning rates and schedule.
        denoising: how ground truth is noised.
        resolved_config: plain values, written into every checkpoint so that it can be rebuilt from the file alone.
        seed: of the denoising.
        max_detections: kept per image in evaluation.
        visual_trained: whether this run trains visual prompts, or the one that its weights come from did; saved with
            the checkpoints, because the configuration tells only the first.
    """

    def __init__(
        self,
        detector: PromptedDetector,
        criterion: Criterion,
        training_prompts: TrainingPrompts,
        optimizer: OptimConfig,
        denoising: DenoisingConfig,
        resolved_config: dict[str, Any],
        *,
        seed: int,
        max_detections: int,
        visual_trained: bool = False,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.criterion = criterion
        self.training_prompts = training_prompts
        self.protocols: dict[str, Measurement] = {}
        self.regions: RegionClassifier | None = None
        self.figures: dict[str, dict[str, float]] = {}
        self.visual_trained = visual_trained
        self.known_names: tuple[str, ...] = ()  # that training asked for
        self.is_unevaluated = False  # it goes on from a step that may have been to be evaluated
        self.earlier: list[dict[str, Any]] = []  # settings that resuming has changed: `until` which step they held
        self.provenance: list[dict[str, Any]] = []  # as `training.provenance` has it
        self._proposing: PromptTokens | None = None
        self.skipped_images = 0  # unreadable training images met so far on this rank
        self.left_out_categories = 0  # for which early fusion had no room, so far on this rank
        self._finite = FiniteSteps()
        self._optimizer = optimizer
        self._denoising = denoising
        self._resolved_config = resolved_config
        self._seed = seed
        self.max_detections = max_detections

    def on_train_start(self) -> None:
        """The rates of a run that goes on are those of its schedule as it is now, from its first step on."""
        for one in self.trainer.lr_scheduler_configs:
            assert isinstance(one.scheduler, LambdaLR)
            set_rates(one.scheduler)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One iteration with text or with visual prompts, as the batch has them."""
        try:
            terms, left_out = self.loss_terms(batch, batch_idx)
        except NotFiniteError as error:
            raise self._finite.blame(self.trainer, batch, error) from error
        self._finite.check(self._trainer)
        loss = torch.stack(list(terms.values())).sum()
        self._finite.add(batch, loss)
        self._log_step(loss, terms, batch, left_out)
        return loss

    def loss_terms(self, batch: Batch, batch_idx: int) -> LossTerms:
        """The terms of the loss of a batch, by its place in the run; all ranks together."""
        position = batch_idx * self.trainer.world_size + self.trainer.global_rank
        # Dropout and the like, else the same on all ranks; a resumed run draws the same. Negative: not the generator's.
        torch.manual_seed(-1 - self._seed * 1_000_003 - position)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + position)
        features = self.detector.encode_image(batch.images)
        asked = self.training_prompts(self.detector, batch, features, generator)
        num_queries = self.detector.selection.num_queries
        noised = noise_queries(asked.targets, asked.num_categories, num_queries, self._denoising, generator)
        output = self.detector.decode(features, asked.prompts, noised)
        return LossTerms(self.criterion(output, asked.targets, asked.judged, noised, asked.vectors), asked.left_out)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """In the first steps gradients of all but the visual prompt encoder are dropped, before they are clipped."""
        if self.trainer.global_step < self._optimizer.visual_first:
            alone = [self.detector.visual_encoder, getattr(self.detector.appearance_input, "of_exemplars", None)]
            kept = {id(parameter) for part in alone if part is not None for parameter in part.parameters()}
            for parameter in (one for group in optimizer.param_groups for one in group["params"]):
                if id(parameter) not in kept:
                    parameter.grad = None

    def on_train_batch_end(self, *_: Any) -> None:
        if self.trainer.global_step == self.trainer.max_steps:
            self.trainer.should_stop = True  # makes Lightning validate, and so save, the last step too

    def on_validation_epoch_start(self) -> None:
        self._finite.check(self._trainer)
        for prompting, metric in self.protocols.values():
            prompting.start()
            metric.reset()
        if self.regions is not None:
            self.regions.start()
        self._proposing = self.proposing()

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
            sizes, of_categories = batch.images.sizes, prompting.of_categories
            found.append(self.detect(features, prompts, sizes, image_ids, prompting.source, of_categories))
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
        self,
        features: FeatureMaps,
        prompts: PromptTokens,
        sizes: Tensor,
        image_ids: list[int],
        source: PromptSource = "text",
        of_categories: Callable[[Tensor], Tensor] | None = None,
    ) -> list[ImageResult]:
        """The best detections of each image, best first; none of a category that is not valid there.

        Args:
            features: of the images.
            prompts: of batch size 1 or B.
            sizes: (B, 2) height and width of the original files, in whose pixels the boxes are.
            image_ids: B of them.
            source: what the prompts were made from.
            of_categories: the categories' scores from those of the prompts; None: the same.
        """
        found = find_objects(self.detector, features, prompts, source, self._proposing, self.max_detections)
        scores = of_categories(found.scores) if of_categories else found.scores
        best = rank(scores, found.boxes, self.max_detections)
        boxes, unfitted = to_pixels(best.boxes, sizes), None
        of_each = scores.shape == found.scores.shape  # else what speaks for a category is of several prompts
        if self.detector.calibration.fitted and found.evidence is not None and of_each:
            values = found.evidence.flatten(1, 2)  # (B, N * C, F)
            unfitted = unfitted_scores(values.gather(1, best.pairs[..., None].expand(-1, -1, values.shape[-1])))
        results = []
        for i, image_id in enumerate(image_ids):
            asked = best.scores[i] > 0  # exactly 0 is the score of what is not valid
            before = None if unfitted is None else unfitted[i, asked]
            results.append(ImageResult(image_id, boxes[i, asked], best.scores[i, asked], best.labels[i, asked], before))
        return results

    @property
    def knows_exemplars(self) -> bool:
        """Whether exemplars mean anything to it: learned, or by their appearance."""
        return self.visual_trained or self.detector.appearance is not None

    @torch.no_grad()
    def proposing(self) -> PromptTokens | None:
        """What finds boxes for exemplars where the visual prompt encoder is not trained: all names of the training."""
        if self.visual_trained or self.detector.appearance is None or not self.known_names:
            return None
        return self.detector.encode_prompts(Prompts(self.known_names))

    def configure_gradient_clipping(  # type: ignore[override]
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, **_: Any
    ) -> None:
        """The norm over all parameters, logged as it was.

        Lightning's own refuses a fused optimizer under mixed precision, for it would have to take the loss scale out
        first; bfloat16 has none.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = clip_grad_norm_(parameters, gradient_clip_val or torch.inf)
        self._finite.end(norm)
        self.log("gradient_norm", norm)

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        optimizer: AdamW = adamw(self.detector, self._optimizer, self.criterion)
        scheduler = schedule(optimizer, self._optimizer, self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises InputError: the last step was not finite."""
        self._finite.check(self._trainer)
        checkpoint["config"] = self._resolved_config
        checkpoint["visual_trained"] = self.visual_trained
        checkpoint["known_names"] = [*self.known_names]
        checkpoint["provenance"] = self.provenance
        checkpoint["earlier"] = [*self.earlier]
        checkpoint["calibration"] = self.detector.calibration.fits()
        if self.training_prompts.memory_bank is not None:
            checkpoint["memory_bank"] = self.training_prompts.memory_bank.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        migrate(checkpoint, "the checkpoint")  # the trainer reads the file by itself
        self.is_unevaluated = count_batches_anew(checkpoint, self.trainer.accumulate_grad_batches)
        regroup(checkpoint, self.detector)
        self.visual_trained |= checkpoint["visual_trained"]
        if self.training_prompts.memory_bank is not None:
            self.training_prompts.memory_bank.load_state_dict(checkpoint.get("memory_bank", {}))

    def _log_step(self, loss: Tensor, terms: dict[str, Tensor], batch: Batch, left_out: int) -> None:
        """The loss and its terms, apart by what the images were asked with, and what the step had to do without."""
        kind = "loss"
        if batch.prompts.exemplars is not None:
            kind = "visual_loss" if batch.prompts.phrases else "nameless_loss"
        self.skipped_images += batch.skipped
        self.left_out_categories += left_out
        self.log("loss", loss, prog_bar=True)
        self.log_dict({f"{kind}/{name}": term for name, term in terms.items()})
        counts = {"data/skipped_images": self.skipped_images}
        if self.detector.max_tokens is not None:
            counts["data/left_out_categories"] = self.left_out_categories
        for name, count in counts.items():  # as tensors: of a number Lightning makes one that the device is waited for
            self.log(name, torch.full((), float(count), device=loss.device))

    def _log_figures(self, split: str) -> None:
        self.figures = {name: protocol.metric.compute() for name, protocol in self.protocols.items()}
        if not self.figures:
            return
        (_, first), *others = self.figures.items()
        logged = {f"{split}/{name}": value for name, value in first.items()}
        logged |= {f"{split}/{row}/ap": figures["ap"] for row, figures in others}
        logged[f"{split}/mean_ap"] = mean(figures["ap"] for figures in self.figures.values())
        self.log_dict(logged, prog_bar=False)
