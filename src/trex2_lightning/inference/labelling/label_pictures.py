"""Labels pictures: decoded in other processes, looked at in batches, noted in a journal, and written in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from trex2_lightning.errors import InputError
from trex2_lightning.inference.labelling.decoding import decoded_groups
from trex2_lightning.inference.labelling.journal import FOLDER, ROOT, Journal
from trex2_lightning.inference.labelling.label_files import TARGETS, WRITERS, Labels
from trex2_lightning.inference.labelling.labeller import Labeller
from trex2_lightning.inference.labelling.sources import SHEET, Shard, Source, groups_of
from trex2_lightning.inference.labelling.uncertain import most_uncertain, write_sheet
from trex2_lightning.ops.host import writable

SKIPPED = "skipped.txt"


class Work(NamedTuple):
    """How it is done; but for `batch_size` none of it changes what is found."""

    batch_size: int = 8  # pictures that are looked at together
    workers: int = 2  # processes that read pictures; 0: none beside this one
    shard: Shard = Shard()


class Written(NamedTuple):
    """What there is in the end."""

    pictures: int  # with those skipped
    skipped: tuple[tuple[str, str], ...]  # name, and why
    counts: Counter[str]  # of what was found, by category
    files: tuple[Path, ...]


def label_pictures(
    labeller: Labeller,
    source: Source,
    folder: Path,
    work: Work,
    told: Callable[[int, int], None],
) -> None:
    """Find what the labeller looks for in those pictures of the source that the folder's journal lacks.

    Args:
        labeller: with its detector.
        source: the pictures.
        folder: of the journal, and for `write_labels`.
        work: how.
        told: given the number of pictures that are done and of all, at the start and after each batch.

    Raises:
        InputError: the folder was begun with something else, or has files of others that would be replaced; or as
            `Labeller`, and then nothing is begun.
    """
    with _journal(labeller, source, folder, work) as journal:
        groups = groups_of(source, work.batch_size, work.shard, journal)
        total = sum(map(len, groups_of(source, work.batch_size, work.shard, ())))
        done = total - sum(map(len, groups))
        told(done, total)
        for group in decoded_groups(source.root, groups, labeller.predictor.transform, work.workers):
            rows = labeller.rows(group)
            journal.add(rows)
            done += len(rows)
            told(done, total)


def write_labels(labeller: Labeller, source: Source, folder: Path, form: str, work: Work) -> Written:
    """Write what `label_pictures` has found, in the format of that name, and `uncertain.png` and `skipped.txt`."""
    with _journal(labeller, source, folder, work) as journal:
        counts: Counter[str] = Counter()
        skipped = []
        for row in journal.rows(source.names):
            counts.update(found.name for found in row.found)
            if row.skipped:
                skipped.append((row.name, row.skipped))
        labels = Labels(source, labeller.names, journal)
        files = [WRITERS[form](labels, folder)]
        sheet, left_out = folder / SHEET, folder / SKIPPED
        if write_sheet(source.root, most_uncertain(labels.rows(), labeller.thresholds), labeller.thresholds, sheet):
            files.append(sheet)
        left_out.unlink(missing_ok=True)
        if skipped:
            listed = "".join(f"{name}: {reason}\n" for name, reason in skipped)
            left_out.write_text(listed, encoding="utf-8", errors="surrogateescape")
            files.append(left_out)
    return Written(len(source.names), tuple(skipped), counts, tuple(files))


def _journal(labeller: Labeller, source: Source, folder: Path, work: Work) -> Journal:
    there = [folder / name for name in (*TARGETS, SHEET, SKIPPED) if (folder / name).exists()]
    if there and not (folder / FOLDER).is_dir():
        raise InputError(f"{there[0]} is from elsewhere, and labels would replace it: give another folder by --output")
    head = labeller.described() | {ROOT: str(source.root.resolve()), "batch size": work.batch_size}
    return Journal(writable(folder), head, work.shard)
