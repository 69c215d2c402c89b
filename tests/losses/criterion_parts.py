"""Random batches for the whole criterion, and what a tiny one costs."""

import torch
from torch import Tensor

from trex2_lightning.config import DenoisingConfig, LossConfig
from trex2_lightning.losses.criterion import Criterion
from trex2_lightning.losses.denoising import noise_queries
from trex2_lightning.structures import Detections, DetectorOutput, NoisedQueries, PromptTokens, Targets

CRITERION = Criterion(LossConfig())
CATEGORY = [0, 0, -1, 1, 2]  # a phrase of two words, a separator, two phrases of one word
NAMES = [f"{part}/{term}" for part in ("queries", "proposals", "noised") for term in ("classification", "l1", "giou")]
TINY_TARGET = Targets(torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), 0)
TINY_BOXES = torch.tensor([[0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.4, 0.4]])


def prompts(category: list[int], batch: int = 1) -> PromptTokens:
    num = len(category)
    return PromptTokens(
        embed=torch.zeros(batch, num, 4),
        valid=torch.ones(batch, num, dtype=torch.bool),
        category=torch.tensor(category),
        attend=torch.ones(num, num, dtype=torch.bool),
        position=torch.zeros(num, dtype=torch.int64),
    )


def random_boxes(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.rand(*shape, 4, generator=generator) * 0.4 + 0.2


def random_targets(counts: list[int], generator: torch.Generator) -> list[Targets]:
    return [
        Targets(torch.randint(3, (n,), generator=generator), random_boxes(n, generator=generator), i)
        for i, n in enumerate(counts)
    ]


def random_output(noised: NoisedQueries | None, batch: int, generator: torch.Generator) -> DetectorOutput:
    """Two decoder layers of four queries for `CATEGORY`; every prediction wants a gradient."""

    def detections(layers: int, queries: int) -> Detections:
        logits = torch.randn(layers, batch, queries, len(CATEGORY), generator=generator)
        boxes = random_boxes(layers, batch, queries, generator=generator)
        return Detections(logits.requires_grad_(), boxes.requires_grad_())

    return DetectorOutput(
        queries=detections(2, 4),
        proposals=detections(1, 4),
        noised=detections(2, noised.labels.shape[1]) if noised else None,
        prompts=prompts(CATEGORY),
    )


def random_batch(counts: list[int], seed: int = 0) -> tuple[DetectorOutput, list[Targets], NoisedQueries]:
    generator = torch.Generator().manual_seed(seed)
    targets = random_targets(counts, generator)
    noised = noise_queries(targets, 3, 4, DenoisingConfig(queries=6), generator)
    assert noised is not None
    return random_output(noised, len(counts), generator), targets, noised


def predictions(output: DetectorOutput) -> list[Tensor]:
    return [*output.queries, *output.proposals, *(output.noised or ())]


def on_paper(queries: Detections, target: Targets) -> dict[str, Tensor]:
    output = DetectorOutput(queries, queries, None, prompts([0]))
    return CRITERION(output, [target])
