"""`make bench-gpu`: what detectors take on a GPU, to find and to train, beside Grounding DINO of `transformers`."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

import torch

from trex2_lightning.errors import InputError, reason_of
from trex2_lightning.models.compiling import set_up_compiling
from trex2_lightning.studies.gpu_latency import latency_section
from trex2_lightning.studies.gpu_models import PEER, Bench
from trex2_lightning.studies.gpu_page import CALLS, Region, Section, Task, check_page, write
from trex2_lightning.studies.gpu_same import same_section
from trex2_lightning.studies.gpu_sampling import sampling_section
from trex2_lightning.studies.gpu_timing import GIBIBYTE, Taken, Workload, release
from trex2_lightning.studies.gpu_training import training_section

log = logging.getLogger(__name__)


def measure_gpu(
    page: Path,
    *,
    compiled: bool = False,
    device: str = "cuda",
    work: Workload = Workload(),  # noqa: B008
) -> None:
    """Measure one part of the page, and write it after every row: what fails, or is stopped, leaves the others.

    Args:
        page: file to write.
        compiled: the part of what is compiled, else that of what is not.
        device: where.
        work: how much.

    Raises:
        InputError: no such device, or the page is none, as in `check_page`.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("PyTorch sees no GPU, and the page is of one: run it on a machine that has one")
    check_page(page)
    region: Region = "compiled" if compiled else "eager"
    if compiled:  # for the peer as for ours
        set_up_compiling()
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder, _tensor_cores():
        bench = Bench(torch.device(device), work, Path(folder))
        sections = sections_of(bench, region)
        for section in sections:
            for task in section.tasks:
                key = (section.title, *task.what)
                found = bench.found[key] = outcome(task)
                seconds = perf_counter() - start
                log.info("%4.0f s  %s: %s", seconds, ", ".join(filter(None, task.what)), section.line(task, found))
                write(page, region, content(bench, region, sections, seconds), blanks())
                release(bench.device)  # after the row is written: it fails too where the device has failed for good
    log.info("all in %.0f s", perf_counter() - start)


def outcome(task: Task) -> Taken | str:
    """What a row takes, or why that cannot be told."""
    try:
        return task.measure()
    except torch.OutOfMemoryError:
        return "out of memory"
    except Exception as error:  # any: the other rows are worth as much
        return f"failed: {reason_of(error, 160).replace('|', '/')}"


def sections_of(bench: Bench, region: Region) -> list[Section]:
    """The tables of a part of the page."""
    detectors = [latency_section(bench, region), training_section(bench, region)]
    return detectors if region == "compiled" else [sampling_section(bench), *detectors, same_section(bench)]


def blanks() -> dict[Region, str]:
    """What the parts are before they are measured."""
    bench = Bench(torch.device("cpu"), Workload(), Path(), has_peer=True)
    return {region: content(bench, region, sections_of(bench, region), None) for region in CALLS}


def content(bench: Bench, region: Region, sections: list[Section], seconds: float | None) -> str:
    """A part of the page; `seconds` that it took so far, None before it is measured."""
    intro = f"Not measured: nobody has run `{CALLS[region]}` on a GPU."
    if seconds is not None:
        intro = measured_on(bench, seconds)
    shown = [section.shown(bench.found) for section in sections]
    return "\n\n".join([f"## {region.capitalize()}", intro, METHOD[region], *shown])


METHOD: dict[Region, str] = {
    "eager": "Medians of up to ten runs in one process, after three to warm up; a run ends when the device is done. "
    "All detectors have Swin-T, BERT and random weights, the peer's as far as it has them. The peer is Grounding DINO "
    f"of {PEER}, without the kernel that it can download. Ratios are within this run; bars in ms or GiB were set on an "
    "H200.",
    "compiled": f"As above, in a process of its own: {PEER} compiled as a whole by `torch.compile`, of ours the "
    f"backbone and the layers. Ratios are over {PEER} as it is, in this run. Compiling is part of warming up.",
}


def measured_on(bench: Bench, seconds: float) -> str:
    """The device, the versions and how long all took."""
    name = "CPU"
    if bench.device.type == "cuda":
        card = torch.cuda.get_device_properties(bench.device)
        name = f"{card.name}, {card.total_memory / GIBIBYTE:.0f} GiB, compute capability {card.major}.{card.minor}"
    packages = [f"{package} {found}" for package in ("triton", "transformers") if (found := _version(package))]
    lacks = "" if bench.has_peer else f" {PEER} was missing, so its rows are left out and no ratio to it is told."
    if bench.device.type == "cuda" and not _version("triton"):
        lacks += " Triton was missing, so sampling fell back to `grid_sample`."
    return f"Measured on {name}; PyTorch {', '.join([torch.__version__, *packages])}; in {seconds:.0f} s.{lacks}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@contextmanager
def _tensor_cores() -> Iterator[None]:
    """Matrix products of float32 in TF32, as the package sets it on a GPU."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
