"""Both libraries that compute COCO's figures."""

import pytest

BACKENDS = ["pycocotools", "faster_coco_eval"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param
