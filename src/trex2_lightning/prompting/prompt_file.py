"""Prompts on disk: what is in a `.safetensors` file, and what makes it one that a detector may take.

NumPy alone, for those who have no PyTorch. C categories, D model width, m exemplars of one, A channels of appearance.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from trex2_lightning.errors import InputError, reason_of
from trex2_lightning.structures import PromptSource

log = logging.getLogger(__name__)

FILE_FORMAT = "trex2_lightning.prompts"
FILE_VERSION = "2"
READABLE = ("1", FILE_VERSION)  # the first had no appearance, and one word for all prompts of exemplars
APPEARANCE = "appearance."  # and the number of the category: the name of a tensor


class PromptArrays(NamedTuple):
    """A `PromptSet` as arrays."""

    names: tuple[str, ...]  # C, all different
    vectors: NDArray[np.float32]  # (C, D)
    sources: tuple[PromptSource, ...]  # C, what each vector was made from
    appearance: Mapping[str, NDArray[np.float32]] = {}  # (m, A), of each category that has m exemplars


def write_prompts(prompts: PromptArrays, path: str | Path, weights: str, network: str = "") -> None:
    """Write the set to a `.safetensors` file, which needs no reference images any more.

    Args:
        prompts: at least one category.
        path: of the file; its folder is made.
        weights: `fingerprint` of the detector that made the vectors.
        network: name and `fingerprint` of the network that made their appearance.

    Raises:
        InputError: as `prompt_file`, or it cannot be written.
    """
    path = prompt_file(path)
    metadata = {
        "format": FILE_FORMAT,
        "version": FILE_VERSION,
        "names": json.dumps(prompts.names),
        "sources": json.dumps(prompts.sources),
        "weights": weights,
        "network": network,
    }
    tensors = {f"{APPEARANCE}{prompts.names.index(name)}": shown for name, shown in prompts.appearance.items()}
    tensors |= {"vectors": prompts.vectors}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # safetensors writes an array's memory, whatever its strides.
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path, metadata)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be written ({reason_of(error)}); give another file") from error


def prompt_file(path: str | Path) -> Path:
    """A file to write prompts to.

    Raises:
        InputError: its name says that it is of another kind, by which other programs would take it.
    """
    if Path(path).suffix != ".safetensors":
        raise InputError(f"{path}: prompts are written as .safetensors: call it {Path(path).stem}.safetensors")
    return Path(path)


def read_prompts(
    path: str | Path, width: int, weights: str, network: str = "", *, learned: bool = True
) -> PromptArrays:
    """Read a set; nothing that the file holds is executed.

    Args:
        path: a file of `write_prompts`.
        width: D of the detector that is to take it.
        weights: `fingerprint` of that detector. With other weights the same numbers mean something else, so they are
            refused: their detections would be nonsense without any sign of it.
        network: name and `fingerprint` of the network that compares appearance; "": none, and what the file has of it
            is left out.
        learned: the detector has learned vectors of exemplars.

    Raises:
        InputError: no such file, not safetensors (a pickle), another format or version, names that are missing,
            repeated or not as many as vectors, vectors that are not finite or of another width, or other weights
            of the detector or of the network; or what exemplars ask for means nothing to the detector.
    """
    metadata, tensors = _read(Path(path))

    def check(right: bool, reason: str) -> None:
        if not right:
            raise InputError(f"{path}: {reason}; write the prompts anew with --save-prompts")

    check(metadata.get("format") == FILE_FORMAT, "is safetensors, but has no prompts of this project")
    version = metadata.get("version")
    check(version in READABLE, f"has prompts of version {version}, and this program reads {' and '.join(READABLE)}")
    names, sources = _texts(metadata, "names"), _texts(metadata, "sources")
    check(names is not None, "has no names of its categories")
    if version == "1" and sources is not None:
        sources = tuple("generic" if source == "visual" else source for source in sources)
    check(
        sources is not None and set(sources) <= set(get_args(PromptSource)),
        "does not say what its vectors were made from",
    )
    vectors = tensors.get("vectors", np.empty(0))
    check(
        vectors.dtype == np.float32 and vectors.ndim == 2,
        "lacks the tensor 'vectors', 32-bit numbers of shape (categories, width)",
    )
    check(
        len(names) == len(sources) == len(vectors),
        f"has {len(vectors)} vectors, {len(names)} names and {len(sources)} sources",
    )
    check(repeated(names) is None, f"has the name '{repeated(names)}' twice")
    check(vectors.shape[1] == width, f"has vectors of width {vectors.shape[1]}, and this detector's have {width}")
    check(bool(np.isfinite(vectors).all()), "has vectors with numbers that are not finite")
    check(metadata.get("weights") == weights, "was made by a detector with other weights, to which they mean nothing")
    shown = {key.removeprefix(APPEARANCE): tensors[key] for key in tensors if key.startswith(APPEARANCE)}
    if shown and not network:
        log.warning("%s: this detector does not compare appearance, so that of the prompts is left out", path)
        shown = {}
    check(not shown or metadata.get("network") == network, "has the appearance that another network saw")
    places = {str(place): name for place, name in enumerate(names)}
    check(shown.keys() <= places.keys(), "has the appearance of a category without a name")
    for tensor in shown.values():
        fits = tensor.dtype == np.float32 and tensor.ndim == 2 and bool(np.isfinite(tensor).all())
        check(fits, "has appearance that is no finite 32-bit numbers of shape (exemplars, channels)")
    appearance = {places[place]: tensor for place, tensor in shown.items()}
    known = {*asked_by_name(learned=learned), "tuned"}
    by_exemplars = {name for name, source in zip(names, sources, strict=True) if source not in known}
    unknown = [] if learned else sorted(by_exemplars - appearance.keys())
    check(not unknown, f"has '{unknown and unknown[0]}' by exemplars, and this checkpoint was trained with text alone")
    return PromptArrays(names, vectors, sources, appearance)


def asked_by_name(*, learned: bool) -> tuple[PromptSource, ...]:
    """Sources of the prompts whose name is the phrase that is asked for.

    A detector that has not learned vectors of exemplars asks for mixed prompts by their phrase alone: what their
    exemplars add is how much boxes look like them.
    """
    return ("text",) if learned else ("text", "mixed")


def check_wanted(names: Sequence[str], negative: Collection[str] = ()) -> None:
    """Some of the names are looked for, and the `negative` ones are of them.

    Raises:
        InputError: one of the two is not so.
    """
    unknown = [name for name in negative if name not in names]
    if unknown:
        raise InputError(f"the negative '{unknown[0]}' is none of the categories {', '.join(names)}: prompt it too")
    if not set(names) - set(negative):
        raise InputError("there is nothing to look for: give a phrase, a box, a point or a prompt file")


def repeated(names: tuple[str, ...]) -> str | None:
    """The first name that occurs more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _read(path: Path) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    if not path.is_file():
        raise InputError(f"no prompt file {path}: --save-prompts writes one")
    try:
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if any(tensor.dtype.kind not in "biuf" for tensor in tensors.values()):  # known where ml_dtypes is loaded
                raise TypeError("not of a type of NumPy's own")
            return file.metadata() or {}, tensors
    except (SafetensorError, AttributeError, TypeError, ValueError) as error:  # the last ones: of what NumPy has not
        raise InputError(
            f"{path} is no safetensors file, or damaged: give one that --save-prompts has written"
        ) from error


def _texts(metadata: dict[str, str], key: str) -> Any:
    """The tuple of texts that JSON under `key` lists; None where it does not."""
    try:
        values = json.loads(metadata[key])
        if not isinstance(values, list):
            return None
        "".join(values).encode()
    except (KeyError, ValueError, TypeError, RecursionError):  # the second: half of a surrogate pair, which is no text
        return None
    return tuple(values)
