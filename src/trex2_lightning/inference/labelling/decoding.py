"""Picture files to batches, in processes beside the one that has the detector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trex2_lightning.data.images.image_files import ImageError, read_image
from trex2_lightning.inference.encoding import Alike, padded_batches

Transform = Callable[[Image.Image], Tensor]


class Group(NamedTuple):
    """Pictures that are looked at together."""

    names: tuple[str, ...]  # those that can be read
    batches: tuple[Alike, ...]  # of `names`
    skipped: tuple[tuple[str, str], ...]  # name of each other one, and why it cannot be read


def decode(pictures: Sequence[tuple[str, Path | bytes]], transform: Transform) -> Group:
    """Pictures by their names, from files or from the bytes of files."""
    names, readable, skipped = [], [], []
    for name, picture in pictures:
        try:
            readable.append(read_image(picture))
        except ImageError as error:
            skipped.append((name, str(error).removeprefix(f"{picture!s}: ")))
        else:
            names.append(name)
    return Group(tuple(names), padded_batches(readable, transform), tuple(skipped))


def decoded_groups(root: Path, groups: Sequence[Sequence[str]], transform: Transform, workers: int) -> Iterator[Group]:
    """The groups in their order.

    Args:
        root: folder of the files.
        groups: the names of each.
        transform: of a picture.
        workers: processes; 0: this one.
    """
    data = _Groups(root, groups, transform)
    yield from DataLoader(data, batch_size=None, num_workers=workers, collate_fn=_unchanged)


class _Groups(Dataset[Group]):
    def __init__(self, root: Path, groups: Sequence[Sequence[str]], transform: Transform) -> None:
        self._root, self._groups, self._transform = root, groups, transform

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, place: int) -> Group:
        return decode([(name, self._root / name) for name in self._groups[place]], self._transform)


def _unchanged(group: Any) -> Any:  # with `batch_size=None` it is one group, not a list
    return group
