"""Two CPU processes train, evaluate and resume, and come to what one process comes to."""

from __future__ import annotations

import csv
import json
import signal
import sys
from pathlib import Path

import pytest
import torch
from hanging import finished

from trex2_lightning.config import Config, load, override, save
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.models.calibration import ScoreCalibration
from trex2_lightning.training.checkpoint import load_checkpoint

TINY = Path(__file__).parents[1] / "tiny.yaml"
TWO_RANKS = ("train.devices=2", "data.batch_size=1", "train.total_batch=2")
ONE_RANK = ("train.devices=1", "data.batch_size=2", "train.total_batch=2")
STAGE_2 = (
    "seed=3",  # the first step after the kill lacks a category that was seen before it
    "train.rhythm={visual: 2, text: 1}",
    "train.prompt_scope=world",
    "train.memory_bank={size: 2, negatives: 2}",
    "loss.alignment={weight: 1, relation: 1}",
)
TIMEOUT = 250  # seconds; a rank that waits for another one would wait for ever

# Trains as scripts/train.py does; each rank writes its losses and a digest of the weights it ends with, and batch
# KILL_AT kills all ranks.
SCRIPT = """
import functools, hashlib, json, os, signal
from pathlib import Path
from torch._dynamo.utils import counters
from trex2_lightning.commands import train
from trex2_lightning.commands.terminal import command
from trex2_lightning.evaluation import fits
from trex2_lightning.models import compiling
from trex2_lightning.prompting.memory_bank import MemoryBank
from trex2_lightning.training import acceleration
from trex2_lightning.training.module import DetectionModule

# All of compiling but the compiler; where it fails, the run does, for once.
acceleration.compile_parts = functools.partial(compiling.compile_parts, backend="aot_eager")
compiling.log.warning = lambda *arguments: os.abort()

fits.RIGHT = 0.01  # of what a few steps have taught
step, losses, kinds, drawn = DetectionModule.training_step, [], [], []
draw = MemoryBank.draw

def recorded_draw(self, *arguments):
    vectors = draw(self, *arguments)
    drawn.append(len(vectors))
    return vectors

def training_step(self, batch, batch_idx):
    if batch_idx == int(os.environ["KILL_AT"]):
        os.killpg(0, signal.SIGKILL)
    loss = step(self, batch, batch_idx)
    losses.append((loss.item(), sum(len(target.labels) for target in batch.targets)))
    kinds.append("text" if batch.prompts.exemplars is None else "visual")
    return loss

def on_fit_end(self):
    digest = hashlib.sha256()
    for tensor in self.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    content = {"losses": losses, "kinds": kinds, "drawn": drawn, "digest": digest.hexdigest()}
    content["graphs"] = counters["stats"]["unique_graphs"]
    Path(os.environ["REPORTS"], f"{self.global_rank}.json").write_text(json.dumps(content))

MemoryBank.draw = recorded_draw
DetectionModule.training_step = training_step
DetectionModule.on_fit_end = on_fit_end
command(train.main)
"""


@pytest.fixture
def config(square_coco: Path, tmp_path: Path) -> Config:
    """No batch normalisation and no padding, which see the other images of a rank's batch."""
    settings = [
        f"data.root={square_coco}",
        f"output={tmp_path / 'runs'}",
        "model.backbone.frozen_batchnorm=true",
        "eval.batch_size=1",
    ]
    return load(TINY, [*settings, *TWO_RANKS])


