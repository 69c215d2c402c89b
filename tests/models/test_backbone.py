import pytest
import timm
import torch

from trex2_lightning.config import BackboneConfig
from trex2_lightning.errors import InputError
from trex2_lightning.models.backbone import Backbone, Neck

TINY_SWIN = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]}


@pytest.mark.parametrize("size", [(37, 53), (64, 96), (101, 224)])
def test_swin_takes_images_of_any_size(size):
    backbone = Backbone(BackboneConfig("swin_tiny_patch4_window7_224", options=TINY_SWIN))
    maps = backbone(torch.randn(1, 3, *size))
    assert [x.shape[1] for x in maps] == backbone.channels == [32, 64, 128]
    # every stage halves the map of 4-pixel patches, rounding up
    patches = [-(-side // 4) for side in size]
    for level, x in enumerate(maps, start=1):
        assert x.shape[2:] == tuple(-(-side // 2**level) for side in patches)


def test_swin_is_timm_s_but_for_the_windows_of_maps_that_have_parts_of_them():
    """The same names and the same draw of weights; features differ where padding and rolling change places."""
    name = "swin_tiny_patch4_window7_224"
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name, options=TINY_SWIN)).eval()
    torch.manual_seed(0)
    options = {"features_only": True, "out_indices": (1, 2, 3), "strict_img_size": False, "always_partition": True}
    reference = timm.create_model(name, pretrained=False, **options, **TINY_SWIN).eval()
    reference.patch_embed.dynamic_img_pad = True
    own, expected = backbone.model.state_dict(), reference.state_dict()
    assert list(own) == list(expected)
    assert all(torch.equal(own[key], expected[key]) for key in expected)
    for size, equal in (((224, 448), True), ((224, 230), False)):
        pixels = torch.randn(1, 3, *size)
        maps = zip(backbone.model(pixels), reference(pixels), strict=True)
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in maps) is equal


def test_a_convolutional_backbone():
    backbone = Backbone(BackboneConfig("test_resnet", out_indices=[2, 3, 4]))
    maps = backbone(torch.randn(2, 3, 64, 96))
    assert [tuple(x.shape[2:]) for x in maps] == [(8, 12), (4, 6), (2, 3)]


def test_frozen_parts_stay_as_they_are():
    backbone = Backbone(BackboneConfig("test_resnet", frozen=["conv1", "bn1", "layer1"], frozen_batchnorm=True))
    before = {name: x.clone() for name, x in backbone.state_dict().items()}
    sum(x.square().mean() for x in backbone(torch.randn(2, 3, 64, 64))).backward()
    torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1).step()
    changed = {name for name, x in backbone.state_dict().items() if not torch.equal(x, before[name])}
    assert changed
    assert all(name.startswith(("model.layer2", "model.layer3", "model.layer4")) for name in changed)
    assert not any("running" in name or "bn" in name for name in changed)


def test_a_prefix_that_freezes_nothing_is_an_error():
    with pytest.raises(InputError, match="stem_of_another_model"):
        Backbone(BackboneConfig("test_resnet", frozen=["stem_of_another_model"]))


def test_a_name_that_timm_does_not_know_is_an_error_with_those_like_it():
    with pytest.raises(InputError, match=r"^model\.backbone\.name=resnet5: timm has no such model, but .*resnet50"):
        Backbone(BackboneConfig("resnet5"))
    with pytest.raises(InputError, match=r"list_models\(\) has the names$"):
        Backbone(BackboneConfig("?"))


@pytest.mark.parametrize("error", [OSError("no\nnetwork"), RuntimeError("no\nnetwork")])
def test_weights_that_cannot_be_fetched_are_told_in_one_line(monkeypatch, error):
    def create(name, *, pretrained, **_):
        raise error if pretrained else AssertionError

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(
        InputError, match=r"^model\.backbone\.weights=timm: .*no network.*set model\.backbone\.weights=FILE"
    ):
        Backbone(BackboneConfig("resnet18", weights="timm"))


@pytest.mark.parametrize(
    ("name", "out_indices"), [("test_resnet", [7]), ("test_resnet", [1, -9]), ("vit_tiny_patch16_224", [12])]
)
def test_maps_that_a_model_lacks_are_told_in_one_line(name, out_indices):
    with pytest.raises(InputError, match=rf"^out_indices=\[.*{name} cannot give these feature maps .*-1 its last$"):
        Backbone(BackboneConfig(name, out_indices=out_indices))


def test_neck_adds_levels_and_masks_padding():
    neck = Neck([8, 16], width=32, levels=4)
    valid = torch.zeros(1, 64, 128, dtype=torch.bool)
    valid[:, :64, :64] = True
    features = neck([torch.randn(1, 8, 8, 16), torch.randn(1, 16, 4, 8)], valid)
    assert features.shapes == ((8, 16), (4, 8), (2, 4), (1, 2))
    assert features.tokens.shape == features.pos.shape == (1, 8 * 16 + 4 * 8 + 2 * 4 + 2, 32)
    assert features.valid.sum() == features.valid.numel() / 2
    assert features.valid_ratios.tolist() == [[[0.5, 1.0]] * 4]
