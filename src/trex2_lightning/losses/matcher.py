"""One-to-one matching of queries and targets (DETR section 3.1, with Deformable DETR's focal cost)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import generalized_box_iou, sigmoid_focal_loss

from trex2_lightning.config import CostConfig
from trex2_lightning.errors import InputError
from trex2_lightning.losses.classification import token_targets
from trex2_lightning.ops.boxes import cxcywh_to_xyxy
from trex2_lightning.structures import Detections, PromptTokens, Targets


class NotFiniteError(InputError):
    """Predictions or targets are not finite."""


class HungarianMatcher:
    """Matches each decoder layer on its own; the costs of all layers and images leave the device in one transfer.

    It is the only one of a training step, and the step's only wait for the device, but for one of the memory bank and
    one where early fusion has no room for all prompts.
    """

    def __init__(self, cost: CostConfig, focal_alpha: float, focal_gamma: float) -> None:
        self.cost = cost
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma

    @torch.no_grad()
    def __call__(self, detections: Detections, prompts: PromptTokens, targets: Sequence[Targets]) -> NDArray[np.int64]:
        """Assign to every query the target that it must predict.

        Returns:
            (K, B, Q), an index into the image's targets, -1 for "nothing". Every target has exactly one query; where
            there are more targets than queries, the dearest targets have none.

        Raises:
            NotFiniteError: predictions or target boxes are not finite, as where training has diverged.
        """
        num_images = detections.boxes.shape[1]
        valid = prompts.valid.expand(num_images, -1)
        classification = self._classification(detections.logits.masked_fill(~valid[:, None], 0))
        costs = [
            self._costs(classification[:, i], detections.boxes[:, i], prompts.category, valid[i], targets[i])
            for i in range(num_images)
        ]
        return self._assign(torch.cat(costs, -1).cpu(), targets)

    def _assign(self, costs: Tensor, targets: Sequence[Targets]) -> NDArray[np.int64]:
        """Of costs (K, Q, n) of the targets of all images, one after another."""
        num_layers, num_queries, _ = costs.shape
        assigned = np.full((num_layers, len(targets), num_queries), -1)
        for image, layers in enumerate(costs.split([len(target.labels) for target in targets], -1)):
            if not layers.isfinite().all():
                raise NotFiniteError(
                    f"the matching cost of image {targets[image].image_id} is not finite: its predictions or target "
                    "boxes hold NaN or infinity"
                )
            for layer, cost in enumerate(layers.numpy()):
                queries, matched = linear_sum_assignment(cost)
                assigned[layer, image, queries] = matched
        return assigned

    def _classification(self, logits: Tensor) -> Tensor:
        """What it costs to call a token found rather than not, in the shape of the logits."""
        found, missed = (
            sigmoid_focal_loss(logits, torch.full_like(logits, value), self.focal_alpha, self.focal_gamma)
            for value in (1, 0)
        )
        return found - missed

    def _costs(self, classification: Tensor, boxes: Tensor, category: Tensor, valid: Tensor, target: Targets) -> Tensor:
        """Costs of one image, (K, Q, n): of a category with several tokens the mean, as Grounding DINO has it."""
        share = (token_targets(target.labels, category) & valid).to(classification.dtype)  # (n, T)
        share = share / share.sum(-1, keepdim=True).clamp(min=1)
        target_boxes = target.boxes.to(boxes.dtype)
        giou = generalized_box_iou(cxcywh_to_xyxy(boxes).flatten(0, 1), cxcywh_to_xyxy(target_boxes))
        return (
            self.cost.classification * (classification @ share.T)
            + self.cost.l1 * torch.cdist(boxes, target_boxes, p=1)
            - self.cost.giou * giou.unflatten(0, boxes.shape[:2])
        )
