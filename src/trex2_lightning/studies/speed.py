"""`make bench`: what detectors, their costly parts and the input pipeline take, beside others that do the same."""

from __future__ import annotations

import platform
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from trex2_lightning.errors import InputError
from trex2_lightning.evaluation import costs
from trex2_lightning.evaluation.tables import table
from trex2_lightning.studies import index_speed, input_speed
from trex2_lightning.studies.appearance_speed import EXEMPLARS, appearance
from trex2_lightning.studies.detector_speed import (
    COCO_LENGTHS,
    LVIS_LENGTHS,
    detectors,
    made_up_names,
    random_detector,
    write_settings,
)
from trex2_lightning.studies.export_speed import exported
from trex2_lightning.studies.label_speed import labelling
from trex2_lightning.studies.layer_speed import fusion, sampling
from trex2_lightning.studies.startup_speed import startup
from trex2_lightning.studies.timing import Row, Setting, fastest, ratio

STARTUP, STARTS = "Start-up", 5  # section of the page, and how often each thing is started
EXPORTED = "Exported, ONNX Runtime beside PyTorch with `experiments/small_coco.yaml`, one thread"
LABELLED = "Labelling, `trex2 label ...` with `experiments/small_coco.yaml`"
COMPARING = f"Appearance, {Setting().many:,} categories of {EXEMPLARS} exemplars"
A100_TFLOPS = 312  # peak in bfloat16, as its maker gives it


def measure_speed(target: Path, threads: int) -> None:
    """Measure everything, and write the page.

    Args:
        target: file to write.
        threads: of PyTorch, but for the input pipeline.
    """
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        sections = {
            STARTUP: startup(STARTS),
            EXPORTED: exported(Path(folder, "onnx"), Setting()),
            LABELLED: labelling(Path(folder, "label"), Setting()),
            "Detectors": detectors(Path(folder), Setting()),
            COMPARING: appearance(Path(folder), Setting()),
            "Fusion of image and prompts, one layer": fusion(Setting()),
            "Deformable sampling, one layer of the encoder": sampling(Setting()),
            "Input pipeline, one core": input_pipeline(Path(folder), Setting()),
            "Index of a data set, one core": index(Path(folder), Setting()),
        }
        needed = demand(Path(folder), sections["Input pipeline, one core"][0], Setting())
    target.write_text(speed_page(sections, threads, needed), encoding="utf-8")


RENEWABLE: dict[str, tuple[str, Callable[[Path], Sequence[Row]]]] = {  # sections by themselves, as they are asked for
    "start-up": (STARTUP, lambda _: startup(STARTS)),
    "onnx": (EXPORTED, lambda folder: exported(folder, Setting())),
    "labelling": (LABELLED, lambda folder: labelling(folder, Setting())),
    "exemplars": (COMPARING, lambda folder: appearance(_with_settings(folder), Setting())),
}


def renew(target: Path, part: str, threads: int) -> None:
    """Measure a section anew and leave the others as they are; one that the page lacks comes behind its first.

    Args:
        target: the page.
        part: key of `RENEWABLE`.
        threads: of PyTorch, but for exported graphs.

    Raises:
        InputError: there is no page, or what is measured is not installed.
    """
    torch.set_num_threads(threads)
    text = target.read_text(encoding="utf-8") if target.is_file() else ""
    sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    if len(sections) < 2:
        raise InputError(f"{target} is no page with sections: make bench writes all of it")
    title, measure = RENEWABLE[part]
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder))
    others = [section for section in sections if not section.startswith(f"## {title}\n")]
    place = next((place for place, section in enumerate(sections) if section not in others), 2)
    target.write_text("".join([*others[:place], f"{_section(title, rows)}\n\n", *others[place:]]), encoding="utf-8")


def _with_settings(folder: Path) -> Path:
    """What `detectors` leaves there, without its weights."""
    write_settings(folder, Setting())
    return folder


