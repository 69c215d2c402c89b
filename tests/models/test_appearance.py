"""What a frozen network sees of boxes, and how they are compared: places, means, and what is learned of kinds."""

from __future__ import annotations

import pytest
import torch
from detector_parts import padded, random_images

from trex2_lightning.config import AppearanceConfig, BackboneConfig, ConfigError
from trex2_lightning.errors import InputError
from trex2_lightning.models.appearance import Appearance
from trex2_lightning.structures import AppearanceMaps, ExemplarAppearance, Exemplars

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
BACKBONE = BackboneConfig("test_resnet", out_indices=[2, 3, 4], mean=MEAN, std=STD)


@pytest.fixture
def appearance() -> Appearance:
    torch.manual_seed(0)
    return Appearance(AppearanceConfig("backbone"), BACKBONE)


def halves(padding: int = 0) -> AppearanceMaps:
    """Two maps of 8 x 8 cells, whose left half is one direction and whose right half is another."""
    maps = torch.zeros(1, 2, 8, 8 + padding)
    maps[:, 0, :, :4], maps[:, 1, :, 4:8] = 1, 1
    return AppearanceMaps((maps, 3 * maps), torch.tensor([[8 / (8 + padding), 1.0]]))


@pytest.mark.parametrize("padding", [0, 8])
def test_a_vector_is_of_its_box_of_the_unpadded_image(appearance: Appearance, padding: int) -> None:
    boxes = torch.tensor([[[0.2, 0.5, 0.2, 0.6], [0.8, 0.5, 0.2, 0.6], [0.5, 0.5, 1.0, 1.0]]])
    found = appearance.vectors(halves(padding), boxes)
    root = 0.5**0.5  # of two maps, each of unit length
    expected = torch.tensor([[root, 0, root, 0], [0, root, 0, root], [0.5, 0.5, 0.5, 0.5]])
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-3)


def test_padding_changes_little_and_the_mode_of_the_detector_nothing(appearance: Appearance) -> None:
    images = random_images()
    boxes = torch.tensor([[[0.4, 0.4, 0.3, 0.3]]] * 2)
    before = appearance.vectors(appearance(images), boxes)
    torch.testing.assert_close(appearance.vectors(appearance(padded(images)), boxes), before, rtol=0, atol=0.02)
    appearance.train()
    assert torch.equal(appearance.vectors(appearance(images), boxes), before)
    assert not any(parameter.requires_grad for parameter in appearance.parameters())


def test_the_network_sees_pixels_as_its_own_weights_know_them() -> None:
    other = Appearance(AppearanceConfig("tf_efficientnet_lite0", weights=""), BACKBONE)
    seen: list[torch.Tensor] = []
    other.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = padded(random_images())
    other(images)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    expected = ((images.pixels * std + mean - 0.5) / 0.5).masked_fill(~images.valid[:, None], 0)
    torch.testing.assert_close(seen[0], expected)


def test_any_timm_model_with_maps_will_do() -> None:
    options = {"dynamic_img_size": True, "dynamic_img_pad": True, "img_size": 64}
    vit = Appearance(AppearanceConfig("vit_tiny_patch16_224", weights="", options=options), BACKBONE)
    maps = vit(padded(random_images(size=40), extra=10))
    assert vit.vectors(maps, torch.full((2, 3, 4), 0.5)).shape == (2, 3, vit.channels)
    assert vit.channels == 2 * 192


@pytest.mark.parametrize(
    "config",
    [
        AppearanceConfig("nonsense"),
        AppearanceConfig("resnet18.nonsense"),
        AppearanceConfig("resnet18.nonsense", weights=""),
    ],
)
def test_a_network_that_timm_lacks_is_told_by_the_setting_that_names_it(config: AppearanceConfig) -> None:
    with pytest.raises(InputError, match=rf"^model\.appearance\.name={config.name}: timm has no such"):
        Appearance(config, BACKBONE)


