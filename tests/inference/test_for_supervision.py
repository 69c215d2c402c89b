"""Detections in another library's form, and back."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from trex2_lightning.errors import InputError
from trex2_lightning.inference.for_supervision import from_supervision, to_supervision
from trex2_lightning.structures import Detection

FOUND = [
    Detection("ring", 0.75, (1.0, 2.0, 30.5, 40.0)),
    Detection("red star", 0.5, (5.0, 6.0, 9.0, 12.0)),
    Detection("ring", 0.25, (0.0, 0.0, 8.0, 8.0)),
]


def test_there_and_back() -> None:
    supervision = pytest.importorskip("supervision")
    there = to_supervision(FOUND, ("red star", "moon", "ring"))
    assert isinstance(there, supervision.Detections)
    assert there.class_id.tolist() == [2, 0, 2]
    assert there.box_area.tolist() == [29.5 * 38, 4 * 6, 64]
    assert from_supervision(there) == FOUND
    assert from_supervision(there[there.confidence > 0.4]) == FOUND[:2]
    assert [one.name for one in from_supervision(there[there.class_id == 0])] == ["red star"]


def test_names_are_numbered_as_they_come_where_none_are_given() -> None:
    pytest.importorskip("supervision")
    assert to_supervision(FOUND).class_id.tolist() == [0, 1, 0]
    assert to_supervision(FOUND, ("moon",)).class_id.tolist() == [1, 2, 1]


def test_nothing_is_nothing() -> None:
    supervision = pytest.importorskip("supervision")
    assert to_supervision([]) == to_supervision(FOUND)[np.zeros(3, bool)]
    assert from_supervision(to_supervision([])) == from_supervision(supervision.Detections.empty()) == []


def test_what_says_too_little_is_refused() -> None:
    supervision = pytest.importorskip("supervision")
    with pytest.raises(InputError, match=r"without data\['class_name'\]"):
        from_supervision(supervision.Detections(xyxy=np.zeros((1, 4)), confidence=np.ones(1)))
    with pytest.raises(InputError, match="without confidence"):
        from_supervision(supervision.Detections(xyxy=np.zeros((1, 4)), data={"class_name": np.array(["cat"])}))


def test_the_extra_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match=r"pip install 'trex2_lightning\[supervision\]'"):
        to_supervision(FOUND)
