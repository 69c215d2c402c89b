"""Detections and AP of a published Grounding DINO, by this package's command, are those of `transformers`.

Its weights, image processor, tokenizer and post-processing are those of a folder that `transformers` wrote, with random
weights; pictures and annotations lie as COCO's. The authors' rule for COCO is written here a second time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.ops import box_convert, clip_boxes_to_image

from trex2_lightning.commands.verify_official import main as verify_command
from trex2_lightning.errors import InputError
from trex2_lightning.studies.official import Verified, verification_table

sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "hub"))

from hub_reference import DOT, PIECES, reference

NAMES = ("cat", "red star", "ring", "a very blue moon", "dog", "star")
IDS = (1, 3, 4, 18, 44, 90)  # with holes, as COCO's
SIZE, LONGEST = 96, 160
# Heights and widths that become multiples of 32, as further padding would be seen by the backbone; limited by the
# longer side, enlarged, and those whose shorter side a rounding error would end at 95.
SIZES = [(90, 120), (120, 90), (60, 100), (48, 120), (120, 48), (147, 196), (188, 188), (192, 256), (96, 96), (100, 60)]


class Found(NamedTuple):
    """What `transformers` finds in a picture; a row is a score and a box, xywh in pixels, clipped."""

    rows: Tensor  # (n, 5) by the authors' rule
    labels: Tensor  # (n,)
    post: Tensor  # (q, 5) by the post-processing, of boxes whose best word is a name of one word


@pytest.mark.parametrize("is_mm", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_detections_and_ap_are_those_of_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_mm: bool
) -> None:
    folder = "mm_grounding_dino_tiny_o365v1_goldg" if is_mm else "grounding-dino-tiny"
    model, processor = hub_folder(tmp_path / folder, is_mm)
    found = write_coco(tmp_path / "coco", model, processor)

    sizes = [f"data.size={SIZE}", f"data.max_size={LONGEST}", "data.num_workers=0", "train.accelerator=cpu"]
    output = ["--output", str(tmp_path / "out")]
    verify_command(["--model", str(tmp_path / folder), *output, f"data.root={tmp_path / 'coco'}", *sizes])

    ours = json.loads((tmp_path / "out" / folder / "results_text.json").read_text())
    theirs = []
    for image, expected in enumerate(found, start=1):
        rows = [row for row in ours if row["image_id"] == image]
        assert len(rows) == len(expected.rows) == 180  # more than the 100 that a run keeps
        own = torch.tensor([[row["score"], *row["bbox"]] for row in rows])
        torch.testing.assert_close(own[:, 0], expected.rows[:, 0], rtol=0, atol=1e-5)
        labels = torch.tensor([IDS.index(row["category_id"]) for row in rows])
        same = near(own, expected.rows) & (labels[:, None] == expected.labels)
        assert same.any(0).all()
        assert same.any(1).all()
        assert near(own, expected.post).any(0).all()
        theirs += results(image, expected)
    assert sum(len(one.post) for one in found) > 20

    truth = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    ap = coco_ap(truth, theirs)
    assert 0.1 < ap < 0.9
    assert coco_ap(truth, ours) == pytest.approx(ap, abs=1e-9)
    written = json.loads((tmp_path / "out" / folder / "evaluation.json").read_text())
    assert written["ap"]["text"]["all"] == pytest.approx(ap, abs=1e-4)
    published = 50.4 if is_mm else 48.4
    line = f"| {tmp_path / folder} | {100 * ap:.1f} | {published} | {100 * ap - published:+.1f} |"
    assert line in capsys.readouterr().out


def test_what_has_no_published_figure_has_no_difference() -> None:
    table = verification_table([Verified("a/b", 12.34, None), Verified("c/d", 50.0, 50.04)])
    assert table.splitlines()[2:] == ["| a/b | 12.3 | - | - |", "| c/d | 50.0 | 50.0 | -0.0 |"]


def test_the_folder_of_coco_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"add data\.root=COCO"):
        verify_command([])


def hub_folder(folder: Path, is_mm: bool) -> tuple[Any, Any]:
    """The model and the processor of a folder that `transformers` wrote, without files of any other."""
    transformers = pytest.importorskip("transformers")
    model = reference(folder, is_mm=is_mm, num_queries=30, decoder_bbox_embed_share=not is_mm)
    tokenizer = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    images = transformers.GroundingDinoImageProcessor(size={"shortest_edge": SIZE, "longest_edge": LONGEST})
    (folder / "vocab.txt").unlink()
    transformers.GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return model, transformers.AutoProcessor.from_pretrained(folder)


@torch.no_grad()
def write_coco(root: Path, model: Any, processor: Any) -> list[Found]:
    """Ten pictures, and as objects some of what the model finds on them, a little off; what it finds by the rule."""
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    random, images, annotations, found = np.random.default_rng(0), [], [], []
    for number, (height, width) in enumerate(SIZES, start=1):
        coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        file = root / "val2017" / f"{number}.png"
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file)
        images.append({"id": number, "file_name": file.name, "height": height, "width": width})
        found.append(detect(model, processor, Image.open(file), (height, width)))
        for place in range(0, 40, 5):
            _, x, y, w, h = found[-1].rows[place].tolist()
            entry = {"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, "area": w * h * 0.83}
            entry |= {"category_id": IDS[int(found[-1].labels[place])], "bbox": [x, y, w * 0.83, h]}
            annotations.append(entry)
    categories = [{"id": number, "name": name} for number, name in zip(IDS, NAMES, strict=True)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return found


def detect(model: Any, processor: Any, picture: Image.Image, size: tuple[int, int]) -> Found:
    inputs = processor(images=picture, text=list(NAMES), return_tensors="pt")
    output = model(**inputs)
    [post] = processor.post_process_grounded_object_detection(output, threshold=-1.0, target_sizes=[size])
    words = inputs.input_ids[0].tolist()
    ends = [place for place, word in enumerate(words) if word == DOT]
    spans = [range(start + 1, end) for start, end in zip([0, *ends], ends, strict=False)]
    assert [" ".join(PIECES[words[place]] for place in span) for span in spans] == list(NAMES)
    chances = output.logits[0].sigmoid()  # of each box and word
    of_names = torch.stack([chances[:, span].mean(-1) for span in spans], -1)
    best, index = of_names.flatten().topk(min(300, of_names.numel()))
    boxes = box_convert(clip_boxes_to_image(post["boxes"], size), "xyxy", "xywh")
    alone = torch.tensor([span[0] for span in spans if len(span) == 1])
    named = torch.isin(chances.argmax(-1), alone)
    rows = torch.cat([best[:, None], boxes[index // len(NAMES)]], -1)
    return Found(rows, index % len(NAMES), torch.cat([post["scores"][named, None], boxes[named]], -1))


def near(own: Tensor, others: Tensor) -> Tensor:
    """(n, 5) and (m, 5) to (n, m), whether scores and boxes are the same."""
    return ((own[:, None] - others).abs() <= torch.tensor([1e-5, *[1e-2] * 4])).all(-1)


def results(image: int, found: Found) -> list[dict[str, Any]]:
    rows = zip(found.rows.tolist(), found.labels.tolist(), strict=True)
    return [
        {"image_id": image, "category_id": IDS[label], "bbox": box, "score": score} for (score, *box), label in rows
    ]


def coco_ap(truth: Path, found: list[dict[str, Any]]) -> float:
    loaded = COCO(str(truth))
    evaluation = COCOeval(loaded, loaded.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])
