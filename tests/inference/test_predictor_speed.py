"""A predictor in another precision, and with compiled parts, finds the same, but for bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from predictor_parts import BOX, PHRASES
from torch._dynamo.utils import counters

from trex2_lightning.config import Config, ConfigError, Precision
from trex2_lightning.inference import predictor as predicting
from trex2_lightning.inference.precision import computes_half
from trex2_lightning.inference.predictor import Detection, Predictor
from trex2_lightning.models.compiling import compile_parts
from trex2_lightning.training.build import build_module
from trex2_lightning.training.module import DetectionModule

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def module(config: Config) -> DetectionModule:
    torch.manual_seed(0)
    return build_module(config).eval()


def found(predictor: Predictor, image: Path) -> list[Detection]:
    encoded = predictor.encode(image)
    marked = predictor.mixed(PHRASES, [(encoded, {"a thing": [BOX]})])
    assert marked.vectors.dtype == torch.float32
    return predictor.detect(encoded, marked, threshold=0)


def values(detections: list[Detection]) -> torch.Tensor:
    """In an order that rounding does not change: (n, 5)."""
    rows = [[detection.score, *(side / 100 for side in detection.box)] for detection in detections]
    return torch.tensor(sorted(rows))


def test_bfloat16_where_it_is_asked_for(config: Config, module: DetectionModule, image: Path) -> None:
    exact = values(found(Predictor(config, module), image))
    half = values(found(Predictor(config, module, precision="bf16-mixed"), image))
    assert not torch.equal(half, exact)
    torch.testing.assert_close(half[:, 0], exact[:, 0], rtol=0, atol=0.02)


def test_a_cpu_computes_in_float32_whatever_it_was_trained_in(
    tiny_config: Callable[..., Config], config: Config, module: DetectionModule, image: Path
) -> None:
    trained = tiny_config("train.rhythm.visual=1", "train.precision=bf16-mixed")
    exact = found(Predictor(config, module, precision="32-true"), image)
    assert found(Predictor(trained, module), image) == exact


@pytest.mark.parametrize(
    ("precision", "device", "asked", "expected"),
    [
        ("bf16-mixed", GPU, False, True),
        ("bf16-mixed", GPU, True, True),
        ("bf16-mixed", CPU, False, False),
        ("bf16-mixed", CPU, True, True),
        ("32-true", GPU, False, False),
        ("32-true", CPU, True, False),
    ],
)
def test_the_training_s_precision_holds_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, device: torch.device, asked: bool, expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert computes_half(precision, device, asked=asked) == expected


def test_a_gpu_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert not computes_half("bf16-mixed", GPU, asked=False)
    with pytest.raises(ConfigError, match="take precision=32-true"):
        computes_half("bf16-mixed", GPU, asked=True)


def test_an_unknown_precision_is_refused(config: Config, module: DetectionModule) -> None:
    for unknown in ("16-mixed", ""):
        with pytest.raises(ConfigError, match="is none of 32-true, bf16-mixed"):
            Predictor(config, module, precision=unknown)  # type: ignore[arg-type]


def test_a_compiled_predictor(checkpoint: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(predicting, "compile_parts", partial(compile_parts, backend="eager"))
    expected = Predictor.from_pretrained(checkpoint)
    compiled = Predictor.from_pretrained(checkpoint, compile=True)
    assert counters["stats"]["unique_graphs"] == 0
    found_by = [values(p.detect(image, p.text(PHRASES), threshold=0)) for p in (expected, compiled)]
    torch.testing.assert_close(*found_by)
    assert counters["stats"]["unique_graphs"] > 0
    torch._dynamo.reset()
