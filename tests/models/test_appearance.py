"""What a frozen network sees of boxes, and how they are compared: places, means, and what is learned of kinds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detector_parts import padded, random_images
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import roi_align

from trex2_lightning.config import AppearanceConfig, BackboneConfig, ConfigError
from trex2_lightning.models import appearance as appearance_module
from trex2_lightning.models.appearance import Appearance
from trex2_lightning.ops.boxes import cxcywh_to_xyxy
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


@pytest.mark.parametrize("shape", [(13, 21), (1, 4)])
def test_a_vector_is_the_mean_of_roi_align_s_cells(appearance: Appearance, shape: tuple[int, int]) -> None:
    """Also of boxes that reach out of the image, have no area or are smaller than a cell; in padded images too."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 5, *shape, generator=generator), torch.randn(2, 3, 6, 9, generator=generator)
    extent = torch.tensor([[1.0, 1.0], [0.7, 0.9]])
    boxes = torch.rand(2, 40, 4, generator=generator)
    boxes[:, ::4, 2:] *= 0.02
    boxes[:, 1, 2:] = 0
    found = appearance.vectors(AppearanceMaps(maps, extent), boxes)
    for image in range(2):
        corners = cxcywh_to_xyxy(boxes[image]).clamp(0, 1) * extent[image].repeat(2)
        parts = []
        for features in maps:
            height, width = features.shape[-2:]
            rois = [corners * torch.tensor([width, height, width, height])]
            cells = roi_align(features[image, None], rois, 4, sampling_ratio=2, aligned=True)
            parts.append(F.normalize(cells.mean((2, 3)), dim=-1))
        torch.testing.assert_close(found[image], torch.cat(parts, -1) / 2**0.5, rtol=1e-4, atol=1e-5)


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


def test_a_swin_sees_images_of_any_size() -> None:
    """As the backbone of most detectors, published ones too."""
    options = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    backbone = BackboneConfig("swin_tiny_patch4_window7_224", options=options)
    swin = Appearance(AppearanceConfig("backbone"), backbone).eval()
    maps = swin(random_images(size=90))
    assert [tuple(x.shape) for x in maps.maps] == [(2, 64, 6, 6), (2, 128, 3, 3)]
    assert swin.vectors(maps, torch.full((2, 3, 4), 0.5)).shape == (2, 3, 192)


@pytest.mark.parametrize(("scale", "size"), [(1.0, 96), (2.0, 192), (0.5, 64), (0.1, 32)])
def test_the_network_sees_the_image_at_its_scale(scale: float, size: int) -> None:
    """In whole cells, as a share of a cell at the border would move what is seen."""
    scaled = Appearance(AppearanceConfig("backbone", scale=scale), BACKBONE)
    assert (f"scale {scale}" in scaled.made_by) == (scale != 1)
    seen: list[Tensor] = []
    scaled.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = padded(random_images(size=80), extra=16)
    maps = scaled(images)
    assert seen[0].shape == (2, 3, size, size)
    assert torch.equal(maps.extent, torch.full((2, 2), 80 / 96))
    assert scale != 1 or torch.equal(seen[0], images.pixels)


def test_a_larger_scale_sees_the_same_places() -> None:
    """A smooth picture has the same mean in a box, of whatever resolution its maps are."""

    class Pixels(torch.nn.Module):
        def forward(self, pixels: Tensor) -> list[Tensor]:
            return [pixels]

    found = []
    for scale in (1.0, 2.0):
        scaled = Appearance(AppearanceConfig("backbone", scale=scale), BACKBONE)
        scaled.model = Pixels()
        images = random_images(size=64)
        ramp = torch.linspace(1, 3, 64)
        smooth = torch.stack([ramp[:, None].expand(64, 64), ramp.expand(64, 64), torch.full((64, 64), 2.0)])
        maps = scaled(images._replace(pixels=smooth.expand(2, -1, -1, -1)))
        found.append(scaled.vectors(maps, torch.tensor([[[0.3, 0.6, 0.2, 0.4]]] * 2)))
    torch.testing.assert_close(*found, rtol=0, atol=2e-3)
    height = 1 + 2 * 0.6
    width = 1 + 2 * 0.3
    expected = F.normalize(torch.tensor([height, width, 2.0]), dim=0)
    torch.testing.assert_close(found[1][0, 0], expected, rtol=0, atol=2e-3)


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


