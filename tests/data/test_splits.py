"""What is taken of a split."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trex2_lightning.data.records import ImageRecord, Records
from trex2_lightning.data.splits import of_group
from trex2_lightning.errors import InputError


def test_a_group_s_categories_alone() -> None:
    boxes = torch.arange(16.0).view(4, 4)
    image = ImageRecord(1, Path("1.jpg"), 9, 9, boxes, torch.tensor([0, 1, 2, 2]), torch.zeros(4).bool(), torch.ones(4))
    names, groups = ("cat", "fork", "tv"), ("novel", "base", "novel")
    records = Records([image], names, (17, 48, 72), groups, Path("5k.json"))
    assert of_group(records, "") is records
    found = of_group(records, "novel")
    assert (found.names, found.category_ids, found.groups) == (("cat", "tv"), (17, 72), ("novel", "novel"))
    assert found.images[0].labels.tolist() == [0, 1, 1]
    assert found.images[0].boxes.tolist() == boxes[[0, 2, 3]].tolist()
    with pytest.raises(InputError, match=r"^5k\.json: eval\.group=rare is none of its groups: novel, base$"):
        of_group(records, "rare")
    with pytest.raises(InputError, match=r"eval\.group=rare is none of its groups: it has none$"):
        of_group(records._replace(groups=("", "", "")), "rare")