class Ranks:
    """Runs of `SCRIPT` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def train(self, config: Config, *options: str, kill_at: int = -1) -> list[dict]:
        """What the ranks report, an empty list where they were killed."""
        reports = self.folder / f"reports-{config.name}-{kill_at}{''.join(options)}"
        reports.mkdir()
        script, experiment = self.folder / "train.py", self.folder / f"{config.name}.yaml"
        script.write_text(SCRIPT)
        save(config, experiment)
        settings = {"OMP_NUM_THREADS": "1", "KILL_AT": str(kill_at), "REPORTS": str(reports)}
        command = [sys.executable, str(script), str(experiment), *options]
        process = finished(command, settings, seconds=TIMEOUT)
        assert process.returncode == (-signal.SIGKILL if kill_at >= 0 else 0), process.stderr[-3000:]
        return [json.loads(path.read_text()) for path in sorted(reports.iterdir())]


@pytest.fixture
def ranks(tmp_path: Path) -> Ranks:
    return Ranks(tmp_path)


def last_of(config: Config) -> Path:
    return config.folder / "checkpoints" / "last.ckpt"


def val_figures(config: Config) -> dict[str, float]:
    """Of the last evaluation of the run."""
    file = sorted((config.folder / "csv").glob("*/metrics.csv"))[-1]
    row = [row for row in csv.DictReader(file.open()) if row["val/ap"]][-1]
    return {name.removeprefix("val/"): float(value) for name, value in row.items() if name.startswith("val/")}


@pytest.mark.parametrize(
    ("stage", "kinds"),
    [
        pytest.param((), ["text"] * 6, id="stage 1", marks=pytest.mark.slow),
        pytest.param(STAGE_2, ["visual", "visual", "text"] * 2, id="stage 2", marks=pytest.mark.slow),
        pytest.param(STAGE_2, ["visual", "visual", "text", "visual"], id="four steps", marks=pytest.mark.ci),
    ],
)
def test_two_ranks_train_evaluate_and_resume(
    config: Config, ranks: Ranks, stage: tuple[str, ...], kinds: list[str]
) -> None:
    """In stage 2 also what the ranks share: the categories of a step, their vectors, and the memory bank.

    The first rank fits the scores, when the others have left.
    """
    steps, saved_at = len(kinds), len(kinds) // 2
    config = override(config, [*stage, f"train.max_steps={steps}", f"train.val_every={saved_at}"])
    whole, broken = override(config, ["name=whole"]), override(config, ["name=broken"])
    first, second = ranks.train(whole)

    assert first["kinds"] == second["kinds"] == kinds
    boxes = [[count for _, count in rank["losses"]] for rank in (first, second)]
    assert [len(counts) for counts in boxes] == [steps, steps]
    assert any((a == 0) != (b == 0) for a, b in zip(*boxes, strict=True)), "one rank had no boxes, the other had"
    assert first["digest"] == second["digest"]

    assert ranks.train(broken, kill_at=saved_at + 1) == []
    assert torch.load(last_of(broken), weights_only=True)["global_step"] == saved_at
    resumed = ranks.train(broken, "--resume")
    assert [rank["digest"] for rank in resumed] == [first["digest"]] * 2
    assert [bool(rank["drawn"] and rank["drawn"][0]) for rank in resumed] == [bool(stage)] * 2, "of the memory bank"
    assert [rank["losses"] for rank in resumed] == [rank["losses"][saved_at:] for rank in (first, second)]
    one, other = (torch.load(last_of(c), weights_only=True) for c in (whole, broken))
    for part in ("state_dict", "memory_bank", "calibration"):
        torch.testing.assert_close(one.get(part, {}), other.get(part, {}), rtol=0, atol=0)
    assert bool(one.get("memory_bank")) == bool(stage)
    assert not torch.equal(one["calibration"]["weight"], ScoreCalibration().weight)


@pytest.mark.slow
def test_two_ranks_train_the_visual_prompt_encoder_alone(config: Config, ranks: Ranks) -> None:
    parts = "backbone, neck, text_encoder, encoder, fusions, selection, decoder, heads, noised_content"
    alone = ["model.fusion=early", f"train.frozen=[{parts}]", "loss.denoising.queries=0", "train.rhythm.visual=1"]
    config = override(config, [*alone, "train.rhythm.text=0", "train.max_steps=3", "train.val_every=3"])
    first, second = ranks.train(config)
    assert first["kinds"] == second["kinds"] == ["visual"] * 3
    assert first["digest"] == second["digest"]


@pytest.mark.slow
def test_two_ranks_evaluate_to_the_figures_of_one(config: Config, ranks: Ranks) -> None:
    """Three images: one rank gets an image that the other one has too."""
    settings = ["optim.lr=3e-3", "train.max_steps=60", "train.val_every=60", "train.ema_decay=0"]
    config = override(config, [*settings, "train.calibrate=false"])
    ranks.train(config)
    _, module = load_checkpoint(last_of(config))
    alone = evaluate(override(config, [*ONE_RANK]), module, "val").rows["text"]
    assert len(alone.results) == 3
    assert alone.figures["ap50"] > 0
    figures = {
        name: value for name, value in alone.figures.items() if name not in ("calibration_error", "positive_rate")
    }
    figures["mean_ap"] = figures["ap"]  # of the one protocol that the run trains
    assert val_figures(config) == {name: pytest.approx(value, abs=1e-7) for name, value in figures.items()}


@pytest.mark.ci
def test_two_ranks_follow_the_losses_of_one(config: Config, ranks: Ranks) -> None:
    """The stream gives both the same images, and the loss is normalised by the boxes of all ranks; the noise of the
    denoising and foreign names are a rank's own, so they are off."""
    own = ["loss.denoising.queries=0", "data.negatives.foreign=0"]
    config = override(config, [*own, "train.max_steps=4", "train.val_every=4"])
    two = ranks.train(override(config, ["name=two"]))
    [one] = ranks.train(override(config, ["name=one", *ONE_RANK]))
    mean = [(a + b) / 2 for (a, _), (b, _) in zip(*(rank["losses"] for rank in two), strict=True)]
    # DETR's floor of one box per rank makes a step with a single box count half.
    expected = [loss * max(boxes, 1) / max(boxes, 2) for loss, boxes in one["losses"]]
    assert mean[0] == pytest.approx(expected[0], rel=1e-5)
    assert mean == pytest.approx(expected, rel=1e-2)
    assert len(set(expected)) == 4
    assert max(boxes for _, boxes in one["losses"]) >= 2


@pytest.mark.slow
def test_two_ranks_train_compiled_to_the_weights_of_two_that_are_not(config: Config, ranks: Ranks) -> None:
    weights = []
    for compiled in (False, True):
        run = override(config, [f"name={compiled}", f"train.compile={compiled}".lower(), "train.max_steps=2"])
        first, second = ranks.train(run)
        assert first["digest"] == second["digest"]
        assert (first["graphs"] > 0) == compiled
        weights.append(torch.load(last_of(run), weights_only=True)["state_dict"])
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)
