"""Visual prompts by appearance on a published Grounding DINO: its own backbone compares, and nothing is trained."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trex2_lightning.commands.calibrate import main as calibrate
from trex2_lightning.commands.evaluate import main as evaluate
from trex2_lightning.config import BackboneConfig, Config
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation import fits
from trex2_lightning.inference.pretrained import load_pretrained
from trex2_lightning.models.appearance import Appearance
from trex2_lightning.models.build import build_appearance, build_detector
from trex2_lightning.models.calibration import SIMILARITY, SOURCES
from trex2_lightning.models.hub.settings import model_config
from trex2_lightning.models.weights import WeightsError
from trex2_lightning.training.checkpoint import start_from
from trex2_lightning.training.fit import train

sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "hub"))

from hub_reference import reference

BACKBONE = "model.appearance.name=backbone"


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "dino"
    reference(folder)
    return folder


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_the_network_is_the_published_backbone(dino: Path, fusion: str) -> None:
    """As it was published, with the maps that appearance takes; all that the detector takes stays what it is."""
    config = model_config(str(dino))
    config.init_from, config.fusion = str(dino), fusion  # type: ignore[assignment]
    config.appearance.name, config.appearance.input = "backbone", True
    detector = build_detector(config)
    assert detector.appearance is not None
    own, theirs = detector.appearance.model.state_dict(), detector.backbone.model.state_dict()
    parameters = [name for name, _ in detector.appearance.model.named_parameters()]
    assert parameters
    assert all(torch.equal(own[name], theirs[name]) for name in parameters)
    detector.backbone.requires_grad_(False).model.get_parameter(parameters[0]).zero_()
    again = build_appearance(config)  # what `calibrate` gives a checkpoint that was trained since
    assert again is not None
    assert torch.equal(again.model.state_dict()[parameters[0]], own[parameters[0]])


def test_maps_that_a_published_backbone_lacks_are_told(tmp_path: Path) -> None:
    reference(tmp_path, stages=(2, 3), num_feature_levels=2)
    config = model_config(str(tmp_path))
    config.init_from, config.appearance.name = str(tmp_path), "backbone"
    file, last = tmp_path / "model.safetensors", "conv_encoder.model.encoder.layers.3"
    save_file({name: x for name, x in load_file(file).items() if last not in name}, file)
    with pytest.raises(WeightsError, match=r"has a backbone without layers_3.*set model\.appearance\.out_indices"):
        build_appearance(config)


def test_a_published_detector_takes_exemplars_without_training(
    dino: Path, tiny_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = load_pretrained(dino)[1].state_dict()
    data = [f"data.root={tiny_coco}", "data.size=64", "data.max_size=64", "eval.references=[1]", "data.num_workers=0"]
    calibrate(["--model", str(dino), *data, BACKBONE])
    _, module = load_pretrained(tmp_path / "dino-calibrated")
    new = ("detector.visual_encoder.", "detector.noised_content.")  # random, which nothing here uses
    published = {name: x for name, x in before.items() if not name.startswith(new)}
    assert all(torch.equal(module.state_dict()[name], x) for name, x in published.items())
    assert module.known_names == ("red block", "green block", "blue block")
    assert module.detector.appearance is not None
    assert not torch.equal(module.detector.appearance.transform, torch.eye(module.detector.appearance.channels))
    asked = [f"--protocol={name}" for name in ("text", "generic", "interactive_box")]
    evaluate(["--model", "dino-calibrated", "--output", "results", *asked, *data])
    ap = json.loads(Path("results/evaluation.json").read_text())["ap"]
    assert ap.keys() == {"text", "generic_1", "interactive_box"}
    compared: list[tuple[Tensor, int]] = []
    monkeypatch.setattr(
        Appearance,
        "fit_scale",
        lambda _, vectors, labels, shown, count: compared.append((labels, shown.valid.sum() + count)) or len(vectors),
    )
    calibrate(["--model", "dino-calibrated", "--output", "again", *data])
    val = json.loads((tiny_coco / "val.json").read_text())["annotations"]
    ((labels, number),) = compared
    assert sorted(labels.tolist()) == sorted(box["category_id"] - 1 for box in val), "boxes that neither fit has seen"
    assert number == 3 + 3  # a reference of each category
    again = load_pretrained("again")[1].detector.appearance
    assert again is not None
    assert torch.equal(again.transform, module.detector.appearance.transform)


def test_the_model_itself_is_never_written_over(dino: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dino.parent)
    with pytest.raises(InputError, match="dino is the model itself: give another folder"):
        calibrate(["--model", str(dino), "--output", "dino", BACKBONE])
    assert (dino / "model.safetensors").is_file()
    with pytest.raises(InputError, match=r"fitted\.ckpt: a model of the hub is written as a folder"):
        calibrate(["--model", str(dino), "--output", "fitted.ckpt", BACKBONE])


def test_what_each_part_is_worth_alone(
    visual_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither part is weighed where it is left out; and nothing can be left out where nothing is compared."""
    monkeypatch.setattr(fits, "RIGHT", 0.01)  # of random weights
    for kind, without in (("learned", slice(SIMILARITY, None)), ("appearance", slice(1))):
        output = tmp_path / f"{kind}.ckpt"
        calibrate(["--ckpt", str(visual_checkpoint), "--output", str(output), "--evidence", kind, BACKBONE])
        weight = load_pretrained(output)[1].detector.calibration.weight[1, SOURCES.index("generic")]
        assert not weight[without].any()
        assert weight.any()
    with pytest.raises(InputError, match="--evidence learned: it compares no appearance"):
        calibrate(["--ckpt", str(visual_checkpoint), "--evidence", "learned"])


def test_a_backbone_that_the_folder_lacks_stays_what_it_is(dino: Path) -> None:
    """Random, where nothing else has weights for it: the folder is no source of them."""
    config = model_config(str(dino))
    config.init_from, config.appearance.name = str(dino), "backbone"
    known = build_appearance(config)
    config.backbone = BackboneConfig("test_resnet", out_indices=[2, 3, 4])
    strange = build_appearance(config)
    assert known is not None
    assert known.pretrained
    assert strange is not None
    assert not strange.pretrained


def test_random_weights_are_told(
    checkpoint: Path, tiny_config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    calibrate(["--ckpt", str(checkpoint), BACKBONE])
    told = "has random weights, which tell nothing apart: set model.backbone.weights, or of another network"
    assert told in caplog.text
    caplog.clear()
    config = tiny_config("name=with", BACKBONE, "train.max_steps=1")
    module = train(config)
    assert told in caplog.text
    caplog.clear()
    start_from(module, config, checkpoint)
    assert told in caplog.text
    caplog.clear()
    train(tiny_config("name=without", "train.max_steps=1"))
    assert told not in caplog.text
