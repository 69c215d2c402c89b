"""Prediction on one image file from a checkpoint: detections, and the files that are read and written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from predictor_parts import BOX, OTHER, PHRASES, POINT

from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.inference.prediction_files import output_files, write_prediction
from trex2_lightning.inference.predictor import Detection, EncodedImage, Predictor
from trex2_lightning.prompting import finding
from trex2_lightning.prompting.prompt_set import PromptSet, join
from trex2_lightning.training.build import build_module
from trex2_lightning.training.fit import train

# Detections


def test_boxes_lie_in_the_image_and_the_best_comes_first(predictor: Predictor, image: Path) -> None:
    detections = predictor.detect(image, predictor.text(PHRASES), threshold=0.0)
    with Image.open(image) as picture:
        width, height = picture.size
    assert len(detections) == 20 * len(PHRASES)
    assert all(0 <= d.box[0] <= d.box[2] <= width and 0 <= d.box[1] <= d.box[3] <= height for d in detections)
    assert max(d.box[2] for d in detections) > 1  # pixels, not shares
    assert detections == sorted(detections, key=lambda detection: -detection.score)


def test_the_threshold_is_the_lowest_score_that_is_kept(predictor: Predictor, image: Path) -> None:
    prompts = predictor.text(PHRASES)
    everything = predictor.detect(image, prompts, threshold=0.0)
    limit = everything[5].score
    kept = predictor.detect(image, prompts, threshold=limit)
    assert kept == [detection for detection in everything if detection.score >= limit]
    assert 6 <= len(kept) < len(everything)


def test_an_image_is_encoded_once_for_any_number_of_prompts(
    predictor: Predictor, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_file = predictor.detect(image, predictor.interactive(image, {"cell": [BOX]}), threshold=0.0)
    encoded = predictor.encode(image)
    monkeypatch.setattr(predictor.module.detector, "encode_image", None)
    assert predictor.detect(encoded, predictor.interactive(encoded, {"cell": [BOX]}), threshold=0.0) == from_file
    predictor.detect(encoded, join(predictor.text(PHRASES), predictor.interactive(encoded, {"cell": [POINT]})))


@pytest.fixture
def rivals(predictor: Predictor, image: Path) -> tuple[EncodedImage, PromptSet]:
    """Two categories, each of which scores higher for some of the queries."""
    encoded = predictor.encode(image)
    torch.manual_seed(0)
    for _ in range(50):
        prompts = PromptSet(("wanted", "unwanted"), torch.randn(2, 32), ("generic", "generic"))
        found = predictor.detect(encoded, prompts, threshold=0.0)
        winners = {box: name for name, _, box in reversed(found)}
        if 5 <= list(winners.values()).count("wanted") <= 15:
            return encoded, prompts
    raise AssertionError("no two random vectors are rivals")


def test_a_negative_takes_away_the_objects_that_it_wins(
    predictor: Predictor, rivals: tuple[EncodedImage, PromptSet]
) -> None:
    encoded, prompts = rivals
    everything = predictor.detect(encoded, prompts, threshold=0.0)
    winners = {box: name for name, _, box in reversed(everything)}  # the best comes first
    kept = predictor.detect(encoded, prompts, threshold=0.0, negative=["unwanted"])
    assert kept == [d for d in everything if d.name == "wanted" and winners[d.box] == "wanted"]
    assert 0 < len(kept) < 20


def test_what_cannot_be_detected(predictor: Predictor, image: Path, tmp_path: Path) -> None:
    prompts = predictor.text(PHRASES)
    with pytest.raises(InputError, match="the negative 'dog' is none of the categories red block, green block"):
        predictor.detect(image, prompts, negative=["dog"])
    with pytest.raises(InputError, match="there is nothing to look for"):
        predictor.detect(image, prompts, negative=PHRASES)
    with pytest.raises(InputError, match="there is nothing to look for"):
        predictor.detect(image, predictor.text(()))
    (tmp_path / "half.jpg").write_bytes(image.read_bytes()[:300])
    with pytest.raises(InputError, match=r"half\.jpg: cannot be read"):
        predictor.detect(tmp_path / "half.jpg", prompts)
    with pytest.raises(InputError, match=r"gone\.jpg: no such image file"):
        predictor.detect(tmp_path / "gone.jpg", prompts)


def test_presence_is_not_said_of_exemplars_that_nothing_was_learned_of(
    tiny_config: Callable[..., Config], image: Path
) -> None:
    module = build_module(tiny_config("model.presence=true", "model.appearance.name=backbone"))
    module.known_names = PHRASES
    predictor = Predictor(tiny_config(), module)
    prompts = join(predictor.text(PHRASES), predictor.interactive(image, {"a thing": [BOX]}))
    assert tuple(predictor.present(image, prompts)) == PHRASES
    module.visual_trained = True
    learned = Predictor(tiny_config(), module)
    assert tuple(learned.present(image, prompts)) == prompts.names


@pytest.mark.parametrize("cell", [("phrase", "late"), ("word", "late"), ("word", "early")], ids="-".join)
def test_a_phrase_with_boxes_that_are_not_learned_is_asked_for_by_itself(
    cell: tuple[str, str], tiny_config: Callable[..., Config], image: Path, tmp_path: Path
) -> None:
    """What it finds is compared with the boxes; what boxes alone ask for is what names find."""
    torch.manual_seed(0)
    settings = (f"model.granularity={cell[0]}", f"model.fusion={cell[1]}", "model.presence=true")
    config = tiny_config(*settings, "model.appearance.name=backbone", "eval.max_detections=1000")
    module = build_module(config)
    module.known_names = PHRASES
    predictor, encoded = Predictor(config, module), Predictor(config, module).encode(image)
    text = predictor.text(("ring", "cell"))
    prompts = predictor.mixed(("ring", "cell"), [(encoded, {"cell": [BOX, OTHER], "a thing": [BOX]})])
    assert prompts.sources == ("text", "mixed", "generic")
    assert {name: len(vectors) for name, vectors in prompts.appearance.items()} == {"cell": 2, "a thing": 1}
    assert torch.equal(prompts.vectors[:2], text.vectors), "its vector is the phrase's"
    only_mixed = prompts.apart()["cell"]
    found = predictor.detect(encoded, only_mixed, 0.0)
    other = only_mixed._replace(vectors=torch.randn_like(only_mixed.vectors))
    same = predictor.detect(encoded, other, 0.0) == found
    assert same is (cell[0] == "word"), "words are read in the vector's place"
    looks_else = predictor.generic([(encoded, {"cell": [BOX, OTHER]})])
    assert predictor.detect(encoded, looks_else, 0.0) != found, "the phrase counts"
    elsewhere = {name: torch.randn_like(vectors) for name, vectors in prompts.appearance.items()}
    all_found = predictor.detect(encoded, prompts, 0.0)
    assert predictor.detect(encoded, prompts._replace(appearance=elsewhere), 0.0) != all_found, "and so do the boxes"
    assert predictor.present(encoded, prompts).keys() == {"ring", "cell"}
    predictor.save(prompts, path := tmp_path / "prompts.safetensors")
    assert predictor.detect(encoded, predictor.load(path), 0.0) == all_found
    module.visual_trained = True
    learned = Predictor(config, module).mixed(("ring", "cell"), [(encoded, {"cell": [BOX]})])
    assert not torch.allclose(learned.vectors[1], text.vectors[1])


def test_as_many_boxes_are_looked_at_as_the_run_wants(
    tiny_config: Callable[..., Config], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("model.appearance.name=backbone", "model.num_queries=50", "eval.max_detections=40")
    monkeypatch.setattr(finding, "MOST_BOXES", 5)
    monkeypatch.setattr(finding, "DUPLICATE_IOU", 1.0)
    predictor = Predictor(config, build_module(config))
    encoded = predictor.encode(image)
    prompts = predictor.interactive(encoded, {"a thing": [BOX]})
    assert len(predictor.detect(encoded, prompts, threshold=0)) == 40
    sizes = torch.tensor([encoded.size])
    tokens = prompts.tokens(predictor.module.device)
    found = predictor.module.detect(encoded.features, tokens, sizes, [1], "interactive")
    assert len(found[0].scores) == 40


def test_prompts_say_which_maps_their_appearance_is_of(tiny_config: Callable[..., Config], image: Path) -> None:
    """The weights of two maps may be the same, and so many of their channels."""
    torch.manual_seed(0)
    module, other = (
        build_module(tiny_config("model.appearance.name=backbone", f"model.appearance.out_indices={indices}"))
        for indices in ("[2,4]", "[3,4]")
    )
    for name, part in module.detector.named_children():
        if name != "appearance":
            setattr(other.detector, name, part)
    assert module.detector.appearance is not None
    assert other.detector.appearance is not None
    other.detector.appearance.model = module.detector.appearance.model
    one, two = (Predictor(tiny_config(), some) for some in (module, other))
    one.save(one.interactive(image, {"a thing": [BOX]}), path := image.with_name("prompts.safetensors"))
    assert one.load(path).appearance
    with pytest.raises(InputError, match="has the appearance that another network saw"):
        two.load(path)


@pytest.mark.parametrize("cell", [("phrase", "late"), ("word", "early")], ids="-".join)
def test_exemplars_that_are_not_learned_say_nothing_of_what_is_present(
    cell: tuple[str, str], tiny_config: Callable[..., Config], image: Path
) -> None:
    """In early fusion all that is asked for sees the image together, and each other."""
    torch.manual_seed(0)
    settings = (f"model.granularity={cell[0]}", f"model.fusion={cell[1]}", "model.presence=true")
    config = tiny_config(*settings, "model.appearance.name=backbone")
    module = build_module(config)
    module.known_names = PHRASES
    predictor = Predictor(config, module)
    text, shown = predictor.text(PHRASES), predictor.interactive(image, {"a thing": [BOX]})
    assert predictor.present(image, join(shown, text)) == predictor.present(image, text)
    assert predictor.present(image, shown) == {}
    module.visual_trained = True
    learned = Predictor(config, module)
    assert learned.present(image, join(shown, text)).keys() == {"a thing", *PHRASES}


def test_what_is_present_is_said_by_name_and_is_in_the_scores(
    tiny_config: Callable[..., Config], predictor: Predictor, image: Path
) -> None:
    torch.manual_seed(0)
    config = tiny_config("model.presence=true", "eval.max_detections=1000")
    with_head = Predictor(config, build_module(config))
    prompts, encoded = with_head.text(PHRASES), with_head.encode(image)
    present, found = with_head.present(encoded, prompts), with_head.detect(encoded, prompts, threshold=0.0)
    assert tuple(present) == PHRASES
    assert all(0 < probability < 1 for probability in present.values())
    with_head.module.detector.presence = None
    without = {(d.name, d.box): d.score for d in with_head.detect(encoded, prompts, threshold=0.0)}
    for name, score, box in found:
        assert score == pytest.approx(without[name, box] * present[name], rel=1e-5)
    with pytest.raises(InputError, match="nothing to look for"):
        predictor.present(image, predictor.text(()))
    with pytest.raises(InputError, match=r"no presence head: train one with model\.presence=true.*train\.init_from"):
        predictor.present(image, predictor.text(PHRASES))


# Files


def test_a_prompt_file_finds_the_same_with_the_same_checkpoint_and_no_other(
    predictor: Predictor, config: Config, images: list[Path], tmp_path: Path
) -> None:
    checkpoint, file = tmp_path / "a.ckpt", tmp_path / "prompts.safetensors"
    content = {"state_dict": predictor.module.state_dict()}
    predictor.module.on_save_checkpoint(content)
    torch.save(content, checkpoint)
    prompts = predictor.mixed(PHRASES, [(images[1], {"red block": [BOX], "ring": [OTHER]})])
    predictor.save(prompts, file)

    fresh = Predictor.from_pretrained(checkpoint)
    loaded = fresh.load(file)
    assert (loaded.names, loaded.sources) == (prompts.names, prompts.sources)
    assert fresh.detect(images[0], loaded, threshold=0.0) == predictor.detect(images[0], prompts, threshold=0.0)
    with pytest.raises(InputError, match="was made by a detector with other weights"):
        Predictor(config, build_module(config)).load(file)


def test_a_checkpoint_gives_the_predictor_of_its_run(tiny_config: Callable[..., Config], image: Path) -> None:
    config = tiny_config("train.max_steps=1")
    trained = Predictor(config, train(config))
    loaded = Predictor.from_pretrained(config.folder / "checkpoints" / "last.ckpt")
    found = [p.detect(image, p.text(PHRASES), threshold=0.0) for p in (loaded, trained)]
    assert found[0] == found[1]


def test_the_picture_and_the_values_are_written(image: Path, tmp_path: Path) -> None:
    detections = [Detection("red block", 0.75, (5.0, 6.0, 30.0, 40.0))]
    picture, values = write_prediction(image, detections, tmp_path / "new" / "folder", {})
    assert (picture.name, values.name) == ("1.png", "1.json")
    content = json.loads(values.read_text())
    assert content["detections"] == [{"name": "red block", "score": 0.75, "box": [5.0, 6.0, 30.0, 40.0]}]
    assert Path(content["image"]) == image
    empty, _ = write_prediction(image, [], tmp_path / "empty", {})
    marked, _ = write_prediction(image, detections, tmp_path / "marked", {"red block": [OTHER]})
    drawn, plain, both = (np.asarray(Image.open(path)) for path in (picture, empty, marked))
    assert drawn.shape == plain.shape
    assert (drawn != plain).any()
    assert (drawn != both).any()


def test_images_of_one_name_keep_their_own_results(image: Path, tmp_path: Path) -> None:
    """And the same image, however it is called, replaces its own."""
    other = tmp_path / "others" / f"{image.stem}.png"
    other.parent.mkdir()
    Image.open(image).save(other)
    folder = tmp_path / "found"
    first, second = (write_prediction(file, [], folder, {})[1] for file in (image, str(other)))
    again, both = (write_prediction(file, [], str(folder), {})[1] for file in (image.parent / "." / image.name, other))
    assert [file.name for file in (first, second, again, both)] == ["1.json", "1_2.json", "1.json", "1_2.json"]
    assert [Path(json.loads(file.read_text())["image"]) for file in (first, second)] == [image, other]
    with pytest.raises(InputError, match="a ndarray has no name to call its picture and values by"):
        write_prediction(np.zeros((9, 9, 3), np.uint8), [], folder, {})  # type: ignore[arg-type]


def test_results_never_lie_beside_the_images_they_are_made_of(image: Path, tmp_path: Path) -> None:
    photograph = image.with_suffix(".png")
    Image.open(image).save(photograph)
    values = image.with_suffix(".json")
    values.write_text("the user's own")
    before = photograph.read_bytes()
    (tmp_path / "link").symlink_to(image.parent, target_is_directory=True)
    for folder in (image.parent, tmp_path / "link", image.parent / "new" / ".."):
        for file in (photograph, image):
            with pytest.raises(InputError, match=r"could replace it .*--output"):
                write_prediction(file, [], folder, {})
    assert (photograph.read_bytes(), values.read_text()) == (before, "the user's own")

    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "1.png").symlink_to(photograph)
    with pytest.raises(InputError, match="could replace it"):
        write_prediction(image, [], tmp_path / "results", {})
    other = tmp_path / "references" / "1.png"
    with pytest.raises(InputError, match=r"would lie beside .*references/1\.png"):
        output_files(image, other.parent, [other])
    assert output_files(image, tmp_path / "new", [other])[0] == tmp_path / "new" / "1.png"
