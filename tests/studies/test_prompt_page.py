"""What the ladder's page says of its rows."""

from __future__ import annotations

import pytest

from trex2_lightning.studies import prompt_page
from trex2_lightning.studies.prompt_page import Ladder, LadderRun
from trex2_lightning.studies.prompt_rows import BASE


def run_with(**values: float) -> dict[str, dict[str, float]]:
    return {way: dict.fromkeys(("seen", "rare", "novel"), values.get(way, 0.5)) for way in prompt_page.WAYS}


def a_ladder(**rows: list[dict[str, float]]) -> Ladder:
    """Rows of one AP for each prompt, by seed from 0."""
    runs = {
        one: {seed: LadderRun({"shapes": run_with(**values)}, None) for seed, values in enumerate(seeds)}
        for one, seeds in rows.items()
    }
    return Ladder("shapes", 1100, False, runs)


def verdict_of(ladder: Ladder, one: str) -> str:
    [line] = [line for line in prompt_page.verdicts(ladder) if line.startswith(f"`{one}`")]
    return line.partition("): ")[2]


def test_an_idea_is_kept_where_it_gains_more_than_the_spread() -> None:
    """Differences of +.04 and +.02 have a standard deviation of .0141: alone, the noise of their mean is .02."""
    found = a_ladder(base=[{}, {}], bank=[{"generic_16": 0.54}, {"generic_16": 0.52}])
    change = next(change for change in prompt_page.changes(found, "bank") if change.figure == "generic_16 held-out")
    assert change.gain == pytest.approx(0.03)
    assert change.noise == pytest.approx(0.02)
    told = "generic_16 trained +0.030 (noise 0.020), generic_16 held-out +0.030 (noise 0.020); +0.009 on average."
    assert verdict_of(found, "bank") == f"**kept**: {told}"
    loses = a_ladder(base=[{}, {}], bank=[{"generic_16": 0.54, "mixed": 0.4}, {"generic_16": 0.52, "mixed": 0.4}])
    assert verdict_of(loses, "bank").startswith("**not kept**: generic_16 trained +0.030")
    assert "mixed held-out -0.100 (noise 0.010)" in verdict_of(loses, "bank")


def test_what_gains_less_than_the_spread_is_within_it() -> None:
    found = a_ladder(base=[{}, {}], bank=[{"generic_16": 0.56}, {"generic_16": 0.50}])
    assert verdict_of(found, "bank").startswith("**within the spread** (at most +0.030, generic_16")
    assert "noise 0.060" in verdict_of(found, "bank")  # differences of .06 and 0: deviation .0424


def test_the_spread_is_that_of_all_rows_and_of_paired_seeds() -> None:
    """What both runs of a seed share is no noise; a row of one seed has that of the others."""
    found = a_ladder(
        base=[{"text": 0.4}, {"text": 0.6}],
        bank=[{"text": 0.42}, {"text": 0.62}],  # the same gain in both
        neck=[{"text": 0.44}, {"text": 0.56}],  # +.04 and -.04: variance .0032, pooled with 0
        concat=[{"text": 0.43}],
    )
    noise = {one: prompt_page.changes(found, one)[0].noise for one in ("bank", "concat")}
    assert noise["bank"] == pytest.approx(2 * (0.0032 / 2) ** 0.5 / 2**0.5)
    assert noise["concat"] == pytest.approx(2 * (0.0032 / 2) ** 0.5)


def test_of_one_seed_two_hundredths_are_noise() -> None:
    found = a_ladder(base=[{}], bank=[{"mixed": 0.519}], neck=[{"mixed": 0.521}])
    assert verdict_of(found, "bank").startswith("**within the spread**")
    assert verdict_of(found, "neck").startswith("**kept**")


def test_a_figure_of_photographs_is_the_mean_over_their_sets() -> None:
    base, other = (
        {0: LadderRun({"groceries": run_with(text=one), "logos": run_with(text=two)}, None)}
        for one, two in ((0.2, 0.1), (0.3, 0.12))
    )
    found = Ladder("photographs", 800, False, {BASE: base, "bank": other})
    assert prompt_page.changes(found, "bank")[0].gain == pytest.approx(0.06)


def test_a_trend_needs_every_seed() -> None:
    found = a_ladder(
        stage1=[{"text": 0.3}],
        base=[{"generic_16": 0.5}, {"generic_16": 0.5}],
        equation_9=[{"generic_16": 0.6}, {"generic_16": 0.58}],
        no_alignment=[{}, {}],
        stars=[{"generic_16": 0.4}, {"generic_16": 0.62}],
    )
    lines = prompt_page.prompt_page([found]).splitlines()

    def line(start: str) -> str:
        [found] = [line for line in lines if line.startswith(start)]
        return found

    assert line("- Alignment by equation 9 lifts generic").endswith("**reproduced** (+0.100, +0.080).")
    assert line("- Nameless visual data lowers").endswith("**not shown, the seeds disagree** (+0.100, -0.120).")
    assert line("- Visual training costs text").endswith("**the contrary is found** (-0.200).")
    assert line("- Mixed prompts beat generic").endswith("**no difference beyond 0.01** (+0.000, +0.000).")
    assert line("- Starting from text").endswith("no runs.")
    assert any("| equation_9 (2) |" in line and "0.590 ± 0.014 / 0.590 ± 0.014" in line for line in lines)
