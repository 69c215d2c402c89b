"""The benchmark of a GPU, tiny and on a CPU: every row is measured by the code that measures it there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_reference import SMALL
from torch import nn

from trex2_lightning.commands import bench_gpu
from trex2_lightning.errors import InputError
from trex2_lightning.studies import gpu_models, gpu_speed
from trex2_lightning.studies.gpu_page import CALLS, Bar, Section, Task, blank_page
from trex2_lightning.studies.gpu_speed import blanks, measure_gpu
from trex2_lightning.studies.gpu_timing import Laps, Taken, Workload, gibibytes, milliseconds, timed

ROOT = Path(__file__).parents[2]
TINY = Workload(
    SMALL, batches=(1, 2), trained=2, late_names=12, boxes=3, noised=6, copied=1 << 20, in_a_row=2, warmup=0, least=1
)
WITHOUT = """
import sys
sys.modules["wandb"] = sys.modules["transformers"] = None
from pathlib import Path
from trex2_lightning.commands import bench_gpu
from trex2_lightning.studies.gpu_speed import measure_gpu
from test_gpu_speed import TINY
measure_gpu(Path(sys.argv[1]), device="cpu", work=TINY._replace(batches=(1,)))
"""


@pytest.fixture
def peer() -> None:
    pytest.importorskip("transformers")


def part(text: str, name: str) -> str:
    [found] = re.findall(rf"<!-- {name}: .*?<!-- end -->", text, re.DOTALL)
    return found


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of a table, its head first."""
    section = text.split(f"### {title}\n")[1].split("###")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", section, re.M)]
    return [cells[0], *cells[2:]]


def test_every_row_is_measured(tmp_path: Path, peer: None) -> None:
    page = tmp_path / "page.md"
    measure_gpu(page, device="cpu", work=TINY)
    text = part(page.read_text(), "eager")
    assert "not measured" not in text
    failed = [line for line in text.splitlines() if "failed" in line]
    assert not failed

    head, *sampled = rows(text, "Deformable sampling, one layer of the encoder")
    assert len(sampled) == 1 + 2 * 2 * 2 * 2
    grid, ours = sampled[7:9]
    assert grid[1:4] == ours[1:4] == ["bfloat16", "2", "forward and backward"]
    faster = float(grid[4]) / float(ours[4])
    assert float(ours[head.index("times as fast as `grid_sample`")]) == pytest.approx(faster, rel=0.1)
    assert re.fullmatch(r"times as fast >= 12: [\d.]+, (met|\*\*not met\*\*); GiB <= 0.9", ours[-1])

    asked = {tuple(cells[:3]): cells for cells in rows(text, "Latency")}
    assert len(asked) == 1 + 2 * 2 * 5 + 2
    theirs, late = (
        asked[who, "bfloat16", "1"] for who in ("`transformers`, 8 names", "(phrase, late), 8 names, vectors cached")
    )
    assert float(late[5]) == pytest.approx(float(theirs[3]) / float(late[3]), rel=0.02)
    assert late[-1].startswith("times as fast >= 3.6: ")
    assert asked["(phrase, late), 40 names, vectors cached", "bfloat16", "1"][-1].startswith(
        "times what 8 names take <= 1.1: "
    )
    assert float(asked["`transformers`, 8 names", "float32", "2"][4]) < float(
        asked["`transformers`, 8 names", "float32", "2"][3]
    )

    _, *trained = rows(text, "Training step")
    for cells in trained[:3]:
        *parts, whole, a_second = map(float, cells[1:9])
        assert sum(parts) == pytest.approx(whole, rel=0.1)
        assert a_second == pytest.approx(2000 / whole, rel=0.05)
        assert min(parts) > 0
    assert [cells[-1].split(":")[0] for cells in trained] == [
        "",
        "times as fast >= 2.5",
        "times as fast >= 3.4",
        "GiB <= 12",
    ]
    assert all(float(cells[1]) < 1e-4 for cells in rows(text, "The same numbers")[1:])
    assert part(page.read_text(), "compiled") == part(blank_page(blanks()), "compiled")


def test_the_compiled_rows_are_added(tmp_path: Path, peer: None, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    trial = SimpleNamespace(failed=False)

    def compile_parts(detector: nn.Module) -> SimpleNamespace:
        compiled.append(type(detector).__name__)
        return trial

    monkeypatch.setattr(gpu_models, "compile_parts", compile_parts)
    page = tmp_path / "page.md"
    page.write_text("# Mine\n\n" + blank_page(blanks()) + "\nA table of memory.\n")
    measure_gpu(page, compiled=True, device="cpu", work=TINY._replace(batches=(1,)))
    text = page.read_text()
    assert text.startswith("# Mine\n")
    assert text.endswith("A table of memory.\n")
    assert part(text, "eager") == part(blank_page(blanks()), "eager")
    found = part(text, "compiled")
    assert "not measured" not in found
    assert "failed" not in found
    assert compiled == [
        *("GroundingDinoForObjectDetection", "EarlyFusionDetector", "LateFusionDetector", "LateFusionDetector"),
        *("GroundingDinoForObjectDetection", "EarlyFusionDetector", "LateFusionDetector"),
    ]
    trial.failed = True  # what ran was not compiled
    measure_gpu(page, compiled=True, device="cpu", work=TINY._replace(batches=(1,)))
    assert part(page.read_text(), "compiled").count("cannot be compiled here") == 5
    assert rows(found, "Latency, compiled")[4][-1].startswith("times as fast >= 6.5: ")
    assert rows(found, "Training step, compiled")[4][-1].startswith("times as fast >= 4.2: ")


@pytest.mark.ci
def test_it_runs_without_wandb_and_without_transformers(tmp_path: Path) -> None:
    """In a process of its own, in which neither can be imported."""
    page = tmp_path / "page.md"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, page], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    text = part(page.read_text(), "eager")
    assert "`transformers` was missing, so its rows are left out" in text
    assert "not measured" not in text
    assert "failed" not in text
    latency, trained = rows(text, "Latency"), rows(text, "Training step")
    assert [cells[0].split(",")[0] for cells in trained[1:]] == ["(word", "(phrase", "(phrase"]
    assert {cells[0].split(",")[0] for cells in latency[1:]} == {"(word", "(phrase"}
    assert latency[1][-1] == "times as fast >= 2"  # told, but not whether it is met


