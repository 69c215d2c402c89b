"""Every experiment takes optimizer steps as it ships: with its own precision, clipping, averaging, accumulation, rhythm
and prompt scope. Small are only sizes, steps, devices and data; pretrained weights are random ones."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hanging import finished

from trex2_lightning.commands.ablation_full import main as ablation_full
from trex2_lightning.commands.compare import main as compare_command
from trex2_lightning.commands.evaluate import main as evaluate_command
from trex2_lightning.commands.train import main as train_command
from trex2_lightning.config import Config, load, override, save
from trex2_lightning.data.annotations.cleaning import Annotated, Report
from trex2_lightning.data.formats.coco import read_coco
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.index.writing import build_index
from trex2_lightning.data.shapes import nameless
from trex2_lightning.data.shapes.layout import PRESETS
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.models.build import build_detector
from trex2_lightning.models.hub.save import save_detector
from trex2_lightning.models.text import BertEncoder
from trex2_lightning.structures import Batch
from trex2_lightning.studies import full_ablation
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
TRAINED = [path for path in sorted(EXPERIMENTS.rglob("*.yaml")) if path.parent.name != "eval" and path.stem != "base"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "red", "green", "blue", "block", "thing"]
SWIN = "{embed_dim: 16, depths: [1, 1, 1, 1], num_heads: [1, 2, 4, 8], window_size: 4}"
SMALL = [
    *("data.size=64", "data.max_size=96", "data.batch_size=2", "data.num_workers=0", "data.shapes.num_train=8"),
    *("eval.batch_size=2", "model.width=32", "model.num_queries=12", "model.backbone.weights=''"),
    *("model.transformer.heads=4", "model.transformer.ffn=64", "model.transformer.encoder_layers=1"),
    *("model.transformer.decoder_layers=2", "model.visual.layers=1", "model.visual.ffn=64", "model.text.width=32"),
    *("model.text.layers=1", "model.text.heads=2", "train.accelerator=cpu", "train.devices=1", "train.nodes=1"),
    *("logging.wandb=disabled", "logging.every=1"),
]


def as_shipped(path: Path, root: Path, output: Path) -> Config:
    """The experiment, small enough for a test; what it does in a step stays."""
    shipped = load(path)
    config = load(path, [*SMALL, "model.init_from=''", "train.init_from=''", *sizes(shipped, root, output)])
    return published(config, root / "published") if shipped.model.init_from else config


def sizes(shipped: Config, root: Path, output: Path) -> list[str]:
    """What is small of this experiment beside `SMALL`."""
    model, rhythm = shipped.model, shipped.train.rhythm
    steps = rhythm.visual + rhythm.text + 1 if rhythm.visual else 2  # all kinds, and what comes after them
    own = [f"output={output}", f"train.max_steps={steps}", f"train.val_every={steps}", "optim.warmup_steps=1"]
    own += [f"train.total_batch={2 * shipped.accumulate}", f"train.save_every={steps - 1}"]
    own += [f"data.root={root / 'shapes' if shipped.data.format == 'shapes' else root}"]
    if shipped.data.train_sizes:
        own.append("data.train_sizes=[48, 64]")
    if "swin" in model.backbone.name:
        own += ["model.backbone.name=swin_tiny_patch4_window7_224", f"model.backbone.options={SWIN}"]
    if "bert" in model.text.name:
        own += ["model.text.name=custom-bert", f"model.text.pretrained={root / 'bert'}"]
        own += [f"model.text.vocabulary={len(PIECES)}", "model.text.context_length=16"]
    elif model.text.name != "custom":
        own += ["model.text.name=custom", "model.text.pretrained=''"]
    return own


def index_sets(config: Config, root: Path) -> None:
    """The sets of a mixture, each an index of the same few pictures, unless it is read from files."""
    for some in config.data.sets.values():
        if some.images:
            continue
        report = Report()
        report.nameless = some.kind == "nameless"
        images = read_coco(root / "train.json", ImageStore([root / "train"]), report)
        build_index(root / some.annotations, judging(images, own=some.kind == "grounding"), report, {})


def judging(images: Iterator[Annotated], *, own: bool) -> Iterator[Annotated]:
    """A caption judges its own phrases alone."""
    for image in images:
        yield image._replace(judged=list(dict.fromkeys(image.names))) if own else image


def published(config: Config, folder: Path) -> Config:
    """The experiment from a folder in the hub's format, of a detector of its sizes."""
    torch.manual_seed(0)
    detector = build_detector(config.model)
    assert isinstance(detector.text_encoder, BertEncoder)
    detector.text_encoder.tokenizer.read(PIECES)
    save_detector(detector, config.model, folder)
    return override(config, [f"model.init_from={folder}"])


