"""The embedded synthetic data set `shapes`: coloured shapes with a long tail and held-out categories, in COCO format.

A category is a colour and a shape ("red star") and belongs to a group, kept as `group` in the COCO file:

    frequent  known shapes in known colours
    common    the same, ten times rarer
    rare      shapes whose words occur nowhere else, 4 to 14 instances of each category in 6000 training images
    composed  held out from training: a known colour with a known shape, never seen together
    novel     held out from training: shapes that are never seen

Version 1 has few rare and novel shapes in three colours each, version 2 has 18 and 18 in one colour each.

Two further kinds of pictures can be had: `nameless`, random shapes without words, a stand-in for SA-1B; and
`relations`, whose categories are phrases such as "the blue star left of the black ring".
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from trex2_lightning.config import ShapesConfig
from trex2_lightning.data.shapes.drawing import Instance, draw
from trex2_lightning.data.shapes.layout import (
    NAMELESS,
    PRESETS,
    RELATIONS,
    SPLITS,
    categories,
    image_rng,
    place,
    plan,
)
from trex2_lightning.data.shapes.nameless import kind, nameless_split, place_nameless, plan_nameless
from trex2_lightning.data.shapes.relations import phrases, place_relations
from trex2_lightning.errors import InputError

SHAPES_FORMAT = 1  # raise it whenever the pictures or the files change
MARKER = "shapes.json"  # holds the parameters of a finished folder

# What every image shows -> what of it is annotated, and the categories.
Annotate = Callable[[list[list[Instance]]], tuple[list[list[Instance]], list[dict[str, str]]]]


def prepare(config: ShapesConfig, root: str | Path = "") -> Path:
    """Render the data set unless that was done before, and return its folder.

    The folder holds `<split>.json` (COCO) and `<split>/*.jpg` for the splits train, val, test and reference. It is
    `root`, or a folder of the user's cache. Several processes may call this at the same time.

    Raises:
        InputError: `root` holds something else or cannot be written, or a parameter makes no sense.
    """
    _check(config)
    parameters = _parameters(config)
    folder = Path(root) if root else _cache_folder(parameters)
    if _is_finished(folder, parameters):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-")
    except OSError as error:
        raise InputError(f"cannot write to {folder.parent}: set data.root to a folder that can be written") from error
    with temporary as workplace:
        rendering = Path(workplace) / "shapes"
        _render_splits(config, rendering)
        (rendering / MARKER).write_text(json.dumps(parameters), encoding="utf-8")
        try:
            rendering.rename(folder)
        except OSError:
            if not _is_finished(folder, parameters):  # else another process was faster: use its pictures
                raise
    return folder


def prepare_nameless(config: ShapesConfig, folder: Path) -> None:
    """Add a split of nameless shapes, called `nameless_split`, to a folder that `prepare` has made, unless it is there.

    Its COCO file has a category for every kind of shape of every image, with a number for a name.

    Raises:
        InputError: the folder cannot be written.
    """
    _add_split(config, folder, NAMELESS, plan_nameless(config), _numbered, nameless_split(config))


def prepare_relations(config: ShapesConfig, folder: Path, split: str) -> None:
    """Add a split of relational phrases, `relations` or `relations_train`, as `prepare_nameless` does.

    Its categories are the phrases; what only stands between the objects that they name is not annotated.
    """

    def described(images: list[list[Instance]]) -> tuple[list[list[Instance]], list[dict[str, str]]]:
        targets = [[instance for instance in instances if instance.category >= 0] for instances in images]
        return targets, [{"name": phrase} for phrase in phrases(config.preset)]

    nobody = np.zeros(0, np.int64)
    _add_split(config, folder, split, [nobody] * RELATIONS[split], described, split)


def _add_split(
    config: ShapesConfig, folder: Path, split: str, planned: list[NDArray[np.int64]], annotate: Annotate, name: str
) -> None:
    """Render what is `planned` for the images of a further split, whose folder and COCO file get a name."""
    annotations = folder / f"{name}.json"
    if annotations.is_file():
        return
    try:
        temporary = TemporaryDirectory(dir=folder, prefix=f".{name}-")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: set data.root to a folder that can be written") from error
    with temporary as workplace:
        rendering = Path(workplace)
        (rendering / split).mkdir()
        images = _render_all([_Job(rendering, config, split, index, what) for index, what in enumerate(planned)])
        content = _coco(config, *annotate(images))
        (rendering / annotations.name).write_text(json.dumps(content), encoding="utf-8")
        try:
            (rendering / split).rename(folder / name)
        except OSError:
            if not (folder / name).is_dir():  # else these are the same pictures, of another process
                raise
        (rendering / annotations.name).replace(annotations)


class _Job(NamedTuple):
    """One image to render."""

    folder: Path
    config: ShapesConfig
    split: str
    number: int
    planned: NDArray[np.int64]  # categories, or kinds of nameless outlines


def _check(config: ShapesConfig) -> None:
    if config.num_train < 1:
        raise InputError(f"data.shapes.num_train={config.num_train} must be at least 1")
    if config.seed < 0:
        raise InputError(f"data.shapes.seed={config.seed} must not be negative")
    if config.nameless_kinds < 0:
        raise InputError(f"data.shapes.nameless_kinds={config.nameless_kinds} must not be negative")


def _parameters(config: ShapesConfig) -> dict[str, Any]:
    """What the pictures with names depend on. Version 1 goes without saying: its folders are older than the setting."""
    unsaid = {"nameless_kinds"} if config.version > 1 else {"nameless_kinds", "version"}
    return {"format": SHAPES_FORMAT} | {key: value for key, value in asdict(config).items() if key not in unsaid}


def _cache_folder(parameters: dict[str, Any]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]
    version = f"v{parameters['version']}-" if "version" in parameters else ""
    return cache / "trex2_lightning" / f"shapes-{parameters['preset']}-{version}{digest}"


def _is_finished(folder: Path, parameters: dict[str, Any]) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    marker = folder / MARKER
    if not marker.is_file():
        raise InputError(
            f"{folder} holds something other than a rendered shapes data set: set data.root to a new folder"
        )
    found = json.loads(marker.read_text(encoding="utf-8"))
    if found != parameters:
        told = " ".join(f"{key}={value}" for key, value in found.items())
        wanted = " ".join(f"{key}={value}" for key, value in parameters.items())
        raise InputError(f"{folder} was rendered with {told}, not {wanted}: delete it or set data.root to a new folder")
    return True


def _render_splits(config: ShapesConfig, folder: Path) -> None:
    jobs = []
    for split in SPLITS:
        (folder / split).mkdir(parents=True)
        jobs += [_Job(folder, config, split, index, planned) for index, planned in enumerate(plan(config, split))]
    rendered = _render_all(jobs)
    known = [category._asdict() for category in categories(config.preset, config.version)]
    for split in SPLITS:
        images = [instances for job, instances in zip(jobs, rendered, strict=True) if job.split == split]
        (folder / f"{split}.json").write_text(json.dumps(_coco(config, images, known)), encoding="utf-8")


def _render_all(jobs: list[_Job]) -> list[list[Instance]]:
    console = Console(stderr=True)
    progress = partial(
        track,
        description=f"Rendering shapes ({jobs[0].config.preset})",
        total=len(jobs),
        console=console,
        disable=not console.is_terminal,
    )
    workers = os.cpu_count() or 1
    if workers == 1 or multiprocessing.current_process().daemon:  # a daemon may not have children
        return list(progress(map(_render, jobs)))
    with ProcessPoolExecutor(workers, initializer=_end_with_parent) as pool:
        return list(progress(pool.map(_render, jobs, chunksize=32)))


def _end_with_parent() -> None:
    """A worker whose parent is killed, by SIGTERM too, would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _render(job: _Job) -> list[Instance]:
    preset = PRESETS[job.config.preset]
    rng = image_rng(job.config, job.split, job.number)
    if job.split == NAMELESS:
        kinds = [kind(job.config.seed, number) for number in job.planned.tolist()]
        instances = place_nameless(job.config.preset, rng, kinds)
    elif job.split in RELATIONS:
        instances = place_relations(job.config.preset, rng)
    else:
        instances = place(job.config, job.planned, rng)
    picture = draw(instances, preset.side, preset.fills, rng)
    picture.save(job.folder / job.split / _file_name(job.number), quality=95, subsampling=0)
    return instances


