"""What a training step keeps in a GPU's memory, counted on fake tensors: neither a GPU nor that memory is needed.

B images, C categories, T prompt tokens, h heads, L word pieces of a name, Q queries, N keys.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trex2_lightning.config import Config
from trex2_lightning.layers.encoder import DeformableEncoderLayer
from trex2_lightning.layers.mlp import FeedForward
from trex2_lightning.losses.criterion import Criterion
from trex2_lightning.losses.denoising import noise_queries
from trex2_lightning.losses.matcher import HungarianMatcher
from trex2_lightning.models.bert import SPECIAL
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.models.early import FusionLayer
from trex2_lightning.models.text import BertEncoder
from trex2_lightning.ops.prompt_tokens import from_vectors
from trex2_lightning.prompting.training_prompts import trains_text
from trex2_lightning.structures import Exemplars, FeatureMaps, Images, Prompts, PromptTokens, Targets
from trex2_lightning.training.build import build_module

StepKind = Literal["text", "box"]

_OBJECTS = 10  # of an image, each of a category of its own
_NAME = "cat dog"
_OTHERS = 400  # categories of visual steps beside the batch's own: those of other ranks, and the memory bank's
_DEVICE = "cuda"


class Footprint(NamedTuple):
    """Bytes on one GPU."""

    weights: int  # and their gradients, DDP's copy of these, AdamW's two moments, the average
    kept: int  # activations and batch at the end of the forward pass
    again: int  # activations of the largest block or layer that is computed again, while it is

    @property
    def total(self) -> int:
        return self.weights + self.kept + self.again


def footprints(config: Config, height: int, width: int, kind: StepKind = "text") -> tuple[Footprint, Footprint]:
    """Count a training step, under bfloat16 autocast, with activations that are kept and with those computed again.

    What a layer needs only while it is computed is not counted, nor what CUDA and its libraries take.

    Args:
        config: of a run; no weights are read.
        height: of the padded batch in pixels.
        width: of the padded batch in pixels.
        kind: of the prompts. Text asks for the batch's categories and negatives, words for `model.max_tokens` tokens;
            boxes for the categories of all ranks, with the most exemplars of the batch's own.
    """
    detector = _on_fake_gpu(config)
    count = sum(parameter.numel() for parameter in detector.parameters())
    trained = sum(parameter.numel() for parameter in detector.parameters() if parameter.requires_grad)
    copies = 3 + (config.train.world_size > 1)  # gradients and moments, and DDP's buckets
    weights = 4 * (count * (1 + bool(config.train.ema_decay)) + trained * copies)
    kept, _ = _kept(detector, config, (height, width), kind)
    blocks = [module for module in detector.encoder.modules() if isinstance(module, FeedForward)]
    for block in blocks:
        block.keeps_hidden = True  # as in layers that are computed again
    _, parts = _kept(detector, config, (height, width), kind)
    detector.checkpoint_activations()
    less, _ = _kept(detector, config, (height, width), kind)
    return Footprint(weights, kept, 0), Footprint(weights, less, max(parts))


def to_fake_gpu(root: nn.Module) -> None:
    """`root.to("cuda")` within FakeTensorMode, which cannot convert a module."""
    for module in root.modules():
        for name, x in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            empty = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=_DEVICE)
            is_parameter = isinstance(x, nn.Parameter)
            setattr(module, name, nn.Parameter(empty, x.requires_grad) if is_parameter else empty)


@contextmanager
def bfloat16_of_a_gpu() -> Iterator[None]:
    """Autocast, which asks whether there is a GPU before it is one's own."""
    with torch.autocast(_DEVICE, enabled=False):
        torch.set_autocast_enabled(_DEVICE, True)
        torch.set_autocast_dtype(_DEVICE, torch.bfloat16)
        yield


def first_queries(_matcher: HungarianMatcher, costs: Tensor, targets: Sequence[Targets]) -> NDArray[np.int64]:
    """In place of the matcher's assignment, which needs numbers: (K, B, Q), query j has target j."""
    num_layers, num_queries, _ = costs.shape
    counts = np.array([[len(target.labels)] for target in targets])
    places = np.broadcast_to(np.arange(num_queries), (num_layers, len(targets), num_queries))
    return np.where(places < counts, places, -1)


class Tally(TorchDispatchMode):
    """The bytes of all storages on the device that were made under it and are not freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.device.type == _DEVICE and x.untyped_storage()._cdata not in given:
                self._add(x.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.live += size
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.remove(key)
        self.live -= size


def _on_fake_gpu(config: Config) -> PromptedDetector:
    """The detector as it is trained, on a device that is not there and without the weights' numbers."""
    config = deepcopy(config)
    config.model.init_from, config.model.backbone.weights, config.model.text.pretrained = "", "", ""
    config.train.checkpoint_activations = False
    detector = build_module(config).detector.train()
    if isinstance(detector.text_encoder, BertEncoder):
        pieces = [*SPECIAL, *_NAME.split()]
        tokenizer = detector.text_encoder.tokenizer
        tokenizer.read([*pieces, *(f"[unused{n}]" for n in range(tokenizer.size - len(pieces)))])
    with FakeTensorMode():
        to_fake_gpu(detector)
    return detector


