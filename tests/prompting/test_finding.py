"""From prompts to scored boxes: what is kept, what speaks for it, and what finds boxes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trex2_lightning.config import Config
from trex2_lightning.models.build import build_detector
from trex2_lightning.models.calibration import EVIDENCE, SOURCES
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.prompt_tokens import from_vectors, renumbered, together
from trex2_lightning.prompting import finding
from trex2_lightning.prompting.finding import beside_better, find_objects, gather_evidence
from trex2_lightning.structures import Exemplars, Images, Prompts

KIND = {name: number for number, name in enumerate(EVIDENCE)}
CELLS = [(g, f) for g in ("phrase", "word") for f in ("late", "early")]
SHOWN = torch.tensor([[[[0.3, 0.3, 0.3, 0.3]], [[0.7, 0.7, 0.4, 0.2]]]]).repeat(2, 1, 1, 1)


@pytest.fixture(params=CELLS, ids="-".join)
def detector(request: pytest.FixtureRequest, tiny_config: Callable[..., Config]) -> PromptedDetector:
    granularity, fusion = request.param
    settings = (f"model.granularity={granularity}", f"model.fusion={fusion}", "model.appearance.name=backbone")
    torch.manual_seed(0)
    return build_detector(tiny_config(*settings).model).eval()


@pytest.fixture
def images() -> Images:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, 96, 96, generator=generator)
    return Images(pixels, torch.ones(2, 96, 96, dtype=torch.bool), torch.full((2, 2), 96))


def exemplars(valid: Tensor | None = None) -> Prompts:
    return Prompts(exemplars=Exemplars(SHOWN, torch.ones(2, 2, 1, dtype=torch.bool) if valid is None else valid))


@torch.no_grad()
def test_text_has_the_detector_s_own_scores_and_boxes(detector: PromptedDetector, images: Images) -> None:
    features = detector.encode_image(images)
    prompts = detector.encode_prompts(Prompts(("a red block", "a ring")))
    found, output = find_objects(detector, features, prompts, "text"), detector.decode(features, prompts)
    assert torch.equal(found.scores, detector.scores(output)), "to the bit"
    assert torch.equal(found.boxes, output.queries.boxes[-1])


@torch.no_grad()
def test_a_fit_tells_tiny_scores_apart(detector: PromptedDetector, images: Images) -> None:
    """With a presence head or dot products most are below a millionth, and AP asks for their order."""
    for head in (detector.selection.head, *detector.heads):
        assert isinstance(head.bias, torch.nn.Parameter)
        head.bias.fill_(-18)
    features = detector.encode_image(images)
    prompts = detector.encode_prompts(Prompts(("a red block", "a ring")))
    scores = detector.scores(detector.decode(features, prompts))
    assert scores.max() < 1e-6
    detector.calibration.load_fits({"bias": torch.ones(2, 5)})
    found = find_objects(detector, features, prompts, "text").scores
    torch.testing.assert_close(found / scores, torch.full_like(scores, torch.e), rtol=1e-4, atol=0)


@torch.no_grad()
def test_as_many_boxes_are_kept_as_detections_are_wanted(
    tiny_config: Callable[..., Config], images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting benchmarks have hundreds of objects in an image."""
    monkeypatch.setattr(finding, "DUPLICATE_IOU", 1.0)
    many = build_detector(tiny_config("model.appearance.name=backbone", "model.num_queries=150").model).eval()
    features = many.encode_image(images)
    prompts = many.encode_prompts(exemplars(), features)
    counts = [find_objects(many, features, prompts, "generic", most=most).boxes.shape[1] for most in (10, 120, 1000)]
    assert counts == [100, 120, 150]


