"""`trex2 COMMAND ...` finds the commands by itself, fast, and runs them as scripts/ does."""

from __future__ import annotations

import os
import subprocess
import sys
from configparser import ConfigParser
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import trex2_lightning
from trex2_lightning.__main__ import commands, main, run
from trex2_lightning.commands.train import main as train_command
from trex2_lightning.data.index.reading import Index
from trex2_lightning.errors import InputError

ROOT = Path(__file__).parents[1]
HELP = """
import contextlib
import sys
from trex2_lightning.__main__ import commands, run
for arguments in [["--help"], *([name, "--help"] for name in commands())]:
    with contextlib.suppress(SystemExit):
        run(arguments)
    heavy = {"torch", "lightning", "omegaconf", "matplotlib", "wandb", "timm", "open_clip"} & set(sys.modules)
    assert not heavy, (arguments, heavy)
"""


def test_no_help_waits_for_what_takes_seconds_to_import_or_is_wider_than_a_terminal() -> None:
    wide = os.environ | {"COLUMNS": "80"}
    process = subprocess.run([sys.executable, "-c", HELP], env=wide, capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr
    assert [line for line in process.stdout.splitlines() if len(line) > 80] == []
    assert process.stdout.count("usage: trex2 ") == len(commands()) + 1


def test_help_tells_every_command() -> None:
    help, wide = [sys.executable, "-m", "trex2_lightning", "--help"], os.environ | {"COLUMNS": "200"}
    process = subprocess.run(help, env=wide, capture_output=True, text=True, timeout=60, check=True)
    files = {path.stem for path in (ROOT / "src" / "trex2_lightning" / "commands").glob("*.py")}
    told = {line.split()[0]: line.split(maxsplit=1)[1] for line in process.stdout.splitlines() if line[:2] == "  "}
    options = {"-h,", "--version"}
    assert {name.replace("-", "_") for name in told.keys() - options} == files - {
        "__init__",
        "terminal",
        "prompt_options",
    }
    assert told["train"] == "Train a detector."
    assert all(meaning.endswith(".") for name, meaning in told.items() if name not in options)


def test_every_script_has_a_command_and_every_command_a_script() -> None:
    """But for `smoke.py`, which is a test of the whole."""
    called = {
        name
        for script in (ROOT / "scripts").glob("*.py")
        for name in commands()
        if f"command({name.replace('-', '_')}.main)" in script.read_text()
    }
    assert called == set(commands())
    assert len(list((ROOT / "scripts").glob("*.py"))) == len(called) + 1


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("trian", "did you mean train?"),
        ("ablation_prompts", "did you mean ablation-prompts?"),
        ("terminal", "did you mean train?"),
        ("?", "trex2 --help lists them"),
    ],
)
def test_a_command_that_does_not_exist(name: str, hint: str) -> None:
    with pytest.raises(InputError) as error:
        run([name, "--help"])
    assert str(error.value) == f"there is no command {name}: {hint}"


def test_wrong_input_ends_with_status_2_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["trex2", "train", "nowhere.yaml"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr() == ("", "error: no experiment file nowhere.yaml\n")


@pytest.mark.parametrize("name", commands())
def test_a_command_is_called_as_it_was_started(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: trex2 {name} ")


def test_a_script_is_called_as_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_command(["--help"])
    assert capsys.readouterr().out.startswith("usage: train.py ")


def test_a_command_runs_in_a_process_of_its_own(tiny_coco: Path, tmp_path: Path) -> None:
    prepare = [sys.executable, "-m", "trex2_lightning", "prepare", "coco"]
    subprocess.run([*prepare, tiny_coco / "val.json", tiny_coco / "val", tmp_path / "index"], check=True, timeout=200)
    assert len(Index(tmp_path / "index")) == 3


def test_the_console_script_and_the_version() -> None:
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    name, target = settings["options.entry_points"]["console_scripts"].strip().split(" = ")
    module, function = target.split(":")
    assert name == "trex2"
    assert getattr(import_module(module), function) is main
    assert trex2_lightning.__version__ == version("trex2-lightning")


def test_the_package_offers_what_people_import_and_imports_it_when_asked() -> None:
    program = "import sys; from trex2_lightning import Box, Point, InputError; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert set(trex2_lightning.__all__) <= set(dir(trex2_lightning))
    for name in trex2_lightning.__all__:
        assert getattr(trex2_lightning, name).__name__ == name
    assert not hasattr(trex2_lightning, "Predicter")


def test_wandb_is_imported_where_a_run_logs_to_it() -> None:
    """At a file's top by its own command alone; timm imports it too, where it is installed."""
    package = ROOT / "src" / "trex2_lightning"
    assert {file.stem for file in package.rglob("*.py") if "\nimport wandb" in file.read_text()} == {"dashboard"}
