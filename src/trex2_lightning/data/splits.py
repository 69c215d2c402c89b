"""The splits that the settings of a data set name, as records."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from trex2_lightning.config import DataConfig, SplitConfig
from trex2_lightning.data.annotations.declaration import Format
from trex2_lightning.data.formats import every_format
from trex2_lightning.data.opening import open_records
from trex2_lightning.data.records import Records
from trex2_lightning.data.sampling.references import relabelled
from trex2_lightning.data.shapes import rendering
from trex2_lightning.data.shapes.layout import NAMELESS, RELATIONS
from trex2_lightning.data.shapes.nameless import nameless_split
from trex2_lightning.errors import InputError

SplitPlace = tuple[str, str]  # annotations and images
SHAPES = "shapes"  # a value of `data.format`: rendered first, and then read as `coco`
RENDERED_NAMELESS = (f"{NAMELESS}.json", NAMELESS)  # in settings; on disk the number of kinds is in the names


class SplitFiles:
    """Reads splits of files in a format that is read directly, of indexes, or of the synthetic `shapes`.

    Raises:
        InputError: `data.format` is none that is read from files.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self._opened: dict[SplitPlace, Records] = {}  # references are the training images where nobody says others
        self._format = _file_format(config.format)

    def prepare(self) -> Path:
        """Render what is rendered, unless it was before; the folder of the data set."""
        if self.config.format != SHAPES:
            return Path(self.config.root)
        root = rendering.prepare(self.config.shapes, self.config.root)
        if self.config.nameless.share:
            rendering.prepare_nameless(self.config.shapes, root)
        for files in (self.config.train, self.config.val, self.config.test):
            if files.images in RELATIONS:
                rendering.prepare_relations(self.config.shapes, root, files.images)
        return root

    def read(self, split: str) -> Records:
        """One of the splits of `data`, or `nameless`.

        Raises:
            InputError: a file or an index is missing or broken; or a run of `data.sets` names no reference images.
        """
        files: SplitConfig = getattr(self.config, split)
        if split == "reference" and not files.annotations:
            files = self._default_reference()
        if self.config.format == SHAPES and (files.annotations, files.images) == RENDERED_NAMELESS:
            rendered = nameless_split(self.config.shapes)
            files = SplitConfig(f"{rendered}.json", rendered)
        root, place = self.prepare(), (files.annotations, files.images)
        if place not in self._opened:
            self._opened[place] = open_records(root / files.annotations, root / files.images, self._format)
        return self._opened[place]

    def _default_reference(self) -> SplitConfig:
        if self.config.sets:
            raise InputError(
                "generic and mixed prompts are made of reference images, and a run of data.sets has no data.train to "
                "take them from: give data.reference.annotations=FILE data.reference.images=FOLDER, or choose other "
                "protocols, such as --protocol text"
            )
        return SplitConfig("reference.json", "reference") if self.config.format == SHAPES else self.config.train


def of_group(records: Records, group: str) -> Records:
    """The images with the categories of a group alone, and no others' boxes; "": all categories.

    Raises:
        InputError: no category is of the group.
    """
    if not group:
        return records
    chosen = [label for label, own in enumerate(records.groups) if own == group]
    if not chosen:
        groups = ", ".join(dict.fromkeys(filter(None, records.groups)))
        raise InputError(f"{records.annotations}: eval.group={group} is none of its groups: {groups or 'it has none'}")
    return relabelled(records, [records.names[label] for label in chosen])._replace(
        category_ids=tuple(records.category_ids[label] for label in chosen),
        groups=tuple(records.groups[label] for label in chosen),
    )


def _file_format(name: str) -> Format:
    """The format that `data.format` names."""
    direct = {form.name: form for form in every_format().values() if form.direct}
    direct[SHAPES] = direct["coco"]
    if name not in direct:
        raise InputError(
            f"data.format={name} is none of {', '.join(sorted(direct))}, which are read from files; of other formats "
            "trex2 prepare makes an index, which is read whatever data.format is"
        )
    return direct[name]


def limited(records: Records, limit: int) -> Records:
    """The first `limit` images that have boxes; 0: all images.

    Raises:
        InputError: there are none.
    """
    if not limit:
        return records
    with_boxes = list(islice((image for image in records.images if not image.crowd.all()), limit))
    if not with_boxes:
        raise InputError(
            f"{records.annotations}: no image has boxes, and data.limit={limit} wants some; set data.limit=0"
        )
    return records._replace(images=with_boxes)
