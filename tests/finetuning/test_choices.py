"""What is chosen for a data set and a machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from trex2_lightning.finetuning.choices import choose
from trex2_lightning.finetuning.machine import Machine, free_memory
from trex2_lightning.finetuning.survey import Survey

GIB = 2**30
FOUND = Survey(1000, 4000, ("cat", "dog"), short_side=1080, aspect=4 / 3, small=0.08, crowded=12)
CPU = Machine("cpu", "2 CPU cores", 0, 16 * GIB, 2)
GPU = Machine("gpu", "a card", 1, 80 * GIB, 16)


def chosen(found: Survey = FOUND, machine: Machine = CPU, **given: Any) -> dict[str, str]:
    own = {key.replace("__", "."): str(value) for key, value in given.items()}
    return {choice.key: choice.value for choice in choose(found, machine, own)}


@pytest.mark.parametrize(
    ("small", "short_side", "machine", "size"),
    [
        (0.08, 1080, CPU, 224),  # 18 pixels
        (0.05, 1080, CPU, 352),  # 14 at 288, 18 at 352
        (0.01, 1080, CPU, 416),  # 71 at most would be wanted, and take eight times as long
        (0.01, 1080, GPU, 640),
        (0.01, 300, GPU, 352),  # the pictures have no more
    ],
)
def test_small_things_get_more_pixels(small: float, short_side: int, machine: Machine, size: int) -> None:
    found = FOUND._replace(small=small, short_side=short_side)
    assert chosen(found, machine)["data.size"] == str(size)


def test_boxes_that_stay_small_are_told() -> None:
    [size] = [choice for choice in choose(FOUND._replace(small=0.01), CPU, {}) if choice.key == "data.size"]
    assert "less than 4 x 4 pixels then, which is little: 16 would take data.size=1600; the most" in size.why


@pytest.mark.parametrize(("aspect", "longest"), [(1.0, 224), (4 / 3, 320), (16 / 9, 416), (5.0, 448)])
def test_the_longer_side_is_bounded(aspect: float, longest: int) -> None:
    assert chosen(FOUND._replace(aspect=aspect))["data.max_size"] == str(longest)


@pytest.mark.parametrize(
    ("names", "flip"),
    [
        (("cat", "dog"), "0.5"),
        (("arm", "Left arm"), "0"),
        (("turn right",), "0"),
        (("bright lamp", "leftover"), "0.5"),
        (("0", "1", "b"), "0"),
        (("1", "ten"), "0.5"),
    ],
)
def test_what_mirrored_is_another_thing_is_not_flipped(names: tuple[str, ...], flip: str) -> None:
    values = chosen(FOUND._replace(names=names))
    assert (values["data.augment.horizontal_flip"], values["data.augment.vertical_flip"]) == (flip, "0")


@pytest.mark.parametrize(("gibibytes", "batch"), [(16, 8), (5, 8), (4.2, 4), (3.3, 1), (1, 1)])
def test_the_batch_is_what_half_of_the_memory_holds(gibibytes: float, batch: int) -> None:
    """8 pictures of 416 x 576 at 1,600 bytes a pixel are 2.9 GiB, on top of 1.5."""
    found = FOUND._replace(small=0.04)
    machine = CPU._replace(memory=int(gibibytes * GIB))
    values = chosen(found, machine, data__size=224)
    assert (values["data.batch_size"], values["train.total_batch"]) == (str(batch), "8")


def test_more_boxes_and_more_names_take_more_steps() -> None:
    def steps(**changes: Any) -> int:
        return int(chosen(FOUND._replace(**changes))["train.max_steps"])

    assert steps() == 1600  # (200 x 63.2 + 100 x 2) / 8
    assert steps(num_boxes=16_000) == 3200
    assert steps(names=tuple(map(str, range(82)))) == 2600
    assert (steps(num_boxes=10), steps(num_boxes=10**9)) == (300, 20_000)


def test_crowded_pictures_get_more_queries() -> None:
    assert chosen()["model.num_queries"] == "100"
    values = chosen(FOUND._replace(crowded=150))
    assert (values["model.num_queries"], values["eval.max_detections"]) == ("300", "300")


def test_what_is_given_is_kept_and_the_rest_follows_it() -> None:
    values = chosen(FOUND, CPU, data__size=416, train__total_batch=16, model={})
    assert "data.size" not in values
    assert "model.num_queries" not in values
    assert values["data.max_size"] == "576"
    assert "train.total_batch" not in values
    assert values["train.max_steps"] == "800"


def test_a_gpu_is_fed_by_more_processes() -> None:
    values = chosen(FOUND, GPU)
    assert (values["train.accelerator"], values["data.num_workers"]) == ("gpu", "4")
    assert chosen(FOUND, CPU._replace(cores=1))["data.num_workers"] == "0"


def test_every_choice_says_why() -> None:
    for choice in choose(FOUND, CPU, {}):
        assert re.search(r"\w{2}", choice.why)


def test_a_container_s_memory_is_what_counts(tmp_path: Path) -> None:
    (tmp_path / "limit").write_text("2000000\n")
    (tmp_path / "none").write_text("max\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4000 kB\n")

    def free(*limits: str) -> int:
        return free_memory(tuple(str(tmp_path / limit) for limit in limits), str(tmp_path / "meminfo"))

    assert free("limit", "none") == 2_000_000
    assert free("none", "gone") == 4000 * 1024
