"""What there is to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import torch

from trex2_lightning.ops.host import main_memory
from trex2_lightning.training.preflight import num_cores

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container, new and old
MEMINFO = "/proc/meminfo"


class Machine(NamedTuple):
    """One accelerator, and what feeds it."""

    accelerator: Literal["gpu", "cpu"]
    device: str  # what it is called
    num_gpus: int
    memory: int  # bytes that are free on the GPU, or else on the machine
    cores: int


def this_machine(accelerator: str = "") -> Machine:
    """The first GPU, or the CPU where there is none or it is asked for."""
    count = torch.cuda.device_count() if torch.cuda.is_available() and accelerator != "cpu" else 0
    if count:
        free, _ = torch.cuda.mem_get_info(0)
        return Machine("gpu", torch.cuda.get_device_name(0), count, free, num_cores())
    return Machine("cpu", f"{num_cores()} CPU cores", 0, free_memory(), num_cores())


def free_memory(limits: tuple[str, ...] = LIMITS, meminfo: str = MEMINFO) -> int:
    """Bytes of main memory that a process can still have: of the machine, or of its container if that has less."""
    sizes = [_number(Path(limit)) for limit in limits]
    known = [size for size in sizes if size is not None]
    lines = Path(meminfo).read_text(encoding="utf-8").splitlines() if Path(meminfo).is_file() else []
    available = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
    return min([available or main_memory(), *known])


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or `max`
        return None
