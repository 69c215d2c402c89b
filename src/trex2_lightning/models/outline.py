"""What settings would make, without making it: they may be a stranger's, and ask for more than a machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from trex2_lightning.errors import InputError, reason_of

FACTOR = 4  # bytes of modules for each byte of a file: half of a model may be built and thrown away
ALWAYS = 2**30  # bytes that are allowed whatever the file: such as the late stages of a backbone that are not used


@contextmanager
def outlined(file_bytes: int, source: Any) -> Iterator[None]:
    """Modules that are built inside are outlines: names and shapes, on PyTorch's meta device, without memory.

    Args:
        file_bytes: of the weights that are to fill them.
        source: of the settings, for messages.

    Raises:
        InputError: they come to far more than the file could fill, or cannot be built at all.
    """
    left = FACTOR * file_bytes + ALWAYS

    def count(_module: nn.Module, _name: str, tensor: Tensor | None) -> None:
        nonlocal left
        left -= 0 if tensor is None else tensor.nbytes
        if left < 0:
            raise InputError(f"{source}: its settings make a model far larger than its weights; take another file")

    hooks = [
        register(count)
        for register in (register_module_parameter_registration_hook, register_module_buffer_registration_hook)
    ]
    try:
        with torch.device("meta"):
            yield
    except InputError:
        raise
    except Exception as error:  # settings of strangers may make timm, open_clip and PyTorch raise anything
        raise InputError(f"{source}: its settings make no model ({reason_of(error)}); take another file") from error
    finally:
        for hook in hooks:
            hook.remove()
