"""AdamW with one learning rate per part, warm-up, constant rate and a linear fall (T-Rex2, supplement A.1)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from trex2_lightning.config import OptimConfig

# What has pretrained weights, and so rates of its own. Behind it stand new layers: the text encoder's projection and
# norm, and the norms of Swin's maps.
TOWERS = {"backbone": "backbone.model.", "text": "text_encoder.tower."}
_FORMER_TOWERS = {"backbone": "backbone.", "text": "text_encoder."}  # of checkpoints up to format 1


def adamw(model: nn.Module, config: OptimConfig, criterion: nn.Module | None = None) -> AdamW:
    """The optimizer over all trainable parameters.

    The model's are in groups named `backbone`, `text` and `rest`; those of the losses, in `loss`, have the rate of the
    `rest` and no weight decay, as CLIP's temperature.
    """
    rates = {"backbone": config.lr_backbone, "text": config.lr_text, "rest": config.lr}
    groups: list[dict[str, Any]] = [
        {"params": [model.get_parameter(name) for name in names], "lr": rates[part], "name": part}
        for part, names in parted(model).items()
    ]
    learned = [parameter for parameter in criterion.parameters() if parameter.requires_grad] if criterion else []
    if learned:
        groups.append({"params": learned, "lr": config.lr, "name": "loss", "weight_decay": 0.0})
    return AdamW(groups, weight_decay=config.weight_decay, fused=True)


def schedule(optimizer: AdamW, config: OptimConfig, max_steps: int) -> LambdaLR:
    """The rate of every group as a function of the optimizer step."""
    decay_from = round(max_steps * (1 - config.decay_share))

    def factor(step: int) -> float:
        warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
        decayed = max(0, step - decay_from) / max(1, max_steps - decay_from)
        return warmup * (1 - (1 - config.final_share) * min(1.0, decayed))

    return LambdaLR(optimizer, factor)


def set_rates(scheduler: Any) -> None:
    """Give the optimizer the rates that a `schedule` has for its step, whatever a checkpoint has left there."""
    for group, base, factor in zip(
        scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
    ):
        group["lr"] = base * factor(scheduler.last_epoch)


def parted(model: nn.Module, towers: Mapping[str, str] = TOWERS) -> dict[str, list[str]]:
    """The trainable parameters by the group that they are in, without groups that have none."""
    groups: dict[str, list[str]] = {part: [] for part in (*towers, "rest")}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[next((part for part, prefix in towers.items() if name.startswith(prefix)), "rest")].append(name)
    return {part: names for part, names in groups.items() if names}


def regroup(checkpoint: dict[str, Any], model: nn.Module) -> None:
    """Sort the optimizer's state of a checkpoint up to format 1 by today's groups, in place.

    Each parameter keeps its moments. What stood behind a tower in its group goes on at the rate of the rest.

    Args:
        checkpoint: of the trainer; of today's format it stays as it is, and what fits neither is left to the optimizer.
        model: that is trained on.
    """
    before, now = parted(model, _FORMER_TOWERS), parted(model)
    for optimizer in checkpoint.get("optimizer_states", ()):
        saved = {group["name"]: group for group in optimizer["param_groups"]}
        sizes = {part: len(group["params"]) for part, group in saved.items()}
        if before == now or sizes != {part: len(names) for part, names in before.items()}:
            continue
        place = {name: number for number, name in enumerate(chain(*before.values()))}
        moments = [optimizer["state"].get(place[name]) for name in chain(*now.values())]
        optimizer["state"] = {number: moment for number, moment in enumerate(moments) if moment is not None}
        numbers = iter(range(len(place)))
        optimizer["param_groups"] = [
            saved[part] | {"params": [next(numbers) for _ in names]} for part, names in now.items()
        ]
        kept = [list(before).index(part) for part in now]
        for scheduler in checkpoint["lr_schedulers"]:
            scheduler |= {key: [scheduler[key][i] for i in kept] for key in ("base_lrs", "_last_lr", "lr_lambdas")}