def _kept(detector: PromptedDetector, config: Config, size: tuple[int, int], kind: StepKind) -> tuple[int, list[int]]:
    """Bytes that live on until the backward pass: of all, and of each part that could be computed again."""
    tally, before, parts = Tally(), [], []
    hooks = []
    for module in detector.modules():
        if isinstance(module, SwinTransformerBlock | DeformableEncoderLayer | FusionLayer):
            hooks.append(module.register_forward_pre_hook(lambda *_: before.append(tally.live)))
            hooks.append(module.register_forward_hook(lambda *_: parts.append(tally.live - before.pop())))
    mode = next(detector.parameters()).fake_mode  # type: ignore[attr-defined]
    with mode, tally:
        with _attention_of_a_gpu(), bfloat16_of_a_gpu():
            loss = _step(detector, config, size, kind)
        gc.collect()
        kept = tally.live
    del loss
    for hook in hooks:
        hook.remove()
    return kept, parts


def _step(detector: PromptedDetector, config: Config, size: tuple[int, int], kind: StepKind) -> Tensor:
    """The loss of a batch of the largest images."""
    batch = config.data.batch_size
    images = Images(
        torch.empty(batch, 3, *size, device=_DEVICE),
        torch.ones(batch, *size, dtype=torch.bool, device=_DEVICE),
        torch.empty(batch, 2, dtype=torch.int64, device=_DEVICE),
    )
    labels, boxes = torch.arange(_OBJECTS, device=_DEVICE), torch.empty(_OBJECTS, 4, device=_DEVICE)
    targets = [Targets(labels, boxes, image) for image in range(batch)]
    features = detector.encode_image(images)
    prompts = _words(detector, config) if kind == "text" else _vectors(detector, config, features)
    generator = torch.Generator().manual_seed(0)
    noised = noise_queries(targets, _OBJECTS, config.model.num_queries, config.loss.denoising, generator)
    output = detector.decode(features, prompts, noised)
    with patch.object(HungarianMatcher, "_assign", first_queries):
        return torch.stack([*Criterion(config.loss)(output, targets, None, noised).values()]).sum()


def _words(detector: PromptedDetector, config: Config) -> PromptTokens:
    """Of the batch's categories and its negatives, as many as there is room for."""
    encoder = detector.text_encoder
    one, two = (len(encoder((_NAME,) * n).category) for n in (1, 2))
    room = 1 + ((detector.max_tokens or 10**6) - one) // (two - one)
    return encoder((_NAME,) * min(config.data.negatives.count + _OBJECTS * config.data.batch_size, room))


def _vectors(detector: PromptedDetector, config: Config, features: FeatureMaps) -> PromptTokens:
    batch, limit = config.data.batch_size, config.data.exemplars.limit
    shape = (batch, _OBJECTS * batch, limit)
    exemplars = Exemplars(
        torch.empty(*shape, 4, device=_DEVICE), torch.ones(shape, dtype=torch.bool, device=_DEVICE), "box"
    )
    own = detector.encode_prompts(Prompts(exemplars=exemplars), features).embed
    most = detector.max_tokens or shape[1] + _OTHERS
    others = own.new_empty(1, max(0, min(_OTHERS, most - shape[1])), own.shape[-1])
    with torch.set_grad_enabled(trains_text(config.loss.alignment)):
        text = _words(detector, config).embed.mean()  # of the alignment
    return from_vectors(torch.cat([own.mean(0, keepdim=True) + text, others], 1)[:, :most])


@contextmanager
def _attention_of_a_gpu() -> Iterator[None]:
    """Attention by the kernel that GPUs take where there is a mask; without a GPU PyTorch would keep all scores."""
    with patch.object(F, "scaled_dot_product_attention", _memory_efficient):
        yield


def _memory_efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **_: Any,
) -> Tensor:
    kind = torch.get_autocast_dtype(_DEVICE) if torch.is_autocast_enabled(_DEVICE) else query.dtype
    query, key, value = query.to(kind), key.to(kind), value.to(kind)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=kind).masked_fill(~attn_mask, -torch.inf)
        columns = attn_mask.shape[-1]
        attn_mask = F.pad(attn_mask.to(kind), (0, -columns % 8))[..., :columns]  # rows must be aligned
        attn_mask = attn_mask.expand(*query.shape[:-1], columns)
    attend = torch.ops.aten._scaled_dot_product_efficient_attention
    return attend(query, key, value, attn_mask, True, dropout_p, is_causal)[0]