def input_pipeline(folder: Path, setting: Setting) -> list[Row]:
    """JPEG files to training batches on one thread, beside PIL and pycocotools."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    input_speed.write_images(folder)
    rows = []
    for size in input_speed.IMAGE_SIZES:
        sides = [partial(_exhaust, read) for read in input_speed.loaders(folder, size)]
        slow, fast = (seconds / input_speed.FILES for seconds in fastest(setting.repeats, *sides))
        rows.append(Row(f"an image of {size} px, {1 / fast:.0f} images per second", slow, fast, ratio(slow, fast)))
    torch.set_num_threads(threads)
    return rows


def index(folder: Path, setting: Setting) -> list[Row]:
    """An index of Objects365's size, beside pycocotools on a tenth of it."""
    tenth, whole = folder / "tenth.json", folder / "whole.json"
    index_speed.write_annotations(tenth, setting.images // 10, setting.boxes // 10)
    peer = index_speed.opening_with_pycocotools(tenth)
    index_speed.write_annotations(whole, setting.images, setting.boxes)
    built = index_speed.building(whole, folder / "index")
    opened, sampled = index_speed.opening(folder / "index"), index_speed.reading_images(folder / "index")
    size = f"{setting.images:,} images with {setting.boxes:,} boxes"
    return [
        Row(
            f"opening {size}; the peer, pycocotools, a tenth of them",
            peer.seconds,
            opened.seconds,
            ratio(peer.seconds, opened.seconds),
            "< 1 s",
        ),
        Row("memory that it adds, MiB", None, None, f"{opened.added:.0f} (peer: {peer.added:.0f})"),
        Row(
            f"{index_speed.SAMPLES:,} random images of it; memory that they add, MiB",
            None,
            sampled.seconds,
            f"{sampled.added:.0f}",
            "< 150",
        ),
        Row("building it; peak memory of the process, MiB", None, built.seconds, f"{built.peak:.0f}", "< 1,907"),
    ]


def demand(folder: Path, large: Row, setting: Setting) -> str:
    """What the accelerators of the paper could ask of the input pipeline at the most, as a paragraph.

    Args:
        folder: with the weights of `detectors`.
        large: the pipeline's images of the size that the detector is trained on.
        setting: sizes.
    """
    assert large.ours
    side = round((setting.height * setting.width) ** 0.5)
    cost = costs.gflops(
        random_detector(folder, "late", "phrase", "scaled"), made_up_names(COCO_LENGTHS, setting.few), side
    )
    step = 3 * (cost.image + cost.decode)
    most = A100_TFLOPS * 1e3 / step
    return (
        f"What training asks of it: T-Rex2 with Swin-T costs {step / 3:.0f} GFLOP an image of {setting.height} x "
        f"{setting.width} (matrix products, convolutions and attention, counted), {step:.0f} with its backward pass. "
        f"At its peak of {A100_TFLOPS} TFLOP/s in bfloat16 an A100 would take {most:.0f} images per second, 8 of them "
        f"{8 * most:.0f} and 16 of them {16 * most:.0f}: {most * large.ours:.1f} cores for each, had they this one's "
        f"speed. A third of the peak, more than detectors reach, asks for {most * large.ours / 3:.1f} cores; a machine "
        "of 8 A100 has 12 to 16 for each. `data.num_workers` is the number of cores for each GPU."
    )


def speed_page(sections: Mapping[str, Sequence[Row]], threads: int, needed: str) -> str:
    """The figures as Markdown."""
    blocks = [
        "# Benchmarks",
        "Written by `make bench`; do not edit. The fastest of several runs, which took turns in one process; a ratio "
        "is the peer's time over ours.",
        f"{_processor()}, PyTorch {torch.__version__}, {threads} threads (the input pipeline: 1), float32, random "
        "weights. The peer of the detectors and of fusion is Grounding DINO with Swin-T of `transformers`, whose "
        "weights all detectors share, and which reads at most 256 tokens at a time. Names are made up: as many word "
        f"pieces as COCO's have on average ({sum(COCO_LENGTHS) / len(COCO_LENGTHS):.1f}) where there are few, as "
        f"LVIS's ({sum(LVIS_LENGTHS) / len(LVIS_LENGTHS):.1f}) where there are many.",
    ]
    blocks += [_section(title, rows) for title, rows in sections.items()]
    return "\n\n".join([*blocks, needed]) + "\n"


def _section(title: str, rows: Sequence[Row]) -> str:
    lines = [[row.what, _seconds(row.peer), _seconds(row.ours), row.figure, row.bar] for row in rows]
    return f"## {title}\n\n{table(['what', 'peer, s', 'ours, s', 'ratio', 'bar'], lines)}"


def _exhaust(read: Callable[[], Iterable[object]]) -> None:
    for _ in read():
        pass


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
