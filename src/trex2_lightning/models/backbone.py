"""Image features: a timm backbone, and a neck that brings its maps to one width (Deformable DETR, section 4.1)."""

from __future__ import annotations

from typing import Any, Self

import torch
from timm.models import FeatureListNet, is_model_in_modules
from timm.models.swin_transformer import SwinTransformerBlock, SwinTransformerStage
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from trex2_lightning.config import BackboneConfig
from trex2_lightning.errors import InputError
from trex2_lightning.models.weights import load_backbone_weights, pixel_statistics, timm_model
from trex2_lightning.ops.deformable import level_table
from trex2_lightning.ops.padding import unpadded_share
from trex2_lightning.ops.position import map_embedding
from trex2_lightning.structures import FeatureMaps

PLAIN_TRANSFORMERS = {"vision_transformer", "deit", "eva"}  # timm's modules, DINOv2 and DINOv3 among them


class Backbone(nn.Module):
    """A timm model that returns feature maps of images of any size, finest first."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.pixels = pixel_statistics(config)  # what `forward` wants its pixels normalised with
        model = any_size_model(config, config.options)
        is_swin = returns_channels_last(config.name)
        freeze(model, config.frozen)
        self.model: nn.Module = model.to(memory_format=torch.channels_last)  # a sixth off a training step of convnets
        self.out_indices = tuple(config.out_indices)
        self._frozen_norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)] * config.frozen_batchnorm
        for frozen_norm in self._frozen_norms:
            frozen_norm.requires_grad_(False)
        self._name = config.name
        self.channels: list[int] = model.feature_info.channels()
        # Detection with Swin normalises every map it takes out (Swin Transformer's detection code).
        norm = nn.LayerNorm if is_swin else nn.Identity
        self.norms = nn.ModuleList(norm(channels) for channels in self.channels)
        self.returns_channels_last = is_swin
        self.train()  # the trainer takes the modules in the mode they are in

    def train(self, mode: bool = True) -> Self:
        """Frozen BatchNorm stays in evaluation mode: half the time of timm's and torchvision's frozen layers."""
        super().train(mode)
        for frozen_norm in self._frozen_norms:
            frozen_norm.eval()
        return self

    def checkpoint_activations(self) -> None:
        """Keep of each block its input alone; the backward pass computes the rest again.

        timm's own switch of a model with feature maps takes whole stages, and the last one not at all.

        Raises:
            InputError: no stage of the model knows how, or it has a BatchNorm, which would count each batch twice.
        """
        parts = self.model.children() if isinstance(self.model, FeatureListNet) else []
        stages = [part for part in parts if hasattr(part, "grad_checkpointing") and hasattr(part, "blocks")]
        norms = {m for stage in stages for m in stage.modules() if isinstance(m, _BatchNorm)} - {*self._frozen_norms}
        if not stages or norms:
            reason = "its BatchNorm would count each batch twice" if stages else "timm has no such blocks of it"
            raise InputError(
                f"train.checkpoint_activations cannot go with model.backbone.name={self._name}, as {reason}: leave it "
                "off, or take Swin or ConvNeXt"
            )
        for stage in stages:
            stage.grad_checkpointing = True  # type: ignore[assignment]

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W), normalised by `pixels` -> maps (B, channels, H / stride, W / stride)."""
        maps = self.model(pixels.contiguous(memory_format=torch.channels_last))
        maps = [norm(x) for norm, x in zip(self.norms, maps, strict=True)]
        return [x.permute(0, 3, 1, 2) for x in maps] if self.returns_channels_last else maps