@torch.no_grad()
def test_exemplars_have_their_appearance_and_no_box_comes_twice(detector: PromptedDetector, images: Images) -> None:
    features = detector.encode_image(images)
    evidence = gather_evidence(detector, features, detector.encode_prompts(exemplars(), features), "generic")
    values = evidence.values
    assert values.shape[2:] == (2, len(EVIDENCE))
    assert values.isfinite().all() or (values[..., 0] == -torch.inf).any()
    share = values[..., KIND["share"]]
    torch.testing.assert_close(share.exp().sum(-1), torch.ones_like(share[..., 0]))
    best = values[..., 0, KIND["best_score"]]
    assert (best.diff() <= 0).all(), "best first"
    appearance, seen = detector.appearance, features.appearance
    assert appearance is not None
    assert seen is not None
    itself = appearance.exemplars(Exemplars(evidence.boxes[:, :, None], torch.ones_like(best)[..., None] > 0), seen)
    similar = appearance.similarity(itself.vectors, itself, values.shape[1])
    torch.testing.assert_close(similar.diagonal(dim1=1, dim2=2), torch.ones_like(best), rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_category_without_exemplars_is_not_found(detector: PromptedDetector, images: Images) -> None:
    valid = torch.tensor([[[True], [False]], [[True], [True]]])
    features = detector.encode_image(images)
    found = find_objects(detector, features, detector.encode_prompts(exemplars(valid), features), "generic")
    assert found.scores.isfinite().all()
    assert (found.scores[0, :, 1] == 0).all()
    assert (found.scores[1].amax(0) > 0).all()


@torch.no_grad()
def test_what_is_known_finds_boxes_where_exemplars_are_not_learned(detector: PromptedDetector, images: Images) -> None:
    features = detector.encode_image(images)
    known = detector.encode_prompts(Prompts(("a red block", "a ring", "a star")))
    prompts = detector.encode_prompts(exemplars(), features)
    nonsense = prompts._replace(embed=torch.randn_like(prompts.embed))
    one, other = (gather_evidence(detector, features, p, "generic", known) for p in (prompts, nonsense))
    torch.testing.assert_close(one.values, other.values, rtol=1e-4, atol=1e-4)
    alone = gather_evidence(detector, features, prompts, "generic")
    assert not torch.equal(one.boxes[:, :5], alone.boxes[:, :5])


@torch.no_grad()
def test_a_name_beside_exemplars_keeps_its_own_score(detector: PromptedDetector, images: Images) -> None:
    """Also where what is known finds the boxes."""
    features = detector.encode_image(images)
    known = detector.encode_prompts(Prompts(("a blue block",)))
    text = detector.encode_prompts(Prompts(("a red block",)))
    text = text._replace(embed=text.embed.expand(2, -1, -1), valid=text.valid.expand(2, -1))
    shown = renumbered(detector.encode_prompts(exemplars(), features), torch.tensor([1, 2]))
    sources = torch.tensor([SOURCES.index(source) for source in ("text", "generic", "generic")])
    values = gather_evidence(detector, features, together(text, shown), sources, known).values
    score, best = values[..., KIND["score"]], values[..., KIND["best_score"]]
    assert not torch.allclose(score[..., 0], best[..., 0])
    torch.testing.assert_close(score[..., 1:], best[..., 1:])


@torch.no_grad()
def test_a_name_with_exemplars_that_are_not_learned_keeps_its_own_score(
    detector: PromptedDetector, images: Images
) -> None:
    """Beside what exemplars alone ask for, which has the best score of the box."""
    features = detector.encode_image(images)
    known, text = (
        tokens._replace(embed=tokens.embed.expand(2, -1, -1), valid=tokens.valid.expand(2, -1))
        for tokens in (detector.encode_prompts(Prompts((name,))) for name in ("a blue block", "a red block"))
    )
    shown = detector.encode_prompts(exemplars(), features)
    generic = from_vectors(shown.embed[:, 1:])
    prompts = together(text, renumbered(generic, torch.tensor([1])))._replace(appearance=shown.appearance)
    sources = torch.tensor([SOURCES.index(source) for source in ("mixed", "generic")])
    values = gather_evidence(detector, features, prompts, sources, known).values
    asked = finding._with_proposing(prompts, known, torch.tensor([False, True]))
    assert len(asked.category) == len(text.category) + len(known.category), "they take no room of what is asked"
    named = prompts._replace(appearance=None, valid=prompts.valid & (prompts.category != 1))
    output = detector.decode(features, together(named, renumbered(known, torch.tensor([2]))))
    own = detector.scores(output)[..., 0]
    for image in range(2):
        found, scores = values[image, :, 0, KIND["score"]].sigmoid(), own[image]
        assert (found[:, None] - scores).abs().amin(1).max() < 1e-5, "its score of a box, whichever was kept"
    best, score = values[..., KIND["best_score"]], values[..., KIND["score"]]
    torch.testing.assert_close(score[..., 1], best[..., 1])
    assert not torch.allclose(score[..., 0], best[..., 0])
    assert values[..., KIND["similarity"]].isfinite().all(), "both are compared"


@torch.no_grad()
def test_text_and_exemplars_are_asked_together(detector: PromptedDetector, images: Images) -> None:
    features = detector.encode_image(images)
    text = detector.encode_prompts(Prompts(("a red block",)))
    shown = detector.encode_prompts(exemplars(), features)
    text = text._replace(embed=text.embed.expand(2, -1, -1), valid=text.valid.expand(2, -1))
    sources = torch.tensor([SOURCES.index(source) for source in ("text", "generic", "generic")])
    values = gather_evidence(
        detector, features, together(text, renumbered(shown, torch.tensor([1, 2]))), sources
    ).values
    assert (values[..., 0, KIND["similarity"]] == -torch.inf).all()
    assert values[..., 1:, KIND["similarity"]].isfinite().any()


def test_duplicates_and_parts_on_paper() -> None:
    boxes = torch.tensor([[[0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.2], [0.9, 0.9, 0.1, 0.1], [0.5, 0.5, 0.8, 0.4]]])
    overlap, inside = beside_better(boxes, torch.tensor([[0.9, 0.8, 0.7, 0.6]]))
    torch.testing.assert_close(overlap, torch.tensor([[0, 0.5, 0, 0.5]]))
    torch.testing.assert_close(inside, torch.tensor([[0, 1, 0, 0.5]]))


def test_numbers_of_categories_go_with_their_exemplars() -> None:
    prompts = renumbered(from_vectors(torch.zeros(1, 2, 4)), torch.tensor([5, 3]))
    assert prompts.category.tolist() == [5, 3]
