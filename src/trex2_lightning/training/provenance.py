"""Where a checkpoint comes from: the code, the libraries, the data, the weights it began with, and the device.

A checkpoint has a list of it, oldest first: an entry for the run that it started from, for its own, and for each time
that it went on under other conditions.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from trex2_lightning.config import Config
from trex2_lightning.data.inventory import SetAudit
from trex2_lightning.models.appearance import BACKBONE

Provenance = list[dict[str, Any]]
UNKNOWN: dict[str, Any] = {}  # the entry of what was written before there were entries
PROVENANCE_FILE = "provenance.json"
STACK = ("trex2-lightning", "python", "torch", "torchvision", "lightning", "timm", "open_clip_torch")
BUILT = {"python": platform.python_version(), "torch": str(torch.__version__)}  # the second with its CUDA
ENTRY: dict[str, Any] = {
    **dict.fromkeys(("run", "device"), str),
    **dict.fromkeys(("versions", "data", "weights"), dict),
    "from_step": int,
    "commit": str | None,
    "clean": bool | None,
}
SET: dict[str, Any] = {"annotations": str, "images": int, "sha256": str}
PACKAGE = Path(__file__).parents[1]
COMPARED_BY = "model.appearance"  # among the weights


def origin(config: Config, audits: Iterable[SetAudit], step: int = 0) -> dict[str, Any]:
    """An entry, in plain values.

    Args:
        config: the run.
        audits: of its data.
        step: of the run, from which on it holds.
    """
    commit, clean = commit_of(PACKAGE)
    return {
        "run": config.name,
        "from_step": step,
        "commit": commit,
        "clean": clean,
        "versions": {name: _version(name) for name in STACK},
        "device": f"{config.train.world_size} x {_device(config)}",
        "data": {
            one.key: {
                "annotations": annotations_of(config, one.key),
                "images": one.num_images,
                "sha256": one.fingerprint,
            }
            for one in audits
        },
        "weights": weights_of(config),
    }


def gone_on(before: Provenance, entry: dict[str, Any]) -> Provenance:
    """The list with an entry more, unless it says what the last one of the same run says, at another step."""
    known = bool(before) and entry == before[-1] | {"from_step": entry["from_step"]}
    return [*before] if known else [*before, entry]


def provenance_of(checkpoint: Mapping[str, Any]) -> Provenance:
    """What a checkpoint says of it; of an earlier version's, one entry that is `UNKNOWN`."""
    entries = checkpoint.get("provenance")
    is_list = isinstance(entries, list) and all(_is_entry(entry) for entry in entries)
    return [*entries] if is_list and entries else [UNKNOWN]


def read_provenance(folder: Path) -> Provenance:
    """As `provenance_of`, of the folder of a run."""
    try:
        return provenance_of({"provenance": json.loads((folder / PROVENANCE_FILE).read_text(encoding="utf-8"))})
    except (OSError, ValueError):
        return [UNKNOWN]


def write_provenance(entries: Provenance, folder: Path) -> None:
    (folder / PROVENANCE_FILE).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def told(entry: Mapping[str, Any]) -> dict[str, str]:
    """An entry in few words, by what they are about; "unknown" stands for what was not written."""
    data, versions = entry.get("data") or {}, entry.get("versions") or {}
    sets = [f"{one['annotations']} ({one['images']} images, {one['sha256'][:8]})" for one in data.values()]
    code = f"version {versions.get('trex2-lightning', 'unknown')}"
    if commit := entry.get("commit"):
        code = f"{commit[:10]}{'' if entry['clean'] else ', changed'}"
    return {
        "trained as": f"{entry['run']}, from step {entry['from_step']:,}" if entry else "unknown",
        "code": code if entry else "unknown",
        "torch": versions.get("torch", "unknown"),
        "device": entry.get("device", "unknown"),
        "data": ", ".join(sets) or "unknown",
    }


def commit_of(package: Path) -> tuple[str | None, bool | None]:
    """The commit that a folder is of, and whether nothing in its repository has changed since; None: not of any.

    A package that was installed into an environment within somebody's repository is not of that one.
    """
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    changed = _git(package, "status", "--porcelain")
    return _git(package, "rev-parse", "HEAD"), None if changed is None else not changed


def annotations_of(config: Config, key: str) -> str:
    """The format and the annotations of a set, as the settings name them; not the place of `data.root`."""
    data = config.data
    name = key.removeprefix("data.sets.")
    files = data.sets[name] if name != key else getattr(data, key.removeprefix("data."))
    return f"{getattr(files, 'format', data.format)} {_end_of(files.annotations)}"


def weights_of(config: Config) -> dict[str, str]:
    """What training began with, by the settings that named it; what is not here was random."""
    model, named = config.model, {}
    if config.train.init_from:  # whose checkpoint has entries of its own
        named["train.init_from"] = ("", config.train.init_from)
    else:
        named["model.backbone"] = (model.backbone.name, model.backbone.weights)
        named["model.text"] = (model.text.name, model.text.pretrained)
        named["model.init_from"] = ("", model.init_from)
    if model.appearance.name not in ("", BACKBONE):
        named[COMPARED_BY] = (model.appearance.name, model.appearance.weights)
    return {key: f"{name} {_end_of(weights)}".lstrip() for key, (name, weights) in named.items() if weights}


def _is_entry(entry: Any) -> bool:
    """Whether it is as `origin` gives it: the file may be anybody's."""
    if entry == UNKNOWN:
        return True
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), kind) for key, kind in ENTRY.items()):
        return False
    sets = [one for one in entry["data"].values() if isinstance(one, dict)]
    of_texts = all(isinstance(value, str) for part in ("versions", "weights") for value in entry[part].values())
    whole = all(isinstance(one.get(key), kind) for one in sets for key, kind in SET.items())
    return of_texts and whole and len(sets) == len(entry["data"])


def _end_of(place: str) -> str:
    """A name as it is; of a path of this machine, which is nobody's business, the last folder and the file."""
    return str(Path(*Path(place).parts[-2:])) if Path(place).is_absolute() else place


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str:
    if name in BUILT:
        return BUILT[name]
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _device(config: Config) -> str:
    on_gpu = config.train.accelerator == "gpu" and torch.cuda.is_available()
    return torch.cuda.get_device_name() if on_gpu else f"CPU ({platform.machine()})"
