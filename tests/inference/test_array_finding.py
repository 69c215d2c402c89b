"""What follows the graphs in NumPy is what follows the detector in PyTorch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from trex2_lightning.config import AppearanceConfig, BackboneConfig
from trex2_lightning.inference import array_finding as arrays
from trex2_lightning.inference import onnx_detector, onnx_predictor, phrase_rows
from trex2_lightning.inference.exported import ExportedAppearance, ExportedDetector, ExportedText
from trex2_lightning.models.appearance import POINT_SIDE, Appearance
from trex2_lightning.models.calibration import EVIDENCE, SOURCES, ScoreCalibration
from trex2_lightning.ops import prompt_tokens, scores
from trex2_lightning.prompting import finding
from trex2_lightning.structures import AppearanceMaps, ExemplarAppearance

TEXT = ExportedText("clip", False, 16, [1], [2], [], 1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_numbers_that_stand_twice_are_the_same() -> None:
    assert (arrays.MOST_BOXES, arrays.DUPLICATE_IOU) == (finding.MOST_BOXES, finding.DUPLICATE_IOU)
    assert (np.float32(finding.SMALLEST), finding.LARGEST) == (arrays.SMALLEST, arrays.LARGEST)
    assert (EVIDENCE.index("similarity"), len(EVIDENCE)) == (arrays.SIMILARITY, arrays.EVIDENCE)
    assert (onnx_predictor._SOURCES, onnx_detector._POINT_SIDE) == (SOURCES, POINT_SIDE)


def boxes_of(count: int) -> torch.Tensor:
    boxes = torch.rand(count, 4) * 0.5 + 0.2
    boxes[1] = boxes[0] + 1e-3  # nearly the same
    return boxes


def test_scores_are_means_of_a_category_s_tokens_times_its_presence() -> None:
    logits, presence = torch.randn(5, 7), torch.randn(7)
    category = torch.tensor([-1, 0, 0, -1, 2, 1, -1])
    valid = torch.ones(1, 7, dtype=torch.bool)
    expected = scores.category_scores(logits[None], category, valid)[0]
    likely = scores.category_scores(presence[None, None], category, valid)[0]
    found = arrays.Decoded(logits.numpy(), boxes_of(5).numpy(), presence.numpy())
    np.testing.assert_allclose(arrays.scores(found, category.numpy(), 3), expected * likely, rtol=1e-5)
    np.testing.assert_allclose(arrays.scores(found._replace(presence=None), category.numpy(), 3), expected, rtol=1e-5)


def test_evidence_and_its_weighing() -> None:
    boxes, likely = boxes_of(6), torch.rand(6, 3)
    likely[2, 1] = 0
    best, any_score = likely.amax(1), 1 - (1 - likely).prod(1)
    evidence = arrays.learned_evidence(*(x.numpy() for x in (likely, best, any_score, boxes)))
    overlap, inside = finding.beside_better(boxes[None], best[None])
    assert overlap[0, (0, 1)].max() > 0.9
    np.testing.assert_allclose(evidence[:, 0, EVIDENCE.index("overlap")], overlap[0], atol=1e-5)
    np.testing.assert_allclose(evidence[:, 2, EVIDENCE.index("inside")], inside[0], atol=1e-5)
    np.testing.assert_allclose(evidence[:, 0, EVIDENCE.index("score")], likely[:, 0].logit(), rtol=1e-4, atol=1e-5)
    calibration = ScoreCalibration()
    calibration.weight.normal_()
    calibration.weight[0, :, 3:] = 0
    calibration.bias.normal_()
    with_appearance = torch.from_numpy(evidence).clone()
    with_appearance[..., arrays.SIMILARITY :] = torch.randn(6, 3, 3)
    sources = torch.tensor([SOURCES.index(source) for source in ("text", "mixed", "generic")])
    for values in (torch.from_numpy(evidence), with_appearance):
        found = arrays.weighed(values.numpy(), sources.numpy(), settings(calibration))
        np.testing.assert_allclose(found, calibration(values[None], sources)[0], atol=1e-6)
        assert found[2, 1] == 0


def settings(calibration: ScoreCalibration) -> ExportedDetector:
    values = {field.name: None for field in dataclasses.fields(ExportedDetector)}
    fitted = {f"calibration_{name}": tensor.tolist() for name, tensor in calibration.named_buffers()}
    return ExportedDetector(**values | fitted)  # type: ignore[arg-type]


def test_duplicates_go() -> None:
    boxes, best = boxes_of(20), torch.rand(20)
    for most in (5, 20):
        expected, real = finding._kept(boxes[None], best[None], most)
        assert arrays.apart(boxes.numpy(), best.numpy(), most).tolist() == expected[0, real[0]].tolist()
    assert int(real.sum()) < 20


def test_appearance_of_boxes_and_their_likeness() -> None:
    appearance = Appearance(AppearanceConfig("backbone"), BackboneConfig("test_resnet", out_indices=[2, 3, 4]))
    appearance.mean.normal_()
    appearance.transform.normal_()
    appearance.temperature.fill_(0.1)
    appearance.logit_scale.fill_(30)
    boxes, extent = torch.cat([boxes_of(6), torch.tensor([[0.9, 0.02, 0.4, 0.1]])]), torch.tensor([[0.8, 0.6]])
    channels = appearance.channels // 2
    maps = tuple(torch.randn(1, channels, *shape) for shape in ((9, 12), (5, 6)))
    expected = appearance.vectors(AppearanceMaps(maps, extent), boxes[None])
    vectors = arrays.box_vectors([each[0].numpy() for each in maps], extent[0].numpy(), boxes.numpy())
    np.testing.assert_allclose(vectors, expected[0], atol=1e-5)
    exemplars = torch.randn(1, 5, 2 * channels)
    category = torch.tensor([0, 0, 2, 2, 2])
    shown = ExemplarAppearance(exemplars, torch.ones(1, 5, dtype=torch.bool), category)
    how = ExportedAppearance(appearance.mean.tolist(), appearance.transform.tolist(), 0.1, 30)
    by_category = {number: exemplars[0, category == number].numpy() for number in (0, 2)}
    alike = arrays.similarity(vectors, by_category, 3, how)
    np.testing.assert_allclose(alike, appearance.similarity(expected, shown, 3)[0], atol=1e-5)
    evidence = arrays.compared_evidence(np.zeros((7, 3, len(EVIDENCE)), np.float32), np.full(7, 0.5), alike, how)
    share = appearance.log_share(appearance.similarity(expected, shown, 3))[0]
    np.testing.assert_allclose(evidence[..., EVIDENCE.index("share")], share, atol=1e-4)


def test_words_become_tokens_and_are_asked_for_in_parts() -> None:
    states, lengths = torch.randn(5, 4, 8), (1, 3, 2, 4, 1)
    expected = prompt_tokens.from_words(states, lengths)
    words = phrase_rows.of_words(states.numpy(), np.array(lengths))
    expected = prompt_tokens.together(
        expected,
        prompt_tokens.renumbered(vectors := prompt_tokens.from_vectors(torch.randn(1, 2, 8)), torch.tensor([4, 3])),
    )
    found = phrase_rows.joined(
        words, phrase_rows.renamed(phrase_rows.of_vectors(vectors.embed[0].numpy()), np.array([4, 3]))
    )
    for name, value in found._asdict().items():
        np.testing.assert_array_equal(value, getattr(expected, name))
    for limit in (None, 100, 8, 5):
        pieces = phrase_rows.in_parts(found, limit)
        assert [piece.tolist() for piece in pieces] == [
            piece.tolist() for piece in prompt_tokens.parts(expected, limit or 100)
        ]
    piece = phrase_rows.taken(found, pieces[-1])
    for name, value in piece._asdict().items():
        np.testing.assert_array_equal(value, getattr(prompt_tokens.take(expected, torch.from_numpy(pieces[-1])), name))
