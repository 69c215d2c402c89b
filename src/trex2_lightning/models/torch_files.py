"""Files of `torch.save` by whoever: nothing in them runs, and they take no more memory than they are long."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MADE_OF_NOTHING = re.compile(rb"c(builtins|__builtin__)\nbytearray\n")  # bytes of any number, which a pickle asks for
SHARED = 2  # times a tensor may be in a file on average: a layer that several share is written once


def read_torch_file(path: Path) -> Any:
    """What `torch.save` wrote, plain values and tensors, on the CPU.

    Raises:
        ValueError: it takes more memory than the file is long.
        Exception: whatever PyTorch raises on damaged files, and on those whose reading would run code.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("it is compressed, as PyTorch never writes it")
            pickles = [info for info in archive.infolist() if info.filename.endswith("data.pkl")]
            if any(MADE_OF_NOTHING.search(archive.read(info)) for info in pickles):
                raise ValueError("it makes bytes of nothing, as PyTorch never writes it")
    return torch.load(path, map_location="cpu", weights_only=True)


def check_own_bytes(tensors: Iterable[Any], path: Path) -> None:
    """Whether they are tensors that the file has the numbers of: a view can pretend to any size.

    Raises:
        ValueError: they are not.
    """
    total = 0
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError("it has something else than tensors of numbers among its weights")
        total += tensor.nbytes
    if total > SHARED * path.stat().st_size:
        raise ValueError("its weights pretend to be larger than the file")