class DetectionSwinBlock(SwinTransformerBlock):
    """A Swin block that pads the map to whole windows before it rolls it, as Swin for detection does.

    timm rolls first. Where a map is no multiple of the window the features differ, and the weights of detectors need
    this order.

    Args:
        block: the `SwinTransformerBlock` in whose place this one stands: with its layers, under the same names.
    """

    def __init__(self, block: Any) -> None:
        with torch.device("meta"):  # layers that are replaced at once take neither memory nor random numbers
            super().__init__(
                block.dim,
                block.input_resolution,
                block.attn.num_heads,
                window_size=block.window_size,
                shift_size=block.shift_size,
                always_partition=block.always_partition,
                dynamic_mask=True,  # made for each map, as images have any size
            )
        for name, layer in block.named_children():
            self.add_module(name, layer)
        # Stores no scores: nearly two GiB of a step of Swin-T with eight images.
        self.attn.fused_attn = True  # type: ignore[misc]

    def _attn(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C). As timm's, but for the order, with numbers of windows in place of remainders.

        Of remainders `torch.compile` has to prove too much for sizes that it does not know: a tenth of its time.
        """
        _, height, width, channels = x.shape
        (tall, wide), shift = self.window_size, self.shift_size
        rows, columns = (height + tall - 1) // tall, (width + wide - 1) // wide
        x = F.pad(x, (0, 0, 0, columns * wide - width, 0, rows * tall - height))
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), (1, 2))
        x = x.unflatten(2, (columns, wide)).unflatten(1, (rows, tall)).transpose(2, 3)  # (B, rows, columns, t, w, C)
        x = x.reshape(-1, tall * wide, channels)
        x = self.attn(x, mask=self._neighbours(rows, columns, x) if any(shift) else None)
        x = x.unflatten(0, (-1, rows, columns)).unflatten(3, (tall, wide)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        if any(shift):
            x = x.roll(shift, (1, 2))
        return x[:, :height, :width]

    def _neighbours(self, rows: int, columns: int, x: Tensor) -> Tensor:
        """(rows * columns, t * w, t * w): -100 between tokens that only the rolling brought into one window."""
        sides = []
        for number, size, shift in zip((rows, columns), self.window_size, self.shift_size, strict=True):
            last = torch.arange(number, device=x.device) == number - 1
            rolled = torch.arange(size, device=x.device) >= size - shift
            sides.append(last[:, None] & rolled)  # (rows or columns, t or w)
        region = 2 * sides[0][:, None, :, None] + sides[1][None, :, None, :].int()  # (rows, columns, t, w)
        region = region.flatten(2).flatten(0, 1)
        return torch.where(region[:, :, None] == region[:, None], 0.0, -100.0).to(x.dtype)


class Neck(nn.Module):
    """Projects each map to D channels and adds coarser levels by strided convolutions."""

    def __init__(self, channels: list[int], width: int, levels: int) -> None:
        super().__init__()
        inputs = [*channels, channels[-1], *[width] * levels][:levels]
        self.projections = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs[level], width, 1)
                if level < len(channels)
                else nn.Conv2d(inputs[level], width, 3, stride=2, padding=1),
                nn.GroupNorm(32, width),
            )
            for level in range(levels)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.constant_(module.get_parameter("bias"), 0)
        self.level_embedding = nn.Parameter(torch.randn(levels, width))

    def forward(self, maps: list[Tensor], valid: Tensor) -> FeatureMaps:
        """Backbone maps and the images' valid pixels (B, H, W) -> FeatureMaps of all levels."""
        tokens, positions, valids, shapes, ratios = [], [], [], [], []
        coarsest = maps[-1]  # what the next extra level is made of
        for level, projection in enumerate(self.projections):
            x = projection(maps[level] if level < len(maps) else coarsest)
            coarsest = x if level >= len(maps) else coarsest
            level_valid = F.interpolate(valid[:, None].float(), x.shape[-2:])[:, 0] > 0.5
            tokens.append(x.flatten(2).transpose(1, 2))
            positions.append(map_embedding(level_valid, x.shape[1]).to(x.dtype) + self.level_embedding[level])
            valids.append(level_valid.flatten(1))
            shapes.append((x.shape[2], x.shape[3]))
            ratios.append(unpadded_share(level_valid))
        joined = torch.cat(tokens, 1)
        return FeatureMaps(
            tokens=joined,
            pos=torch.cat(positions, 1),
            valid=torch.cat(valids, 1),
            shapes=tuple(shapes),
            levels=level_table(shapes, joined.device),
            valid_ratios=torch.stack(ratios, 1),
            neck=joined,
        )


def any_size_model(config: BackboneConfig, options: dict[str, Any], section: str = "model.backbone") -> Any:
    """A timm model with its weights, for images of any size; a Swin sees them as Swin for detection does.

    A plain vision transformer, which timm makes for images of one size, gets its options for others.

    Args:
        config, options, section: as of `timm_model`.

    Raises:
        InputError: timm cannot make it, or its weights cannot be read.
    """
    is_swin = returns_channels_last(config.name)
    fixed: dict[str, Any] = {"strict_img_size": False, "always_partition": True} if is_swin else {}
    if is_model_in_modules(config.name, PLAIN_TRANSFORMERS):
        fixed = {"dynamic_img_size": True}
    model: Any = timm_model(config, fixed | options, section)
    if is_swin:
        model.patch_embed.dynamic_img_pad = True
        for stage in [module for module in model.modules() if isinstance(module, SwinTransformerStage)]:
            # timm's stages make their blocks themselves, and no argument says of which class.
            stage.blocks = nn.Sequential(*map(DetectionSwinBlock, stage.blocks))
    if config.weights not in ("", "timm"):
        load_backbone_weights(model, config.name, config.weights)
    return model


def returns_channels_last(name: str) -> bool:
    """Whether the maps of a timm model are (B, H, W, channels)."""
    return "swin" in name


def freeze(model: nn.Module, prefixes: list[str]) -> None:
    """Take the parameters whose names start with a prefix out of training.

    Raises:
        InputError: a prefix that no parameter has.
    """
    for prefix in prefixes:
        matches = [parameter for name, parameter in model.named_parameters() if name.startswith(prefix)]
        if not matches:
            names = sorted({name.split(".")[0] for name, _ in model.named_parameters()})
            raise InputError(f"model.backbone.frozen: no parameter starts with '{prefix}'; there are {names}")
        for parameter in matches:
            parameter.requires_grad_(False)
