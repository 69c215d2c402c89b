"""The costly layers alone, beside others that do the same: fusion of image and prompts, deformable sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trex2_lightning.models.early import BiAttention
from trex2_lightning.models.hub.names import hub_names
from trex2_lightning.ops.deformable import sample_grid, sample_rows
from trex2_lightning.studies.timing import Row, Setting, difference, fastest, level_shapes, ratio

FUSED_PARTS = (
    "image_norm",
    "prompt_norm",
    "image_query",
    "prompt_key",
    "image_value",
    "prompt_value",
    "image_output",
    "prompt_output",
)
OURS, THEIRS = "fusions.0.attention.", "model.encoder.layers.0.fusion_layer."


def fusion(setting: Setting) -> list[Row]:
    """Bi-directional attention alone, with a layer scale of 1: at its usual 1e-4 the whole hides its errors."""
    from transformers.models.grounding_dino.modeling_grounding_dino import GroundingDinoConfig, GroundingDinoFusionLayer

    config = GroundingDinoConfig(fusion_droppath=0.0)
    torch.manual_seed(0)
    theirs = GroundingDinoFusionLayer(config)
    ours = BiAttention(config.d_model, config.encoder_attention_heads // 2, config.encoder_ffn_dim // 2, drop_path=0.0)
    for scale in (theirs.vision_param, theirs.text_param, ours.image_scale, ours.prompt_scale):
        nn.init.ones_(scale)
    for name in FUSED_PARTS:
        [other] = hub_names(f"{OURS}{name}", 0)
        ours.get_submodule(name).load_state_dict(theirs.get_submodule(other.removeprefix(THEIRS)).state_dict())
    num_tokens = sum(height * width for height, width in level_shapes(setting))
    image = torch.randn(1, num_tokens, config.d_model, requires_grad=True)
    rows = []
    for length in (82, 195, 254):
        prompts = torch.randn(1, length, config.d_model, requires_grad=True)
        masks = torch.ones(1, num_tokens).bool(), torch.ones(1, length).bool()
        peer = partial(_fused_by_reference, theirs, image, prompts, *masks)
        own = partial(ours, image, masks[0], prompts, masks[1])
        expected, found = (torch.autograd.grad(_summed(side()), [image, prompts]) for side in (peer, own))
        with torch.no_grad():
            largest = max(map(difference, peer(), own()))
            slow, fast = fastest(setting.repeats, peer, own)
        relative = max(difference(*pair) / float(pair[0].abs().max()) for pair in zip(expected, found, strict=True))
        rows += [
            Row(f"{num_tokens} image and {length} prompt tokens", slow, fast, ratio(slow, fast)),
            Row("largest difference of outputs", None, None, f"{largest:.1e}", "<= 1e-4"),
            Row("largest difference of gradients, relative", None, None, f"{relative:.1e}", "<= 1e-4"),
        ]
    return rows


def sampling(setting: Setting) -> list[Row]:
    """`sample_rows`, which the CPU uses, beside a `grid_sample` for each level."""
    shapes, heads, channels, points = level_shapes(setting), 8, 32, 4
    num_tokens = sum(height * width for height, width in shapes)
    torch.manual_seed(0)
    value = torch.randn(1, num_tokens, heads, channels, requires_grad=True)
    locations = torch.rand(1, num_tokens, heads, len(shapes), points, 2, requires_grad=True)
    weights = torch.rand(1, num_tokens, heads, len(shapes), points).flatten(-2).softmax(-1)
    weights = weights.unflatten(-1, (len(shapes), points)).requires_grad_()

    def forward(sample: Callable[..., Tensor]) -> Tensor:
        with torch.no_grad():
            return sample(value, shapes, locations, weights)

    def both(sample: Callable[..., Tensor]) -> Any:
        return torch.autograd.grad(sample(value, shapes, locations, weights).sum(), [value, locations, weights])

    rows = []
    for what, run in (("forward", forward), ("forward and backward", both)):
        slow, fast = fastest(setting.repeats, partial(run, sample_grid), partial(run, sample_rows))
        rows.append(Row(f"{num_tokens} queries, {what}", slow, fast, ratio(slow, fast)))
    return rows


def _fused_by_reference(
    layer: nn.Module, image: Tensor, prompts: Tensor, valid: Tensor, prompts_valid: Tensor
) -> tuple[Tensor, Tensor]:
    (fused_image, _), (fused_prompts, _) = layer(image, prompts, ~valid, ~prompts_valid)
    return fused_image, fused_prompts


def _summed(outputs: Iterable[Tensor]) -> Tensor:
    return torch.stack([output.sin().sum() for output in outputs]).sum()
