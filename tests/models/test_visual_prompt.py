"""The batched visual prompt encoder against the paper's recipe for one category, and what its vectors speak of."""

import itertools

import pytest
import torch

from trex2_lightning.config import VisualPromptConfig
from trex2_lightning.models.visual_prompt import VisualPromptEncoder
from trex2_lightning.ops.deformable import level_table
from trex2_lightning.ops.feature_maps import of_image
from trex2_lightning.ops.position import box_embedding
from trex2_lightning.structures import Exemplars, FeatureMaps

WIDTH = 16
SHAPES = ((8, 8), (4, 4))
WHOLE = torch.tensor([[0.5, 0.5, 1.0, 1.0]])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def encoder(**config):
    made = VisualPromptEncoder(VisualPromptConfig(**{"layers": 2, "ffn": 32} | config), WIDTH, 4, 2, 2, dropout=0.0)
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made.eval()


def random_features(batch=2):
    tokens = sum(h * w for h, w in SHAPES)
    valid = torch.ones(batch, tokens, dtype=torch.bool)
    valid[0, [7, 15, 67]] = False
    return FeatureMaps(
        tokens=torch.randn(batch, tokens, WIDTH),
        pos=torch.randn(batch, tokens, WIDTH),
        valid=valid,
        shapes=SHAPES,
        levels=level_table(SHAPES, valid.device),
        valid_ratios=torch.rand(batch, 2, 2) * 0.2 + 0.8,
        neck=torch.randn(batch, tokens, WIDTH),
    )


def random_exemplars(batch=2, categories=3, exemplars=4):
    """With a full category, a partly empty one and an empty one."""
    boxes = torch.rand(batch, categories, exemplars, 4) * 0.4 + 0.3
    valid = torch.rand(batch, categories, exemplars) > 0.5
    valid[:, 0], valid[:, -1] = True, False
    return Exemplars(boxes, valid)


