"""Sheets of pictures of a data set: what is there beside what is found."""

from __future__ import annotations

import random
from pathlib import Path

from trex2_lightning.data.images.image_files import read_image
from trex2_lightning.data.records import ImageRecord, Records
from trex2_lightning.evaluation.report import EvaluationReport
from trex2_lightning.inference.pictures import contact_sheet, draw_boxes

NUM_PICTURES = 12


def write_text_sheet(report: EvaluationReport, path: Path, threshold: float | None = None) -> None:
    """Pictures of the split drawn at random, true boxes beside those that the names have found.

    Args:
        report: with the row `text`.
        path: of the PNG.
        threshold: lowest score that is drawn; None: of each picture as many boxes as it has in truth, the best.
    """
    names = report.records.names
    by_id = {result.image_id: result for result in report.rows["text"].results}
    pictures, titles = [], []
    for image in some_images(report.records, NUM_PICTURES):
        result = by_id[image.id]
        order = result.scores.argsort(descending=True)
        kept = order[: len(image.boxes)] if threshold is None else order[result.scores[order] >= threshold]
        pixels = read_image(image.path)
        pictures.append(draw_boxes(pixels, image.boxes, [names[label] for label in image.labels]))
        titles.append("truth")
        labels = [names[label] for label in result.labels[kept]]
        pictures.append(draw_boxes(pixels, result.boxes[kept], labels, result.scores[kept]))
        titles.append("detected" if threshold is not None else f"the best {len(kept)}")
    contact_sheet(pictures, titles, path, columns=6)


def some_images(records: Records, count: int) -> list[ImageRecord]:
    """Drawn at random, the same in every run."""
    return random.Random(0).sample(records.images, min(count, len(records.images)))
