"""Scores from evidence: as they were before anything is fitted, and what a fit finds."""

from __future__ import annotations

import pytest
import torch

from trex2_lightning.models.calibration import (
    EVIDENCE,
    SOURCES,
    UNFITTED_APPEARANCE_BEFORE,
    ScoreCalibration,
    threshold_of_best_f1,
    unfitted_scores,
)

NOTHING = -torch.inf


def evidence(**values: float) -> torch.Tensor:
    """(1, 1, 1, F): 0 but for what is given, and without appearance unless it is."""
    compared = "similarity" in values
    kinds = dict.fromkeys(EVIDENCE, 0.0)
    kinds |= {} if compared else dict.fromkeys(("similarity", "share", "in_picture"), NOTHING)
    return torch.tensor([*(kinds | values).values()]).view(1, 1, 1, -1)


def of(source: str) -> torch.Tensor:
    return torch.tensor([SOURCES.index(source)])  # type: ignore[arg-type]


def test_a_learned_score_stays_what_it_is_where_nothing_is_fitted() -> None:
    calibration = ScoreCalibration()
    for source in SOURCES:
        found = calibration(evidence(score=0.7, overlap=1.0, best_score=3.0), of(source))
        torch.testing.assert_close(found, torch.tensor(0.7).sigmoid().view(1, 1, 1))
    assert calibration(evidence(score=NOTHING), of("text")) == 0


def test_a_learned_score_counts_by_the_share_of_likeness_where_nothing_is_fitted() -> None:
    found = ScoreCalibration()(evidence(score=1.5, best_score=9.0, similarity=0.4, share=-0.5), of("generic"))
    torch.testing.assert_close(found, torch.tensor(1.25).sigmoid().view(1, 1, 1))
    assert ScoreCalibration()(evidence(score=NOTHING, similarity=0.4), of("generic")) == 0
    assert ScoreCalibration()(evidence(score=0.0, similarity=NOTHING, share=NOTHING), of("generic")) == 0.5


def test_what_an_earlier_checkpoint_had_not_fitted_is_not_taken_for_a_fit() -> None:
    fits = ScoreCalibration().fits()
    fits["weight"] = fits["weight"].clone()
    fits["weight"][1] = torch.tensor(UNFITTED_APPEARANCE_BEFORE)
    fits["weight"][1, 0, 0] = 0.5
    calibration = ScoreCalibration()
    calibration.load_fits(fits)
    assert calibration.weight[1, 0, 0] == 0.5, "which was fitted"
    assert torch.equal(calibration.weight[1, 1:], ScoreCalibration().weight[1, 1:])
    fits["weight"][1, 0, 0] = UNFITTED_APPEARANCE_BEFORE[0]
    calibration.load_fits(fits)
    assert not calibration.fitted


def test_scores_before_a_fit_are_told_after_it() -> None:
    calibration = ScoreCalibration()
    values = [
        evidence(score=0.7, overlap=1.0),
        evidence(score=2.0, best_score=1.5, inside=0.3, similarity=0.4, share=-1.0),
    ]
    values += [evidence(score=NOTHING), evidence(score=NOTHING, similarity=0.4)]
    for value in values:
        before = calibration(value, of("generic"))
        fitted = ScoreCalibration()
        fitted.weight += 0.5
        assert torch.equal(unfitted_scores(value), before)
        assert before == 0 or not torch.equal(fitted(value, of("generic")), before)


def test_a_fit_finds_the_law_that_the_evidence_follows() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40_000, len(EVIDENCE), generator=generator)
    law = torch.tensor([1.0, -2.0, 0.0, 0.5, 0.0, 3.0, 0.0, -1.0])
    right = torch.rand(40_000, generator=generator) < (values @ law - 1).sigmoid()
    calibration = ScoreCalibration()
    calibration.fit("generic", values, right)
    row = SOURCES.index("generic")
    torch.testing.assert_close(calibration.weight[1, row], law, rtol=0.1, atol=0.07)
    torch.testing.assert_close(calibration.bias[1, row], torch.tensor(-1.0), rtol=0, atol=0.1)
    assert torch.equal(calibration.weight[0], ScoreCalibration().weight[0]), "of no prompts without appearance"
    assert not calibration.fitted_without_appearance
    assert torch.equal(calibration.weight[1, row + 1 :], ScoreCalibration().weight[1, row + 1 :])
    scores = calibration(values.view(1, -1, 1, len(EVIDENCE)), of("generic")).flatten()
    for low in (0.1, 0.5, 0.8):  # a score is how often it is right
        near = (scores > low) & (scores < low + 0.1)
        torch.testing.assert_close(right[near].float().mean(), scores[near].mean(), rtol=0, atol=0.04)


def test_without_appearance_only_what_is_there_is_weighed() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5000, len(EVIDENCE), generator=generator)
    values[:, -3:] = NOTHING
    right = torch.rand(5000, generator=generator) < (2 * values[:, 0] + 1).sigmoid()
    calibration = ScoreCalibration()
    calibration.fit("text", values, right)
    row = calibration.weight[0, SOURCES.index("text")]
    torch.testing.assert_close(row[0], torch.tensor(2.0), rtol=0, atol=0.15)
    assert not row[3:].any()


@pytest.mark.parametrize(
    ("used", "without"), [("learned", ("similarity", "share", "in_picture")), ("appearance", ("score",))]
)
def test_what_is_not_to_be_used_has_no_weight(used: str, without: tuple[str, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5000, len(EVIDENCE), generator=generator)
    right = torch.rand(5000, generator=generator) < values.sum(1).sigmoid()
    calibration = ScoreCalibration()
    calibration.fit("generic", values.clone(), right, used)
    row = calibration.weight[1, SOURCES.index("generic")]
    assert [name for name, weight in zip(EVIDENCE, row.tolist(), strict=True) if weight == 0] == [*without]
    values[:, -3:] = NOTHING
    calibration.fit("text", values, right, used)
    assert calibration.weight[0, SOURCES.index("text")][:3].all(), "without appearance there is nothing to leave out"


def test_fits_are_taken_over() -> None:
    one, other = ScoreCalibration(), ScoreCalibration()
    other.load_fits({})
    assert (other.fitted, other.fitted_without_appearance) == (False, False)
    one.weight[1, 0, 0] = 3.0
    other.load_fits(one.fits())
    assert (other.fitted, other.fitted_without_appearance) == (True, False)
    one.bias[0, 0] = 3.0
    other.load_fits(one.fits())
    assert (other.fitted, other.fitted_without_appearance) == (True, True)
    assert other.bias[0, 0] == 3
    other.load_fits({})
    assert other.bias[0, 0] == 3
    assert not one.state_dict(), "published weights fit to the last tensor"


def test_the_threshold_has_the_best_f1() -> None:
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    right = torch.tensor([True, False, True, False, False])
    assert threshold_of_best_f1(scores, right) == scores[2]  # 2 * 2 / (3 + 2) = .8, alone .67


def test_a_fit_that_is_no_number_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    fits = {name: fit.clone() for name, fit in ScoreCalibration().fits().items()}
    fits["weight"][1, 2], fits["threshold"][1, 2] = torch.nan, torch.nan
    fits["threshold"][1, 1] = 0.7
    calibration = ScoreCalibration()
    calibration.load_fits(fits)
    assert torch.equal(calibration.weight, ScoreCalibration().weight)
    assert calibration.threshold[1].tolist() == pytest.approx([0.3, 0.7, 0.3, 0.3, 0.3])
    assert "fit them again" in caplog.text