def compared_one_by_one(appearance: Appearance, boxes: Tensor, shown: ExemplarAppearance, categories: int) -> Tensor:
    """The formula, written naively."""
    found = torch.full((*boxes.shape[:2], categories), -torch.inf)
    temperature = float(appearance.temperature)
    for image, category in [(i, c) for i in range(len(boxes)) for c in range(categories)]:
        own = image if len(shown.vectors) > 1 else 0
        exemplars = shown.vectors[own][shown.valid[own] & (shown.category == category)]
        for number, box in enumerate(boxes[image]):
            pairs = [
                F.normalize((v - appearance.mean) @ appearance.transform, dim=-1).double() for v in (box, *exemplars)
            ]
            cosines = torch.stack(pairs[1:]) @ pairs[0] if len(exemplars) else torch.zeros(0)
            if len(exemplars):
                found[image, number, category] = temperature * (cosines / temperature).exp().mean().log()
    return found


@pytest.mark.parametrize("most", [1, 50, 2**22])
@pytest.mark.parametrize("size", [1, 2])
def test_similarity_is_the_naive_formula_s_in_parts_of_any_size(
    appearance: Appearance, monkeypatch: pytest.MonkeyPatch, size: int, most: int
) -> None:
    monkeypatch.setattr(appearance_module, "MOST_COSINES", most)
    generator = torch.Generator().manual_seed(0)
    appearance.mean = torch.randn(6, generator=generator) * 0.1
    appearance.transform = torch.eye(6) + 0.3 * torch.randn(6, 6, generator=generator)
    boxes = F.normalize(torch.randn(2, 4, 6, generator=generator), dim=-1)
    vectors = F.normalize(torch.randn(size, 17, 6, generator=generator), dim=-1)
    category = torch.randint(0, 5, (17,), generator=generator).where(torch.arange(17) > 0, 6)  # none has 5
    shown = ExemplarAppearance(vectors, torch.rand(size, 17, generator=generator) > 0.3, category)
    expected = compared_one_by_one(appearance, boxes, shown, 8)
    for exemplars in (shown, appearance.whitened(shown)):
        torch.testing.assert_close(appearance.similarity(boxes, exemplars, 8), expected, rtol=1e-5, atol=1e-6)
    assert (expected == -torch.inf).any()
    assert (expected > -torch.inf).any()


def test_opposite_boxes_are_told_from_what_is_not_asked_for(plane: Appearance) -> None:
    """e to the power of -2 / temperature is a number."""
    plane.temperature.fill_(0.03)
    found = plane.similarity(torch.tensor([[[1.0, 0.0]]]), exemplars_of([[-1.0, 0.0]], [0]), 1)
    torch.testing.assert_close(found, torch.tensor([[[-1.0]]]))


def test_cosines_of_all_boxes_and_exemplars_never_lie_in_memory_at_once(
    plane: Appearance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appearance_module, "MOST_COSINES", 200)
    largest = Largest()
    category = torch.arange(3).repeat_interleave(10)
    shown = ExemplarAppearance(torch.randn(1, 30, 2), torch.ones(1, 30, dtype=torch.bool), category)
    with largest:
        plane.similarity(torch.randn(4, 10, 2), shown, 3)
    assert largest.numel <= 200 < 4 * 10 * 30


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that is computed."""

    numel = 0

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


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


def test_a_scale_is_above_zero() -> None:
    with pytest.raises(ConfigError, match=r"model\.appearance\.scale"):
        AppearanceConfig("backbone", scale=0.0)


def test_exemplars_are_compared_with_all_digits_under_autocast(plane: Appearance) -> None:
    boxes, shown = torch.randn(1, 50, 2), exemplars_of([[0.6, 0.8], [0.8, -0.6]], [0, 1])
    with torch.autocast("cpu", torch.bfloat16):
        found = plane.similarity(boxes, shown, 2)
    assert torch.equal(found, plane.similarity(boxes, shown, 2))
