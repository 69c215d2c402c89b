"""What travels between data, models, losses and metrics, and what a person marks.

B images, C categories in the batch vocabulary, T prompt tokens (T = C for phrases and visual prompts),
M exemplar boxes per category, R of all categories, S image tokens over all L levels, D model width, A channels of
appearance, Q queries, N noised queries, K decoder layers.

Boxes are cxcywh in [0, 1] of the unpadded image. Every mask is True where something is real (`valid`), may be
seen (`attend`) or is known (`judged`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor  # takes seconds, and neither settings nor marks have one

ExemplarKind = Literal["box", "point"]  # a prompt has exemplars of one kind: training never mixes them (issue 85)

PromptSource = Literal["text", "interactive", "generic", "mixed", "tuned"]  # what a category's prompt was made from

LONGEST_PHRASE = 4000  # characters: more are more tokens than any tower reads, and tokenizers are slow on long words


# Characters: more are more tokens than any tower reads, and tokenizers are slow on long words.
LONGEST_PHRASE = 4000


@dataclass(frozen=True)
class Box:
    """An exemplar as a person marks it: a box around an object, in pixels of the upright image."""

    left: float
    top: float
    right: float
    bottom: float
    kind: ClassVar[ExemplarKind] = "box"
    form: ClassVar[str] = "x1,y1,x2,y2 with x1 < x2 and y1 < y2"
    has_area: ClassVar[bool] = True

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of what is marked."""
        return self.left, self.top, self.right, self.bottom

    def __str__(self) -> str:
        """As the command line has it."""
        return ",".join(f"{side:g}" for side in self.corners)


@dataclass(frozen=True)
class Point:
    """An exemplar as a person marks it: a point on an object, in pixels of the upright image."""

    x: float
    y: float
    kind: ClassVar[ExemplarKind] = "point"
    form: ClassVar[str] = "x,y"
    has_area: ClassVar[bool] = False

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Those of a box without area."""
        return self.x, self.y, self.x, self.y

    def __str__(self) -> str:
        """As the command line has it."""
        return f"{self.x:g},{self.y:g}"


class Detection(NamedTuple):
    """One object that was found, for a person."""

    name: str
    score: float  # in [0, 1]
    box: tuple[float, float, float, float]  # xyxy in pixels of the upright image


Exemplar = Box | Point  # `form` is how the command line has one


class PixelStatistics(NamedTuple):
    """What pixels in [0, 1] are normalised with, by channel: red, green, blue."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# Of ImageNet's training set; most backbones and all Grounding DINOs were trained with them.
IMAGENET_PIXELS = PixelStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Images(NamedTuple):
    """A padded batch of images."""

    pixels: Tensor  # (B, 3, H, W) normalised for the backbone, zero in the padding
    valid: Tensor  # (B, H, W) bool, False in the padding
    sizes: Tensor  # (B, 2) int, height and width of the original file in pixels


class Exemplars(NamedTuple):
    """What shows C categories in each of B images."""

    boxes: Tensor  # (B, C, M, 4); of a point only cx, cy are read
    valid: Tensor  # (B, C, M) bool
    kind: ExemplarKind = "box"


class Prompts(NamedTuple):
    """What to look for: category c is what its exemplars show, or without exemplars `phrases[c]`."""

    phrases: tuple[str, ...] = ()  # C phrases; none where categories have no names
    exemplars: Exemplars | None = None
    judged: Tensor | None = None  # (B, C) bool, False where the data set does not say; None: all judged


class Targets(NamedTuple):
    """The ground truth of one image, in terms of the batch vocabulary."""

    labels: Tensor  # (n,) int64, index into the batch vocabulary
    boxes: Tensor  # (n, 4)
    image_id: int


class Batch(NamedTuple):
    """What the collate function gives to the training or evaluation step."""

    images: Images
    prompts: Prompts
    targets: tuple[Targets, ...]  # B
    cross_image: bool = False  # the images are to be asked with one another's exemplars instead of their own
    negatives: tuple[str, ...] = ()  # of visual prompts: phrases that no image shows, for the alignment loss
    skipped: int = 0  # unreadable images that were replaced by another one of the data set
    background: Exemplars | None = None  # of one category (C = 1), which is in none of the images
    data_set: str = ""  # of several, the name of the one that the images are of


class AppearanceMaps(NamedTuple):
    """What a frozen network sees of B images (`models/appearance.py`)."""

    maps: tuple[Tensor, ...]  # (B, channels, height, width) each
    extent: Tensor  # (B, 2) share of width and height that is not padding


class FeatureMaps(NamedTuple):
    """Image features of all levels, flattened and concatenated from the finest level to the coarsest."""

    tokens: Tensor  # (B, S, D)
    pos: Tensor  # (B, S, D) sine position plus level embedding
    valid: Tensor  # (B, S) bool
    shapes: tuple[tuple[int, int], ...]  # L x (height, width)
    levels: Tensor  # (L, 3) int32, height, width and first token, for what runs on the device
    valid_ratios: Tensor  # (B, L, 2) share of width and height that is not padding
    neck: Tensor  # (B, S, D) the tokens as the neck made them, before any encoder
    appearance: AppearanceMaps | None = None


class ExemplarAppearance(NamedTuple):
    """R exemplars as a frozen network sees them; of batch size 1 where they hold for every image."""

    vectors: Tensor  # (B or 1, R, A) float32, A channels of all its maps
    valid: Tensor  # (B or 1, R) bool
    category: Tensor  # (R,) int64, what an exemplar shows
    white: Tensor | None = None  # (B or 1, R, A) the vectors as they are compared; None: to be computed


class PromptTokens(NamedTuple):
    """Encoded prompts; of batch size 1 where they hold for every image (text)."""

    embed: Tensor  # (B or 1, T, D)
    valid: Tensor  # (B or 1, T) bool
    category: Tensor  # (T,) int64, the category that a token belongs to, -1 for a separator
    attend: Tensor  # (T, T) bool, which token may see which
    position: Tensor  # (T,) int64, place of the token within its phrase
    appearance: ExemplarAppearance | None = None  # of the same categories, where they have exemplars


class CategoryVectors(NamedTuple):
    """The same categories by phrase and by exemplar, for the alignment loss: of each image, or means as of one."""

    text: Tensor  # (1, C, D)
    visual: Tensor  # (B or 1, C, D), of no meaning where not `shown`
    shown: Tensor  # (B or 1, C) bool, the image, or any image, gave exemplars of the category


class NoisedQueries(NamedTuple):
    """Ground truth with noise that the decoder must undo (contrastive denoising, DINO section 3.3)."""

    labels: Tensor  # (B, N) int64, category that the query claims to be
    boxes: Tensor  # (B, N, 4)
    target: NDArray[np.int64]  # (B, N), the target to recover, -1 for a negative, which must predict "nothing"
    valid: Tensor  # (B, N) bool
    attend: Tensor  # (N + Q, N + Q) bool, rows see columns


class Detections(NamedTuple):
    """Predictions of K layers at once."""

    logits: Tensor  # (K, B, Q, T)
    boxes: Tensor  # (K, B, Q, 4)


class DetectorOutput(NamedTuple):
    """What a detector returns; `proposals` are the encoder's (K = 1)."""

    queries: Detections
    proposals: Detections
    noised: Detections | None  # (K, B, N, ...)
    prompts: PromptTokens
    presence: Tensor | None = None  # (B, T) logit that the image has the token's category; None: no such head
