"""AdamW with one learning rate per part, warm-up, constant rate and a linear fall (T-Rex2, supplement A.1)."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from trex2_lightning.config import OptimConfig


def adamw(model: nn.Module, config: OptimConfig) -> AdamW:
    """The optimizer over all trainable parameters, in groups named `backbone`, `text` and `rest`."""
    groups: dict[str, list[nn.Parameter]] = {"backbone": [], "text": [], "rest": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = {"backbone": "backbone", "text_encoder": "text"}.get(name.split(".")[0], "rest")
            groups[part].append(parameter)
    rates = {"backbone": config.lr_backbone, "text": config.lr_text, "rest": config.lr}
    return AdamW(
        [{"params": params, "lr": rates[part], "name": part} for part, params in groups.items() if params],
        weight_decay=config.weight_decay,
        fused=True,
    )


def schedule(optimizer: AdamW, config: OptimConfig, max_steps: int) -> LambdaLR:
    """The rate of every group as a function of the optimizer step."""
    decay_from = round(max_steps * (1 - config.decay_share))

    def factor(step: int) -> float:
        warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
        decayed = max(0, step - decay_from) / max(1, max_steps - decay_from)
        return warmup * (1 - (1 - config.final_share) * min(1.0, decayed))

    return LambdaLR(optimizer, factor)
