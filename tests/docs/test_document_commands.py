"""Every command and every Python snippet of the documents runs, or says why not."""

from __future__ import annotations

import contextlib
import io
import logging
import runpy
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from documents import COMMANDS, DOCS, SHOWN, Command, blocks, commands, snippets, spans
from running import CommandError, dry, run
from workshop import Workshop

from trex2_lightning.__main__ import commands as trex2_commands
from trex2_lightning.config import for_benchmark, load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("documents"))


@pytest.fixture
def at_work(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    """In the workshop's folder, without a network; commands set the loggers of their process."""
    workshop.renew()
    monkeypatch.chdir(workshop.folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loggers = [logging.getLogger(), logging.getLogger("trex2_lightning")]
    before = [(logger.level, logger.handlers[:]) for logger in loggers]
    yield workshop
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


def named(make: Callable[[Path], list]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", [path for path in DOCS if make(path)], ids=lambda path: path.name)


@named(commands)
def test_commands_run(path: Path, at_work: Workshop) -> None:
    for command in commands(path):
        run(command)


@named(snippets)
def test_snippets_run(path: Path, at_work: Workshop) -> None:
    for block in snippets(path):
        if block.reason is None:
            printed(block.content)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_block_says_what_it_is(path: Path) -> None:
    for block in blocks(path):
        assert block.language in (*COMMANDS, *SHOWN, "python"), f"{block.place}: no language {block.language}"
        if block.language in SHOWN:  # no way round being run
            assert "python " not in block.content, f"{block.place}: a command in a block of {block.language}"


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_a_command_within_a_line_stands_in_a_block_too(path: Path) -> None:
    written = {command.line for other in DOCS for command in commands(other)}
    written |= {f"{program} COMMAND ..." for program in ("trex2", "python -m trex2_lightning")}
    written |= {"trex2 --help", *(f"trex2 {name} ..." for name in trex2_commands())}
    for span in spans(path):
        if span.startswith("make "):
            dry(shlex.split(span))
        assert not span.startswith(("python ", "trex2 ")) or span in written, f"{path.name}: {span}"


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.name)
def test_every_script_finds_what_it_imports(path: Path) -> None:
    assert runpy.run_path(str(path), run_name="imported")


def test_yaml_blocks_are_evaluation_files(at_work: Workshop) -> None:
    shown = [block for path in DOCS for block in blocks(path) if block.language == "yaml"]
    for block in shown:
        file = at_work.folder / "experiments" / "eval" / "shown.yaml"
        file.write_text(block.content)
        assert for_benchmark(load("experiments/smoke.yaml"), file).eval.tasks
    assert shown


def test_the_interface_example_finds_what_each_list_asks_for(at_work: Workshop) -> None:
    block = next(block for block in snippets(ROOT / "docs" / "interface.md") if "rank(" in block.content)
    first, second = (line.split("]")[0].lstrip("[") for line in printed(block.content).splitlines() if line[:1] == "[")
    assert set(first.split(", ")) <= {"'red star'", "'blue ring'"}
    assert second.split(", ") == ["'green moon'"] * 3


@pytest.mark.parametrize(
    ("line", "reason", "wrong"),
    [
        ("python scripts/train.py experiments/small_coco.yaml data.rot=FOLDER", None, CommandError),
        ("trex2 train experiments/small_coco.yaml data.rot=FOLDER", None, CommandError),
        ("trex2 trian --help", None, CommandError),
        ("python scripts/train.py experiments/smal_coco.yaml data.root=FOLDER", None, CommandError),
        ("python scripts/train.py experiments/small_coco.yaml data.root=GONE", None, CommandError),
        ("python scripts/predict.py IMAGE --ckpt FILE --txt cell", None, CommandError),
        ("python scripts/predict.py IMAGE --ckpt runs/gone/best.ckpt --text cell", None, CommandError),
        ("python scripts/bench.py --thread 3 --pages x", "half an hour", CommandError),
        ("make smok", "the suite", CommandError),
        ("wget https://example.org/x", None, CommandError),
        ("wget https://example.org/x", "a download", None),
        ("make stage1 GPUS=8 ARGS='data.rot=FOLDER'", None, CommandError),
    ],
)
def test_the_harness_itself(
    line: str, reason: str | None, wrong: type[BaseException] | None, at_work: Workshop
) -> None:
    command = Command("x.md:1", line, shlex.split(line), reason)
    with pytest.raises(wrong) if wrong else contextlib.nullcontext():
        run(command)


def printed(code: str) -> str:
    """What a snippet prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(code, {})
    return output.getvalue()
