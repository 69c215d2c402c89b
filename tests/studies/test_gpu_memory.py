"""Memory counted on fake tensors: what is known on paper, the bars, and the page's table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from trex2_lightning.commands import bench_memory
from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.layers.mlp import FeedForward
from trex2_lightning.studies import gpu_memory, memory_page
from trex2_lightning.studies.gpu_memory import Footprint, Tally, footprints, to_fake_gpu
from trex2_lightning.studies.memory_page import RUNS, Counted, count, memory_line, write_memory
from trex2_lightning.training.build import build_module
from trex2_lightning.training.callbacks.resources import GIB

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks_gpu.md"
SWIN = (
    "model.backbone={name: swin_tiny_patch4_window7_224, out_indices: [1, 2, 3]}",
    "model.backbone.options={embed_dim: 24, depths: [1, 1, 1, 1]}",
)
HALF, FULL = 2, 4  # bytes of a number


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_storages_count_once_and_until_they_are_freed() -> None:
    with FakeTensorMode(), Tally() as tally:
        x = torch.empty(100, 10, device="cuda")
        view = x[:50].view(-1)
        assert tally.live == 4000
        x += 1
        torch.empty(1000)  # not on the device
        assert tally.live == 4000
        del x
        assert tally.live == 4000
        del view
        assert tally.live == 0


def test_a_linear_layer_and_what_follows_keep_what_they_must() -> None:
    """Under autocast: the input and the weight as bfloat16, and the ReLU's output; not the linear layer's."""
    with FakeTensorMode():
        layer, x = nn.Linear(30, 50, device="cuda"), torch.empty(700, 30, device="cuda", requires_grad=True)
        with Tally() as tally, gpu_memory.bfloat16_of_a_gpu():
            y = layer(x).relu()
        kept = tally.live
    assert kept == HALF * (700 * 30 + 30 * 50 + 700 * 50)
    assert y.dtype == torch.bfloat16


def test_attention_keeps_its_mask_but_no_scores() -> None:
    """Rows of the mask are padded to eight numbers; beside them are inputs, the output, and a sum for each row."""
    with FakeTensorMode():
        query = torch.empty(2, 3, 49, 32, device="cuda", requires_grad=True)
        bias = torch.empty(1, 3, 49, 49, device="cuda", requires_grad=True)
        with gpu_memory._attention_of_a_gpu(), gpu_memory.bfloat16_of_a_gpu(), Tally() as tally:
            kept = F.scaled_dot_product_attention(query, query, query, bias)
            size = tally.live
    assert kept.shape == query.shape
    numbers = 2 * 3 * 49 * 32
    sums, seed = FULL * 2 * 3 * 64, 16  # for blocks of 32 rows, and what dropout would need
    assert 0 <= size - HALF * (4 * numbers + 3 * 49 * 56) - sums <= seed


def test_hidden_activations_of_a_feed_forward_block_are_not_kept() -> None:
    """But its input, its sum before the norm, and what the norm keeps of each row."""
    with FakeTensorMode():
        block, x = FeedForward(30, 500, 0.0), torch.empty(700, 30, device="cuda", requires_grad=True)
        to_fake_gpu(block)
        with Tally() as tally:
            y = block(x)
        rows = 2 * FULL * 700
    assert y.shape == (700, 30)
    assert tally.live <= 2 * FULL * 700 * 30 + rows


@pytest.mark.parametrize(("granularity", "fusion", "kind"), [("phrase", "late", "text"), ("word", "early", "box")])
def test_a_footprint(
    tiny_config: Callable[..., Config], granularity: str, fusion: str, kind: gpu_memory.StepKind
) -> None:
    cell = (f"model.fusion={fusion}", f"model.granularity={granularity}", "train.rhythm.visual=1")
    config = tiny_config(*SWIN, *cell, "model.transformer.encoder_layers=2")
    kept, again = footprints(config, 256, 256, kind)
    numbers = sum(p.numel() for p in build_module(config).detector.parameters())
    assert kept.weights == again.weights == FULL * 5 * numbers  # one rank has no copies of gradients
    assert kept.again == 0
    assert 0 < again.again < (kept.kept - again.kept) / 2
    assert again.kept + again.again < 0.7 * kept.kept


def test_what_is_not_there_is_not_counted(tiny_config: Callable[..., Config]) -> None:
    """The frozen visual encoder has no gradients, two ranks have them twice, and an average is optional."""
    one, _ = footprints(tiny_config(*SWIN, "train.ema_decay=0"), 64, 64)
    two, _ = footprints(tiny_config(*SWIN, "train.devices=2"), 64, 64)
    detector = build_module(tiny_config(*SWIN)).detector
    numbers = sum(p.numel() for p in detector.parameters())
    trained = sum(p.numel() for p in detector.parameters() if p.requires_grad)
    assert trained < numbers
    assert one.weights == FULL * (numbers + 3 * trained)
    assert two.weights == FULL * (2 * numbers + 4 * trained)


def test_the_table_is_written_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Above\n<!-- memory: as is -->\nold\n<!-- end -->\nbelow\n")
    monkeypatch.setattr(memory_page, "count", lambda _: (Footprint(GIB, 2 * GIB, 0), Footprint(GIB, GIB // 2, GIB)))
    bench_memory.main(["--page", str(page)])
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1], "old" in lines) == ("# Above", "below", False)
    assert lines[-3] == "| `full/phrase_early_stage2` | box | 8 | 800 x 1344 | 1.0 | 2.0 | 3.0 | 1.5 | 2.5 |"
    assert sum(line.startswith("| `") for line in lines) == len(RUNS)
    with pytest.raises(InputError, match=r"needs one place `<!-- memory"):
        write_memory(tmp_path / "other.md")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "run", [pytest.param(run, marks=pytest.mark.ci if run.images == 4 else pytest.mark.slow) for run in RUNS], ids=str
)
def test_the_page_has_what_is_counted(run: Counted) -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert f"| {' | '.join(memory_line(run, *count(run)))} |" in lines


def on_the_page(run: Counted) -> tuple[float, float]:
    """GiB in all, with activations that are kept and that are computed again; the page is what is counted."""
    start = f"| `{run.experiment}` | {run.kind} | {run.images} | {run.size[0]} x {run.size[1]} |"
    [line] = [line for line in PAGE.read_text().splitlines() if line.startswith(start)]
    cells = line.strip("| ").split(" | ")
    return float(cells[6]), float(cells[8])


@pytest.mark.parametrize("run", [run for run in RUNS if not run.alone], ids=str)
def test_a_third_of_an_80_gb_card_is_to_spare(run: Counted) -> None:
    kept, again = on_the_page(run)
    assert kept <= 53
    assert again <= 20


def test_a_step_of_eight_images_takes_no_more_than_its_bars() -> None:
    """Of the issue: 20 GiB, with activation checkpointing 12, at 800 x 1066."""
    [line] = [
        line for line in PAGE.read_text().splitlines() if ", one GPU, no average | text | 8 | 800 x 1066 |" in line
    ]
    cells = line.strip("| ").split(" | ")
    assert float(cells[6]) <= 20
    assert float(cells[8]) <= 12


def test_stage_1_with_four_images_fits_24_gb() -> None:
    """With a sixth to spare; images of both orientations do where their activations are computed again."""
    one, both = (on_the_page(Counted("trex2_swin_t", 4, size)) for size in (memory_page.LANDSCAPE, memory_page.SQUARE))
    assert one[0] <= 20
    assert both[1] <= 20
