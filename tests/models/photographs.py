"""Photographs of COCO that show one of ImageNet's classes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PHOTOGRAPHS = {  # and the class
    "train/000000000034.jpg": 340,  # zebra
    "val/000000000285.jpg": 294,  # brown bear
    "train/000000000321.jpg": 934,  # hot dog
    "train/000000000599.jpg": 282,  # tiger cat
    "val/000000002592.jpg": 504,  # coffee mug
}


def photographs() -> Path:
    """The folder of COCO's photographs."""
    if "TREX2_DATA" not in os.environ:
        pytest.skip("TREX2_DATA names no folder of photographs")
    folder = Path(os.environ["TREX2_DATA"], "coco128")
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder
