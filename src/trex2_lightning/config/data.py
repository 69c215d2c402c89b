"""Settings of the data: where images come from, how they are augmented and what a batch asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from trex2_lightning.config.checks import ConfigError, check_not_negative, check_positive, check_share


@dataclass
class SplitConfig:
    """One split of a data set; both paths are relative to `data.root`."""

    annotations: str = ""  # a file of `data.format`, or an index (trex2 prepare), which knows its images
    images: str = ""  # the folder that its `file_name`s are relative to


@dataclass
class ShapesConfig:
    """The embedded synthetic data set, used where `data.format` is `shapes`."""

    preset: Literal["easy", "hard"] = "easy"  # hard: 192 px, textures, occlusion, more shapes
    num_train: int = 6000  # training images; the other splits have the preset's size
    seed: int = 0  # another seed is another data set with the same categories
    version: Literal[1, 2] = 1  # 2: 18 rare and 18 novel shapes in one colour each; 1: 6 and 6 (hard: 8) in three
    # Of the nameless images: so many kinds of outlines, the same ones over and over; 0: stars of one image each.
    nameless_kinds: int = 0


@dataclass
class NamelessConfig(SplitConfig):
    """Images whose categories have no names and belong to one image each, like SA-1B's; visual prompts alone."""

    annotations: str = "nameless.json"
    images: str = "nameless"
    share: float = 0.0  # of the visual iterations, which take their images from here; shapes renders them if not 0

    def __post_init__(self) -> None:
        check_share("data.nameless", self, "share")


@dataclass
class SetConfig(SplitConfig):
    """One of several data sets that a run trains on; an optimizer step takes its images from one of them.

    `annotations` is a file of its `format`, or an index that trex2 prepare wrote, which knows its images.
    """

    kind: Literal["detection", "grounding", "nameless"] = "detection"  # whose names hold for all images, for one, none
    text: float = 0.0  # weight: its share of the text steps is that over the sum of all sets'; 0: none
    visual: float = 0.0  # weight among the sets of visual steps
    format: str = "coco"  # of a file, or of what an index is made of: then it is named where the set is missing


@dataclass
class AugmentConfig:
    """Training augmentations."""

    horizontal_flip: float = 0.5  # probability
    vertical_flip: float = 0.0  # probability
    color_jitter: float = 0.0  # brightness, contrast, saturation by up to this share
    crop: float = 0.0  # probability of a random crop that keeps at least one box


@dataclass
class NegativesConfig:
    """Phrases that are asked for although no image of the batch has them."""

    count: int = 80  # per batch; fewer where the source has fewer
    source: Literal["dataset", "dictionary", "both"] = "dataset"
    dictionary: str = ""  # text file with one phrase a line
    more_than: int = 100  # phrases of `data.sets` that more images have are the negatives of grounding data
    # A detection set with fewer names that have boxes is asked for foreign ones too, shipped names of things that
    # nobody says are in its pictures: up to so many phrases in a text batch; 0: none.
    foreign: int = 16
    hard: float = 0.0  # share of them that are nearest to the batch's own, by the text encoder as the run starts

    def __post_init__(self) -> None:
        check_not_negative("data.negatives", self, "count", "more_than", "foreign")
        check_share("data.negatives", self, "hard")


@dataclass
class ExemplarsConfig:
    """Ground-truth boxes that visual iterations show as prompts."""

    limit: int = 16  # most of them per category and image
    points: float = 0.5  # share of the visual iterations that show the boxes' centres instead
    # Share of the visual iterations with names whose images have a category in common and are asked with one
    # another's exemplars instead of their own.
    cross_image: float = 0.0
    jitter: float = 0.0  # each side of a box moves by up to this share of the box's side, at most 20 pixels
    background: int = 0  # boxes of each image that show nothing marked: one more category, which is nowhere

    def __post_init__(self) -> None:
        check_positive("data.exemplars", self, "limit")
        check_not_negative("data.exemplars", self, "background")
        check_share("data.exemplars", self, "points", "cross_image", "jitter")


@dataclass
class DataConfig:
    """Where images come from and how a batch is made of them."""

    format: str = "coco"  # of annotation files, one of docs/data.md; or `shapes`; an index is read whatever it says
    root: str = ""  # the data set's folder; shapes: where to render it, default the user's cache
    train: SplitConfig = field(default_factory=lambda: SplitConfig("train.json", "train"))
    val: SplitConfig = field(default_factory=lambda: SplitConfig("val.json", "val"))
    test: SplitConfig = field(default_factory=lambda: SplitConfig("test.json", "test"))
    reference: SplitConfig = field(default_factory=SplitConfig)  # of generic prompts; "": `train`, `shapes`: its own
    nameless: NamelessConfig = field(default_factory=NamelessConfig)
    sets: dict[str, SetConfig] = field(
        default_factory=dict
    )  # to train on in place of `train`, by a name of your choice
    shapes: ShapesConfig = field(default_factory=ShapesConfig)
    # Only the first images of the training split that have boxes, and of `val` where it is the same; 0: all.
    limit: int = 0
    size: int = 800  # shorter side in evaluation, pixels
    max_size: int = 1333  # longer side never exceeds this, pixels
    train_sizes: list[int] = field(default_factory=list)  # shorter sides to draw from; empty: `size`
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    negatives: NegativesConfig = field(default_factory=NegativesConfig)
    exemplars: ExemplarsConfig = field(default_factory=ExemplarsConfig)
    batch_size: int = 8  # images per device and forward pass
    num_workers: int = 2  # decoding processes per device
    unreadable: float = 0.05  # share of a set's training images looked at so far; where more are, the run ends

    def __post_init__(self) -> None:
        check_positive("data", self, "size", "batch_size")
        check_not_negative("data", self, "limit", "num_workers")
        check_share("data", self, "unreadable")
        if self.max_size < self.size:
            raise ConfigError(f"data.max_size={self.max_size} is smaller than data.size={self.size}")
        if self.negatives.source != "dataset" and not self.negatives.dictionary:
            raise ConfigError(
                f"data.negatives.source={self.negatives.source} needs data.negatives.dictionary=FILE, "
                "a text file with one phrase a line"
            )
        if self.exemplars.cross_image and self.batch_size < 2:
            raise ConfigError(
                f"data.exemplars.cross_image={self.exemplars.cross_image} needs a data.batch_size of at least 2"
            )
        for name, files in self.sets.items():
            _check_set(f"data.sets.{name}", files)
        if self.sets and self.format == "shapes":
            raise ConfigError("data.sets are read from files: data.format=shapes has none, leave it out")
        if self.sets and self.limit:
            raise ConfigError(f"data.limit={self.limit} is of data.train alone: leave it out where data.sets has sets")


def _check_set(key: str, files: SetConfig) -> None:
    if not files.annotations:
        raise ConfigError(f"{key}.annotations is missing: name an index or a file of its format, relative to data.root")
    check_not_negative(key, files, "text", "visual")
    if files.kind == "grounding" and files.visual:
        raise ConfigError(f"{key}.visual={files.visual}: a set of kind=grounding is for text alone")
    if files.kind == "nameless" and files.text:
        raise ConfigError(f"{key}.text={files.text}: a set of kind=nameless has no text")