def _numbered(images: list[list[Instance]]) -> tuple[list[list[Instance]], list[dict[str, str]]]:
    """Instances whose categories count on from image to image, and these categories."""
    known: list[dict[str, str]] = []
    numbered = []
    for number, instances in enumerate(images, start=1):
        numbered.append([instance._replace(category=len(known) + instance.category) for instance in instances])
        known += [{"name": f"{number}-{kind}"} for kind in sorted({instance.category for instance in instances})]
    return numbered, known


def _coco(config: ShapesConfig, images: list[list[Instance]], known: list[dict[str, str]]) -> dict[str, Any]:
    """Ids count from 1; an annotation's `area` is its box's; `known` are the categories."""
    side = PRESETS[config.preset].side
    version = f", version {config.version}" if config.version > 1 else ""
    annotations: list[dict[str, Any]] = []
    for image_id, instances in enumerate(images, start=1):
        for instance in instances:
            x0, y0, x1, y1 = instance.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": instance.category + 1,
                    "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
                    "area": round((x1 - x0) * (y1 - y0), 2),
                    "iscrowd": 0,
                }
            )
    return {
        "info": {"description": f"trex2_lightning shapes, preset {config.preset}{version}"},
        "images": [
            {"id": index + 1, "file_name": _file_name(index), "width": side, "height": side}
            for index in range(len(images))
        ],
        "annotations": annotations,
        "categories": [{"id": index + 1, **category} for index, category in enumerate(known)],
    }


def _file_name(index: int) -> str:
    return f"{index + 1:06d}.jpg"
