"""What holds for every format, found by its declaration."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from trex2_lightning.commands.prepare import _parser
from trex2_lightning.commands.prepare import main as prepare_data
from trex2_lightning.config import DataConfig, RhythmConfig, SetConfig
from trex2_lightning.data import formats
from trex2_lightning.data.formats import every_format, format_named
from trex2_lightning.data.index.reading import open_index
from trex2_lightning.data.sampling.mixture import read_mixture
from trex2_lightning.errors import InputError

INDEXED = [name for name, form in every_format().items() if form.indexed]


def sample(name: str) -> Any:
    """SAMPLE of the format's own test, an image `a.jpg` with one box, and perhaps a category that it lacks:

    Files to write; arguments before the place of the images, and options; the names of the categories.
    """
    own = f"test_{name}" if Path(__file__).with_name(f"test_{name}.py").exists() else f"test_{name}_files"
    return importlib.import_module(own).SAMPLE


def test_every_file_declares_the_format_of_its_name() -> None:
    files = {file.stem for file in Path(formats.__path__[0]).glob("*.py")} - {"__init__"}
    assert list(every_format()) == sorted(files)


@pytest.mark.parametrize("name", every_format())
def test_a_format_is_of_some_use_and_is_read_by_whoever_may(name: str) -> None:
    form = every_format()[name]
    assert form.indexed or form.direct
    if form.direct:  # the reader is called with a file, and with images that nobody looks for
        assert (len(form.sources), form.has_images) == (1, True)


def test_a_format_that_there_is_not_is_told_with_all_that_there_are() -> None:
    known = ", ".join(every_format())
    with pytest.raises(InputError, match=rf"^data\.sets\.a\.format=pascal is no format: take one of {known}$"):
        format_named("pascal", "data.sets.a.format")


@pytest.mark.parametrize("name", INDEXED)
def test_every_format_becomes_the_same_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    files, arguments, options, names = sample(name)
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Image.new("RGB", (40, 30)).save("images/a.jpg")
    for file, content in files.items():
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text(content if isinstance(content, str) else json.dumps(content))
    images = ["images"] if every_format()[name].has_images else []
    command = [name, *arguments, *images, "index", *options]
    prepare_data(command)
    printed = capsys.readouterr().out
    assert re.search(r"images\W+1\b", printed)
    assert re.search(r"boxes\W+1\b", printed)
    records = open_index(Path("index"))
    [image] = records.images
    assert list(records.names) == names
    assert image.path == (tmp_path / "images" / "a.jpg")
    assert (image.boxes - torch.tensor([[1, 2, 4, 6]])).abs().max() < 0.01
    prepare_data(command)
    assert "up to date" in capsys.readouterr().out


@pytest.mark.parametrize("name", INDEXED)
def test_the_command_that_is_named_where_a_set_is_missing_is_one(tmp_path: Path, name: str) -> None:
    sets = {"a": SetConfig("a", text=1, format=name)}
    with pytest.raises(InputError) as caught:
        read_mixture(DataConfig(root=str(tmp_path), sets=sets), RhythmConfig())
    [command] = re.findall(r"trex2 prepare (.*)", str(caught.value))
    assert _parser("prepare_data.py").parse_args(command.split()).output == tmp_path / "a"


@pytest.mark.parametrize("name", INDEXED)
def test_every_format_has_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        prepare_data([name, "--help"])
    assert "folder to write the index to" in capsys.readouterr().out
