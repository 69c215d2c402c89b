"""AP against pycocotools itself, on one process and on two."""

import contextlib
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from trex2_lightning.metrics.detection import DetectionMetric, ImageResult, Truth, coco_results

NAMES = ("cat", "dog", "cow", "hen", "yak", "emu")
GROUPS = ("frequent", "frequent", "rare", "rare", "novel", "novel")
CATEGORY_IDS = (3, 5, 8, 13, 21, 34)


def random_boxes(count: int, generator: torch.Generator) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * 400
    return torch.cat([corner, corner + 5 + torch.rand(count, 2, generator=generator) * 200], -1)


def random_evaluation(num_images: int = 40) -> tuple[dict[int, Truth], list[ImageResult]]:
    """Ground truth with crowds for the first three categories, and detections of all qualities with many equal
    scores; image ids are shuffled."""
    generator = torch.Generator().manual_seed(0)
    truths, results = {}, []
    for image_id in (torch.randperm(num_images, generator=generator) * 3 + 1).tolist():
        count = int(torch.randint(0, 12, (), generator=generator))
        boxes = random_boxes(count, generator)
        labels = torch.randint(0, 3, (count,), generator=generator)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(-1) * 0.7
        truths[image_id] = Truth(boxes, labels, torch.rand(count, generator=generator) < 0.1, area)

        near = boxes.repeat(3, 1) + torch.randn(3 * count, 4, generator=generator) * 6
        near = torch.cat([near[:, :2], torch.maximum(near[:, 2:], near[:, :2] + 1)], -1)
        false = random_boxes(60, generator)
        scores = torch.rand(3 * count + 60, generator=generator).mul(50).round() / 50
        guesses = torch.cat([labels.repeat(3), torch.randint(0, len(NAMES), (60,), generator=generator)])
        results.append(ImageResult(image_id, torch.cat([near, false]), scores, guesses))
    return truths, results


