"""Break the code in small ways, one at a time; the tests that are named for it must notice each.

The tables are the `.txt` files beside this one. `@ FILE | TESTS` says which file of the package is broken, and which
tests are run. Every mutant under it is a line that says what is wrong then, the text that goes (`- `), which occurs
exactly once in the file, and what stands in its place (`+ `).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

TABLES = Path(__file__).parent
TESTS = TABLES.parent
SRC = TESTS.parent / "src"
PACKAGE = "trex2_lightning"
SECONDS = 600  # after which tests that hang have noticed


class Mutant(NamedTuple):
    """One small change of the package."""

    name: str  # what is wrong then
    file: str  # relative to the package
    text: str  # occurs once in the file
    replacement: str
    tests: tuple[str, ...]  # relative to the folder of the tests

    def applied(self, source: str) -> str:
        """Raises ValueError: the text does not occur exactly once."""
        if (count := source.count(self.text)) != 1:
            raise ValueError(f"{self.file}: {self.name}: its text occurs {count} times, not once: {self.text}")
        return source.replace(self.text, self.replacement)


def main(arguments: Sequence[str]) -> int:
    """Run the chosen mutants; status 1 where one survives or cannot be judged."""
    parser = argparse.ArgumentParser(description="Break the code in small ways that the tests must notice.")
    parser.add_argument("chosen", nargs="*", metavar="WORD", help="part of a file or of what is wrong; none: all")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    options = parser.parse_args(arguments)
    chosen = [m for m in read_tables() if not options.chosen or any(w in f"{m.file} {m.name}" for w in options.chosen)]
    failed = []
    with ThreadPoolExecutor(options.jobs) as pool:
        verdicts = pool.map(partial(judged, healthy=cache(healthy)), chosen)
        for mutant, verdict in zip(chosen, verdicts, strict=True):
            print(f"{verdict:9} {mutant.file}: {mutant.name}", flush=True)  # noqa: T201
            failed += [mutant] if verdict != "killed" else []
    print(f"{len(chosen)} mutants, {len(chosen) - len(failed)} killed")  # noqa: T201
    return 1 if failed or not chosen else 0


def read_tables(folder: Path = TABLES) -> list[Mutant]:
    return [mutant for table in sorted(folder.glob("*.txt")) for mutant in read_table(table.read_text())]


def read_table(content: str) -> Iterator[Mutant]:
    file, tests = "", ()
    for block in content.strip().split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("@ "):
            file, names = (part.strip() for part in lines[0][2:].split("|"))
            tests = tuple(names.split())
            continue
        text, replacement = ("\n".join(line[2:] for line in lines[1:] if line[0] == sign) for sign in "-+")
        yield Mutant(lines[0], file, text, replacement, tests)


def judged(mutant: Mutant, healthy: Callable[[tuple[str, ...]], bool]) -> str:
    """`killed` or `survived`, or why neither can be said."""
    if not healthy(mutant.tests):
        return "unhealthy"  # its tests fail without it too
    status = run_tests(mutant.tests, mutant)
    return {0: "survived", 1: "killed"}.get(status, "broken")  # it does not even import


def healthy(tests: tuple[str, ...]) -> bool:
    return run_tests(tests) == 0


def run_tests(tests: Sequence[str], mutant: Mutant | None = None) -> int:
    """The status of pytest on a copy of the package, with a mutant or as it is."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, PACKAGE)
        shutil.copytree(SRC / PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if mutant:
            broken = copy / mutant.file
            broken.write_text(mutant.applied(broken.read_text()))
        options = ["-x", "-q", "-m", "not slow and not ci", "-p", "no:cacheprovider", "--basetemp", f"{folder}/tests"]
        command = [sys.executable, "-m", "pytest", *options, *(str(TESTS / test) for test in tests)]
        paths = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        settings = {
            "PYTHONPATH": paths,
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "TRITON_INTERPRET": "1",
        }
        try:
            return subprocess.run(
                command, cwd=TESTS.parent, env=os.environ | settings, capture_output=True, timeout=SECONDS
            ).returncode
        except subprocess.TimeoutExpired:
            return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
