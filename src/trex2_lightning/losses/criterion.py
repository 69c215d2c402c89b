"""The set prediction loss of the DETR family on decoder layers, proposals and noised queries (T-Rex2, appendix A.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from trex2_lightning.config import LossConfig
from trex2_lightning.losses.alignment import alignment_loss, relation_loss
from trex2_lightning.losses.classification import focal_loss, known_tokens, presence_loss, token_targets
from trex2_lightning.losses.matcher import HungarianMatcher
from trex2_lightning.ops.boxes import cxcywh_to_xyxy, generalized_iou
from trex2_lightning.ops.distributed import mean_over_ranks
from trex2_lightning.structures import CategoryVectors, Detections, DetectorOutput, NoisedQueries, PromptTokens, Targets

_MOST_SCALE = math.log(100)  # CLIP, section 2.5


class Criterion(nn.Module):
    """Focal, L1 and GIoU loss, each summed over the decoder layers; every layer is matched on its own.

    Attributes:
        log_scale: () that the alignment learns: the logarithm of 1 / temperature; None where that is fixed.
    """

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.config = config
        self.matcher = HungarianMatcher(config.cost, config.focal_alpha, config.focal_gamma)
        begins = torch.tensor(-math.log(config.alignment.temperature))
        self.log_scale = nn.Parameter(begins) if config.alignment.learned_temperature else None

    def forward(
        self,
        output: DetectorOutput,
        targets: Sequence[Targets],
        judged: Tensor | None = None,
        noised: NoisedQueries | None = None,
        vectors: CategoryVectors | None = None,
    ) -> dict[str, Tensor]:
        """Weighted loss terms, whose sum is the loss to minimise.

        Queries and proposals are divided by the number of target boxes, noised queries by the number of their
        positives (DINO's boxes times groups), both averaged over the ranks. Arithmetic is in float32 under autocast
        too. Without a single box all terms are finite and still depend on every prediction, so DDP does not hang.

        Args:
            output: of the detector.
            targets: B images.
            judged: (B, C) bool, False for categories about which the data set does not say: they have no negatives
                there; None: all are judged.
            noised: the queries behind `output.noised`.
            vectors: of exemplars and of the phrases that name them, to be aligned; None: there are not both.

        Returns:
            Scalars `queries/classification`, `queries/l1`, `queries/giou`, the same of `proposals/` and, where
            there are noised queries, of `noised/`; `presence` of a detector that has the head; with `vectors`
            `alignment` and `relation`, where their weight is not 0.

        Raises:
            NotFiniteError: predictions or target boxes are not finite, as where training has diverged.
            ValueError: one of `noised` and `output.noised` is missing.
        """
        if (noised is None) != (output.noised is None):
            raise ValueError("noised queries and the detector's output for them must be given together")
        known = known_tokens(output.prompts, judged)[:, None]  # (B or 1, 1, T)
        num_boxes, num_positives = self._normalisers(targets, noised, known.device)
        terms: dict[str, Tensor] = {}
        with torch.autocast(known.device.type, enabled=False):
            predicted = {"queries": _full_precision(output.queries), "proposals": _full_precision(output.proposals)}
            joined = Detections(
                *(torch.cat([x.detach() for x in parts]) for parts in zip(*predicted.values(), strict=True))
            )
            matched = self.matcher(joined, output.prompts, targets)  # together, for one wait for the device
            split = np.split(matched, [len(output.queries.logits)])
            for (name, detections), assigned in zip(predicted.items(), split, strict=True):
                losses = self._losses(detections, assigned, targets, output.prompts, known)
                terms |= {f"{name}/{term}": loss / num_boxes for term, loss in losses.items()}
            if output.presence is not None:
                present = presence_loss(_widen(output.presence), targets, output.prompts, known[:, 0])
                terms["presence"] = self.config.presence * present
            if noised is not None and output.noised is not None:
                detections = _full_precision(output.noised)
                assigned = np.broadcast_to(noised.target, detections.logits.shape[:3])
                known = known & noised.valid[..., None]  # (B, N, T)
                losses = self._losses(detections, assigned, targets, output.prompts, known)
                terms |= {f"noised/{term}": loss / num_positives for term, loss in losses.items()}
            if vectors is not None:
                terms |= self._alignment(vectors)
        return terms

    def _alignment(self, vectors: CategoryVectors) -> dict[str, Tensor]:
        """Weighted losses between visual and text vectors."""
        config = self.config.alignment
        sides = (_widen(vectors.visual), _widen(vectors.text), vectors.shown)
        terms = {}
        if config.weight:
            terms["alignment"] = config.weight * alignment_loss(*sides, config, self._temperature())
        if config.relation:
            terms["relation"] = config.relation * relation_loss(*sides, config)
        return terms

    def _temperature(self) -> Tensor | None:
        """The one that is trained; as in CLIP it is the parameter that is clamped, so that it can come back."""
        if self.log_scale is None:
            return None
        with torch.no_grad():
            self.log_scale.clamp_(0, _MOST_SCALE)
        return self.log_scale.neg().exp()

    def _losses(
        self,
        detections: Detections,
        assigned: NDArray[np.int64],
        targets: Sequence[Targets],
        prompts: PromptTokens,
        known: Tensor,
    ) -> dict[str, Tensor]:
        """Weighted sums over layers, images and queries; `assigned` (K, B, Q) is the target of a query or -1.

        Which query has which target is known on the host, so indices are made there: the device is not waited for.
        """
        device, before = detections.boxes.device, np.cumsum([0, *(len(target.labels) for target in targets)])
        flat = np.flatnonzero(assigned >= 0)
        index = assigned.reshape(-1)[flat] + before[flat // assigned.shape[2] % len(targets)]
        place, index = torch.from_numpy(np.stack([flat, index])).to(device, non_blocking=True)  # (n,) each
        labels = torch.full(assigned.shape, -1, device=device)
        labels.view(-1)[place] = torch.cat([target.labels for target in targets])[index]
        boxes = torch.cat([target.boxes for target in targets])[index].to(detections.boxes.dtype)
        predicted = detections.boxes.flatten(0, 2)[place]
        giou = (1 - generalized_iou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(boxes))).sum()
        config, wanted = self.config, token_targets(labels, prompts.category)
        known = known | (wanted & prompts.valid[:, None])  # a marked object, whatever else of its category is there
        classification = focal_loss(detections.logits, wanted, known, config.focal_alpha, config.focal_gamma)
        return {
            "classification": config.classification * classification,
            "l1": config.l1 * l1_loss(predicted, boxes, reduction="sum"),
            "giou": config.giou * giou,
        }

    def _normalisers(
        self, targets: Sequence[Targets], noised: NoisedQueries | None, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Target boxes and positive noised queries per rank, at least 1."""
        boxes = sum(len(target.labels) for target in targets)
        positives = 0 if noised is None else int((noised.target >= 0).sum())
        counts = torch.tensor([boxes, positives], dtype=torch.float32).to(device, non_blocking=True)
        num_boxes, num_positives = mean_over_ranks(counts).clamp(min=1)
        return num_boxes, num_positives


def _full_precision(detections: Detections) -> Detections:
    return Detections(*map(_widen, detections))


def _widen(tensor: Tensor) -> Tensor:
    """Half precision to float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
