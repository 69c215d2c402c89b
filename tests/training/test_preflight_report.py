"""What a preflight says of figures that are known on paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trex2_lightning.config import Config
from trex2_lightning.training import preflight_report
from trex2_lightning.training.callbacks.preflight_watch import BatchSize, DeviceMemory, PreflightWatch
from trex2_lightning.training.callbacks.resources import GIB
from trex2_lightning.training.preflight_report import PreflightReport

# 8 GPUs x 4 images x 2 accumulated; 9 steps of 2 s and 1 of 12 s are 30 s.
EIGHT_GPUS = (
    *("train.accelerator=gpu", "train.devices=8", "data.batch_size=4", "train.total_batch=64", "data.num_workers=4"),
    *("train.rhythm={visual: 9, text: 1}", "train.max_steps=86400", "train.val_every=8640", "eval.batch_size=5"),
)
BATCH = BatchSize(4, 800, 1344, 312, "visual", "objects365")
ONE_IMAGE = ("data.batch_size=1", "train.total_batch=8")
TinyConfig = Callable[..., Config]


@pytest.fixture
def told(tiny_config: TinyConfig) -> Callable[..., PreflightReport]:
    """`told("key=value", ..., loader=..., ...)`: the report of a run where all is well but what is named."""

    def telling(*overrides: str, **changes: Any) -> PreflightReport:
        watch = PreflightWatch(20)
        watch.num_compared, watch.largest, watch.unequal = 20, BATCH, changes.get("unequal", "")
        watch.kinds.update(visual=18, text=2)
        visual = changes.get("visual", {"detection": 25.0, "alignment": 5.0})
        watch.gradient_norms.update(text={"detection": 20.0}, visual=visual)
        memory = changes.get("memory", DeviceMemory(60 * GIB, 2 * GIB, 80 * GIB))
        ranks = [preflight_report.RankFigures({"visual": 2.0, "text": 12.0}, 0.5, 3.6, memory._replace(peak=GIB))] * 7
        ranks.append(
            preflight_report.RankFigures({"visual": 1.0, "text": 1.0}, changes.get("loader", 0.5), 1.0, memory)
        )
        disk = preflight_report.DiskSpace(GIB, 2 * GIB, changes.get("free", 9 * GIB))
        found = preflight_report.RunFigures(watch, ranks, changes.get("checkpoint", ""), disk, 4000, 64)
        return preflight_report.judge(tiny_config(*EIGHT_GPUS, *overrides), found)

    return telling


def line(report: PreflightReport, name: str) -> str:
    [found] = [line for line in report.lines if line.startswith(name)]
    return found


def test_a_run_that_will_do(told: Callable[..., PreflightReport]) -> None:
    report = told()
    assert (report.problems, report.failed) == ((), False)
    assert "18 visual and 2 text steps, of which the first 20 the widest" in report.lines[0]
    memory = line(report, "memory")
    assert (
        "60 GiB at the peak of the card's 80 GiB, 2 GiB taken by others and the driver, 18 GiB left (4 images" in memory
    )
    assert "padded to 800 x 1344, up to 312 boxes, visual of objects365" in memory
    assert "21.3 images/s, 3 s a step (visual 2 s, text 12 s)" in line(report, "speed")
    assert "the GPU takes 1.5 s: the loader waits for the GPU" in line(report, "loader")
    length = line(report, "length")
    assert "86,400 steps: 3 days, 576 GPU-hours; and 10 evaluations of 4,000 images: 1 hours" in length
    assert line(report, "gradients").endswith("equal on 8 ranks in 20 steps")
    assert "7 GiB for best.ckpt, last.ckpt, previous.ckpt and one that is written, 9 GiB free" in line(report, "disk")
    assert report.lines[-1].startswith("verdict      ready")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        # Visual steps of 2 s wait 4 s for 2 batches of 3 s, text steps of 12 s do not; 3.6 of 6.6 s.
        ({"loader": 3.0}, "loader: too slow, the GPU waits 55% of the time: data.num_workers=10 (this machine has 8"),
        ({"loader": 1.5}, "loader: too slow, the GPU waits 23% of the time: data.num_workers=5"),
        ({"free": 6 * GIB}, "disk: too small, 7 GiB wanted and 6 GiB free: output=FOLDER on a larger disk"),
        ({"unequal": "step 3 (text), ranks 0 and 7"}, "gradients: not equal at step 3 (text), ranks 0 and 7: "),
        ({"checkpoint": "3 tensors differ"}, "checkpoint: 3 tensors differ: give another disk by output="),
    ],
)
def test_what_will_not_do(told: Callable[..., PreflightReport], changes: dict[str, Any], problem: str) -> None:
    report = told(**changes)
    assert len(report.problems) == 1
    assert problem in report.problems[0]
    assert report.failed
    assert report.lines[-1] == "verdict      will not do"


def test_a_part_of_the_loss_that_outweighs_detection_is_told_with_a_weight_for_it(
    told: Callable[..., PreflightReport],
) -> None:
    assert line(told(), "loss parts").endswith("from new weights: text detection 20; visual detection 25, alignment 5")
    assert " from a.ckpt: " in line(told("train.init_from=a.ckpt"), "loss parts")
    norms = {"detection": 25.0, "alignment": 100.0, "relation": 75.0, "other": 50.0, "light": 25.0}
    report = told("loss.alignment={weight: 2, relation: 9}", visual=norms)
    assert report.problems == ()
    _, *warnings = line(report, "loss parts").split("; WARNING: ")
    assert warnings == [
        "alignment pulls 4 times as hard as detection: at most loss.alignment.weight=0.5",
        "relation pulls 3 times as hard as detection: at most loss.alignment.relation=3",
        "other pulls 2 times as hard as detection: a smaller weight",
    ]


def test_a_loader_without_workers_is_waited_for_in_every_step(told: Callable[..., PreflightReport]) -> None:
    report = told("data.num_workers=0")
    assert "4 s a step" in line(report, "speed")
    assert report.problems[0].startswith("loader: too slow, the GPU waits 25% of the time: data.num_workers=1")


def test_little_memory_left_is_told(told: Callable[..., PreflightReport]) -> None:
    tight = DeviceMemory(75 * GIB, 2 * GIB, 80 * GIB)
    assert "3 GiB left; tight: less than 5% is left" in line(told(memory=tight), "memory")
    assert "tight" not in line(told(), "memory")


def test_ranks_on_the_cpu_share_its_memory(told: Callable[..., PreflightReport]) -> None:
    memory = line(told("train.accelerator=cpu", memory=DeviceMemory(5 * GIB, 0, 64 * GIB)), "memory")
    assert "40 GiB at the peak of the machine's 64 GiB, 24 GiB left" in memory


@pytest.mark.parametrize(
    ("overrides", "batch", "way"),
    [
        ((), BATCH, "data.batch_size=2"),
        (ONE_IMAGE, BATCH._replace(images=1), "train.checkpoint_activations=true, or a smaller data.max_size="),
        ((*ONE_IMAGE, "train.checkpoint_activations=true"), BATCH._replace(images=1), "a smaller data.max_size="),
        ((), BATCH._replace(kind="evaluation"), "eval.batch_size=2"),
        ((), None, "a smaller model"),
    ],
)
def test_what_to_change_where_it_does_not_fit(
    tiny_config: TinyConfig, overrides: tuple[str, ...], batch: BatchSize | None, way: str
) -> None:
    report = preflight_report.does_not_fit(tiny_config(*EIGHT_GPUS, *overrides), batch)
    assert report.failed
    assert "does not fit" in report.problems[0]
    assert f": {way}" in report.problems[0]


def test_the_disk_that_is_too_small_is_named(tiny_config: TinyConfig) -> None:
    config = tiny_config("output=here")
    assert (
        "output=FOLDER on a larger disk than here, which has 1 GiB free"
        in preflight_report.no_room(config, GIB).problems[0]
    )
