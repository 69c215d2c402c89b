"""Graphs are what the detector is, at the sides that they are made for."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from trex2_lightning.config import load
from trex2_lightning.inference.export import graphs, write_graph
from trex2_lightning.inference.graphs import fixed_padding
from trex2_lightning.training.build import build_module

SMALL_COCO = Path(__file__).parents[2] / "experiments" / "small_coco.yaml"


@pytest.mark.parametrize(
    ("size", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 2, 1), (2, 2, 1), (1, 2, 1), (3, 1, 2)]
)
def test_padding_does_not_depend_on_sides_that_are_multiples(size: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    convolution = Conv2dSame(3, 4, size, stride, dilation=dilation)
    module, x = nn.Sequential(convolution), torch.randn(2, 3, 64, 96)
    expected = module(x)
    with fixed_padding(module):
        assert "forward" in vars(convolution)
        torch.testing.assert_close(module(x), expected, rtol=0, atol=0)
    assert "forward" not in vars(convolution)


@pytest.mark.slow
@torch.no_grad()
def test_the_images_of_small_coco_have_a_graph_as_it_ships(tmp_path: Path) -> None:
    """Its backbone pads by the sides, which took the exporter more than ten minutes."""
    torch.manual_seed(0)
    module = build_module(load(SMALL_COCO, [f"data.root={tmp_path}"])).eval()
    graph = graphs(module.detector, knows_exemplars=True)["image"]
    session = onnxruntime.InferenceSession(write_graph("image", graph, tmp_path))
    for height, width in ((128, 96), (224, 320)):
        pixels, valid = torch.randn(1, 3, height, width), torch.ones(1, height, width, dtype=torch.bool)
        exact = [each.float() for part in graph.module.double()(pixels.double(), valid) for each in part]
        graph.module.float()
        found = session.run(None, {"pixels": pixels.numpy(), "valid": valid.numpy()})
        for one, other in zip(found, exact, strict=True):
            torch.testing.assert_close(torch.from_numpy(one).float(), other, rtol=1e-4, atol=1e-4)
