"""The lowest scores that are kept, and what is said where none reaches them; without PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from trex2_lightning.errors import InputError
from trex2_lightning.structures import Detection, PromptSource

Threshold = float | Mapping[str, float] | None  # of all categories, of some by name, or the checkpoint's own

log = logging.getLogger(__name__)


def lowest_scores(own: Mapping[str, float], threshold: Threshold) -> dict[str, float]:
    """Of each category.

    Args:
        own: the checkpoint's, by category.
        threshold: for all of them; or by name, the others by the checkpoint; None: all by the checkpoint.

    Raises:
        InputError: a threshold that is no score, or of a name that is none of the categories.
    """
    if threshold is not None and not isinstance(threshold, Mapping):
        threshold = dict.fromkeys(own, float(threshold))
    given = {} if threshold is None else threshold
    if none := [score for score in given.values() if not 0 <= score <= 1]:
        raise InputError(f"the threshold {none[0]:g} is no score: give one from 0 to 1")
    if strange := [name for name in given if name not in own]:
        raise InputError(f"the threshold of '{strange[0]}' is for none of the categories {', '.join(own)}")
    return {**own, **given}


def tell_unfitted(fitted: Sequence[Sequence[bool]], sources: Iterable[PromptSource], compared: Iterable[bool]) -> None:
    """Warn where scores are as they were learned, and the detector's others are fitted.

    Args:
        fitted: without appearance and with it, of each source of prompts, as `ScoreCalibration.fitted_sources`.
        sources: of the categories.
        compared: each of them is compared with exemplars by their appearance.
    """
    places = {source: place for place, source in enumerate(get_args(PromptSource))}
    left = {source for source, seen in zip(sources, compared, strict=True) if not fitted[int(seen)][places[source]]}
    if left and any(map(any, fitted)):
        told = "scores of %s prompts are not fitted, and those of others are: one threshold does not suit both"
        log.warning(told, ", ".join(sorted(left)))


class NothingFound:
    """Says how near the best came, once for each set of prompts: most pictures of a folder may show nothing of them."""

    def __init__(self) -> None:
        self._told: object = None

    def tell(self, prompts: object, candidates: Iterable[Detection]) -> None:
        """Warn, unless that was said of these prompts, or no threshold would find anything.

        Args:
            prompts: what was looked for.
            candidates: all that is below its threshold.
        """
        best = max(candidates, key=lambda one: one.score, default=None)
        if best is None or best.score <= 0 or prompts is self._told:
            return
        self._told = prompts
        log.warning(
            "nothing is above the threshold; the best score is %.3g, of '%s': a lower threshold finds it",
            best.score,
            best.name,
        )
