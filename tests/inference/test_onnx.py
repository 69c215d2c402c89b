"""Exported detectors give ONNX Runtime what they give PyTorch, at sizes and numbers that export has not seen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from exported_pictures import PICTURES, picture
from PIL import Image
from torch import Tensor, nn

from trex2_lightning.commands.export import main
from trex2_lightning.config import Config, load, override
from trex2_lightning.errors import InputError
from trex2_lightning.inference.export import Graph, export, graphs, input_names, settings, write_known_names
from trex2_lightning.inference.exported import EXPORT_VERSION, ExportedDetector
from trex2_lightning.inference.onnx_predictor import OnnxPredictor
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.ops.prompt_tokens import from_vectors
from trex2_lightning.structures import Box, Detection, Point
from trex2_lightning.training.build import build_module
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.module import DetectionModule

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.ci  # an export takes a minute

TINY = Path(__file__).parents[1] / "tiny.yaml"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "red", "star", "block", "a", "blue", "moon"]
PHRASES = ("red block", "a blue moon")
MARKS = {
    "both": [Box(5, 6, 30, 40), Box(20, 10, 45, 30)],
    "place": [Point(12, 30)],
    "red block": [Box(5, 6, 30, 40)],
}


class Exported(NamedTuple):
    """A detector, and the folder that it was exported to."""

    config: Config
    module: DetectionModule
    folder: Path


def exported(folder: Path, *overrides: str) -> Exported:
    config = load(TINY, ["train.rhythm.visual=1", "model.visual.layers=1", *overrides])
    torch.manual_seed(0)
    module = build_module(config)
    for parameter in module.parameters():  # out of the symmetric start
        parameter.data += 0.05 * torch.randn_like(parameter)
    encoder: Any = module.detector.text_encoder
    if config.model.text.name == "custom-bert":
        encoder.tokenizer.read(PIECES)
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, folder / "last.ckpt")
    main([str(folder / "last.ckpt"), str(folder)])
    return Exported(*load_checkpoint(folder / "last.ckpt"), folder)


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Phrases by a CLIP, presence, and appearance."""
    appearance = "model.appearance={name: backbone, out_indices: [3, 4]}"
    return exported(tmp_path_factory.mktemp("late"), "model.presence=true", appearance)


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Words by a BERT, few of them at a time."""
    text = f"model.text={{name: custom-bert, width: 32, layers: 1, heads: 2, vocabulary: {len(PIECES)}}}"
    overrides = ("model.fusion=early", "model.granularity=word", "model.visual.source=neck", "model.max_tokens=9", text)
    return exported(tmp_path_factory.mktemp("early"), *overrides)


def images_of(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    pixels = torch.randn(batch, 3, height, width, generator=generator)
    valid = torch.ones(batch, height, width, dtype=torch.bool)
    valid[-1, :, width - 10 :] = False
    return pixels * valid[:, None], valid


def run(folder: Path, name: str, graph: Graph, *inputs: Tensor | list[Tensor]) -> list[np.ndarray[Any, Any]]:
    flat = [each for given in inputs for each in (given if isinstance(given, list) else [given])]
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
    named = dict(zip(input_names(graph), (each.numpy() for each in flat), strict=True))
    return session.run(None, {given.name: named[given.name] for given in session.get_inputs()})


def assert_same(found: list[np.ndarray[Any, Any]], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-4)


def flattened(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else [each for one in outputs for each in flattened(one)]


@torch.no_grad()
def test_images_of_any_number_and_size(late: Exported) -> None:
    graph = graphs(late.module.detector, knows_exemplars=True)["image"]
    for size in ((2, 96, 128), (1, 64, 64), (3, 160, 32)):
        pixels, valid = images_of(*size)
        # Of such noise PyTorch's own float32 is off by more than ONNX Runtime's.
        exact = graph.module.double()(pixels.double(), valid)
        graph.module.float()
        assert_same(run(late.folder, "image", graph, pixels, valid), flattened(exact))


@torch.no_grad()
def test_one_prompt_to_1203_are_decoded(late: Exported) -> None:
    all_graphs = graphs(late.module.detector, knows_exemplars=True)
    for size, count in (((2, 96, 128), 1), ((1, 64, 64), 7), ((3, 160, 32), 1203)):
        tokens = from_vectors(torch.randn(1, count, late.config.model.width))
        maps = [[each.contiguous() for each in kind] for kind in all_graphs["image"].module(*images_of(*size))]
        inputs = (tokens.embed, tokens.category, tokens.attend, tokens.position, *maps)
        found = run(late.folder, "decode", all_graphs["decode"], *inputs)
        assert found[0].shape[2] == found[2].shape[1] == count
        assert_same(found, [*all_graphs["decode"].module(*inputs)])


@torch.no_grad()
@pytest.mark.parametrize("name", ["boxes", "points"])
def test_any_number_of_exemplars(late: Exported, name: str) -> None:
    all_graphs = graphs(late.module.detector, knows_exemplars=True)
    for size, count, most in (((2, 96, 128), 1, 1), ((1, 64, 64), 7, 2), ((3, 160, 32), 2, 5)):
        maps = [[each.contiguous() for each in kind] for kind in all_graphs["image"].module(*images_of(*size))]
        boxes, shown = torch.rand(size[0], count, most, 4) * 0.4 + 0.2, torch.rand(size[0], count, most) > 0.3
        inputs = (boxes, shown, *maps)
        assert_same(run(late.folder, name, all_graphs[name], *inputs), [all_graphs[name].module(*inputs)])


def predictors(one: Exported) -> tuple[Predictor, OnnxPredictor]:
    settings(one.config, one.module).write(one.folder)  # with what the test has changed
    return Predictor(one.config, one.module), OnnxPredictor(one.folder)


def assert_found(found: list[Detection], expected: list[Detection], image: Image.Image) -> None:
    """The same, but for the order of what is equally good."""
    assert len(found) == len(expected) > 0
    assert [one.score for one in found] == pytest.approx([other.score for other in expected], abs=1e-4)
    table, wanted = (
        np.array(sorted((d.name, round(d.score, 3), *d.box) for d in some), dtype=object) for some in (found, expected)
    )
    assert table[:, 0].tolist() == wanted[:, 0].tolist()
    far = np.abs(table[:, 2:].astype(float) - wanted[:, 2:].astype(float)).max(1)
    assert np.mean(far > 1e-4 * max(image.size)) < 0.05  # a rounded tie may change two rows


@pytest.mark.parametrize("fusion", ["late", pytest.param("early", marks=pytest.mark.slow)])
def test_detections_are_the_predictor_s(fusion: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    predictor, runtime = predictors(request.getfixturevalue(fusion))
    for image in PICTURES:
        for phrases, references in (
            (PHRASES, []),
            ((), [(image, MARKS)]),
            (PHRASES, [(image, MARKS), (PICTURES[0], MARKS)]),
        ):
            prompts, arrays = predictor.mixed(phrases, references), runtime.mixed(phrases, references)
            assert (arrays.names, arrays.sources) == (prompts.names, prompts.sources)
            np.testing.assert_allclose(arrays.vectors, prompts.vectors, atol=1e-4)
            predictor.save(prompts, tmp_path / "theirs.safetensors")
            runtime.save(arrays, tmp_path / "ours.safetensors")
            assert predictor.load(tmp_path / "ours.safetensors").names == prompts.names
            kept = runtime.load(tmp_path / "theirs.safetensors")
            np.testing.assert_array_equal(kept.vectors, prompts.vectors)
            negative = prompts.names[:1] if len(prompts.names) > 1 else ()
            assert_found(
                runtime.detect(image, kept, 0.0, negative), predictor.detect(image, prompts, 0.0, negative), image
            )
    if fusion == "late":
        assert runtime.present(image, kept) == pytest.approx(predictor.present(image, prompts), abs=1e-4)


@pytest.fixture
def calibrated(late: Exported) -> Iterator[Exported]:
    """With weights and thresholds of its own for every source but the last, then as it was."""
    calibration = late.module.detector.calibration
    before = {name: tensor.clone() for name, tensor in calibration.fits().items()}
    generator, weight, fitted = torch.Generator().manual_seed(0), before["weight"], torch.tensor([1, 1, 1, 1, 0])
    calibration.load_fits(
        {
            "weight": weight + 0.1 * torch.randn(weight.shape, generator=generator) * (weight != 0) * fitted[:, None],
            "bias": torch.randn(before["bias"].shape, generator=generator) * fitted,
            "threshold": torch.rand(before["threshold"].shape, generator=generator) * 0.004,
        }
    )
    yield late
    calibration.load_fits(before)


def test_fits_hold_and_so_do_names_that_find_boxes(calibrated: Exported, caplog: pytest.LogCaptureFixture) -> None:
    one, image = calibrated, PICTURES[1]
    assert one.module.detector.calibration.fitted_without_appearance
    predictor, runtime = predictors(one)
    for phrases, references in ((PHRASES, []), (("a blue moon",), [(image, MARKS)])):
        prompts = predictor.mixed(phrases, references)
        expected = predictor.detect(image, prompts)
        assert len(expected) < len(predictor.detect(image, prompts, 0.0))
        assert_found(runtime.detect(image, runtime.mixed(phrases, references)), expected, image)
    assert "not fitted" not in caplog.text
    tuned = runtime.text(PHRASES[0])._replace(sources=("tuned",))
    assert runtime.detect(image, tuned) == runtime.detect(image, tuned)
    assert caplog.text.count("scores of tuned prompts are not fitted") == 1


def test_it_takes_what_the_predictor_takes(late: Exported, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runtime, image = predictors(late)[1], PICTURES[1]
    image.save(file := tmp_path / "image.png")
    prompts = runtime.text(PHRASES)
    np.testing.assert_array_equal(runtime.text("red block").vectors[0], prompts.vectors[0])
    found = runtime.detect(image, prompts, 0.0)
    assert all(
        runtime.detect(same, prompts, 0.0) == found for same in (np.asarray(image), str(file), file.read_bytes())
    )
    reds = [one for one in found if one.name == "red block"]
    assert runtime.detect(image, prompts, {"red block": 0.0, "a blue moon": 1.0}) == reds != []
    assert runtime.detect(image, prompts, 0.9999) == runtime.detect(image, prompts, 0.9999) == []
    assert [f"best score is {found[0].score:.3g}, of" in told for told in caplog.messages] == [True]
    with pytest.raises(InputError, match="without the dots: 'red', 'blue'"):
        runtime.text("red . blue .")


def test_names_find_boxes_for_exemplars_that_were_not_learned(late: Exported, tmp_path: Path) -> None:
    one, image = late, PICTURES[1]
    one.module.visual_trained, one.module.known_names = False, ("red star", "a ring")
    try:
        one.module.requires_grad_(True)  # as a checkpoint is loaded for an export
        write_known_names(one.module, one.folder)
        predictor, runtime = predictors(one)
        marks = {"both": MARKS["both"], "more": MARKS["both"]}
        for phrases in ((), ("a blue moon",), ("both", "a blue moon")):
            expected = predictor.detect(image, predictor.mixed(phrases, [(image, marks)]), 0.0)
            assert_found(runtime.detect(image, runtime.mixed(phrases, [(image, marks)]), 0.0), expected, image)
        prompts, mixed = (one.mixed(("both",), [(image, marks)]) for one in (predictor, runtime))
        np.testing.assert_allclose(mixed.vectors[:1], predictor.text("both").vectors, atol=1e-5)
        assert prompts.sources == mixed.sources == ("mixed", "generic")
    finally:
        one.module.visual_trained, one.module.known_names = True, ()
        (one.folder / "known.npz").unlink(missing_ok=True)


def test_the_page_s_snippet_runs_without_pytorch(late: Exported, tmp_path: Path) -> None:
    predictors(late)
    picture(90, 70).save(tmp_path / "image.jpg")
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    snippet = page.split("```python\n")[1].split("```")[0].replace("runs/demo/onnx", str(late.folder))
    (tmp_path / "run.py").write_text(
        f"import sys\nsys.modules.update(torch=None, lightning=None, open_clip=None)\n{snippet}"
    )
    subprocess.run([sys.executable, "run.py"], cwd=tmp_path, check=True)


def test_what_cannot_be_exported_is_refused(late: Exported, tmp_path: Path) -> None:
    detector = late.module.detector
    for key, part in (("input", "appearance_input"), ("learned_weight", "appearance_term")):
        setattr(detector, part, nn.Identity())
        try:
            with pytest.raises(InputError, match=rf"appearance\.{key}=true"):
                export(late.config, late.module, tmp_path)
        finally:
            setattr(detector, part, None)
    swin = override(late.config, ["model.backbone.name=swin_tiny_patch4_window7_224"])
    with pytest.raises(InputError, match=r"^model\.backbone\.name=swin_tiny.*: a Swin's windows have no graph"):
        export(swin, late.module, tmp_path)
    with pytest.raises(InputError, match="trex2 export writes one"):
        OnnxPredictor(tmp_path)


def test_a_graph_tells_nothing_of_the_machine_that_wrote_it(late: Exported) -> None:
    for file in late.folder.glob("*.onnx"):
        assert b".py" not in file.read_bytes()


def test_an_export_of_another_version_is_refused(late: Exported, tmp_path: Path) -> None:
    settings(late.config, late.module).write(tmp_path)
    assert ExportedDetector.read(tmp_path) == settings(late.config, late.module)
    path = tmp_path / "detector.json"
    path.write_text(path.read_text().replace(f'"version": {EXPORT_VERSION}', f'"version": {EXPORT_VERSION - 1}'))
    with pytest.raises(InputError, match="export the checkpoint anew"):
        ExportedDetector.read(tmp_path)


def test_an_image_with_fewer_tokens_than_queries_is_refused(late: Exported) -> None:
    _, runtime = predictors(late)
    seen = runtime.encode(PICTURES[0])
    cut = seen._replace(features={name: each[:, :1, :1] for name, each in seen.features.items()})
    with pytest.raises(InputError, match=r"decode\.onnx .* 20 tokens or more"):
        runtime.detect(cut, runtime.text(PHRASES), 0.0)
