"""Detection on single images: the Python API behind scripts/predict.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch

from trex2_lightning import run
from trex2_lightning.config import Config
from trex2_lightning.data.collate import pad
from trex2_lightning.data.transforms import eval_transform, read_image
from trex2_lightning.errors import InputError
from trex2_lightning.module import DetectionModule
from trex2_lightning.pictures import draw
from trex2_lightning.structures import Prompts


class Detection(NamedTuple):
    """One object that was found."""

    phrase: str
    score: float  # in [0, 1]
    box: tuple[float, float, float, float]  # xyxy in pixels of the original image


class Predictor:
    """A trained detector that takes image files and phrases."""

    def __init__(self, config: Config, module: DetectionModule) -> None:
        self.module = module.eval()
        self._transform = eval_transform(config.data)

    @classmethod
    def from_checkpoint(cls, path: Path) -> Predictor:
        """Rebuild the detector from a checkpoint, on the GPU where there is one."""
        config, module = run.load(path)
        return cls(config, module.to("cuda" if torch.cuda.is_available() else "cpu"))

    @torch.inference_mode()
    def __call__(self, image: Path, phrases: tuple[str, ...], threshold: float = 0.3) -> list[Detection]:
        """Find what the phrases name.

        Args:
            image: file.
            phrases: what to look for, each on its own.
            threshold: lowest score that is kept.

        Returns:
            Best first.

        Raises:
            InputError: an unreadable image, or a phrase that is empty, given twice or too long.
        """
        if len(set(phrases)) < len(phrases):
            raise InputError("a phrase was given twice: give each once")
        picture = read_image(image)
        pixels = self._transform(picture).to(self.module.device)
        images = pad([pixels], [(picture.height, picture.width)])
        prompts = self.module.detector.encode_prompts(Prompts(phrases))
        images = images._replace(valid=images.valid.to(pixels.device), sizes=images.sizes.to(pixels.device))
        [result] = self.module.detect(images, prompts, image_ids=[0])
        return [
            Detection(phrases[label], score, (box[0], box[1], box[2], box[3]))
            for box, score, label in zip(
                result.boxes.tolist(), result.scores.tolist(), result.labels.tolist(), strict=True
            )
            if score >= threshold
        ]


def write_prediction(image: Path, detections: list[Detection], folder: Path) -> tuple[Path, Path]:
    """Write the picture with its boxes and their values to `folder`; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, values = folder / f"{image.stem}.png", folder / f"{image.stem}.json"
    drawn = draw(
        read_image(image),
        torch.tensor([detection.box for detection in detections]).reshape(-1, 4),
        [detection.phrase for detection in detections],
        torch.tensor([detection.score for detection in detections]),
    )
    drawn.save(picture)
    content = {"image": str(image), "detections": [detection._asdict() for detection in detections]}
    values.write_text(json.dumps(content, indent=2) + "\n")
    return picture, values
