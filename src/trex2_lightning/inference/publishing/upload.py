"""A checkpoint to a folder for the hub, and such a folder to the hub itself."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from huggingface_hub import HfApi

from trex2_lightning.errors import InputError, reason_of
from trex2_lightning.inference.publishing.licences import objections
from trex2_lightning.inference.publishing.model_card import (
    CARD_FILE,
    evaluations_of,
    is_filled,
    licence_of,
    model_card,
)
from trex2_lightning.training.checkpoint import load_checkpoint, read_checkpoint
from trex2_lightning.training.published import PUBLISHED_FILES, is_published, publish

log = logging.getLogger(__name__)


def write_published(checkpoint: Path, folder: Path, licence: str, name: str) -> list[Path]:
    """Write a checkpoint and its model card to a folder, and tell in the log what speaks against the licence.

    Args:
        checkpoint: of a run.
        folder: is made.
        licence: by its name on the hub, such as `apache-2.0`.
        name: of the repository, or of the folder, for the card.

    Returns:
        The files.

    Raises:
        InputError: no checkpoint, no licence, or a folder that has something else in it.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise InputError(
            f"'{licence}' is no licence as the hub names them: give --licence ID, such as apache-2.0, cc-by-nc-4.0 or "
            "other (docs/licences.md says what data and weights allow)"
        )
    if folder.is_dir() and any(folder.iterdir()) and not is_published(folder):
        raise InputError(f"{folder} has something else in it: give a folder that is empty, or not there yet")
    config, module = load_checkpoint(checkpoint)
    steps = int(read_checkpoint(checkpoint).get("global_step", 0))
    files = publish(config, module, folder)
    card = model_card(config, module, steps, evaluations_of(checkpoint), licence, name)
    card.save(folder / CARD_FILE)
    for objection in objections(licence, module.provenance):
        log.warning("%s", objection)
    return [*files, folder / CARD_FILE]


def upload(folder: Path, repository: str, *, private: bool) -> str:
    """Send a published folder to the hub: its four files and nothing else.

    Returns:
        The address of what was made.

    Raises:
        InputError: the folder has no detector or no licence, or the hub does not take it.
    """
    if not is_published(folder):
        raise InputError(f"{folder} has no detector of this package: trex2 push CKPT --folder DIR writes one")
    if not licence_of(folder):
        raise InputError(f"{folder / CARD_FILE} names no licence: add `license: ID` to its head")
    if not is_filled((folder / CARD_FILE).read_text(encoding="utf-8")):
        log.warning("%s has fields that nobody has filled in", folder / CARD_FILE)
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[*PUBLISHED_FILES, CARD_FILE],
            commit_message="Publish by trex2 push",
        )
    except Exception as error:  # the hub and the network raise anything
        raise InputError(
            f"the hub does not take {repository} ({reason_of(error)}): log in by `hf auth login`, look at the name, or "
            "write a folder by --folder DIR and push that later"
        ) from error
    return str(done.commit_url)
