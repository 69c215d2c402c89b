"""What a labelling looks for, refined by what its phrases find in the same pictures."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from PIL import Image

from trex2_lightning.data.images.image_files import ImageError, read_image
from trex2_lightning.inference.labelling.labeller import LabelRequest
from trex2_lightning.inference.labelling.sources import Source
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.inference.refining import Refining, refine

MOST_REFINED_BY = 200  # pictures, spread evenly over all: a folder of millions is not looked at twice


def refined_request(
    request: LabelRequest, source: Source, folder: Path, refining: Refining, told: Callable[[int, int], None]
) -> LabelRequest:
    """The same request with a prompt file in place of its phrases and exemplars.

    The file is made once, in the folder of the labels, so that a labelling that goes on, and all shards, look for the
    same; with other phrases or exemplars it has another name. `told` is given the number of pictures that were looked
    at, and of all that will be.

    Raises:
        InputError: as `refine`.
    """
    described = {"request": request.described(), "refining": refining, "root": str(source.root.resolve())}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]
    file = folder / f"refined_{digest}.safetensors"
    if not file.is_file():
        predictor = Predictor.from_pretrained(request.model)
        prompts = refine(predictor, request.phrases, _pictures(source, told), request.references, request.mix, refining)
        made = folder / f".{os.getpid()}.{file.name}"  # shards may make it at once, and any of them may be killed
        predictor.save(prompts, made)
        made.replace(file)
    return replace(request, phrases=(), references=(), prompt_files=(*request.prompt_files, file))


def _pictures(source: Source, told: Callable[[int, int], None]) -> Iterator[Image.Image]:
    """Those that are looked at, without the ones that cannot be read: labelling counts and names them."""
    names = source.names[:: -(-len(source.names) // MOST_REFINED_BY)]
    for done, name in enumerate(names, start=1):
        with suppress(ImageError):
            yield read_image(source.root / name)
        told(done, len(names))
