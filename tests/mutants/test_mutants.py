"""The tables of `make mutants` fit the code, and the check tells what is noticed from what is not."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence

import mutants
import pytest
from mutants import PACKAGE, SRC, TESTS, Mutant, judged, main, read_table, read_tables

ALL = read_tables()


def test_there_are_mutants_of_all_that_is_to_be_held() -> None:
    rooms = Counter(mutant.file.split("/")[0] for mutant in ALL)
    assert len(ALL) >= 60
    assert {"losses", "ops", "data", "metrics", "prompting", "training", "inference"} <= rooms.keys()
    assert len({(mutant.file, mutant.name) for mutant in ALL}) == len(ALL)


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: f"{mutant.file}: {mutant.name}")
def test_every_mutant_applies(mutant: Mutant) -> None:
    source = (SRC / PACKAGE / mutant.file).read_text()
    assert ast.dump(ast.parse(mutant.applied(source))) != ast.dump(ast.parse(source))
    assert mutant.tests
    assert all((TESTS / test).is_file() for test in mutant.tests)


def test_a_table_is_read() -> None:
    table = (
        "@ a.py | x.py y.py\n\nfirst\n- b  # c\n-   d\n+\n\nsecond\n- e\n+ f\n+ g\n\n@ h.py | z.py\n\nthird\n- i\n+ j\n"
    )
    assert list(read_table(table)) == [
        Mutant("first", "a.py", "b  # c\n  d", "", ("x.py", "y.py")),
        Mutant("second", "a.py", "e", "f\ng", ("x.py", "y.py")),
        Mutant("third", "h.py", "i", "j", ("z.py",)),
    ]


@pytest.mark.parametrize("source", ["a + b", "c + c"])
def test_a_text_that_does_not_occur_once_is_an_error(source: str) -> None:
    with pytest.raises(ValueError, match=r"x\.py: wrong: its text occurs [02] times"):
        Mutant("wrong", "x.py", "c", "d", ()).applied(source)


@pytest.mark.parametrize(("status", "verdict"), [(0, "survived"), (1, "killed"), (2, "broken"), (4, "broken")])
def test_a_mutant_is_killed_by_tests_that_fail_and_by_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: int, verdict: str
) -> None:
    def run_tests(tests: Sequence[str], mutant: Mutant | None = None) -> int:
        return status if mutant else 0

    monkeypatch.setattr(mutants, "run_tests", run_tests)
    assert main(["ops/boxes.py", "--jobs", "1"]) == (verdict != "killed")
    assert capsys.readouterr().out.count(verdict) >= 2
    assert judged(ALL[0], healthy=lambda tests: False) == "unhealthy"


@pytest.mark.ci
def test_the_tests_run_on_the_broken_copy() -> None:
    [sign] = [mutant for mutant in ALL if mutant.file == "ops/boxes.py" and mutant.name.startswith("corners")]
    assert mutants.run_tests(sign.tests) == 0
    assert mutants.run_tests(sign.tests, sign) == 1
