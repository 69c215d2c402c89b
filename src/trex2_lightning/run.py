"""Whole runs: train, load a checkpoint, evaluate."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import torch
from torch import Tensor

from trex2_lightning import build
from trex2_lightning.config import Config, from_dict, save
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.data.records import Records
from trex2_lightning.errors import InputError
from trex2_lightning.metrics.detection import ImageResult, coco_results
from trex2_lightning.metrics.regions import RegionAccuracy
from trex2_lightning.models.text_encoder import PhraseError
from trex2_lightning.module import DetectionModule, Protocol
from trex2_lightning.ops.boxes import xyxy_to_cxcywh
from trex2_lightning.protocols import (
    FROM_REFERENCES,
    OWN_EXEMPLARS,
    PROTOCOLS,
    TEXT_PROTOCOLS,
    Prompting,
    ReferenceEncoder,
    RegionClassifier,
    Text,
    promptings,
)
from trex2_lightning.structures import PromptTokens

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
    start = config.train.init_from if not resume else ""
    if start and not Path(start).is_file():
        raise InputError(
            f"no checkpoint {start} to start from: {_how_to_make(Path(start))}, and CKPT=FILE (of make stage2) or "
            "train.init_from=FILE takes another"
        )
    data = build.datamodule(config)
    data.prepare_data()
    data.setup("fit")
    module = build.module(config)
    _check_phrases(module, data)
    if resume:
        load_weights(module, last)  # the trainer restores them too, but says less of a file that does not fit
    elif start:
        _start_from(module, config, Path(start))
    module.protocols = {"text": Protocol(Text(), build.metric(config, data.val_records))}
    if trainer.is_global_zero:
        config.folder.mkdir(parents=True, exist_ok=True)
        save(config, config.folder / "config.yaml")
        log.info(
            "total batch %d = %d devices x %d images x %d accumulated; %d training images; written to %s",
            config.train.total_batch,
            config.train.world_size,
            config.data.batch_size,
            config.accumulate,
            data.num_train_images,
            config.folder,
        )
        if resume or start:
            log.info("going on from %s" if resume else "starting from the weights of %s", last if resume else start)
    trainer.fit(module, datamodule=data, ckpt_path=last if resume else None, weights_only=True)
    return module


def _check_phrases(module: DetectionModule, data: DetectionDataModule) -> None:
    """A phrase that cannot be encoded would end the run at the step that draws it."""
    for source, phrases in data.train_phrases.items():
        try:
            module.detector.text_encoder.check(phrases)
        except PhraseError as error:
            raise InputError(f"{source}: {error}; mend the data before you train") from error


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
    module.visual_trained = _visual_trained(checkpoint, config)
    return config, module.eval()


def load_weights(module: DetectionModule, path: Path) -> None:
    """Start `module` from the weights of a checkpoint of the same architecture.

    Raises:
        InputError: as `load`.
    """
    _load_state(module, _read(path)["state_dict"], path)


class Evaluation(NamedTuple):
    """What one protocol found."""

    figures: dict[str, float]  # as the `compute` of the metric gives them
    results: list[ImageResult]
    categories: dict[str, float]  # AP by name, of categories with ground truth


class Report(NamedTuple):
    """What an evaluation found."""

    rows: dict[str, Evaluation]  # by protocol; Visual-G has one row for each number of references
    regions: dict[str, float]  # as `RegionAccuracy.compute` gives them; empty where regions were not classified
    records: Records  # the ground truth

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """`{metric: {row: {group: value}}}` with the metrics of `eval.metric` and, of regions, `top1`, `top5`."""
        figures = {row: evaluation.figures for row, evaluation in self.rows.items()}
        if self.regions:
            figures["region_classification"] = self.regions
        measured: dict[str, dict[str, dict[str, float]]] = {}
        for row, own in figures.items():
            for metric in dict.fromkeys(name.split("/")[0] for name in own):
                if values := by_group(own, metric):
                    measured.setdefault(metric, {})[row] = values
        return measured


def evaluate(
    config: Config,
    module: DetectionModule,
    split: Literal["val", "test"],
    protocols: Sequence[str] | Mapping[str, Prompting] | None = None,
) -> Report:
    """Evaluate a split by several protocols in one pass, in which every image is encoded once.

    Visual-G takes its exemplars from the images of `data.reference`. All draws follow from the run's seed. Where a
    test split is counted, the val split is evaluated before it and gives every row its threshold.

    Args:
        config: the run.
        module: its trained module.
        split: of the data set.
        protocols: some of `protocols.PROTOCOLS`, or `exemplars`, of which those that the run trained for are taken; or
            other promptings by their row. None: those of `eval.protocols`, or else `text` and `random_phrases`, and all
            if the run trained visual prompts.

    Raises:
        InputError: there is no such protocol, nothing that the run trained for, or the data set does not allow it.
    """
    chosen = protocols if isinstance(protocols, Mapping) else _trained(protocols, config, module.visual_trained)
    thresholds: dict[str, float] = {}
    if config.eval.metric == "counting" and split == "test":
        counted = evaluate(config, module, "val", chosen).rows
        thresholds = {row: evaluation.figures["threshold"] for row, evaluation in counted.items()}
    trainer = build.evaluator(config)
    data = build.datamodule(config)
    data.prepare_data()
    data.setup("validate" if split == "val" else "test")
    records = data.val_records if split == "val" else data.test_records
    references = None
    if FROM_REFERENCES & set(chosen):
        references = _encode_references(module, trainer, data, records.names, max(config.eval.references))
    asked = chosen
    if not isinstance(asked, Mapping):
        given = _given_exemplars(records) if OWN_EXEMPLARS in chosen else None
        asked = promptings(asked, records.names, config.seed, references, config.eval.references, given)
    module.protocols = {
        row: Protocol(prompting, build.metric(config, records, thresholds.get(row))) for row, prompting in asked.items()
    }
    if "region_classification" in chosen:
        module.regions = RegionClassifier(Text(), RegionAccuracy(records.groups))
    step = trainer.validate if split == "val" else trainer.test
    step(module, datamodule=data, verbose=False)
    rows = {
        row: Evaluation(module.figures[row], metric.results(), metric.per_category)
        for row, (_, metric) in module.protocols.items()
    }
    regions = module.regions.accuracy.compute() if module.regions else {}
    module.protocols, module.regions = {}, None
    return Report(rows, regions, records)


def by_group(figures: dict[str, float], metric: str = "ap") -> dict[str, float]:
    """`ap` of all categories and `ap/GROUP` of the groups as `{"all": ..., GROUP: ...}`, NaN left out."""
    prefix = f"{metric}/"
    rows = {"all": figures[metric]} | {
        name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)
    }
    return {name: round(value, 4) for name, value in rows.items() if value == value}


def write_results(report: Report, folder: Path) -> None:
    """Write the detections of each row as a COCO results file, `results_ROW.json`, which pycocotools reads."""
    for row, evaluation in report.rows.items():
        results = coco_results(evaluation.results, report.records.category_ids)
        (folder / f"results_{row}.json").write_text(json.dumps(results))


def _trained(protocols: Sequence[str] | None, config: Config, visual: bool) -> Sequence[str]:
    """The protocols asked for, or else those of `eval.protocols`, that mean something to a run with that training."""
    listed = protocols or config.eval.protocols
    if unknown := [protocol for protocol in listed if protocol not in (*PROTOCOLS, OWN_EXEMPLARS)]:
        where = "protocols" if protocols else "eval.protocols"
        raise InputError(f"{where}: {unknown[0]} is none of {', '.join((*PROTOCOLS, OWN_EXEMPLARS))}")
    if not listed:
        return PROTOCOLS if visual else ("text", "random_phrases")
    chosen = [protocol for protocol in listed if visual or protocol in TEXT_PROTOCOLS]
    if not chosen:
        raise InputError(
            f"this checkpoint was trained with text alone, so boxes mean nothing to it, and {', '.join(listed)} cannot "
            "be evaluated: take one of stage 2"
        )
    if left_out := [protocol for protocol in listed if protocol not in chosen]:
        log.warning("this checkpoint was trained with text alone: %s left out", ", ".join(left_out))
    return chosen


def _given_exemplars(records: Records) -> dict[int, Tensor]:
    """The data set's own exemplars of each image, cxcywh in [0, 1]."""
    given = {}
    for image in records.images:
        if image.exemplars is None:
            raise InputError(
                f"{records.annotations}: its images have no exemplars, which FSC-147 and FSCD-LVIS have: "
                "set data.format, or leave the protocol exemplars out"
            )
        given[image.id] = xyxy_to_cxcywh(image.exemplars / torch.tensor([image.width, image.height] * 2))
    return given


