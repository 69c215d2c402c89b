"""The pictures that a person should look at first: those with a score nearest its threshold, on one sheet."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from trex2_lightning.data.images.image_files import ImageError, read_image
from trex2_lightning.inference.labelling.rows import LabelRow, distance
from trex2_lightning.inference.pictures import contact_sheet, draw_boxes
from trex2_lightning.structures import Detection

MOST, COLUMNS = 12, 4
SIDE = 640  # pixels, of a picture on the sheet


def most_uncertain(rows: Iterable[LabelRow], least: Mapping[str, float]) -> list[tuple[LabelRow, Detection]]:
    """Of `MOST` pictures the detection whose score is nearest its threshold, above or below it; the nearest first."""
    doubtful = ((distance(row.doubt, least), place, row, row.doubt) for place, row in enumerate(rows) if row.doubt)
    return [(row, doubt) for _, _, row, doubt in heapq.nsmallest(MOST, doubtful)]


def write_sheet(
    root: Path, doubtful: Iterable[tuple[LabelRow, Detection]], least: Mapping[str, float], file: Path
) -> bool:
    """Draw each doubt in its picture, with the threshold in the title; False: there was nothing to draw."""
    pictures, titles = [], []
    for row, doubt in doubtful:
        try:
            picture = read_image(root / row.name)
        except ImageError:  # gone since it was labelled
            continue
        drawn = draw_boxes(picture, torch.tensor([doubt.box]), [doubt.name], torch.tensor([doubt.score]))
        drawn.thumbnail((SIDE, SIDE))
        pictures.append(drawn)
        titles.append(f"{Path(row.name).name}: {doubt.score:.2f}, threshold {least[doubt.name]:.2f}")
    if pictures:
        contact_sheet(pictures, titles, file, COLUMNS)
    return bool(pictures)
