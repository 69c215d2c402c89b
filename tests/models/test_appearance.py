"""What a frozen network sees of images and of boxes: pixels, scale, places and means."""

from __future__ import annotations

import pytest
import torch
from detector_parts import padded, random_images
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from trex2_lightning.config import AppearanceConfig, BackboneConfig, ConfigError
from trex2_lightning.errors import InputError
from trex2_lightning.models.appearance import Appearance, AppearanceTerm
from trex2_lightning.ops.boxes import cxcywh_to_xyxy
from trex2_lightning.structures import AppearanceMaps, Exemplars

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


@pytest.mark.parametrize(
    ("name", "size", "seen"),
    [("vit_tiny_patch16_224", 100, 128), ("vit_small_patch14_dinov2", 100, 126), ("vit_small_patch16_dinov3", 64, 64)],
)
def test_any_timm_model_with_maps_will_do(name: str, size: int, seen: int) -> None:
    """By its name alone; and each cell of its maps is of the image, whatever its patches are."""
    options = {"depth": 2, "embed_dim": 24, "num_heads": 2}
    vit = Appearance(AppearanceConfig(name, weights="", options=options), BACKBONE)
    images = padded(random_images(size=size), extra=-size % 32)
    given: list[Tensor] = []
    inner = next(module for module in vit.model.modules() if hasattr(module, "patch_embed"))
    inner.patch_embed.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    maps = vit(images)
    assert given[0].shape[-2:] == (seen, seen)
    patch = 14 if "14" in name else 16
    assert [x.shape[-2:] for x in maps.maps] == [(seen // patch, seen // patch)] * 2
    assert torch.equal(maps.extent, torch.full((2, 2), size / images.pixels.shape[-1]))
    assert vit.vectors(maps, torch.full((2, 3, 4), 0.5)).shape == (2, 3, 2 * 24)


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


@pytest.mark.parametrize("key", ["input", "learned_weight"])
def test_what_learns_by_a_network_needs_one(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.appearance\.{key}=true needs a network"):
        AppearanceConfig(**{key: True})


def test_a_scale_is_above_zero() -> None:
    with pytest.raises(ConfigError, match=r"model\.appearance\.scale"):
        AppearanceConfig("backbone", scale=0.0)


def test_a_learned_weight_begins_at_nothing_and_counts_where_there_are_exemplars() -> None:
    term = AppearanceTerm()
    similarity = torch.tensor([[[0.5, -torch.inf, 0.1]]])  # (B, N, C): the second category has none
    category, temperature = torch.tensor([0, 0, 1, -1, 2]), torch.tensor(0.05)
    assert term(similarity, temperature, category).tolist() == [[[0] * 5]]
    with torch.no_grad():
        term.weight.fill_(0.3)
        term.bias.fill_(-1)
    found = term(similarity, temperature, category)
    torch.testing.assert_close(found, torch.tensor([[[2.0, 2.0, 0.0, 0.0, -0.4]]]))
    found.sum().backward()
    torch.testing.assert_close(term.weight.grad, torch.tensor(22.0))
    torch.testing.assert_close(term.bias.grad, torch.tensor(3.0))