def one_category(model, boxes, features, kind):
    """The vector of one category from its M boxes (M, 4) in one image, step by step and without any mask."""
    n = {"box": 4, "point": 2}[kind]
    boxes = torch.cat([boxes, WHOLE.to(boxes)])[:, :n]
    embedding = model.get_submodule(f"{kind}_embedding")
    content = torch.cat([*[model.content] * (len(boxes) - 1), model.class_token])
    position = embedding.position(box_embedding(boxes, WIDTH // 2))
    if embedding.merge is None:
        x, shift = content, position
    else:
        x, shift = embedding.merge(torch.cat([content, position], 1)), 0
    tokens = features.neck if model.source == "neck" else features.tokens
    on_map = torch.stack([boxes * ratio.repeat(2)[:n] for ratio in features.valid_ratios[0]], 1)[None]  # (1, N, L, n)

    def cross(x, block):
        read = block.cross_attention((x + shift)[None], on_map, features._replace(tokens=tokens))
        return block.cross_norm(x + read[0])

    def among(x, block):
        query = (x + shift)[None]
        return block.self_norm(x + block.self_attention(query, query, x[None])[0])

    for block in model.blocks:
        first, second = (cross, among) if block.cross_first else (among, cross)
        x = block.feed_forward(second(first(x, block), block))
    return x[-1]


@pytest.mark.parametrize("kind", ["box", "point"])
@pytest.mark.parametrize(
    ("combine", "order", "source"),
    itertools.product(("add", "concat"), ("cross_first", "self_first"), ("encoder", "neck")),
)
def test_the_batch_equals_a_loop_over_images_and_categories(combine, order, source, kind):
    model = encoder(combine=combine, order=order, source=source).double()
    features = FeatureMaps(
        *(x.double() if torch.is_tensor(x) and x.is_floating_point() else x for x in random_features())
    )
    boxes, valid, _ = random_exemplars()
    boxes = boxes.double()
    got = model(Exemplars(boxes, valid, kind), features)
    for image, category in itertools.product(range(2), range(3)):
        alone = of_image(features, image)
        expected = one_category(model, boxes[image, category][valid[image, category]], alone, kind)
        torch.testing.assert_close(got[image, category], expected)


def test_invalid_exemplars_and_the_order_of_the_others_do_not_matter():
    model, features = encoder(), random_features()
    boxes, valid, _ = random_exemplars()
    expected = model(Exemplars(boxes, valid), features)
    rubbish = boxes.masked_fill(~valid[..., None], 50.0)
    torch.testing.assert_close(model(Exemplars(rubbish, valid), features), expected)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(model(Exemplars(boxes[:, :, order], valid[:, :, order]), features), expected)
    assert not torch.allclose(model(Exemplars(boxes, valid.logical_not()), features), expected, atol=1e-3)


@pytest.mark.parametrize("exemplars", [0, 3])
def test_without_exemplars_the_vector_and_its_gradients_are_finite(exemplars):
    model = encoder()
    boxes = torch.zeros(2, 3, exemplars, 4)
    valid = torch.zeros(2, 3, exemplars, dtype=torch.bool)
    vectors = model(Exemplars(boxes, valid), random_features())
    vectors.square().sum().backward()
    assert vectors.shape == (2, 3, WIDTH)
    assert vectors.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_point_has_no_size_and_its_own_linear_layer():
    model, features = encoder(), random_features()
    boxes, valid, _ = random_exemplars()
    points = model(Exemplars(boxes, valid, "point"), features)
    resized = torch.cat([boxes[..., :2], 2 * boxes[..., 2:]], -1)
    torch.testing.assert_close(model(Exemplars(resized, valid, "point"), features), points)
    assert not torch.allclose(model(Exemplars(resized, valid), features)[:, 0], points[:, 0], atol=1e-3)
    points.sum().backward()
    assert all(p.grad is None for p in model.box_embedding.parameters())
    assert all(p.grad is not None for p in model.point_embedding.parameters())


@pytest.mark.parametrize("kind", ["box", "point"])
def test_the_vector_says_what_lies_under_the_exemplar(kind):
    """Without position embedding, so that moving it is seen in the picture alone."""
    model, features = encoder(), random_features()._replace(valid_ratios=torch.ones(2, 2, 2))
    features = features._replace(valid=torch.ones_like(features.valid))
    embedding = model.get_submodule(f"{kind}_embedding")
    for parameter in embedding.position.parameters():
        torch.nn.init.zeros_(parameter)
    for block in model.blocks:  # sampling stays under the exemplar
        torch.nn.init.zeros_(block.cross_attention.offsets.weight)
        block.cross_attention.offsets.bias.data.clamp_(-0.1, 0.1)

    object_, ground = torch.randn(2, 1, 1, 1, WIDTH)
    levels = []
    for h, w in SHAPES:  # the object fills the left half of the picture
        left = (torch.arange(w) < w // 2)[None, None, :, None]
        levels.append(torch.where(left, object_, ground).expand(2, h, w, WIDTH).flatten(1, 2))
    features = features._replace(tokens=torch.cat(levels, 1))

    def vector(x, y):
        box = torch.tensor([x, y, 0.1, 0.1]).expand(2, 1, 1, 4)
        return model(Exemplars(box, torch.ones(2, 1, 1, dtype=torch.bool), kind), features)

    torch.testing.assert_close(vector(0.2, 0.4), vector(0.25, 0.6))
    assert not torch.allclose(vector(0.2, 0.4), vector(0.8, 0.4), atol=1e-2)


@pytest.mark.parametrize("source", ["encoder", "neck"])
def test_exemplars_are_read_from_the_configured_features(source):
    model, features = encoder(source=source), random_features()
    boxes, valid, _ = random_exemplars()
    before = model(Exemplars(boxes, valid), features)
    other_tokens = model(Exemplars(boxes, valid), features._replace(tokens=features.tokens + 1))
    other_neck = model(Exemplars(boxes, valid), features._replace(neck=features.neck + 1))
    assert torch.equal(other_tokens, before) == (source == "neck")
    assert torch.equal(other_neck, before) == (source == "encoder")


def test_a_fresh_vector_has_the_length_of_a_normalised_one():
    """So that a dot product with it is of the order of one with a phrase's vector."""
    model = VisualPromptEncoder(VisualPromptConfig(), WIDTH, 4, 2, 2, dropout=0.0)
    vectors = model(random_exemplars(), random_features())
    torch.testing.assert_close(vectors.norm(dim=-1), torch.full((2, 3), WIDTH**0.5), rtol=1e-3, atol=0)