def raising(error: BaseException) -> Callable[[], Taken]:
    def measure() -> Taken:
        raise error

    return measure


def test_a_row_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def task(name: str, measure: Callable[[], Taken]) -> Task:
        return Task((name,), measure, lambda taken: [milliseconds(taken.seconds)])

    tasks = [
        task("large", raising(torch.OutOfMemoryError("CUDA out of memory"))),
        task("odd", raising(RuntimeError("no kernel | for\nthis"))),
        task("good", lambda: Taken(0.25)),
        task("stopped", raising(KeyboardInterrupt())),
        task("never", lambda: Taken(1)),
    ]
    monkeypatch.setattr(gpu_speed, "sections_of", lambda *_: [Section("Some", "Text.", ("what", "ms"), tasks)])
    with pytest.raises(KeyboardInterrupt):
        measure_gpu(tmp_path / "page.md", device="cpu", work=TINY)
    assert rows(part((tmp_path / "page.md").read_text(), "eager"), "Some")[1:] == [
        ["large", "out of memory", ""],
        ["odd", "failed: RuntimeError: no kernel / for this", ""],
        ["good", "250", ""],
        ["stopped", "not measured", ""],
        ["never", "not measured", ""],
    ]


@pytest.mark.parametrize(
    ("figure", "sign", "told"),
    [
        (3.5, ">=", "times >= 3.4: 3.5, met"),
        (3.3, ">=", "times >= 3.4: 3.3, **not met**"),
        (3.5, "<=", "times <= 3.4: 3.5, **not met**"),
        (3.4, "<=", "times <= 3.4: 3.4, met"),
        (None, "<=", "times <= 3.4"),
    ],
)
def test_a_bar_tells_whether_it_is_met(figure: float | None, sign: str, told: str) -> None:
    assert Bar(lambda: figure, "times", sign, 3.4).told() == told  # type: ignore[arg-type]


def test_a_gpu_is_waited_for_and_timed_by_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in whose clock goes a second further with each mark, and which notes what is asked of it."""
    asked: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            asked.append("mark")
            self.time = len(asked)

        def elapsed_time(self, later: Event) -> float:
            assert asked[-1] == "wait"
            return 1000.0 * (later.time - self.time)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: asked.append("wait"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: asked.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 3 << 29)

    def step(lap: Laps) -> None:
        lap("image")
        lap("decode")

    taken = timed(step, torch.device("cuda"), TINY._replace(warmup=1, least=2))
    assert asked == [*["mark"] * 3, "wait", "reset", *["mark"] * 3, "wait", *["mark"] * 3, "wait"]
    assert taken.parts == {"image": 1.0, "decode": 1.0}
    assert taken.peak == 1.5
    assert gibibytes(taken.peak) == "1.50"


def test_slow_steps_are_timed_less_often() -> None:
    def runs(seconds: float, repeats: int) -> int:
        called: list[Laps] = []
        work = TINY._replace(setting=SMALL._replace(repeats=repeats), seconds=seconds, least=3)
        timed(called.append, torch.device("cpu"), work)
        return len(called)

    assert (runs(0.0, 10), runs(100.0, 10)) == (3, 10)


@pytest.mark.parametrize(("seconds", "told"), [(0.000123456, "0.123"), (0.0184, "18.4"), (1.2345, "1234"), (None, "")])
def test_milliseconds_have_three_digits(seconds: float | None, told: str) -> None:
    assert milliseconds(seconds) == told


def test_the_command_wants_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="run it on a machine that has one"):
        bench_gpu.main(["--output", str(tmp_path / "page.md"), "--compiled"])
    assert not (tmp_path / "page.md").exists()


def test_the_page_is_blank_or_measured_on_a_gpu() -> None:
    """Figures in it come from `make bench-gpu` alone; bars and rows are the code's."""
    text, blank = (ROOT / "docs" / "benchmarks_gpu.md").read_text(), blank_page(blanks())
    for name in CALLS:
        if "Measured on NVIDIA" not in part(text, name):
            assert part(text, name) == part(blank, name)


@pytest.mark.parametrize("content", ["Notes of mine.\n", "<!-- eager: as is -->\n<!-- end -->\nand a table\n"])
def test_a_file_that_is_not_the_page_is_left_as_it_is(tmp_path: Path, content: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(content)
    with pytest.raises(InputError, match="is not a page of this benchmark"):
        measure_gpu(page, device="cpu", work=TINY)
    assert page.read_text() == content
    with pytest.raises(InputError, match="there is no folder"):
        measure_gpu(tmp_path / "gone" / "page.md", device="cpu", work=TINY)