def _encode_references(
    module: DetectionModule, trainer: L.Trainer, data: DetectionDataModule, names: tuple[str, ...], limit: int
) -> PromptTokens:
    """Up to `limit` visual vectors of every category, (limit, C, D)."""
    encoder = ReferenceEncoder(module.detector, data.draw_references(names, limit), limit, len(names))
    trainer.predict(encoder, datamodule=data, return_predictions=False)
    missing = [name for name, found in zip(names, encoder.prompts.valid[0].tolist(), strict=True) if not found]
    if missing:
        log.warning("no reference image has %s: generic prompts cannot ask for it", ", ".join(missing))
    return encoder.prompts


def _how_to_make(checkpoint: Path) -> str:
    """The runs of experiments/ are called like their files and are written to `runs`."""
    name = checkpoint.parent.parent
    file = Path("experiments", *name.parts[1:]).with_suffix(".yaml")
    if name.parts[:1] == ("runs",) and file.is_file():
        return f"python scripts/train.py {file} data.root=FOLDER trains it"
    return "train the run that writes it"


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


def _visual_trained(checkpoint: dict[str, Any], config: Config) -> bool:
    """Checkpoints that were written before there was the flag have only their own run's rhythm to tell by."""
    return bool(checkpoint.get("visual_trained", config.train.rhythm.visual))


def _start_from(module: DetectionModule, config: Config, path: Path) -> None:
    """As `load_weights`; but a visual prompt encoder that was never trained need not be like the configured one."""
    checkpoint = _read(path)
    before, state = from_dict(checkpoint["config"]), checkpoint["state_dict"]
    visual_trained = _visual_trained(checkpoint, before)
    if before.model.visual != config.model.visual and not visual_trained:
        part = "detector.visual_encoder."
        state = {name: value for name, value in state.items() if not name.startswith(part)}
        state |= {name: value for name, value in module.state_dict().items() if name.startswith(part)}
        log.info("%s never trained its visual prompt encoder: a new one, as model.visual says", path)
    _load_state(module, state, path)
    module.visual_trained |= visual_trained


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
