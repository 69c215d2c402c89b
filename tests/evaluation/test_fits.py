"""What is fitted after training: what counts as right, whose boxes are known, and a checkpoint that keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trex2_lightning.commands.calibrate import main as calibrate_command
from trex2_lightning.commands.evaluate import main as evaluate_command
from trex2_lightning.config import Config
from trex2_lightning.data.records import ImageRecord
from trex2_lightning.data.sampling.mixture import TrainSet, known_images
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation import fits
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.evaluation.fits import calibrate, is_known, is_right
from trex2_lightning.evaluation.one_category import OneCategory
from trex2_lightning.models.build import build_detector
from trex2_lightning.models.calibration import ScoreCalibration
from trex2_lightning.ops.prompt_tokens import from_vectors
from trex2_lightning.prompting.protocols import Prompting
from trex2_lightning.structures import AppearanceMaps, Batch, ExemplarAppearance, FeatureMaps, Images, Prompts, Targets
from trex2_lightning.training.build import build_datamodule
from trex2_lightning.training.checkpoint import load_checkpoint


def run(command: Callable[[list[str]], None], *arguments: object) -> None:
    command([*map(str, arguments)])


APPEARANCE = "model.appearance.name=backbone"


def test_of_the_boxes_of_an_object_the_best_one_is_right() -> None:
    boxes = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.31, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2], [0.3, 0.3, 0.6, 0.6]])
    scores = torch.tensor([[0.2, 0.9], [0.4, 0.1], [0.5, 0.6], [0.9, 0.3]])
    target = Targets(torch.tensor([0, 1]), torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]]), 1)
    right = is_right(boxes, scores, target)
    assert right.nonzero().tolist() == [[1, 0], [2, 1]], "a duplicate, another category and a loose box are not"
    assert not is_right(boxes, torch.zeros(4, 2), target).any(), "what is not asked for cannot be"
    nothing = Targets(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), 1)
    assert not is_right(boxes, scores, nothing).any()


def test_nobody_is_wrong_where_an_image_does_not_judge_nor_in_a_crowd() -> None:
    boxes = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.5, 0.3, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2]])
    crowd = torch.tensor([[20.0, 0.0, 90.0, 120.0]])  # of 200 x 300 pixels: in it lies the first box
    record = ImageRecord(
        1, Path("a.jpg"), 200, 300, crowd, torch.tensor([2]), torch.tensor([True]), torch.ones(1), torch.tensor([0, 2])
    )
    expected = [[True, False, False], [True, False, True], [True, False, True]]
    assert is_known(boxes, 3, record).tolist() == expected
    assert is_known(boxes, 2, record._replace(judged=None)).all(), "nothing was asked of the crowd's category"


def test_only_what_an_image_judges_is_fitted_to(
    checkpoint: Path, tiny_coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(
        ScoreCalibration,
        "fit",
        lambda _self, _source, _evidence, right, _used: seen.append((len(right), int(right.sum()))),
    )
    monkeypatch.setattr(fits, "RIGHT", 0.01)
    run(calibrate_command, "--ckpt", checkpoint)
    for file in (tiny_coco / "train.json", tiny_coco / "val.json"):
        content = json.loads(file.read_text())
        for image in content["images"]:
            image |= {"neg_category_ids": [1], "not_exhaustive_category_ids": []}
        file.write_text(json.dumps(content))
    run(calibrate_command, "--ckpt", checkpoint, "data.format=lvis")
    (whole, right), (judged, still) = seen
    assert judged < whole
    assert right == still > 0


def test_an_image_is_asked_for_what_it_lacks_by_one_exemplar(
    tiny_config: Callable[..., Config], maps: Callable[..., FeatureMaps]
) -> None:
    """1,203 categories of 16 references, for every image of a batch, would be gigabytes."""
    references = from_vectors(torch.randn(4, 3, 8), torch.rand(4, 3) > 0.2)
    seen = ExemplarAppearance(torch.randn(4, 3, 5), references.valid, references.category)
    labels = [torch.tensor([0, 1]), torch.tensor([0, 1, 2]), torch.zeros(0, dtype=torch.long)]
    targets = tuple(Targets(own, torch.zeros(len(own), 4), i) for i, own in enumerate(labels))
    batch = Batch(Images(*[torch.zeros(3)] * 3), Prompts(("a", "b", "c")), targets)
    features = maps(torch.zeros(3, 4, 8), torch.ones(3, 4, dtype=torch.bool), ((2, 2),))
    detector = build_detector(tiny_config().model)
    asked = OneCategory(references._replace(appearance=seen), 0, "interactive")(detector, batch, features)
    shown = asked.appearance
    assert shown is not None
    assert shown.vectors.shape == (3, 2, 5)
    assert asked.valid.sum(1).tolist() == shown.valid.sum(1).tolist() == [1, 0, 1]
    assert asked.valid[0].nonzero().tolist() == [[2]]
    for image in (0, 2):
        category = int(asked.valid[image].nonzero())
        place = int(shown.valid[image].nonzero())
        assert shown.category[place] == category
        own = (references.embed[:, category] == asked.embed[image, category]).all(-1)
        assert torch.equal(shown.vectors[image, place], seen.vectors[own, category][0])
        assert references.valid[own, category].all()


def test_references_ask_for_one_category_alone_that_may_be_there(
    tiny_config: Callable[..., Config], maps: Callable[..., FeatureMaps]
) -> None:
    references = from_vectors(torch.randn(4, 3, 8))
    targets = tuple(Targets(torch.arange(3), torch.zeros(3, 4), number) for number in range(20))
    batch = Batch(Images(*[torch.zeros(20)] * 3), Prompts(("a", "b", "c")), targets)
    features = maps(torch.zeros(20, 4, 8), torch.ones(20, 4, dtype=torch.bool), ((2, 2),))
    detector = build_detector(tiny_config().model)
    asked = OneCategory(references, 0, "generic")(detector, batch, features).valid
    assert asked.sum(1).tolist() == [1] * 20
    assert asked.any(0).all()
    assert not torch.equal(asked, OneCategory(references, 1, "generic")(detector, batch, features).valid)
    assert not OneCategory(references, 0, "interactive")(detector, batch, features).valid.any()


def test_all_together_and_one_alone_are_asked_equally_often(
    visual_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Prompting] = []
    begin = fits.EvidenceCollector.__init__

    def noted(self: Any, module: Any, prompting: Sequence[Prompting], *rest: Any) -> None:
        asked.extend(prompting)
        begin(self, module, prompting, *rest)

    monkeypatch.setattr(fits.EvidenceCollector, "__init__", noted)
    config, module = load_checkpoint(visual_checkpoint)
    config.eval.references = [1, 2]
    calibrate(config, module)
    kinds = [(type(one).__name__, one.source) for one in asked if one.source != "text"]
    assert sorted(kinds) == sorted(
        [("Fixed", "generic")] * 2
        + [("OneCategory", "generic")] * 2
        + [("Interactive", "interactive"), ("OneCategory", "interactive"), ("Mixed", "mixed"), ("OneMixed", "mixed")]
    )


def test_known_boxes_are_pooled_once_for_each_image(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = build_detector(tiny_config("model.appearance.name=backbone").model).eval()
    appearance = detector.appearance
    assert appearance is not None
    images = Images(torch.randn(3, 3, 64, 64), torch.ones(3, 64, 64, dtype=torch.bool), torch.full((3, 2), 64))
    targets = tuple(Targets(torch.arange(n), torch.rand(n, 4) * 0.5 + 0.2, n) for n in (2, 0, 4))
    known = fits.KnownBoxes(detector, appearance)
    pooled: list[int] = []
    vectors = appearance.vectors

    def counted(maps: AppearanceMaps, boxes: Tensor) -> Tensor:
        pooled.append(boxes.shape[:2].numel())
        return vectors(maps, boxes)

    monkeypatch.setattr(appearance, "vectors", counted)
    known.predict_step(Batch(images, Prompts(), targets))
    assert pooled == [3 * 4]
    assert torch.cat(known.labels).tolist() == [0, 1, 0, 1, 2, 3]
    alone = [
        vectors(appearance(Images(*(field[i : i + 1] for field in images))), target.boxes[None])[0]
        for i, target in enumerate(targets)
    ]
    torch.testing.assert_close(torch.cat(known.vectors), torch.cat(alone), rtol=1e-4, atol=1e-5)


def settings(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    saved = torch.load(checkpoint, weights_only=True)
    change(saved)
    torch.save(saved, checkpoint)


def test_an_old_checkpoint_s_boxes_are_found_by_the_names_of_its_training(checkpoint: Path) -> None:
    settings(checkpoint, lambda saved: saved.pop("known_names"))
    run(calibrate_command, "--ckpt", checkpoint, APPEARANCE)
    _, module = load_checkpoint(checkpoint.with_name("calibrated.ckpt"))
    assert module.known_names == ("red block", "green block", "blue block")


def test_several_processes_are_refused(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="fitted in one process"):
        run(calibrate_command, "--ckpt", checkpoint, "train.devices=2")


def test_a_val_split_that_was_trained_on_is_told_of(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(calibrate_command, "--ckpt", checkpoint, "data.val={annotations: train.json, images: train}")
    assert "will promise too much of other images" in caplog.text


def test_one_box_of_a_category_teaches_no_difference(
    checkpoint: Path, tiny_coco: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tiny_coco / "train.json"
    content = json.loads(file.read_text())
    first = {box["category_id"]: box for box in content["annotations"]}
    file.write_text(json.dumps(content | {"annotations": [*first.values()]}))
    run(calibrate_command, "--ckpt", checkpoint, APPEARANCE)
    assert "no category has two boxes in training" in caplog.text
    _, module = load_checkpoint(checkpoint.with_name("calibrated.ckpt"))
    appearance = module.detector.appearance
    assert appearance is not None
    assert torch.equal(appearance.transform, torch.eye(appearance.channels))


def test_known_images_have_boxes_and_labels_of_all_sets(tiny_config: Callable[..., Config]) -> None:
    data = build_datamodule(tiny_config())
    data.setup("fit")
    images, names = data.train_records.images, data.train_records.names
    with_boxes = sum(len(image.boxes) > 0 for image in images)
    sets = [TrainSet(images, names, name="one"), TrainSet(images, names, name="two"), TrainSet(images, kind="nameless")]
    known, both = known_images(sets, 1000, seed=0)
    assert len(known) == 2 * with_boxes
    assert both == [*names, *names]
    assert {*torch.cat([image.labels for image in known]).tolist()} == {0, 1, 2, 3, 4, 5}
    few, _ = known_images(sets, 3, seed=0)
    assert [image.id for image in few] == [image.id for image in known[:3]]
    assert known_images([], 3, seed=0) == ([], [])


def test_a_checkpoint_of_text_alone_takes_exemplars_with_appearance(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "RIGHT", 0.01)  # of random weights
    with pytest.raises(InputError, match="was trained with text alone"):
        run(evaluate_command, "--ckpt", checkpoint, "--protocol", "generic")
    before = torch.load(checkpoint, weights_only=True)["state_dict"]
    run(calibrate_command, "--ckpt", checkpoint, APPEARANCE)
    config, module = load_checkpoint(checkpoint.with_name("calibrated.ckpt"))
    assert config.model.appearance.name == "backbone"
    assert module.known_names == ("red block", "green block", "blue block")
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())
    assert (appearance := module.detector.appearance) is not None
    assert not torch.equal(appearance.transform, torch.eye(appearance.channels))
    changed = (module.detector.calibration.weight != ScoreCalibration().weight).any(-1)[1].tolist()
    assert changed == [False, True, True, True, False], "of text, interactive, generic and mixed prompts, compared"
    config.eval.references = [2]
    config.eval.protocols = ["text", "generic", "interactive_box", "mixed", "region_classification"]
    found = evaluate(config, module, "test").rows.keys()  # without regions, which have their vectors alone
    assert found == {"text", "interactive_box", "generic_2", "mixed"}


def test_what_is_fitted_is_kept_and_used(
    visual_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "RIGHT", 0.01)  # of random weights
    output = tmp_path / "fitted.ckpt"
    run(calibrate_command, "--ckpt", visual_checkpoint, "--output", output)
    _, module = load_checkpoint(output)
    unfitted = ScoreCalibration().fits()
    found = module.detector.calibration.fits()
    for name in found:  # of text, interactive, generic and mixed prompts, without appearance
        changed = (found[name] != unfitted[name]).view(2, 5, -1).any(-1)
        assert changed.tolist() == [[True] * 4 + [False], [False] * 5], name
    resumed = torch.load(output, weights_only=True)
    assert resumed.keys() >= torch.load(visual_checkpoint, weights_only=True).keys()


def test_what_finds_nothing_right_stays_as_it_is(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fits, "is_right", lambda _boxes, scores, _target: torch.zeros_like(scores).bool())
    run(calibrate_command, "--ckpt", checkpoint)
    assert "text prompts find nothing right in val: their scores stay as they are" in caplog.text
    _, module = load_checkpoint(checkpoint.with_name("calibrated.ckpt"))
    assert torch.equal(module.detector.calibration.weight, ScoreCalibration().weight)


def test_what_finds_nothing_wrong_stays_as_it_is(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fits, "is_right", lambda boxes, scores, *_: torch.ones_like(scores).bool())
    run(calibrate_command, "--ckpt", checkpoint)
    assert "text prompts find nothing wrong in val: their scores stay as they are" in caplog.text


def test_another_network_takes_the_place_of_the_first(checkpoint: Path) -> None:
    first, second = (checkpoint.with_name(f"{name}.ckpt") for name in ("first", "second"))
    run(calibrate_command, "--ckpt", checkpoint, "--output", first, APPEARANCE)
    run(calibrate_command, "--ckpt", first, "--output", second, APPEARANCE, "model.appearance.out_indices=[-1]")
    config, _ = load_checkpoint(second)
    assert config.model.appearance.out_indices == [-1]
    run(calibrate_command, "--ckpt", first, "--output", second, "model.appearance.name=")
    assert load_checkpoint(second)[1].detector.appearance is None


def test_an_input_of_appearance_is_learned_in_training_alone(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="are learned in training"):
        run(calibrate_command, "--ckpt", checkpoint, APPEARANCE, "model.appearance.input=true")


def test_the_rest_of_a_model_cannot_be_changed(checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be changed, but for model\.appearance"):
        run(calibrate_command, "--ckpt", checkpoint, "model.prior=0.5")
