"""Compiled parts find what the detector finds without, for images of all sizes, or say that they cannot."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from detector_parts import assert_same_boxes, find, prompts_of, random_images
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters

from trex2_lightning.config import BackboneConfig
from trex2_lightning.models.backbone import Backbone
from trex2_lightning.models.compiling import compile_parts
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops import deformable
from trex2_lightning.structures import DetectorOutput

DetectorOf = Callable[[str, str], PromptedDetector]
CELLS = [("phrase", "late"), ("word", "early")]
PARTS = {"late": 1 + 1 + 2, "early": 1 + 1 + 2 + 1}  # backbone, encoder layer, decoder layers, fusion layer


@pytest.fixture(autouse=True, scope="module")
def nothing_compiled() -> Iterator[None]:
    """At first; what one test has compiled serves the next."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def found_in(detector: PromptedDetector, height: int, width: int, batch: int = 2) -> DetectorOutput:
    images = random_images(batch, max(height, width))
    pixels = images.pixels[..., :height, :width].contiguous()
    return find(detector, images._replace(pixels=pixels, valid=images.valid[:, :height, :width]), prompts_of("text"))


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def calls(detector: PromptedDetector) -> list[str]:
    """The compiled modules."""
    return [name for name, module in detector.named_modules() if module._compiled_call_impl is not None]


@pytest.mark.parametrize(("granularity", "fusion"), CELLS)
@torch.no_grad()
def test_images_of_other_sizes_are_not_compiled_anew(
    detector_of: DetectorOf, monkeypatch: pytest.MonkeyPatch, granularity: str, fusion: str
) -> None:
    """Nor other numbers of images, which are those of coordinates by chance; nor where sampling takes more parts."""
    monkeypatch.setattr(deformable, "QUERIES", 50)
    detector = detector_of(granularity, fusion)
    compiled = copy.deepcopy(detector)
    compile_parts(compiled, backend="eager")
    assert len(calls(compiled)) == PARTS[fusion]
    before = graphs()
    found_in(compiled, 64, 96)
    first = graphs()
    assert first > before
    for sizes in ((96, 64, 3), (96, 96, 2), (128, 160, 4)):
        expected, output = found_in(detector, *sizes), found_in(compiled, *sizes)
        assert_same_boxes(output, expected)
        torch.testing.assert_close(output.queries.logits, expected.queries.logits)
    assert graphs() == first


