"""Small random detectors of every (granularity, fusion) cell, with a presence head, which changes nothing else."""

import copy
import functools

import pytest
import torch
from detector_parts import QUERIES

from trex2_lightning.config import BackboneConfig, ModelConfig, TextConfig, TransformerConfig
from trex2_lightning.models.build import build_detector
from trex2_lightning.models.presence import PresenceHead

CELLS = [("phrase", "late"), ("word", "late"), ("phrase", "early"), ("word", "early")]


@pytest.fixture(params=CELLS, ids="-".join)
def detector(request):
    return random_detector(*request.param)


@pytest.fixture(params=["phrase", "word"])
def late(request):
    return random_detector(request.param, "late")


@pytest.fixture(params=["phrase", "word"])
def early(request):
    return random_detector(request.param, "early")


@pytest.fixture
def detector_of():
    """`detector_of(granularity, fusion)`."""
    return random_detector


def random_detector(granularity, fusion):
    model = built(granularity, fusion)
    torch.manual_seed(0)  # of what the test draws
    return copy.deepcopy(model)


@functools.cache
def built(granularity, fusion):
    torch.manual_seed(0)
    model = build_detector(
        ModelConfig(
            granularity=granularity,
            fusion=fusion,
            width=32,
            num_levels=3,
            num_queries=QUERIES,
            backbone=BackboneConfig("test_resnet", out_indices=[2, 3, 4]),
            text=TextConfig(name="custom", width=32, layers=1, heads=2),
            transformer=TransformerConfig(encoder_layers=1, decoder_layers=2, heads=4, ffn=64),
        )
    )
    model.presence = PresenceHead(32, 4)
    for parameter in model.parameters():  # out of the symmetric start: offsets, box heads and biases say something
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()
