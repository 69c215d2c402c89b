"""A detector that `trex2 export` has written, in use without PyTorch: NumPy, Pillow and ONNX Runtime are enough.

The counterpart of `predictor.py`, with the same prompts, prompt files and detections. C categories, T prompt tokens,
Q queries, D width.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from trex2_lightning.errors import InputError
from trex2_lightning.inference import array_finding as finding
from trex2_lightning.inference import phrase_rows as text
from trex2_lightning.inference.inputs import Picture, as_names, as_phrases, as_picture
from trex2_lightning.inference.marks import Marks, as_references, check_kinds, check_known
from trex2_lightning.inference.onnx_detector import OnnxDetector, SeenImage
from trex2_lightning.inference.phrase_rows import TokenArrays
from trex2_lightning.inference.thresholds import NothingFound, Threshold, lowest_scores, tell_unfitted
from trex2_lightning.prompting.prompt_file import (
    PromptArrays,
    asked_by_name,
    check_wanted,
    read_prompts,
    repeated,
    write_prompts,
)
from trex2_lightning.structures import Detection, PromptSource

_SOURCES: tuple[PromptSource, ...] = get_args(PromptSource)


PictureOrSeen = Picture | SeenImage


class OnnxPredictor:
    """A trained detector: prompts from phrases, exemplars and files, and detections with them, as `Predictor` has them.

    Args:
        folder: as `trex2 export` has written it.
        providers: of ONNX Runtime, the first that a graph can run on.
        threads: of each graph; None: as many as there are cores.

    Raises:
        InputError: no exported detector there, or ONNX Runtime is not installed.
    """

    def __init__(
        self, folder: str | Path, providers: Sequence[str] = ("CPUExecutionProvider",), threads: int | None = None
    ) -> None:
        self._detector = OnnxDetector(Path(folder), providers, threads)
        self.settings = self._detector.settings
        self._nothing = NothingFound()
        self._told: PromptArrays | None = None

    def encode(self, image: Picture) -> SeenImage:
        """See an image, for any number of prompts; of early fusion, which sees it with its prompts, only prepare it.

        Raises:
            InputError: an unreadable file, or no image.
        """
        return self._detector.encode_image(as_picture(image))

    def text(self, phrases: str | Sequence[str]) -> PromptArrays:
        """Each phrase on its own, or a single one; its category is named by it.

        Raises:
            InputError: a phrase is empty, given twice, too long, or a sentence of several names.
        """
        return self.mixed(phrases, ())

    def interactive(self, image: PictureOrSeen, exemplars: Marks) -> PromptArrays:
        """What looks like the exemplars, one vector per category; meant for the same image.

        Raises:
            InputError: as `mixed`.
        """
        made = self.generic([(image, exemplars)])
        sources: list[PromptSource] = ["interactive"] * len(made.names)
        return made._replace(sources=tuple(sources))

    def generic(self, references: Sequence[tuple[PictureOrSeen, Marks]]) -> PromptArrays:
        """What looks like the exemplars in any image: the mean over the images that have some.

        Raises:
            InputError: as `mixed`.
        """
        return self.mixed((), references)

    def mixed(
        self,
        phrases: str | Sequence[str],
        references: Sequence[tuple[PictureOrSeen, Marks]],
        mix: Literal["half", "mean"] = "half",
    ) -> PromptArrays:
        """Categories of phrases and of exemplars, as `Predictor.mixed` has them.

        Raises:
            InputError: as `Predictor.mixed`.
        """
        phrases, references = as_phrases(phrases), as_references(references)
        if twice := repeated(phrases):
            raise InputError(f"the phrase '{twice}' is given twice: give each once")
        marked = [marks for _, marks in references]
        check_kinds(marked)
        learned = self.settings.learned_exemplars
        check_known(learned or self.settings.appearance is not None, marked)
        shown = [self._detector.exemplars(self._seen(image), marks) for image, marks in references]
        written = dict(zip(phrases, self._phrase_vectors(phrases), strict=True)) if phrases else {}
        names = tuple(dict.fromkeys(chain(written, *shown)))
        vectors: list[NDArray[np.float32]] = []
        sources: list[PromptSource] = []
        appearance: dict[str, NDArray[np.float32]] = {}
        for name in names:
            rows = [vector for image in shown if name in image for vector in [image[name][0]]]
            seen = [image[name][1] for image in shown if name in image]
            if rows and mix == "half":
                rows = [_mean(rows)]
            own = [written[name]] if name in written else []
            vectors.append(_mean([*own, *(rows if learned or not own else [])]))
            sources.append(("mixed" if name in written else "generic") if rows else "text")
            if rows and self.settings.appearance is not None:
                appearance[name] = np.concatenate(seen)
        table = np.stack(vectors) if vectors else np.zeros((0, self.settings.width), np.float32)
        return PromptArrays(names, table, tuple(sources), appearance)

    def detect(
        self,
        image: PictureOrSeen,
        prompts: PromptArrays,
        threshold: Threshold = None,
        negative: Collection[str] = (),
    ) -> list[Detection]:
        """Find what the prompts ask for in an image, as `Predictor.detect`.

        Raises:
            InputError: as `Predictor.detect`.
        """
        negative = as_names(negative)
        check_wanted(prompts.names, negative)
        seen = self._seen(image)
        sources = np.array([_SOURCES.index(source) for source in prompts.sources])
        scores, boxes = self._found(seen, prompts, sources)
        unwanted = np.isin(prompts.names, [*negative])
        scores = np.where(unwanted | unwanted[scores.argmax(1)][:, None], -np.inf, scores)
        best = np.argsort(-scores, axis=None, kind="stable")[: self.settings.max_detections]
        query, label = np.unravel_index(best, scores.shape)
        compared = np.array([name in prompts.appearance for name in prompts.names], int)
        if self._told is not prompts:
            tell_unfitted(self.settings.calibration_fitted, prompts.sources, compared.astype(bool).tolist())
            self._told = prompts
        own = np.array(self.settings.calibration_threshold)[compared, sources].tolist()
        least = lowest_scores(dict(zip(prompts.names, own, strict=True)), threshold)
        asked = scores[query, label] > 0  # 0: not asked for
        query, label = query[asked], label[asked]
        kept = scores[query, label] >= np.array([least[name] for name in prompts.names], np.float32)[label]
        pixels = finding.corners(boxes[query]).clip(0, 1) * np.array([*seen.size[::-1]] * 2, np.float32)
        rows = zip(pixels.tolist(), scores[query, label].tolist(), label.tolist(), strict=True)
        ranked = [Detection(prompts.names[place], score, (b[0], b[1], b[2], b[3])) for b, score, place in rows]
        if not kept.any():
            self._nothing.tell(prompts, ranked)
        return [one for one, is_kept in zip(ranked, kept, strict=True) if is_kept]

    def present(self, image: PictureOrSeen, prompts: PromptArrays) -> dict[str, float]:
        """The probability, by name, that the image has at all what is asked for, as `Predictor.present`.

        Raises:
            InputError: as `Predictor.present`.
        """
        check_wanted(prompts.names)
        unlearned = self._by_exemplars(prompts) if self._detector.known is not None else []
        kept = [place for place in range(len(prompts.names)) if place not in unlearned]
        if not kept:
            return {}
        names = tuple(prompts.names[place] for place in kept)
        sources = tuple(prompts.sources[place] for place in kept)
        tokens = self._asked(PromptArrays(names, prompts.vectors[kept], sources))
        decoded = self._detector.decode(self._seen(image), tokens)
        if decoded.presence is None:
            raise InputError("this detector has no presence head: train one with model.presence=true, and export it")
        likely = finding.mean_sigmoids(decoded.presence, tokens.category, len(names))
        return dict(zip(names, likely.tolist(), strict=True))

    def save(self, prompts: PromptArrays, path: str | Path) -> None:
        """Write prompts that this detector has made to a `.safetensors` file, which `Predictor` reads too."""
        write_prompts(prompts, path, self.settings.weights, self.settings.network)

    def load(self, path: str | Path) -> PromptArrays:
        """Read prompts that this detector has made, exported or not.

        Raises:
            InputError: as `read_prompts`.
        """
        how = self.settings
        return read_prompts(path, how.width, how.weights, how.network, learned=how.learned_exemplars)

    def _seen(self, image: PictureOrSeen) -> SeenImage:
        return image if isinstance(image, SeenImage) else self.encode(image)

    def _phrase_vectors(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        """(C, D), of words their mean."""
        tokens = self._detector.phrases(phrases)
        member = (tokens.category == np.arange(len(phrases))[:, None]).astype(np.float32)
        return member / member.sum(1, keepdims=True) @ tokens.embed[0]

    def _found(
        self, seen: SeenImage, prompts: PromptArrays, sources: NDArray[np.int64]
    ) -> tuple[finding.Floats, finding.Floats]:
        """Scores (N, C) and boxes (N, 4); as `prompting.finding.find_objects`."""
        how, count = self.settings.appearance, len(prompts.names)
        tokens, compared = self._asked(prompts), how is not None and bool(prompts.appearance)
        shown = {prompts.names.index(name): vectors for name, vectors in prompts.appearance.items()}
        by_exemplars = self._by_exemplars(prompts)
        by_names = compared and self._detector.known is not None
        if by_names and self._detector.known is not None:
            written = np.flatnonzero(~np.isin(tokens.category, by_exemplars))
            further = np.arange(self._detector.known.category.max() + 1) + count
            tokens = text.joined(text.taken(tokens, written), text.renamed(self._detector.known, further))
        decoded = self._detector.decode(seen, tokens)
        boxes, total = decoded.boxes, max(count, int(tokens.category.max()) + 1)
        likely = finding.scores(decoded, tokens.category, total)
        if not (compared or any(self.settings.calibration_fitted[0])):
            return likely, boxes
        best, any_score, likely = likely.max(1), 1 - (1 - likely).prod(1), likely[:, :count]
        if by_names:
            likely[:, by_exemplars] = best[:, None]
        if compared:
            kept = finding.apart(boxes, best, max(self.settings.max_detections, finding.MOST_BOXES))
            boxes, best, any_score, likely = boxes[kept], best[kept], any_score[kept], likely[kept]
        evidence = finding.learned_evidence(likely, best, any_score, boxes)
        if compared and how is not None:
            vectors = finding.box_vectors(seen.maps, seen.extent, boxes)
            evidence = finding.compared_evidence(evidence, best, finding.similarity(vectors, shown, count, how), how)
        return finding.weighed(evidence, sources, self.settings), boxes

    def _by_exemplars(self, prompts: PromptArrays) -> list[int]:
        """Places of the categories whose exemplars alone say what is looked for."""
        named = asked_by_name(learned=self.settings.learned_exemplars)
        rows = enumerate(zip(prompts.names, prompts.sources, strict=True))
        return [place for place, (name, source) in rows if name in prompts.appearance and source not in named]

    def _asked(self, prompts: PromptArrays) -> TokenArrays:
        """The vector of each category, or the words of its name where it was made from a phrase and they are read."""
        named = asked_by_name(learned=self.settings.learned_exemplars)
        written = np.array([source in named for source in prompts.sources])
        if not (self.settings.text.words and written.any()):
            return text.of_vectors(prompts.vectors)
        place, others = np.flatnonzero(written), np.flatnonzero(~written)
        words = text.renamed(self._detector.phrases([prompts.names[number] for number in place]), place)
        return text.joined(words, text.renamed(text.of_vectors(prompts.vectors[others]), others))


def _mean(rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.mean(rows, 0, dtype=np.float32)
