"""How long a user waits for an answer that needs no work; each is measured in processes of its own."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from trex2_lightning.studies.timing import Row, fastest

COMMANDS = (
    *("train", "evaluate", "predict", "label", "tune", "prepare", "audit", "calibrate", "compare", "export", "push"),
    *("serve", "preflight", "demo"),
)


def startup(repeats: int) -> list[Row]:
    """Help of the command and of its sub-commands, and the import of the package beside no import at all."""
    helps = [["--help"], *([name, "--help"] for name in COMMANDS)]
    programs = [["-m", "trex2_lightning", *words] for words in helps]
    programs += [["-c", "pass"], ["-c", "import trex2_lightning"]]
    *seconds, bare, imported = fastest(repeats, *(partial(_run, program) for program in programs))
    rows = [
        Row(f"trex2 {' '.join(words)}", None, taken, "", "< 1.5 s") for words, taken in zip(helps, seconds, strict=True)
    ]
    return [*rows, Row("import trex2_lightning; the peer: nothing", bare, imported, "", "< 0.5 s more")]


def _run(program: list[str]) -> None:
    subprocess.run([sys.executable, *program], check=True, stdout=subprocess.DEVNULL)
