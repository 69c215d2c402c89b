"""`trex2 label` beside its bare detector: what reading, noting and waiting add, and what it keeps in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from trex2_lightning.config import load
from trex2_lightning.inference.labelling.decoding import decode
from trex2_lightning.inference.labelling.label_pictures import Work, label_pictures
from trex2_lightning.inference.labelling.labeller import Labeller, LabelRequest
from trex2_lightning.inference.labelling.sources import Source, find_pictures
from trex2_lightning.studies import input_speed
from trex2_lightning.studies.index_speed import memory
from trex2_lightning.studies.timing import Row, Setting, fastest, ratio
from trex2_lightning.training.build import build_module

EXPERIMENT = "experiments/small_coco.yaml"
BATCH = 8
PHRASES = tuple(f"thing {number}" for number in range(3))
FIRST, LAST = 200, 2000  # pictures between which memory is compared
TIMED = 256


def labelling(
    folder: Path,
    setting: Setting,
    overrides: Sequence[str] = (),
    timed: int = TIMED,
    between: tuple[int, int] = (FIRST, LAST),
) -> list[Row]:
    """Pictures of 640 x 480 by the small detector with random weights, beside the same batches of pixels in memory.

    Args:
        folder: to write to.
        setting: its repeats.
        overrides: of the experiment.
        timed: pictures of each run that is timed.
        between: numbers of pictures after which the process's memory is compared.
    """
    folder.mkdir(exist_ok=True)
    input_speed.write_images(folder)
    request = LabelRequest(_checkpoint(folder, overrides), PHRASES, threshold=0.02)
    labeller, source = Labeller(request), _source(folder, between[1])
    some = source._replace(names=source.names[:timed])
    decoded = [
        decode([(name, source.root / name) for name in some.names[start : start + BATCH]], labeller.predictor.transform)
        for start in range(0, timed, BATCH)
    ]
    work, calls = Work(BATCH, workers=1), iter(range(setting.repeats))

    def bare() -> None:
        search = labeller.predictor.search(labeller.prompts, 0.01)
        for group in decoded:
            for _, images in group.batches:
                search(labeller.predictor.see(images), images.sizes)

    def whole() -> None:
        label_pictures(labeller, some, folder / f"timed{next(calls)}", work, lambda *_: None)

    peer, ours = (seconds / timed for seconds in fastest(setting.repeats, bare, whole))
    kept: list[float] = []

    def note(done: int, _: int) -> None:
        if done in between:
            kept.append(memory("VmRSS"))

    label_pictures(labeller, source, folder / "memory", work, note)
    grown = f"{kept[1] - kept[0]:.0f}"
    return [
        Row(
            f"a picture of {BATCH}; the peer, the detector on decoded pictures", peer, ours, ratio(peer, ours), ">= 0.9"
        ),
        Row(f"memory that pictures {between[0]:,} to {between[1]:,} add, MiB", None, None, grown, "< 50"),
    ]


def _checkpoint(folder: Path, overrides: Sequence[str]) -> Path:
    """Of a stage 1 that has not begun."""
    torch.manual_seed(0)
    module = build_module(load(EXPERIMENT, [f"data.root={folder}", "model.backbone.weights=''", *overrides]))
    content = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(content)
    torch.save(content, folder / "random.ckpt")
    return folder / "random.ckpt"


def _source(folder: Path, number: int) -> Source:
    """So many pictures, which are links to few."""
    files = find_pictures(str(folder / "train"))
    (folder / "many").mkdir()
    for place in range(number):
        (folder / "many" / f"{place:06}.jpg").symlink_to(files.root / files.names[place % len(files.names)])
    return find_pictures(str(folder / "many"))
