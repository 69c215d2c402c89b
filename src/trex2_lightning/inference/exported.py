"""What an exported detector is beside its graphs: the file that export writes and ONNX Runtime's side reads.

Nothing here needs PyTorch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from trex2_lightning.errors import InputError
from trex2_lightning.structures import ExemplarKind

SETTINGS = "detector.json"
TOKENIZER = "tokenizer.json"
KNOWN_NAMES = "known.npz"  # the prompts that find boxes for exemplars that the detector has not learned
TOKEN_PARTS = ("embed", "category", "attend", "position")  # of prompt tokens, as graphs take them
EXEMPLAR_GRAPHS: dict[ExemplarKind, str] = {"box": "boxes", "point": "points"}  # graphs of each kind
GRAPHS = ("image", *EXEMPLAR_GRAPHS.values(), "text", "decode", "detect", "appearance")
EXPORTED_FILES = (
    *(f"{graph}.onnx{part}" for graph in GRAPHS for part in ("", ".data")),  # the second: weights beside a large graph
    *(KNOWN_NAMES, TOKENIZER, SETTINGS),
)
EXPORT_VERSION = 2


@dataclass(frozen=True)
class ExportedText:
    """How phrases become rows of tokens."""

    reads: Literal["clip", "bert"]  # what the tokens of a phrase are
    words: bool  # every word has a vector, and so has what closes its name
    context_length: int  # tokens of a phrase that are read, start and end included
    before: list[int]  # tokens in front of each phrase's
    after: list[int]
    around: list[list[int]]  # rows before and behind all phrases; none or two
    without_word: int  # tokens at the start of a row that are no words


@dataclass(frozen=True)
class ExportedAppearance:
    """How boxes are compared with exemplars by what a frozen network sees."""

    mean: list[float]  # (A,)
    transform: list[list[float]]  # (A, A)
    temperature: float
    logit_scale: float


@dataclass(frozen=True)
class ExportedDetector:
    """Settings that a detector is used with."""

    fusion: Literal["late", "early"]
    width: int  # D
    levels: int  # L
    num_queries: int
    max_tokens: int | None  # prompt tokens that are asked for at once; None: any number
    max_detections: int
    size: int  # shorter side of the image, in pixels
    max_size: int  # the most of its longer side
    stride: int  # of whose multiples padded images are
    mean: list[float]  # of pixels in [0, 1]
    std: list[float]
    learned_exemplars: bool  # boxes and points have vectors
    exemplar_maps: Literal["features", "neck"]  # that exemplars are read from
    weights: str  # `fingerprint` of the detector, which prompt files must have
    network: str  # the same of what compares appearance; "": nothing does
    text: ExportedText
    # Score calibration: without appearance and with it, of each source of prompts.
    calibration_weight: list[list[list[float]]]
    calibration_bias: list[list[float]]
    calibration_threshold: list[list[float]]
    calibration_fitted: list[list[bool]]  # else it leaves a score as it was learned
    appearance: ExportedAppearance | None = None

    def write(self, folder: Path) -> None:
        """To `SETTINGS` in the folder."""
        (folder / SETTINGS).write_text(
            json.dumps({"version": EXPORT_VERSION} | asdict(self), indent=1) + "\n", encoding="utf-8"
        )

    @classmethod
    def read(cls, folder: Path) -> ExportedDetector:
        """What `write` wrote.

        Raises:
            InputError: no such file, or one of another version.
        """
        path = folder / SETTINGS
        if not path.is_file():
            raise InputError(f"{folder} holds no exported detector, as it has no {SETTINGS}: trex2 export writes one")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            values = None
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or values.pop("version", None) != EXPORT_VERSION or values.keys() != known:
            raise InputError(f"{path} was written by another version of trex2 export: export the checkpoint anew")
        text, appearance = ExportedText(**values.pop("text")), values.pop("appearance")
        return cls(**values, text=text, appearance=appearance and ExportedAppearance(**appearance))
