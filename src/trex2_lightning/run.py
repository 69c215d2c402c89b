"""Whole runs: train, load a checkpoint, evaluate."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import torch

from trex2_lightning import build
from trex2_lightning.config import Config, from_dict, save
from trex2_lightning.data.records import Records
from trex2_lightning.errors import InputError
from trex2_lightning.metrics.detection import ImageResult, coco_results
from trex2_lightning.module import DetectionModule

log = logging.getLogger(__name__)


def train(config: Config, *, resume: bool = False) -> DetectionModule:
    """Train to `train.max_steps`, evaluating on the val split on the way.

    Writes `config.yaml`, `checkpoints/best.ckpt`, `checkpoints/last.ckpt`, `csv/` and W&B's files to `config.folder`.

    Args:
        config: the run.
        resume: go on from `last.ckpt` of that folder.

    Raises:
        InputError: the folder already has a run and `resume` is not set, or has none and it is; or the
            configuration, the data or the weights are wrong.
    """
    last = config.folder / "checkpoints" / "last.ckpt"
    if last.exists() and not resume:
        raise InputError(f"{config.folder} already has a run: add --resume to go on with it, or give another name=")
    if resume and not last.exists():
        raise InputError(f"there is nothing to resume in {config.folder}: leave out --resume to start the run")
    L.seed_everything(config.seed, workers=True, verbose=False)
    trainer = build.trainer(config)
    data = build.datamodule(config)
    data.prepare_data()
    data.setup("fit")
    module = build.module(config)
    if resume:
        load_weights(module, last)  # the trainer restores them too, but says less of a file that does not fit
    elif config.train.init_from:
        load_weights(module, Path(config.train.init_from))
    module.metric = build.metric(config, data.val_records)
    if trainer.is_global_zero:
        config.folder.mkdir(parents=True, exist_ok=True)
        save(config, config.folder / "config.yaml")
        log.info(
            "total batch %d = %d devices x %d images x %d accumulated; %d training images; written to %s",
            config.train.total_batch,
            config.train.world_size,
            config.data.batch_size,
            config.accumulate,
            len(data.train_records.images),
            config.folder,
        )
    trainer.fit(module, datamodule=data, ckpt_path=last if resume else None, weights_only=True)
    return module


def load(path: Path) -> tuple[Config, DetectionModule]:
    """The run of a checkpoint, rebuilt from the file alone; weights are the averaged ones where EMA was on.

    Raises:
        InputError: no such file, not a checkpoint of this project, or its weights do not fit its configuration.
    """
    checkpoint = _read(path)
    config = from_dict(checkpoint["config"])
    model = config.model
    weights = (model.backbone.weights, model.text.pretrained, model.init_from)
    model.backbone.weights = model.text.pretrained = model.init_from = ""  # all weights come from the checkpoint
    module = build.module(config)
    model.backbone.weights, model.text.pretrained, model.init_from = weights
    _load_state(module, checkpoint["state_dict"], path)
    return config, module.eval()


def load_weights(module: DetectionModule, path: Path) -> None:
    """Start `module` from the weights of a checkpoint of the same architecture.

    Raises:
        InputError: as `load`.
    """
    _load_state(module, _read(path)["state_dict"], path)


class Evaluation(NamedTuple):
    """What an evaluation found."""

    figures: dict[str, float]
    results: list[ImageResult]
    records: Records


def evaluate(
    config: Config, module: DetectionModule, split: Literal["val", "test"], phrases: tuple[str, ...] | None = None
) -> Evaluation:
    """COCO AP of text prompts on a split, all names asked for at once.

    Args:
        config: the run.
        module: its trained module.
        split: of the data set.
        phrases: asked for in place of the category names, in their order.
    """
    trainer = build.evaluator(config)
    data = build.datamodule(config)
    data.prepare_data()
    data.setup("validate" if split == "val" else "test")
    records = data.val_records if split == "val" else data.test_records
    module.metric = metric = build.metric(config, records)
    module.phrases = phrases
    step = trainer.validate if split == "val" else trainer.test
    step(module, datamodule=data, verbose=False)
    module.phrases = None
    return Evaluation(metric.compute(), metric.results(), records)


def permuted(names: tuple[str, ...], seed: int) -> tuple[str, ...]:
    """The names in another order, none at its own place: a control that asks for the wrong thing."""
    order = list(range(len(names)))
    random.Random(seed).shuffle(order)
    shifted = dict(zip(order, order[1:] + order[:1], strict=True))
    return tuple(names[shifted[i]] for i in range(len(names)))


def by_group(figures: dict[str, float], metric: str = "ap") -> dict[str, float]:
    """`ap` of all categories and `ap/GROUP` of the groups as `{"all": ..., GROUP: ...}`, NaN left out."""
    prefix = f"{metric}/"
    rows = {"all": figures[metric]} | {
        name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)
    }
    return {name: round(value, 4) for name, value in rows.items() if value == value}


def write_results(evaluation: Evaluation, path: Path) -> None:
    """Write the detections as a COCO results file, which pycocotools reads."""
    path.write_text(json.dumps(coco_results(evaluation.results, evaluation.records.category_ids)))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"no checkpoint {path}: a run writes checkpoints/best.ckpt and checkpoints/last.ckpt")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise InputError(
            f"{path} is not a checkpoint: it is damaged, or holds objects whose reading could run code; "
            "take another of the run's files, or fetch it again"
        ) from error
    parts = [checkpoint.get(part) for part in ("config", "state_dict")] if isinstance(checkpoint, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        raise InputError(f"{path} is not a checkpoint of this project: it lacks `config` and `state_dict`")
    return checkpoint


def _load_state(module: DetectionModule, state: dict[str, torch.Tensor], path: Path) -> None:
    own = module.state_dict()
    wrong = [
        f"{name}: {tuple(state[name].shape) if name in state else 'missing'} in the file, "
        f"{tuple(own[name].shape) if name in own else 'nothing'} in the model"
        for name in sorted(own.keys() | state.keys())
        if name not in own or name not in state or own[name].shape != state[name].shape
    ]
    if wrong:
        raise InputError(
            f"{path} has another architecture than the configured model, {len(wrong)} tensors differ, such as "
            f"{'; '.join(wrong[:3])}: take the model section of the config that the checkpoint was trained with"
        )
    module.load_state_dict(state)