@pytest.fixture
def root(tiny_coco: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has the data of every experiment, and a BERT."""
    (tiny_coco / "annotations").mkdir()
    for split in ("train", "val"):
        (tiny_coco / "annotations" / f"instances_{split}2017.json").symlink_to(tiny_coco / f"{split}.json")
        (tiny_coco / f"{split}2017").symlink_to(tiny_coco / split)
    for name in ("groceries", "logos"):
        (tiny_coco / name).symlink_to(tiny_coco)
    content = json.loads((tiny_coco / "train.json").read_text())
    images = [image | {"file_name": f"train/{image['file_name']}"} for image in content["images"]]
    (tiny_coco / "reference.json").write_text(json.dumps(content | {"images": images}))
    few = {"val": 2, "test": 4, "reference": 2}
    monkeypatch.setitem(PRESETS, "easy", replace(PRESETS["easy"], num_images=few))
    monkeypatch.setattr(nameless, "STAR_IMAGES", 4)
    monkeypatch.setattr(nameless, "KIND_IMAGES", 4)
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # no processes to render so few pictures
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
    bert = transformers.BertConfig(**sizes, vocab_size=len(PIECES), max_position_embeddings=16)
    transformers.BertModel(bert).save_pretrained(tiny_coco / "bert")
    (tiny_coco / "bert" / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return tiny_coco


@pytest.mark.ci
@pytest.mark.parametrize("path", TRAINED, ids=lambda path: str(path.relative_to(EXPERIMENTS).with_suffix("")))
def test_an_experiment_trains_and_evaluates_as_it_ships(
    path: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, config = load(path), as_shipped(path, root, tmp_path / "runs")
    for part in ("precision", "ema_decay", "rhythm", "prompt_scope", "memory_bank"):
        assert getattr(config.train, part) == getattr(shipped.train, part)
    assert (config.loss.alignment, config.optim.clip_norm) == (shipped.loss.alignment, shipped.optim.clip_norm)
    assert config.accumulate == shipped.accumulate
    index_sets(config, root)
    kinds: list[bool] = []
    losses: list[float] = []
    saved: list[int] = []
    step, save = DetectionModule.training_step, L.Trainer.save_checkpoint

    def recorded(module: DetectionModule, batch: Batch, number: int) -> torch.Tensor:
        loss = step(module, batch, number)
        kinds.append(batch.prompts.exemplars is not None)
        losses.append(loss.item())
        return loss

    def noted(trainer: L.Trainer, *arguments: Any, **options: Any) -> None:
        saved.append(trainer.global_step)
        save(trainer, *arguments, **options)

    monkeypatch.setattr(DetectionModule, "training_step", recorded)
    monkeypatch.setattr(L.Trainer, "save_checkpoint", noted)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # it compiles for each new shape: 47 s become 16
    module = train(config)
    rhythm = shipped.train.rhythm
    assert len(losses) == config.train.max_steps * config.accumulate
    assert sorted(set(saved)) == [config.train.save_every, config.train.max_steps]  # and after the evaluation
    assert (any(kinds), all(kinds)) == (rhythm.visual > 0, rhythm.text == 0)
    assert all(map(math.isfinite, losses))
    report = evaluate(config, module, "test", ["text", "interactive_box"] if rhythm.visual else ["text"])
    assert all(evaluation.results for evaluation in report.rows.values())


@pytest.mark.ci
def test_the_full_comparison_trains_evaluates_and_compares_and_goes_on_where_it_was_stopped(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = EXPERIMENTS / "full" / "phrase_late.yaml"
    small = [*SMALL, *sizes(load(first), root, tmp_path / "runs"), "train.max_steps=1", "eval.references=[1]"]
    index_sets(load(EXPERIMENTS / "full" / "phrase_late_stage2.yaml", small), root)
    mains = {"train": train_command, "evaluate": evaluate_command, "compare_runs": compare_command}
    made: list[str] = []
    start = subprocess.run

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """The first one as it is, the others in this process; the second training ends at once."""
        if command[0] == "git":  # where the code is from
            return start(command, **options)
        script = Path(command[1]).stem
        made.append(" ".join([script, *(Path(word).stem for word in command if word.startswith("experiments/"))]))
        if len(made) == 1:
            return start(command)
        if made == ["train phrase_late", "evaluate", "train word_early"]:
            return subprocess.CompletedProcess(command, 1)
        mains[script](command[2:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(full_ablation, "CELLS", ("phrase_late", "word_early"))
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    monkeypatch.chdir(EXPERIMENTS.parent)
    with pytest.raises(InputError, match="start this again"):
        ablation_full(small)
    ablation_full(small)
    stage2 = ["train phrase_late_stage2", "evaluate", "train word_early_stage2", "evaluate", "compare_runs"]
    assert made[3:] == ["train word_early", "evaluate", *stage2]
    table = (tmp_path / "runs" / "full" / "comparison" / "comparison.md").read_text()
    for row in ("text", "interactive_box", "interactive_point", "generic_1"):
        assert table.count(f"_stage2 | {row} |") == 2
    assert "| model.fusion | late | early | late | early |" in table
    ablation_full(small)
    assert made[10:] == ["compare_runs"]


def kinds_of_runs() -> list[Any]:
    """The first experiment of each fusion, rhythm, scope and bank that ships for several GPUs.

    CI has stage 1 of early fusion and what there is of stage 2 of late fusion.
    """
    found: dict[tuple[str, int, str, bool], Path] = {}
    for path in TRAINED:
        config = load(path)
        if config.train.world_size > 1:
            train = config.train
            key = (config.model.fusion, train.rhythm.visual, train.prompt_scope, bool(train.memory_bank.size))
            found.setdefault(key, path)
    return [
        pytest.param(
            path, id=path.stem, marks=pytest.mark.ci if (fusion == "late") == (visual > 0) else pytest.mark.slow
        )
        for (fusion, visual, *_), path in found.items()
    ]


@pytest.mark.parametrize("path", kinds_of_runs())
def test_two_ranks_train_each_fusion_rhythm_and_scope_as_it_ships(path: Path, root: Path, tmp_path: Path) -> None:
    """Precision, clipping, average and loading processes included."""
    config = as_shipped(path, root, tmp_path / "runs")
    workers = load(path).data.num_workers
    config = override(
        config, ["train.devices=2", f"train.total_batch={4 * config.accumulate}", f"data.num_workers={workers}"]
    )
    assert workers
    index_sets(config, root)
    save(config, tmp_path / "run.yaml")
    command = [sys.executable, "-m", "trex2_lightning", "train", str(tmp_path / "run.yaml")]
    done = finished(command, {"OMP_NUM_THREADS": "1"}, seconds=240)
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = torch.load(config.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == config.train.max_steps
    [metrics] = (config.folder / "csv").glob("*/metrics.csv")
    rows = list(csv.DictReader(metrics.open()))
    losses = [float(row["loss"]) for row in rows if row["loss"]]
    assert len(losses) == config.train.max_steps
    assert all(map(math.isfinite, losses))
    assert all(float(row["gradient_norm"]) > 0 for row in rows if row["loss"])
    assert any(row["val/ap"] for row in rows)
