"""What is found in an image as files for people: a picture, and the values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

import torch

from trex2_lightning.data.images.image_files import read_image
from trex2_lightning.errors import InputError
from trex2_lightning.inference.marks import Marks
from trex2_lightning.inference.pictures import draw_boxes
from trex2_lightning.structures import Detection


def output_files(image: str | Path, folder: str | Path, references: Iterable[Path] = ()) -> tuple[Path, Path]:
    """Where `write_prediction` writes the picture and the values of an image.

    Both are called like it, with a number where another image of its name has its own there.

    Raises:
        InputError: it is no file; or they would lie beside the image or a reference image, and could replace it or what
            belongs to it.
    """
    if not isinstance(image, str | Path):
        raise InputError(f"a {type(image).__name__} has no name to call its picture and values by: give a file")
    image, folder = Path(image), Path(folder)
    names = (image.stem if number == 1 else f"{image.stem}_{number}" for number in count(1))
    stem = next(name for name in names if _is_free(folder / f"{name}.json", image))
    outputs = folder / f"{stem}.png", folder / f"{stem}.json"
    for file in (image, *references):
        if file.resolve().parent in {output.resolve().parent for output in outputs}:
            raise InputError(
                f"{outputs[0]} and {outputs[1].name} would lie beside {file} and could replace it or what belongs to "
                "it: give another folder by --output"
            )
    return outputs


def write_prediction(
    image: str | Path,
    detections: Sequence[Detection],
    folder: str | Path,
    exemplars: Marks,
    present: Mapping[str, float] | None = None,
) -> tuple[Path, Path]:
    """Write the picture with its boxes and exemplars, and the boxes' values, to `folder`; returns both paths.

    What is `present` with which probability goes to the values, where the detector says it.

    Raises:
        InputError: as `output_files`.
    """
    picture, values = output_files(image, folder)
    picture.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw_boxes(
        read_image(Path(image)),
        torch.tensor([detection.box for detection in detections]).reshape(-1, 4),
        [detection.name for detection in detections],
        torch.tensor([detection.score for detection in detections]),
        exemplars,
    )
    drawn.save(picture)
    values.write_text(json.dumps(prediction_values(image, detections, present), indent=2) + "\n", encoding="utf-8")
    return picture, values


def prediction_values(
    image: str | Path, detections: Sequence[Detection], present: Mapping[str, float] | None = None
) -> dict[str, object]:
    """What JSON has of an image: its path, the detections, and what is present where the detector says it."""
    content: dict[str, object] = {"image": str(image), "detections": [found._asdict() for found in detections]}
    return content if present is None else content | {"present": present}


def _is_free(values: Path, image: Path) -> bool:
    """Whether no other image has its values there."""
    try:
        other = json.loads(values.read_text(encoding="utf-8"))["image"]
    except (OSError, ValueError, TypeError, KeyError):
        return True
    return Path(str(other)).resolve() == image.resolve()
