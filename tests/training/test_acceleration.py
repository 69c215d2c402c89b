"""`train.compile` and `train.float32_matmul_precision` hold for training and evaluation, and change no checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from trex2_lightning.config import Config, TrainConfig
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.models.compiling import compile_parts
from trex2_lightning.structures import Batch
from trex2_lightning.training import acceleration
from trex2_lightning.training.acceleration import use_matmul_precision
from trex2_lightning.training.build import build_module
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule

TinyConfig = Callable[..., Config]


@pytest.fixture(autouse=True)
def _eager_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All of compiling but the compiler: the same bits in seconds."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(acceleration, "compile_parts", partial(compile_parts, backend="eager"))
    yield
    torch._dynamo.reset()


def weights_of(config: Config) -> dict[str, Tensor]:
    checkpoint = torch.load(config.folder / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["state_dict"] | {f"now.{n}": w for n, w in checkpoint["current_model_state"].items()}


@pytest.mark.slow
def test_compiled_and_other_runs_have_one_kind_of_checkpoint(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on from a compiled one, or compiled from another one, is the run that never changed: what it
    evaluates, which is the averaged weights, and what it saves."""
    seen: dict[str, list[float]] = {}
    step = DetectionModule.validation_step

    def spied(module: DetectionModule, batch: Batch, *arguments: Any) -> Any:
        results = step(module, batch, *arguments)
        seen[name].append(sum(result.scores.double().sum().item() for result in results))
        return results

    monkeypatch.setattr(DetectionModule, "validation_step", spied)
    halves = {"written": (False, False), "onwards": (False, True), "back": (True, False)}
    saved = {}
    for name, compiled in halves.items():
        seen[name] = []
        for part, flag in enumerate(compiled):
            flags = (f"name={name}", f"train.compile={flag}".lower(), f"train.max_steps={2 * part + 2}")
            module = train(tiny_config(*flags), resume=part == 1)
            assert (module.detector.backbone._compiled_call_impl is not None) == flag
        assert counters["stats"]["unique_graphs"] > 0 or not any(compiled)
        saved[name] = weights_of(tiny_config(f"name={name}"))
    for name in ("onwards", "back"):
        assert seen[name] == pytest.approx(seen["written"], rel=1e-6)
        assert list(saved[name]) == list(saved["written"])
        for key, weight in saved["written"].items():
            torch.testing.assert_close(saved[name][key], weight, msg=key)


def test_an_evaluation_compiles_where_it_is_told(tiny_config: TinyConfig) -> None:
    torch.manual_seed(0)
    config = tiny_config()
    module = build_module(config)
    expected = evaluate(config, module, "test").rows["text"].results
    assert counters["stats"]["unique_graphs"] == 0
    found = evaluate(tiny_config("train.compile=true"), module, "test").rows["text"].results
    assert counters["stats"]["unique_graphs"] > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.scores, other.scores)


@pytest.mark.parametrize(("device", "expected"), [("cuda", ["medium"]), ("cpu", [])])
def test_products_in_float32_are_those_of_the_setting_on_a_gpu_alone(
    monkeypatch: pytest.MonkeyPatch, device: str, expected: list[str]
) -> None:
    told: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", told.append)
    use_matmul_precision(TrainConfig(float32_matmul_precision="medium"), torch.device(device))
    assert told == expected


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_training_and_evaluation_say_on_which_device_they_are(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    told: list[tuple[TrainConfig, torch.device]] = []
    monkeypatch.setattr(acceleration, "use_matmul_precision", lambda *arguments: told.append(arguments))
    config = tiny_config("train.max_steps=1")
    if mode == "train":
        train(config)
    else:
        evaluate(config, build_module(config), "test", ["text"])
    assert (config.train, torch.device("cpu")) in told
