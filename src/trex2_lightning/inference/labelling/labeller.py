"""Pictures in, rows of detections out, on whatever machine: what `trex2 label` and engines such as Ray Data call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from trex2_lightning.errors import InputError
from trex2_lightning.inference.labelling.decoding import Group, decode
from trex2_lightning.inference.labelling.rows import LabelRow, judged_row
from trex2_lightning.inference.marks import Marks
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.inference.search import Search, thresholds_of
from trex2_lightning.prompting.prompt_set import Mix, PromptSet, fingerprint, join, network_fingerprint

NEAR = 0.5  # share of its threshold from which on a score is a doubt, and not nothing


@dataclass(frozen=True)
class LabelRequest:
    """What is looked for, and by which detector: all that a process on another machine needs to know.

    Files are read by each process, so every machine has to have them under the same path.
    """

    model: str | Path  # as `Predictor.from_pretrained` takes it
    phrases: tuple[str, ...] = ()
    references: tuple[tuple[Path, Marks], ...] = ()  # pictures with exemplars
    prompt_files: tuple[Path, ...] = ()
    mix: Mix = "half"  # as of `Predictor.mixed`
    negative: tuple[str, ...] = ()  # names whose objects are not wanted
    threshold: float | None = None  # lowest score that is kept; None: the checkpoint's for each kind of prompt
    thresholds: Mapping[str, float] = field(default_factory=dict)  # of single categories, in place of that
    nms: float | None = None  # IoU above which the worse of two boxes of one category goes; None: nothing does

    def described(self) -> dict[str, Any]:
        """As JSON has it, the same on every machine with the same files.

        Raises:
            InputError: one of them cannot be read.
        """
        values = {key: value for key, value in vars(self).items() if key != "model"}
        shown = [(file, {name: list(map(str, m)) for name, m in marks.items()}) for file, marks in self.references]
        return values | {
            "references": [(_digest(file), marks) for file, marks in shown],
            "prompt_files": [_digest(file) for file in self.prompt_files],
            "thresholds": dict(self.thresholds),
        }


class Labeller:
    """Looks at pictures as `LabelRequest` says.

    It can be pickled: the detector is loaded once in each process, at the first picture, on its GPU if it has one.

    Raises:
        InputError: at the first picture, what `Predictor` says of the checkpoint and of the prompts.
    """

    def __init__(self, request: LabelRequest) -> None:
        self.request = request

    def __getstate__(self) -> dict[str, Any]:
        return {"request": self.request}

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        """For `map_batches` of Ray Data, a batch of pictures to one of rows.

        Args:
            batch: columns `path` and, where the pictures are not to be read from there, `bytes`.

        Returns:
            A table of Arrow with `SCHEMA`'s columns, a row for each picture in their order.
        """
        try:
            from trex2_lightning.inference.labelling.arrow import to_table
        except ImportError as error:
            raise InputError("rows of Arrow need further packages: pip install 'trex2_lightning[ray]'") from error
        paths = [str(path) for path in batch["path"]]
        contents: Sequence[Path | bytes] = batch["bytes"] if "bytes" in batch else [Path(path) for path in paths]
        rows = self.rows(decode(list(zip(paths, contents, strict=True)), self.predictor.transform))
        by_name = {row.name: row for row in rows}
        return to_table([by_name[path] for path in paths])

    def rows(self, group: Group) -> list[LabelRow]:
        """What is found in pictures that were decoded by `predictor.transform`: a row for each, in no order."""
        rows = [LabelRow(name, skipped=reason) for name, reason in group.skipped]
        for places, images in group.batches:
            found = self._search(self.predictor.see(images), images.sizes)
            for place, (height, width), candidates in zip(places, images.sizes.tolist(), found, strict=True):
                rows.append(judged_row(group.names[place], (height, width), candidates, self.thresholds))
        return rows

    @cached_property
    def predictor(self) -> Predictor:
        """The detector of this process."""
        return Predictor.from_pretrained(self.request.model)

    def described(self) -> dict[str, Any]:
        """All that decides what is found, as JSON has it: the request, the weights, and what was fitted to them.

        Raises:
            InputError: as for a picture.
        """
        detector, _ = self.predictor.module.detector, self._search
        compared = {} if detector.appearance is None else dict(detector.appearance.named_buffers(recurse=False))
        fitted = hashlib.sha256()
        for name, values in (detector.calibration.fits() | compared).items():
            fitted.update(name.encode() + values.cpu().contiguous().numpy().tobytes())
        return self.request.described() | {
            "weights": fingerprint(detector),
            "network": network_fingerprint(detector),
            "calibration": fitted.hexdigest(),
        }

    @cached_property
    def prompts(self) -> PromptSet:
        """What is looked for, the unwanted categories among it."""
        made = self.predictor.mixed(self.request.phrases, self.request.references, self.request.mix)
        return join(made, *(self.predictor.load(file) for file in self.request.prompt_files))

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """The lowest score of each category that is kept."""
        module, single = self.predictor.module, self.request.thresholds
        own = thresholds_of(module, self.prompts, single)
        return thresholds_of(module, self.prompts, self.request.threshold) | {name: own[name] for name in single}

    @property
    def names(self) -> tuple[str, ...]:
        """The categories that are labelled."""
        return tuple(name for name in self.prompts.names if name not in self.request.negative)

    @cached_property
    def _search(self) -> Search:
        near = {name: NEAR * threshold for name, threshold in self.thresholds.items()}
        return self.predictor.search(self.prompts, near, self.request.negative, self.request.nms)


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); give a file that can") from error
