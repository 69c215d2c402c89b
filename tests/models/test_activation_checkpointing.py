"""Activations that are computed again give the same losses and gradients, and are not kept."""

import copy
from pathlib import Path

import pytest
import torch
from detector_parts import prompts_of, random_images
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from trex2_lightning.config import BackboneConfig, LossConfig, ModelConfig, TextConfig, TransformerConfig
from trex2_lightning.errors import InputError
from trex2_lightning.layers.encoder import DeformableEncoderLayer
from trex2_lightning.losses.criterion import Criterion
from trex2_lightning.losses.denoising import noise_queries
from trex2_lightning.models.backbone import Backbone, DetectionSwinBlock
from trex2_lightning.models.build import build_detector
from trex2_lightning.models.early import FusionLayer
from trex2_lightning.structures import Targets
from trex2_lightning.training.build import build_module

SWIN = {
    "embed_dim": 16,
    "depths": [1, 1, 2, 1],
    "num_heads": [1, 2, 4, 8],
    "window_size": 4,
    "proj_drop_rate": 0.1,
    "attn_drop_rate": 0.1,
    "drop_path_rate": 0.3,
}
LAYERS = (DetectionSwinBlock, DeformableEncoderLayer, FusionLayer)
LOSS = LossConfig()
FUSIONS = ["late", "early"]


def random_detectors(fusion):
    """One that keeps its activations, and the same that computes them again; dropout and drop path are on."""
    torch.manual_seed(0)
    kept = build_detector(
        ModelConfig(
            granularity="word" if fusion == "early" else "phrase",
            fusion=fusion,
            width=32,
            num_levels=4,
            num_queries=20,
            backbone=BackboneConfig("swin_tiny_patch4_window7_224", out_indices=[1, 2, 3], options=SWIN),
            text=TextConfig(name="custom", width=32, layers=1, heads=2),
            transformer=TransformerConfig(
                encoder_layers=2, decoder_layers=2, heads=4, ffn=64, dropout=0.2, fusion_drop_path=0.4
            ),
        )
    ).train()
    for parameter in kept.parameters():  # out of the symmetric start
        parameter.data += 0.05 * torch.randn_like(parameter)
    recomputed = copy.deepcopy(kept)
    recomputed.checkpoint_activations()
    return kept, recomputed


def loss_of(detector, kind):
    """Of a training step on two images, whatever has a random part drawn from the same seed."""
    torch.manual_seed(3)
    images, generator = random_images(2, 96), torch.Generator().manual_seed(4)
    targets = [
        Targets(torch.tensor([0, 1]), torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.6, 0.6, 0.3, 0.2]]), 1),
        Targets(torch.tensor([3]), torch.tensor([[0.5, 0.5, 0.4, 0.4]]), 2),
    ]
    features = detector.encode_image(images)
    prompts = detector.encode_prompts(prompts_of(kind), features)
    noised = noise_queries(targets, 4, 20, LOSS.denoising, generator)
    output = detector.decode(features, prompts, noised)
    return torch.stack([*Criterion(LOSS)(output, targets, None, noised).values()]).sum()


def loss_and_gradients(detector, kind="text"):
    loss = loss_of(detector, kind)
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in detector.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["text", "box"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_losses_and_gradients_are_those_of_activations_that_are_kept(fusion, kind):
    kept, recomputed = random_detectors(fusion)
    (loss, gradients), (expected, those) = loss_and_gradients(recomputed, kind), loss_and_gradients(kept, kind)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients, those, rtol=1e-5, atol=1e-6)
    assert sum(gradient.abs().sum() > 0 for gradient in gradients.values()) > len(gradients) / 2


@pytest.mark.parametrize("fusion", FUSIONS)
def test_so_are_those_of_exemplars_before_frozen_parts(fusion):
    kept, recomputed = random_detectors(fusion)
    for detector in (kept, recomputed):
        detector.freeze([name for name, _ in detector.named_children() if name != "visual_encoder"])
    (loss, gradients), (expected, those) = (loss_and_gradients(x, "box") for x in (recomputed, kept))
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients, those, rtol=1e-5, atol=1e-6)
    assert {name.split(".")[0] for name in gradients} == {"visual_encoder"}


