"""A whole training, from its start or from where it stopped."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from trex2_lightning.config import Config, check_harmless, experiment_file, save
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.data.inventory import check, check_images, log_audits
from trex2_lightning.data.sampling.examples import TrainLoader
from trex2_lightning.errors import InputError
from trex2_lightning.models.build import warn_of_random_appearance
from trex2_lightning.models.hub.settings import hub_folder
from trex2_lightning.models.text import PhraseError
from trex2_lightning.ops.host import writable
from trex2_lightning.training.build import build_datamodule, build_module
from trex2_lightning.training.callbacks.between_steps import LastWhenStopped
from trex2_lightning.training.checkpoint import checkpoint_of, load_state, read_checkpoint, resumable, start_from
from trex2_lightning.training.hard_negatives import nearest_phrases
from trex2_lightning.training.module import DetectionModule
from trex2_lightning.training.optim import TOWERS, parted
from trex2_lightning.training.provenance import gone_on, origin, provenance_of, write_provenance
from trex2_lightning.training.published import is_published
from trex2_lightning.training.resuming import resumption
from trex2_lightning.training.trainer import build_trainer, finish_wandb
from trex2_lightning.training.unused import unused_settings
from trex2_lightning.training.validation import validation_of

log = logging.getLogger(__name__)

KNOWN = 200  # names, spread over all that training may ask for


def train(
    config: Config,
    *,
    resume: bool = False,
    data: DetectionDataModule | None = None,
    watching: Sequence[Callback] = (),
) -> DetectionModule:
    """Train to `train.max_steps`, evaluating on the val split on the way.

    Writes `config.yaml`, `provenance.json`, `checkpoints/best.ckpt`, `checkpoints/last.ckpt`, `csv/` and W&B's files to
    `config.folder`.

    Args:
        config: the run.
        resume: go on from `last.ckpt` of that folder, or from `previous.ckpt` where that one is broken.
        data: what to train on in place of the run's own data.
        watching: further callbacks.

    Raises:
        InputError: the folder cannot be written to; it has a run and `resume` is not set, or has none and it is, or one
            with other settings or data; or the configuration, the data or the weights are wrong.
    """
    check_harmless(config)  # else nobody could load what it writes
    last = config.folder / "checkpoints" / "last.ckpt"
    if not resume:
        require_new(config.folder)
        for told in unused_settings(config):
            rank_zero_only(log.warning)(told)
    if resume and not last.exists():
        raise InputError(f"there is nothing to resume in {config.folder}: leave out --resume to start the run")
    last = resumable(last.parent) if resume else last
    saved = read_checkpoint(last) if resume else {}
    before = resumption(config, saved, last) if resume else None
    L.seed_everything(config.seed, workers=True, verbose=False)
    trainer = build_trainer(config, watching)
    if trainer.is_global_zero:
        writable(config.folder if config.folder.exists() else config.folder.parent, "output=")
    start = _start_of(config.train.init_from) if config.train.init_from and not resume else None
    data = data or build_datamodule(config)
    data.setup("fit")
    audits = data.audits()
    log_audits(audits)
    check(audits)
    if before:
        before.check_data(audits)
    share = (config.data.num_workers, trainer.global_rank, trainer.world_size)
    check_images("data.val", data.val_records.images, *share)
    module = build_module(config)
    _check_phrases(module, data)
    if before:
        load_state(module, saved["state_dict"], last)  # the trainer does too, but says less of what does not fit
        module.provenance, module.earlier = provenance_of(saved), before.earlier
    elif start:
        start_from(module, config, start)
    else:
        warn_of_random_appearance(module.detector)
    module.provenance = gone_on(module.provenance, origin(config, audits, before.step if before else 0))
    module.known_names = known_names(data.train_names)
    if config.data.negatives.hard:
        data.nearest = partial(nearest_phrases, module.detector)
    module.protocols = validation_of(config, data)
    if "generic" in module.protocols:
        check_images("data.reference", data.drawn_images, *share)
    if trainer.is_global_zero:
        config.folder.mkdir(parents=True, exist_ok=True)
        if before:
            before.note(config.folder)
        save(config, config.folder / "config.yaml")
        write_provenance(module.provenance, config.folder)
        log.info(
            "total batch %d = %d devices x %d images x %d accumulated; %d training images; written to %s",
            config.train.total_batch,
            config.train.world_size,
            config.data.batch_size,
            config.accumulate,
            data.num_train_images,
            config.folder,
        )
        if config.model.fusion == "early" and config.train.rhythm.visual and config.model.visual.source == "encoder":
            log.info("model.visual.source=encoder: early fusion's encoder runs with the prompts, so the neck's is read")
        for part in TOWERS.keys() - parted(module.detector).keys():
            log.info("nothing of the pretrained %s is trained: optim.lr_%s has no effect", part, part)
        if before:
            log.info("going on from %s", before)
        elif start:
            log.info("starting from the weights of %s", config.train.init_from)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last if resume else None, weights_only=True)
    except SIGTERMException:  # Lightning's way to end between two batches
        if any(isinstance(one, LastWhenStopped) and one.interrupted for one in trainer.callbacks):  # type: ignore[attr-defined]
            raise KeyboardInterrupt from None
        raise
    if isinstance(loader := trainer.train_dataloader, TrainLoader):  # none where nothing was left to train
        loader.tell_unreadable()
    finish_wandb(trainer.loggers)
    return module


def require_new(folder: Path) -> None:
    """Raises InputError: the folder has a run."""
    if (folder / "checkpoints" / "last.ckpt").exists():
        raise InputError(f"{folder} already has a run: add --resume to go on with it, or give another name=")


def kept_of(config: Config) -> str:
    """What there is of a run that was stopped, and how to go on."""
    last = config.folder / "checkpoints" / "last.ckpt"
    if not last.is_file():
        return f"{config.folder} has no checkpoint yet: start the run again"
    step = read_checkpoint(last)["global_step"]
    return f"{last} has the first {step:,} of {config.train.max_steps:,} steps: the same line with --resume goes on"


def known_names(names: Sequence[str]) -> tuple[str, ...]:
    """What boxes are found by where exemplars prompt a detector that has learned text alone: up to `KNOWN` names."""
    return (*names[:: -(-len(names) // KNOWN) or 1],)


def _check_phrases(module: DetectionModule, data: DetectionDataModule) -> None:
    """A phrase that cannot be encoded would end the run at the step that draws it."""
    for source, phrases in data.train_phrases.items():
        try:
            module.detector.text_encoder.check(phrases)
        except PhraseError as error:
            raise InputError(f"{source}: {error}; mend the data before you train") from error


def _start_of(what: str) -> Path:
    """The checkpoint, or the published folder, that `train.init_from` names.

    Raises:
        InputError: there is none, or it is a detector of others.
    """
    path = checkpoint_of(what)
    if path is None:
        path = hub_folder(what)
        if not is_published(path):
            raise InputError(
                f"{what} is no detector of this package: model.init_from={what} starts from a Grounding DINO"
            )
    elif not path.is_file():
        raise InputError(
            f"no checkpoint {path} to start from: {_how_to_make(path)}, and CKPT=FILE (of make stage2) or "
            "train.init_from=FILE takes another"
        )
    return path


def _how_to_make(checkpoint: Path) -> str:
    """The runs of experiments/ are called like their files and are written to `runs`."""
    name = checkpoint.parent.parent
    file = Path("experiments", *name.parts[1:]).with_suffix(".yaml")
    if name.parts[:1] == ("runs",) and experiment_file(file).is_file():
        return f"trex2 train {file} data.root=FOLDER trains it"
    return "train the run that writes it"