def test_exemplars_are_their_boxes_and_points_their_surroundings(appearance: Appearance) -> None:
    maps, boxes = halves(), torch.tensor([[[[0.2, 0.5, 0.2, 0.6]], [[0.8, 0.5, 0.9, 0.9]]]])
    valid = torch.tensor([[[True], [False]]])
    for kind in ("box", "point"):
        shown = appearance.exemplars(Exemplars(boxes, valid, kind), maps)  # type: ignore[arg-type]
        assert torch.equal(shown.valid, torch.tensor([[True, False]]))
        assert torch.equal(shown.category, torch.tensor([0, 1]))
        torch.testing.assert_close(shown.vectors[0, 0], appearance.vectors(maps, boxes[0, :1])[0, 0])
    torch.testing.assert_close(shown.vectors[0, 1, 1], torch.tensor(0.5**0.5))  # the point lies in the right half


def exemplars_of(
    vectors: list[list[float]], category: list[int], valid: list[bool] | None = None
) -> ExemplarAppearance:
    flags = torch.tensor([valid or [True] * len(category)])
    return ExemplarAppearance(torch.tensor([vectors]), flags, torch.tensor(category))


@pytest.fixture
def plane(appearance: Appearance) -> Appearance:
    """One that compares vectors of two numbers."""
    appearance.mean, appearance.transform = torch.zeros(2), torch.eye(2)
    return appearance


def test_similarity_is_a_soft_maximum_that_counts_no_exemplars(plane: Appearance) -> None:
    boxes = torch.tensor([[[1.0, 0.0]]])
    one = plane.similarity(boxes, exemplars_of([[0.6, 0.8]], [0]), 3)
    torch.testing.assert_close(one, torch.tensor([[[0.6, -torch.inf, -torch.inf]]]))
    twice = plane.similarity(boxes, exemplars_of([[3.0, 4.0], [0.6, 0.8], [0.0, 1.0]], [0, 0, 1]), 3)
    torch.testing.assert_close(twice, torch.tensor([[[0.6, 0.0, -torch.inf]]]), rtol=0, atol=1e-6)
    near = plane.similarity(boxes, exemplars_of([[1.0, 0.0], [0.0, 1.0]], [2, 2]), 3)[0, 0, 2]
    assert 0.95 < near < 1
    hidden = plane.similarity(boxes, exemplars_of([[1.0, 0.0], [0.6, 0.8]], [0, 0], [False, True]), 1)
    torch.testing.assert_close(hidden, torch.tensor([[[0.6]]]))


def test_exemplars_of_each_image_are_its_own(plane: Appearance) -> None:
    boxes = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    shown = ExemplarAppearance(
        torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), torch.tensor([[True], [True]]), torch.tensor([0])
    )
    torch.testing.assert_close(plane.similarity(boxes, shown, 1)[:, 0, 0], torch.tensor([1.0, 0.0]))


def test_what_differs_within_kinds_is_learned_to_be_of_no_matter(plane: Appearance) -> None:
    """The first number is of the kind, the second is noise of ten times its size."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.arange(40).repeat(25)
    noise = torch.randn(1000, 2, generator=generator) * torch.tensor([0.1, 10.0])
    vectors = torch.stack([torch.linspace(-1, 1, 40)[kinds], torch.zeros(1000)], -1) + noise
    boxes, shown = torch.tensor([[[0.9, 8.0]]]), exemplars_of([[0.9, -8.0], [-0.9, 8.0]], [0, 1])
    before = plane.similarity(boxes, shown, 2)[0, 0]
    assert before[1] > before[0]
    plane.fit(vectors, kinds, shrinkage=0.0)
    after = plane.similarity(boxes, shown, 2)[0, 0]
    assert after[0] > after[1]
    within = (vectors - vectors.view(25, 40, 2).mean(0)[kinds]) @ plane.transform
    torch.testing.assert_close(within.T @ within / 1000, torch.eye(2), rtol=1e-3, atol=1e-3)


def test_an_input_needs_a_network() -> None:
    with pytest.raises(ConfigError, match=r"model\.appearance\.input=true needs a network"):
        AppearanceConfig(input=True)


def test_exemplars_are_compared_with_all_digits_under_autocast(plane: Appearance) -> None:
    boxes, shown = torch.randn(1, 50, 2), exemplars_of([[0.6, 0.8], [0.8, -0.6]], [0, 1])
    with torch.autocast("cpu", torch.bfloat16):
        found = plane.similarity(boxes, shown, 2)
    assert torch.equal(found, plane.similarity(boxes, shown, 2))
