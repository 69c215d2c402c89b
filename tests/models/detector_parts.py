"""What a small random detector is shown: images, and prompts of every kind."""

import torch

from trex2_lightning.ops.scores import category_scores
from trex2_lightning.structures import Exemplars, Images, Prompts

PHRASES = ("red star", "blue ring", "green moon", "a cross")
QUERIES = 20
KINDS = ["text", "box", "point"]


def random_images(batch=2, size=64):
    generator = torch.Generator().manual_seed(1)
    return Images(
        torch.randn(batch, 3, size, size, generator=generator),
        torch.ones(batch, size, size, dtype=torch.bool),
        torch.full((batch, 2), size),
    )


def prompts_of(kind, order=(0, 1, 2, 3), images=slice(None)):
    """The four categories in some order; two images show the first two, only the second image the other two."""
    if kind == "text":
        return Prompts(tuple(PHRASES[i] for i in order))
    generator = torch.Generator().manual_seed(2)
    boxes = 0.2 + 0.4 * torch.rand(2, 4, 3, 4, generator=generator)
    valid = torch.rand(2, 4, 3, generator=generator) > 0.5
    valid[:, :, 0] = torch.tensor([[True, True, False, False], [True] * 4])
    valid[0, 2:] = False
    order = list(order)
    return Prompts(exemplars=Exemplars(boxes[images, order], valid[images, order], kind))


def find(detector, images, prompts, noised=None):
    features = detector.encode_image(images)
    return detector.decode(features, detector.encode_prompts(prompts, features), noised)


def padded(images, extra=32):
    """The same images with a border of `extra` pixels right and below."""
    return Images(
        torch.nn.functional.pad(images.pixels, (0, extra, 0, extra)),
        torch.nn.functional.pad(images.valid, (0, extra, 0, extra)),
        images.sizes,
    )


def assert_same_boxes(one, other):
    torch.testing.assert_close(one.queries.boxes, other.queries.boxes, rtol=1e-4, atol=1e-5)


def scores(output):
    """Of the categories, whatever their tokens: (B, Q, C)."""
    return category_scores(output.queries.logits[-1], output.prompts.category, output.prompts.valid)
