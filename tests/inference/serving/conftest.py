"""The endpoint of a tiny detector, called without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("nicegui", reason="the extra `serve` is not installed")

from fastapi.testclient import TestClient
from httpx import Response

from trex2_lightning.config import load
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.inference.serving.api import build_api
from trex2_lightning.inference.serving.served_detector import ServedDetector
from trex2_lightning.inference.serving.serving_limits import ServingLimits
from trex2_lightning.inference.serving.upload_limit import UploadLimit
from trex2_lightning.training.build import build_module


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """As that of other tests, but one for all: they take it as it is."""
    config = load(Path(__file__).parents[2] / "tiny.yaml", ["train.rhythm.visual=1"])
    torch.manual_seed(0)
    return Predictor(config, build_module(config))


@pytest.fixture
def limits() -> ServingLimits:
    return ServingLimits(max_upload=1, max_pixels=20_000, memory=64)


@pytest.fixture
def served(predictor: Predictor, limits: ServingLimits) -> ServedDetector:
    return ServedDetector(predictor, limits.memory)


@pytest.fixture
def client(served: ServedDetector, limits: ServingLimits) -> Iterator[TestClient]:
    with TestClient(UploadLimit(build_api(served, limits), limits), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def post(client: TestClient) -> Callable[..., Response]:
    """`post("/predict", {"image": bytes}, text=["cell"])`: files by field, or a list of pairs, and texts."""

    def posting(path: str, files: Any, **texts: Any) -> Response:
        pairs = files.items() if isinstance(files, dict) else files
        # A file without a name would be sent as a text.
        return client.post(path, files=[(field, (field, data)) for field, data in pairs], data=texts)

    return posting
