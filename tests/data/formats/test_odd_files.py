"""A file that tools or people changed is read to the same boxes, or what is wrong is counted or refused by name.

Never is it silently another data set, and never does it end in an exception that is not ours. `oddities.py` has the
changes; each seed is one file with one or two of them.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from odd_samples import Sample, marked
from oddities import ODDITIES
from PIL import Image
from test_every_format import sample

from trex2_lightning.data.annotations.declaration import option_name
from trex2_lightning.data.annotations.reading_report import Report, clean
from trex2_lightning.data.formats import every_format
from trex2_lightning.data.images.archives import ImageStore, open_image
from trex2_lightning.errors import InputError

FEW = 12
STREAM = BytesIO()
Image.new("RGB", (40, 30)).save(STREAM, "jpeg")
PICTURE = STREAM.getvalue()


@pytest.mark.parametrize("name", every_format())
def test_a_few_odd_files_of_each_format(tmp_path: Path, name: str) -> None:
    outcomes = [of_odd_file(tmp_path / str(seed), name, seed) for seed in range(FEW)]
    assert {"same"} <= {*outcomes} <= {"same", "counted", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("name", every_format())
def test_a_thousand_odd_files_of_each_format(tmp_path: Path, name: str) -> None:
    for seed in range(1000):
        of_odd_file(tmp_path / str(seed), name, seed)


def of_odd_file(folder: Path, name: str, seed: int) -> str:
    """What became of the changed files of a seed: `same`, `counted` or `refused`.

    Raises:
        AssertionError: something else did.
    """
    rng = Random(f"{name} {seed}")
    is_marked = seed % 3 == 2
    plain, changes = sample_of(name, is_marked=is_marked), []
    odd = Sample(plain.files)
    for change in rng.sample(ODDITIES, len(ODDITIES)):  # till something changed, and half the time on
        changes.append(change)
        change(odd, rng)
        if (odd.files, odd.picture, odd.written) != (plain.files, plain.picture, {}) and rng.random() < 0.5:
            break
    told = f"{name} {seed}, {', '.join(change.__name__ for change in changes)}: {odd.files}"
    odd.write(folder, PICTURE)
    found = set()
    for strict in [False, True][: 1 + bool(every_format()[name].direct)]:
        expected, usual = of_plain_file(folder.parent, name, is_marked, strict)
        try:
            images, counts = read(folder, name, strict=strict)
        except InputError as error:
            found.add("refused" if "\n" not in str(error) else told)
            continue
        if counts == usual:
            meant = [_called(image, odd.called) for image in expected]
            if strict:  # a picture that is not there is told before training
                meant = [
                    image | ({} if own["picture"] else {"picture": None})
                    for own, image in zip(images, meant, strict=False)
                ]
            assert images == meant, told
        found.add("same" if counts == usual else "counted")
    return min(found, key=["counted", "refused", "same"].index)


def sample_of(name: str, *, is_marked: bool) -> Sample:
    plain = Sample(sample(name)[0])
    if is_marked:
        marked(plain)
    return plain


@cache
def of_plain_file(
    folder: Path, name: str, is_marked: bool, strict: bool
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    place = folder / f"plain{is_marked}{strict}"
    sample_of(name, is_marked=is_marked).write(place, PICTURE)
    images, counts = read(place, name, strict=strict)
    assert [len(image["boxes"]) for image in images] == [1]
    return images, counts


def read(folder: Path, name: str, *, strict: bool) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The images as values that can be compared, and what was counted."""
    form = every_format()[name]
    _, arguments, options, _ = sample(name)
    given = dict(zip(options[::2], options[1::2], strict=True))
    values: dict[str, Any] = {
        source.name: folder / argument for source, argument in zip(form.sources, arguments, strict=True)
    }
    for option in form.options:
        value = given.get(option_name(option))
        values[option.name] = option.default if value is None else _kind(folder, option.kind)(value)
    report = Report(strict=strict)
    if form.has_images:
        values["store"] = ImageStore([folder / "images"], look=not strict)
    images = []
    for image in form.reader(**values, report=report):
        corners = image.boxes.reshape(-1, 4)
        assert len(corners) == len(image.names) == len(image.crowd) == len(image.area)
        assert (corners >= 0).all()
        assert (corners <= [image.width, image.height] * 2).all()
        assert (corners[:, 2:] > corners[:, :2]).all()
        images.append(
            {
                "picture": _content(image.path),
                "size": (image.width, image.height),
                "boxes": np.round(corners, 1).tolist(),
                "names": [_clean(named) for named in image.names] if report.names else [],
                "crowd": image.crowd.tolist(),
                "area": np.round(image.area).tolist(),
                "judged": None if image.judged is None else sorted(map(_clean, image.judged)),
                "exemplars": None if image.exemplars is None else image.exemplars.tolist(),
                "number": image.num_objects,
            }
        )
    return images, dict(report.counts)


def _called(image: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    own = {key: [_clean(names.get(name, name)) for name in image[key] or ()] for key in ("names", "judged")}
    return image | {"names": own["names"], "judged": None if image["judged"] is None else sorted(own["judged"])}


def _clean(name: str) -> str:
    """LVIS has underscores in place of spaces."""
    return clean(name.replace("_", " "))


def _kind(folder: Path, kind: Any) -> Any:
    return (lambda value: folder / value) if kind is Path else kind


def _content(path: str) -> bytes | None:
    """None: training and evaluation say that it is not there."""
    try:
        with open_image(path) as file:
            return file.read()
    except (OSError, ValueError):
        return None
