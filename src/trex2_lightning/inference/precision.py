"""In which precision a detector computes where nobody trains it."""

from __future__ import annotations

from typing import get_args

import torch

from trex2_lightning.config import ConfigError, Precision


def computes_half(precision: Precision, device: torch.device, *, asked: bool) -> bool:
    """Whether layers compute in bfloat16, by autocast.

    Args:
        precision: as `train.precision` has it.
        device: of the detector.
        asked: by the caller; else it is that of the training, which holds where bfloat16 is fast: on a GPU that has
            it. A CPU computes in float32 then.

    Raises:
        ConfigError: there is no such precision, or it was asked for on a GPU that lacks it.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision={precision} is none of {', '.join(get_args(Precision))}")
    if precision == "32-true" or (device.type != "cuda" and not asked):
        return False
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        if asked:
            raise ConfigError("precision=bf16-mixed: this GPU does not compute in bfloat16; take precision=32-true")
        return False
    return True