@torch.no_grad()
def test_of_a_swin_the_blocks_are_compiled(detector_of: DetectorOf) -> None:
    """For maps larger than a window, whose sides are no multiples of it, once for all sizes."""
    torch.manual_seed(0)
    options = {"embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 1, 1, 1]}
    swin = Backbone(BackboneConfig("swin_tiny_patch4_window7_224", out_indices=[1, 2], options=options)).eval()
    detector = detector_of("phrase", "late")
    detector.backbone = copy.deepcopy(swin)
    compile_parts(detector, backend="eager")
    assert len([name for name in calls(detector) if name.startswith("backbone")]) == 4
    first = 0
    for height, width in ((160, 240), (240, 160), (272, 208)):
        pixels = torch.randn(2, 3, height, width)
        for one, other in zip(detector.backbone(pixels), swin(pixels), strict=True):
            torch.testing.assert_close(one, other)
        first = first or graphs()
    assert graphs() == first


def test_checkpoints_are_those_of_a_detector_that_is_not_compiled(detector_of: DetectorOf) -> None:
    detector = detector_of("word", "early")
    before = copy.deepcopy(detector.state_dict())
    compile_parts(detector, backend="eager")
    assert list(detector.state_dict()) == list(before)
    detector_of("word", "early").load_state_dict(detector.state_dict())
    detector.load_state_dict(before)


@torch.no_grad()
def test_a_copy_has_weights_of_its_own_and_is_not_compiled(detector_of: DetectorOf) -> None:
    detector = detector_of("phrase", "late")
    compile_parts(detector, backend="eager")
    before = found_in(detector, 64, 96)
    other = copy.deepcopy(detector)
    assert calls(other) == []
    for parameter in other.decoder.parameters():
        parameter.zero_()
    assert not torch.equal(found_in(other, 64, 96).queries.boxes, before.queries.boxes)
    assert torch.equal(found_in(detector, 64, 96).queries.boxes, before.queries.boxes)


@torch.no_grad()
def test_what_is_compiled_stays_as_it_is(detector_of: DetectorOf) -> None:
    detector = detector_of("phrase", "late")
    compile_parts(detector, backend="eager")
    before = detector.backbone._compiled_call_impl
    compile_parts(detector, backend="eager")
    assert detector.backbone._compiled_call_impl is before


def failing(attempts: list[str]) -> Callable[..., Any]:
    def backend(*_: Any) -> Any:
        attempts.append("tried")
        raise RuntimeError("no C++ compiler\nand so on")

    return backend


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    name = "trex2_lightning.models.compiling"
    return [record.getMessage() for record in caplog.records if record.name == name]


@torch.no_grad()
def test_where_compiling_fails_a_warning_says_so_once_and_all_runs_as_written(
    detector_of: DetectorOf,
    caplog: pytest.LogCaptureFixture,
) -> None:
    detector = detector_of("word", "early")
    expected = found_in(detector, 64, 96)
    attempts: list[str] = []
    compile_parts(detector, backend=failing(attempts))  # type: ignore[arg-type]
    for _ in range(2):
        torch.testing.assert_close(found_in(detector, 64, 96).queries, expected.queries)
    assert attempts == ["tried"]
    (message,) = warnings_of(caplog)
    assert "Backbone cannot be compiled here" in message
    assert "no C++ compiler" in message
    assert "and so on" not in message


def test_where_nothing_can_be_compiled_at_all_a_warning_says_so_once(
    detector_of: DetectorOf, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: Any, **__: Any) -> None:
        raise RuntimeError("torch.compile is not supported on this Python")

    monkeypatch.setattr(nn.Module, "compile", unsupported)
    detector = detector_of("phrase", "late")
    compile_parts(detector)
    assert calls(detector) == []
    assert [message.count("not supported on this Python") for message in warnings_of(caplog)] == [1]


@pytest.mark.ci
@pytest.mark.skipif(
    not hasattr(torch._functorch.config, "force_non_lazy_backward_lowering"),
    reason="this PyTorch compiles the backward pass when it runs",
)
def test_a_backward_pass_that_fails_to_compile_ends_nothing(
    detector_of: DetectorOf, caplog: pytest.LogCaptureFixture
) -> None:
    backend = aot_autograd(fw_compiler=lambda graph, _: graph.forward, bw_compiler=failing([]))
    detector = detector_of("phrase", "late")
    compile_parts(detector, backend=backend)
    found_in(detector, 64, 96).queries.boxes.sum().backward()
    assert [message.count("cannot be compiled") for message in warnings_of(caplog)] == [1]


@pytest.mark.ci
def test_a_part_that_fails_after_others_worked_leaves_these_as_they_were(
    detector_of: DetectorOf, caplog: pytest.LogCaptureFixture
) -> None:
    """An encoder layer is computed again in the backward pass, where it has to keep what it kept at first."""
    aot = aot_autograd(fw_compiler=lambda graph, _: graph.forward)

    def no_attention(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        if "scaled_dot_product_attention" in graph.code:
            raise RuntimeError("out of registers")
        return aot(graph, inputs)

    detector = detector_of("phrase", "late")
    detector.encoder.recomputed = True
    compile_parts(detector, backend=no_attention)  # type: ignore[arg-type]
    for _ in range(2):
        found_in(detector, 64, 96).queries.boxes.sum().backward()
    [message] = warnings_of(caplog)
    assert "DecoderLayer cannot be compiled here, so such parts run as written" in message


def gradients(detector: PromptedDetector, height: int, width: int) -> dict[str, Tensor]:
    detector.zero_grad()
    output = found_in(detector, height, width).queries
    (output.boxes.square().sum() + output.logits.square().mean()).backward()
    return {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_inductor_s_values_and_gradients(detector_of: DetectorOf, caplog: pytest.LogCaptureFixture) -> None:
    """The compiler that ships, as C++ on the CPU."""
    caplog.set_level(logging.WARNING)
    detector = detector_of("phrase", "late")
    compiled = copy.deepcopy(detector)
    compile_parts(compiled)
    before = graphs()
    for height, width in ((64, 96), (96, 64)):
        expected, found = gradients(detector, height, width), gradients(compiled, height, width)
        assert found.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-3, msg=name)
    assert graphs() > before
    assert warnings_of(caplog) == []
