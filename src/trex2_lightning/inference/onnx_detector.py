"""The graphs of an exported detector by ONNX Runtime, and what they need around them: without PyTorch.

The counterpart of `models.detector.PromptedDetector`. C categories, M exemplars, T prompt tokens, Q queries, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from trex2_lightning.errors import InputError, reason_of
from trex2_lightning.inference import array_finding as finding
from trex2_lightning.inference import phrase_rows as text
from trex2_lightning.inference.array_images import image_arrays
from trex2_lightning.inference.exported import EXEMPLAR_GRAPHS, KNOWN_NAMES, TOKENIZER, ExportedDetector
from trex2_lightning.inference.marks import Marks, to_boxes
from trex2_lightning.inference.phrase_rows import TokenArrays

try:
    import onnxruntime
except ImportError:
    onnxruntime = None

Arrays = Mapping[str, NDArray[Any]]
_POINT_SIDE = 0.15  # as `models.appearance`


class SeenImage(NamedTuple):
    """What a detector has seen of an image, for any prompts."""

    features: Arrays  # what the graphs read of it, by name
    size: tuple[int, int]  # height and width of the original image
    maps: tuple[NDArray[np.float32], ...]  # of what compares appearance, (channels, h, w) each
    extent: NDArray[np.float32]  # (2,) share of width and height that is not padding


class OnnxDetector:
    """What `trex2 export` has written, called with arrays.

    Args:
        folder, providers, threads: as `OnnxPredictor`.

    Raises:
        InputError: as `OnnxPredictor`.
    """

    def __init__(self, folder: Path, providers: Sequence[str], threads: int | None) -> None:
        if onnxruntime is None:
            raise InputError(
                "an exported detector needs ONNX Runtime: pip install onnxruntime, or 'trex2_lightning[onnx]'"
            )
        self.settings = ExportedDetector.read(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 4  # what fails is raised
        # A graph that nobody asks is not loaded.
        self._session = cache(
            lambda name: onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=[*providers])
        )
        self._folder = folder
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))

    def encode_image(self, picture: Image.Image) -> SeenImage:
        """What can be computed of an RGB image before any prompt is known."""
        inputs = image_arrays(picture, self.settings)
        features = inputs if self.settings.fusion == "early" else self._run("image", inputs)
        valid = inputs["valid"][0]
        extent = np.array([valid[0].mean(dtype=np.float32), valid[:, 0].mean(dtype=np.float32)], np.float32)
        maps = self._run("appearance", inputs) if self.settings.appearance else {}
        return SeenImage(features, (picture.height, picture.width), tuple(m[0] for m in maps.values()), extent)

    def phrases(self, phrases: Sequence[str]) -> TokenArrays:
        """A token for each phrase, or for each word; raises InputError, as `phrase_rows`."""
        how = self.settings.text
        inputs = text.padded(text.phrase_rows(phrases, self._tokenizer, how))
        vectors = self._run("text", inputs)["vectors"]
        return text.of_words(vectors, inputs["lengths"] - how.without_word) if how.words else text.of_vectors(vectors)

    def exemplars(self, seen: SeenImage, marks: Marks) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Vector (D,) and appearance (m, A) of each category that has m exemplars in an image."""
        maps = self._run("image", seen.features) if self.settings.fusion == "early" else seen.features
        source = self.settings.exemplar_maps
        features = {f"features_{level}": maps[f"{source}_{level}"] for level in range(self.settings.levels)}
        read = {}
        for kind in dict.fromkeys(marked[0].kind for marked in marks.values()):
            boxes = {n: to_boxes(n, marked, seen.size) for n, marked in marks.items() if marked[0].kind == kind}
            exemplars = np.zeros((1, len(boxes), max(map(len, boxes.values())), 4), np.float32)
            shown = np.zeros(exemplars.shape[:3], bool)
            for place, rows in enumerate(boxes.values()):
                exemplars[0, place, : len(rows)], shown[0, place, : len(rows)] = rows, True
            given = {**maps, **features, "exemplars": exemplars, "shown": shown}
            vectors = self._run(EXEMPLAR_GRAPHS[kind], given)["vectors"][0]
            for (name, rows), vector in zip(boxes.items(), vectors, strict=True):
                around = rows if kind == "box" else np.hstack([rows[:, :2], np.full_like(rows[:, :2], _POINT_SIDE)])
                read[name] = vector, finding.box_vectors(seen.maps, seen.extent, around) if seen.maps else rows[:, :0]
        return read

    def decode(self, seen: SeenImage, tokens: TokenArrays) -> finding.Decoded:
        """With all prompts at once, or in as many parts as early fusion needs."""
        graph = "decode" if self.settings.fusion == "late" else "detect"
        indices = text.in_parts(tokens, self.settings.max_tokens)
        found = [self._run(graph, {**seen.features, **text.taken(tokens, index)._asdict()}) for index in indices]
        logits, size = [], len(tokens.category)
        presence = np.zeros(size, np.float32) if "presence" in found[0] else None
        for part, index in zip(found, indices, strict=True):
            whole = np.full((part["logits"].shape[1], size), -np.inf, np.float32)
            whole[:, index] = part["logits"][0]
            logits.append(whole)
            if presence is not None:
                presence[index] = part["presence"][0]
        return finding.Decoded(np.concatenate(logits), np.concatenate([part["boxes"][0] for part in found]), presence)

    @cached_property
    def known(self) -> TokenArrays | None:
        """What finds boxes for exemplars that were not learned."""
        if self.settings.learned_exemplars or not (self._folder / KNOWN_NAMES).is_file():
            return None
        with np.load(self._folder / KNOWN_NAMES) as stored:
            return TokenArrays(**stored)

    def _run(self, name: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        session = self._session(name)
        read = {given.name: inputs[given.name] for given in session.get_inputs()}
        try:
            found = session.run(None, read)
        except Exception as error:  # ONNX Runtime has no errors that can be told apart
            raise InputError(
                f"{name}.onnx of {self._folder} does not take this image with these prompts ({reason_of(error)}): an "
                f"image must have {self.settings.num_queries} tokens or more"
            ) from error
        return {output.name: array for output, array in zip(session.get_outputs(), found, strict=True)}