def test_so_they_are_under_autocast():
    kept, recomputed = random_detectors("early")
    with torch.autocast("cpu", torch.bfloat16):
        losses = [loss_of(detector, "text") for detector in (kept, recomputed)]
    for loss in losses:
        loss.backward()
    assert losses[0].equal(losses[1])
    for one, other in zip(kept.parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_block_and_layer_is_computed_twice_where_a_gradient_is_wanted_and_once_elsewhere(fusion):
    _, detector = random_detectors(fusion)
    layers = {name: m for name, m in detector.named_modules() if isinstance(m, LAYERS)}
    assert len(layers) == 5 + 2 + 2 * (fusion == "early")
    calls = dict.fromkeys(layers, 0)
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    loss_and_gradients(detector)
    assert calls == dict.fromkeys(layers, 2)
    with torch.no_grad():
        loss_of(detector, "text")
    assert calls == dict.fromkeys(layers, 3)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_far_less_is_kept(fusion):
    def kept_bytes(detector):
        storages = {}

        def pack(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        weights = {parameter.untyped_storage().data_ptr() for parameter in detector.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            features = detector.encode_image(random_images(2, 96))
            if fusion == "early":
                features, _ = detector.fuse(features, detector.encode_prompts(prompts_of("text")))
        return sum(size for place, size in storages.items() if place not in weights)

    kept, recomputed = map(kept_bytes, random_detectors(fusion))
    assert recomputed < 0.4 * kept


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_a_backbone_that_cannot_is_refused_by_the_key(name):
    out = [2, 3, 4] if name != "test_vit" else [0, 1]
    with pytest.raises(InputError, match=rf"^train\.checkpoint_activations .*{name}, as timm .*ConvNeXt$"):
        Backbone(BackboneConfig(name, out_indices=out)).checkpoint_activations()


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_is_refused_unless_it_is_frozen(frozen):
    """It would count what it sees twice."""
    backbone = Backbone(BackboneConfig("inception_next_atto", frozen_batchnorm=frozen))
    pixels = torch.randn(2, 3, 64, 64)
    if not frozen:
        with pytest.raises(InputError, match=r"^train\.checkpoint_activations .* BatchNorm .* twice"):
            backbone.checkpoint_activations()
        return
    before = copy.deepcopy(backbone.state_dict())
    expected = torch.autograd.grad(backbone(pixels)[-1].sum(), backbone.model.stages_1.blocks[0].mlp.fc1.weight)
    backbone.checkpoint_activations()
    found = torch.autograd.grad(backbone(pixels)[-1].sum(), backbone.model.stages_1.blocks[0].mlp.fc1.weight)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(backbone.state_dict(), before, rtol=0, atol=0)


def test_the_setting_turns_it_on(tiny_config):
    swin = "model.backbone={name: swin_tiny_patch4_window7_224, out_indices: [1, 2, 3], options: {embed_dim: 16}}"
    for on in (False, True):
        detector = build_module(tiny_config(swin, f"train.checkpoint_activations={on}")).detector
        assert detector.encoder.recomputed is on
        assert detector.backbone.model.layers_3.grad_checkpointing is on
    with pytest.raises(InputError, match=r"^train\.checkpoint_activations .*name=test_resnet"):
        build_module(tiny_config("train.checkpoint_activations=true"))


@pytest.mark.slow
def test_two_ranks_have_the_same_gradients_as_with_activations_that_are_kept(tmp_path: Path):
    multiprocessing.spawn(one_rank, args=(str(tmp_path),), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for fusion in FUSIONS:
        torch.testing.assert_close(one[fusion]["recomputed"], one[fusion]["kept"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(one[fusion]["recomputed"], other[fusion]["recomputed"], rtol=0, atol=0)


class Step(nn.Module):
    """What DDP wraps: a rank that sees exemplars leaves the text encoder without a gradient, the other its opposite."""

    def __init__(self, detector, kind):
        super().__init__()
        self.detector = detector
        self.kind = kind

    def forward(self):
        return loss_of(self.detector, self.kind)


def one_rank(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = {}
    for fusion in FUSIONS:
        found[fusion] = {}
        for name, detector in zip(("kept", "recomputed"), random_detectors(fusion), strict=True):
            step = Step(detector, ("text", "box")[rank])
            parallel = DistributedDataParallel(step, find_unused_parameters=True)
            parallel().backward()
            found[fusion][name] = {n: p.grad for n, p in detector.named_parameters() if p.grad is not None}
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()
