"""The CUDA kernel of deformable sampling against `grid_sample`: on the CPU by Triton's interpreter, and not run at all.

Triton chooses its interpreter when a kernel is defined, so what runs there is a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.fx.experimental._config as symbols
from torch._dynamo import config as dynamo
from torch._subclasses.fake_tensor import FakeTensorMode

from trex2_lightning.layers import attention
from trex2_lightning.layers.attention import DeformableAttention
from trex2_lightning.ops import deformable
from trex2_lightning.ops.deformable import Shapes, deformable_sampling, level_table, sample_grid
from trex2_lightning.structures import FeatureMaps

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SHAPES = ((5, 7), (3, 4), (1, 1))
kernel = pytest.importorskip("trex2_lightning.ops.fused_sampling", exc_type=ImportError)


def inputs_of(
    heads: int = 2, channels: int = 16, queries: int = 41, points: int = 3, dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    """Some points lie outside."""
    generator = torch.Generator().manual_seed(0)
    tokens = sum(height * width for height, width in SHAPES)
    value = torch.randn(2, tokens, heads, channels, generator=generator).to(dtype)
    locations = torch.rand(2, queries, heads, len(SHAPES), points, 2, generator=generator) * 1.4 - 0.2
    weights = torch.rand(2, queries, heads, len(SHAPES), points, generator=generator)
    return [x.requires_grad_() for x in (value, locations, weights)]


def fused(value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return kernel.fused_sampling(value, level_table(SHAPES, value.device), locations, weights)


@pytest.mark.ci
@pytest.mark.skipif(INTERPRETED, reason="this is the process")
def test_the_kernel_under_triton_s_interpreter() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "interpreted", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs under TRITON_INTERPRET=1, see above")


@interpreted
@pytest.mark.parametrize(("heads", "channels", "queries", "points"), [(2, 16, 41, 3), (1, 3, 5, 1), (3, 32, 70, 4)])
def test_interpreted_values_and_gradients_are_those_of_grid_sample(
    heads: int, channels: int, queries: int, points: int
) -> None:
    """Which were checked in float64 (tests/ops/test_deformable.py)."""
    inputs = inputs_of(heads, channels, queries, points)
    found, expected = fused(*inputs), sample_grid(inputs[0], SHAPES, *inputs[1:])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    change = torch.randn_like(found)
    found_gradients, gradients = (torch.autograd.grad(out, inputs, change) for out in (found, expected))
    torch.testing.assert_close(found_gradients, gradients, rtol=1e-4, atol=1e-4)


@interpreted
def test_interpreted_values_in_bfloat16_are_summed_in_float32() -> None:
    inputs = inputs_of(dtype=torch.bfloat16)
    exact = [inputs[0].detach().float().requires_grad_(), *inputs[1:]]
    found, expected = fused(*inputs), sample_grid(exact[0], SHAPES, *exact[1:])
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected.bfloat16(), rtol=1e-2, atol=1e-2)
    change = torch.randn_like(expected).bfloat16()
    found_gradients = torch.autograd.grad(found, inputs, change)
    gradients = torch.autograd.grad(expected, exact, change.float())
    assert [gradient.dtype for gradient in found_gradients] == [torch.bfloat16, torch.float32, torch.float32]
    torch.testing.assert_close(found_gradients[0], gradients[0].bfloat16(), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(found_gradients[1:], gradients[1:], rtol=1e-4, atol=1e-3)


@interpreted
@pytest.mark.parametrize("place", [-1e30, -0.6, 1.6, 1e30, float("inf")])
def test_interpreted_points_outside_see_nothing_and_stay(place: float) -> None:
    value, locations, weights = inputs_of()
    locations = torch.full_like(locations, place).requires_grad_()
    out = fused(value, locations, weights)
    assert not out.any()
    assert not any(gradient.any() for gradient in torch.autograd.grad(out.sum(), [value, locations, weights]))


@interpreted
def test_interpreted_a_place_that_is_no_number_spoils_its_own_query_alone() -> None:
    value, locations, weights = (x.detach() for x in inputs_of())
    expected = fused(value, locations, weights)
    locations[1, 2, 0, 0, 0, 0] = torch.nan
    found = fused(value, locations, weights)
    spoiled = torch.zeros_like(found, dtype=torch.bool)
    spoiled[1, 2, :16] = True  # the channels of the first head
    assert found[spoiled].isnan().all()
    torch.testing.assert_close(found[~spoiled], expected[~spoiled])


@interpreted
def test_interpreted_gradients_are_taken_once() -> None:
    value, locations, weights = inputs_of()
    [gradient] = torch.autograd.grad(fused(value, locations, weights).sin().sum(), value, create_graph=True)
    with pytest.raises(RuntimeError, match="autograd"):
        torch.autograd.grad(gradient.sum(), value)


@interpreted
def test_interpreted_registration_is_right() -> None:
    value, locations, weights = inputs_of(queries=3)
    levels = level_table(SHAPES, value.device)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(kernel.fused_sampling, (value, levels, locations, weights), test_utils=checks)


@interpreted
def test_interpreted_it_is_one_call_of_compiled_code_for_all_sizes(
    maps: Callable[..., FeatureMaps], monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_on_a_gpu(value: torch.Tensor, _shapes: Shapes, *given: torch.Tensor) -> torch.Tensor:
        locations, weights, levels = given
        return kernel.fused_sampling(value, levels, locations, weights)

    monkeypatch.setattr(attention, "deformable_sampling", as_on_a_gpu)
    monkeypatch.setattr(symbols, "use_duck_shape", False)
    layer = DeformableAttention(16, 2, 2, 2)
    compiled = torch.compile(layer, backend="aot_eager", dynamic=True, fullgraph=True)
    for images, sizes in ((2, ((4, 6), (2, 3))), (3, ((7, 5), (4, 3)))):
        tokens = torch.randn(images, sum(height * width for height, width in sizes), 16)
        query, reference = torch.randn(images, 5, 16), torch.rand(images, 5, 2, 4)
        features = maps(tokens, torch.ones_like(tokens[..., 0], dtype=torch.bool), sizes)
        gradients = []
        for call in (layer, compiled):
            asked = query.clone().requires_grad_()
            gradients += torch.autograd.grad(call(asked, reference, features).square().sum(), asked)
        torch.testing.assert_close(*gradients)
        monkeypatch.setattr(dynamo, "error_on_recompile", True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_the_kernel_is_taken_with_the_value_as_it_is(dtype: torch.dtype) -> None:
    """Without a GPU: fake tensors have a device, a type and a shape, and nothing else."""
    with FakeTensorMode():
        value = torch.empty(2, 48, 4, 8, dtype=dtype, device="cuda")
        locations = torch.empty(2, 6, 4, 3, 2, 2, device="cuda", requires_grad=True)
        weights = torch.empty(2, 6, 4, 3, 2, dtype=dtype, device="cuda")
        out = deformable_sampling(value, SHAPES, locations, weights)
        assert (out.shape, out.dtype, out.device.type) == ((2, 6, 32), dtype, "cuda")
        assert "deformable_sampling" in type(out.grad_fn).__name__
        levels = level_table(SHAPES, value.device)
        gradients = kernel._fused_gradients(out.detach(), value, levels, locations.detach(), weights.float(), True)
        assert [gradient.shape for gradient in gradients] == [value.shape, locations.shape, weights.shape]
        assert [gradient.dtype for gradient in gradients] == [dtype, torch.float32, torch.float32]


@pytest.mark.parametrize(
    ("missing", "reason"),
    [(True, "Triton is missing"), (False, "Failed to find C compiler")],
    ids=["triton", "compiler"],
)
def test_where_the_kernel_does_not_run_a_gpu_samples_by_the_plain_form_and_says_so_once(
    missing: bool, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: torch.Tensor) -> None:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    broken = None if missing else SimpleNamespace(fused_sampling=fails)
    monkeypatch.setattr(deformable, "kernel", broken)
    deformable._kernel_runs.cache_clear()
    for _ in range(2):
        with FakeTensorMode():
            inputs = (torch.empty(2, 48, 4, 8, device="cuda"), torch.empty(2, 6, 4, 3, 2, 2, device="cuda"))
            out = deformable_sampling(inputs[0], SHAPES, inputs[1], torch.empty(2, 6, 4, 3, 2, device="cuda"))
        assert out.shape == (2, 6, 32)
    deformable._kernel_runs.cache_clear()
    [said] = [record.getMessage() for record in caplog.records]
    assert reason in said


def test_an_exported_graph_has_grid_sample(maps: Callable[..., FeatureMaps]) -> None:
    layer = DeformableAttention(16, heads=2, levels=3, points=2).eval()
    features = maps(torch.randn(1, 48, 16), torch.ones(1, 48).bool(), SHAPES)
    inputs = (torch.randn(1, 5, 16), torch.rand(1, 5, 3, 2), features.tokens)

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, query: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            return self.layer(query, reference, features._replace(tokens=tokens))

    program = torch.export.export(Exported(), inputs)
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    names = [str(node.target) for graph in graphs for node in graph.nodes if node.op == "call_function"]
    assert sum("grid_sampler" in name for name in names) == len(SHAPES)
    torch.testing.assert_close(program.module()(*inputs), layer(*inputs[:2], features), rtol=1e-5, atol=1e-5)