def coco_file(truths: dict[int, Truth]) -> dict[str, object]:
    annotations = [
        {
            "image_id": image_id,
            "category_id": CATEGORY_IDS[label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": area,
            "iscrowd": int(crowd),
        }
        for image_id, item in truths.items()
        for (x0, y0, x1, y1), label, crowd, area in zip(*(field.tolist() for field in item[:4]), strict=True)
    ]
    return {
        "info": {},
        "images": [{"id": image_id, "width": 640, "height": 640} for image_id in truths],
        "annotations": [{"id": index, **annotation} for index, annotation in enumerate(annotations, 1)],
        "categories": [{"id": i, "name": name} for i, name in zip(CATEGORY_IDS, NAMES, strict=True)],
    }


def pycocotools_figures(truth_file: Path, results_file: Path, category_ids: tuple[int, ...] | None) -> np.ndarray:
    """AP, AP50, AP75; -1 where no category has ground truth."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(truth_file))
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(str(results_file)), "bbox")
        if category_ids:
            evaluation.params.catIds = list(category_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:3]


def test_equal_to_pycocotools_on_the_files(backend: str, tmp_path: Path) -> None:
    truths, results = random_evaluation()
    metric = DetectionMetric(truths, NAMES, GROUPS, backend=backend)
    metric.update(results[:15])
    metric.update(results[15:])
    figures = metric.compute()

    truth_file, results_file = tmp_path / "truth.json", tmp_path / "results.json"
    truth_file.write_text(json.dumps(coco_file(truths)))
    results_file.write_text(json.dumps(coco_results(metric.results(), CATEGORY_IDS)))

    whole = pycocotools_figures(truth_file, results_file, None)
    assert 0.05 < whole[0] < 0.95
    assert [figures["ap"], figures["ap50"], figures["ap75"]] == pytest.approx(whole, abs=1e-6)
    for group, ids in {"frequent": (3, 5), "rare": (8, 13), "seen": (3, 5, 8, 13)}.items():
        ap, ap50, _ = pycocotools_figures(truth_file, results_file, ids)
        assert figures[f"ap/{group}"] == pytest.approx(ap, abs=1e-6)
        assert figures[f"ap50/{group}"] == pytest.approx(ap50, abs=1e-6)
    assert pycocotools_figures(truth_file, results_file, (21, 34))[0] == -1
    assert math.isnan(figures["ap/novel"])
    for name, category_id in zip(NAMES[:3], CATEGORY_IDS, strict=False):
        ap = pycocotools_figures(truth_file, results_file, (category_id,))[0]
        assert metric.per_category[name] == pytest.approx(ap, abs=1e-6)
    assert set(metric.per_category) == set(NAMES[:3])


@pytest.mark.parametrize("split", ["bccd/test.json", "lvis/lvis_val_100.json"])
def test_equal_to_pycocotools_on_published_annotations(split: str, tmp_path: Path) -> None:
    if "TREX2_DATA" not in os.environ:
        pytest.skip("TREX2_DATA is not set")
    truth_file, results_file = Path(os.environ["TREX2_DATA"], split), tmp_path / "results.json"
    file = json.loads(truth_file.read_text())
    ids = [category["id"] for category in file["categories"]]
    rows: dict[int, list[dict]] = {image["id"]: [] for image in file["images"]}
    for annotation in file["annotations"]:
        rows[annotation["image_id"]].append(annotation)
    generator = torch.Generator().manual_seed(0)
    truths, results = {}, []
    for image_id, annotations in rows.items():
        boxes = torch.tensor([row["bbox"] for row in annotations], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([ids.index(row["category_id"]) for row in annotations]).long()
        area = torch.tensor([row["area"] for row in annotations])
        truths[image_id] = Truth(boxes, labels, torch.zeros(len(labels), dtype=torch.bool), area)
        sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        guesses = boxes + sides * 0.1 * torch.randn(boxes.shape, generator=generator)
        guesses = torch.cat([guesses[:, :2], torch.maximum(guesses[:, 2:], guesses[:, :2] + 1)], -1)
        results.append(ImageResult(image_id, guesses, torch.rand(len(labels), generator=generator), labels))
    names = [str(category_id) for category_id in ids]
    metric = DetectionMetric(truths, names, [""] * len(ids))
    metric.update(results)
    figures = metric.compute()
    results_file.write_text(json.dumps(coco_results(metric.results(), ids)))
    for row in file["annotations"]:
        row.setdefault("iscrowd", 0)
    (tmp_path / "truth.json").write_text(json.dumps({"info": {}, **file}))
    expected = pycocotools_figures(tmp_path / "truth.json", results_file, None)
    assert 0.1 < expected[0] < 0.9
    assert [figures["ap"], figures["ap50"], figures["ap75"]] == pytest.approx(expected, abs=1e-6)


def _evaluate_shard(rank: int, folder: str) -> None:
    """Rank 0 sees 25 images, rank 1 the other 15 and, as the distributed sampler's padding does, one of rank 0's."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    truths, results = random_evaluation()
    metric = DetectionMetric(truths, NAMES, GROUPS)
    metric.update(results[:25] if rank == 0 else [*results[25:], results[0]])
    figures = metric.compute()
    written = coco_results(metric.results(), CATEGORY_IDS)
    Path(folder, f"{rank}.json").write_text(json.dumps([figures, written]))
    torch.distributed.destroy_process_group()


@pytest.mark.ci
def test_two_processes_give_the_figures_of_one(tmp_path: Path) -> None:
    truths, results = random_evaluation()
    metric = DetectionMetric(truths, NAMES, GROUPS)
    metric.update(results)
    expected = metric.compute()
    spawn(_evaluate_shard, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        figures, written = json.loads((tmp_path / f"{rank}.json").read_text())
        assert figures == pytest.approx(expected, nan_ok=True, abs=1e-12)
        assert written == coco_results(metric.results(), CATEGORY_IDS)
