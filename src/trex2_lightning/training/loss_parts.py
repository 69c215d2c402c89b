"""How hard each part of the loss pulls at the weights that a run begins with."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from trex2_lightning.ops.distributed import mean_over_ranks
from trex2_lightning.structures import Batch
from trex2_lightning.training.module import DetectionModule

DETECTION = "detection"
_OF_DETECTION = ("queries", "proposals", "noised")  # what the names of its terms begin with


def gradient_norms(module: DetectionModule, batch: Batch) -> dict[str, float]:
    """The norm of each part's gradient over all parameters, as a step of all ranks would have it without clipping.

    Every rank must call this at the same time. Nothing is left in `grad`. Each part has a forward pass of its own, the
    same as the others': compiled modules go backward once.

    Args:
        module: of a run that has begun; its memory bank takes the batch up.
        batch: one of every rank, of one kind of prompt, on the module's device.

    Returns:
        `detection` (queries, proposals and noised queries), then every other term by its name, as `alignment`; 0 of
        one that moves nothing that is trained.
    """
    parts = [DETECTION]
    norms: dict[str, float] = {}
    for part in parts:  # which grows by what the first pass finds
        terms = module.loss_terms(batch, 0).terms
        parts += [name for name in map(part_of, terms) if name not in parts]
        norms[part] = _norm(module, torch.stack([term for name, term in terms.items() if part_of(name) == part]).sum())
    return norms


def part_of(term: str) -> str:
    """The part of the loss that a term of the criterion belongs to."""
    head = term.split("/")[0]
    return DETECTION if head in _OF_DETECTION else head


def _norm(module: DetectionModule, loss: Tensor) -> float:
    if not loss.requires_grad:  # on no rank: all is frozen that it depends on
        return 0.0
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return float(torch.stack([*_squares(parameters, gradients)]).sum().sqrt())


def _squares(parameters: Iterable[Tensor], gradients: Iterable[Tensor | None]) -> Iterable[Tensor]:
    """() of each parameter; a rank whose batch does not use one has a gradient of zero."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        yield mean_over_ranks(torch.zeros_like(parameter) if gradient is None else gradient).float().square().sum()
