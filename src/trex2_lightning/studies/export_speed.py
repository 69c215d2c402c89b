"""Exported graphs in ONNX Runtime beside PyTorch, on one thread: a picture to features, and features to boxes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trex2_lightning.config import load
from trex2_lightning.inference.export import export
from trex2_lightning.inference.onnx_detector import OnnxDetector
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.structures import Prompts
from trex2_lightning.studies.detector_speed import COCO_LENGTHS, LVIS_LENGTHS, made_up_names
from trex2_lightning.studies.label_speed import EXPERIMENT
from trex2_lightning.studies.timing import Row, Setting, fastest, ratio
from trex2_lightning.training.build import build_module

PICTURE = (640, 480)  # width and height
LONG_NAMES = "model.text.context_length=77"  # made-up words have many tokens


@torch.no_grad()
def exported(folder: Path, setting: Setting, overrides: tuple[str, ...] = ()) -> list[Row]:
    """The small detector with random weights, exported, and asked for few and for many phrases.

    Args:
        folder: for the graphs.
        setting: numbers of phrases, and repeats.
        overrides: of the experiment.

    Raises:
        InputError: the `onnx` extra is not installed.
    """
    torch.manual_seed(0)
    config = load(EXPERIMENT, [f"data.root={folder}", "model.backbone.weights=''", LONG_NAMES, *overrides])
    module = build_module(config).eval()
    export(config, module, folder)
    predictor, runtime = Predictor(config, module), OnnxDetector(folder, ["CPUExecutionProvider"], 1)
    pixels = np.random.default_rng(0).integers(0, 256, (*PICTURE[::-1], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    image, seen = predictor.encode(picture), runtime.encode_image(picture)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    peer, ours = fastest(setting.repeats, lambda: predictor.encode(picture), lambda: runtime.encode_image(picture))
    rows = [Row(f"a picture of {PICTURE[0]} x {PICTURE[1]} to features", peer, ours, ratio(peer, ours))]
    for lengths, number in ((COCO_LENGTHS, setting.few), (LVIS_LENGTHS, setting.many)):
        names = made_up_names(lengths, number)
        vectors, tokens = module.detector.encode_prompts(Prompts(names)), runtime.phrases(names)
        peer, ours = fastest(
            setting.repeats,
            partial(module.detector.decode, image.features, vectors),
            partial(runtime.decode, seen, tokens),
        )
        rows.append(Row(f"features to boxes with {number:,} phrases", peer, ours, ratio(peer, ours)))
        found, other = module.detector.decode(image.features, vectors).queries, runtime.decode(seen, tokens)
        differ = max(
            float((found.boxes[-1, 0] - torch.from_numpy(other.boxes)).abs().max()),
            float((found.logits[-1, 0] - torch.from_numpy(other.logits)).abs().max()),
        )
        rows.append(Row("largest difference of boxes and logits", None, None, f"{differ:.1e}", "<= 1e-4"))
    torch.set_num_threads(threads)
    return rows
