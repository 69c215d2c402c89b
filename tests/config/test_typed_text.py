"""Text settings, in files and on the command line, are the characters that were typed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from test_files import write

from trex2_lightning.config import Config, SetConfig, SplitConfig, load, override, save

TYPED = ["2026_11_27", "on", "02146", "1_000", "12:30", "2.50", "null", "~", "1e5", "a#b", "x: y", "{a}", "[x", " a"]


@pytest.mark.parametrize("name", ["on", "02146", "2026-11-27", "1e3", "12:30", "a-b"])
def test_names_of_sets_and_tasks_are_typed_too(tmp_path: Path, name: str) -> None:
    text = f"data: {{sets: {{{name}: {{annotations: 012, text: 1}}}}}}\neval: {{tasks: {{{name}: {{folder: no}}}}}}\n"
    config = load(write(tmp_path, "a.yaml", text))
    assert config.data.sets == {name: SetConfig("012", text=1)}
    assert {key: task.folder for key, task in config.eval.tasks.items()} == {name: "no"}


def test_a_set_whose_name_has_a_hyphen_is_changed_by_it(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "data: {sets: {a-b: {annotations: x, text: 1}}}\n")
    assert load(path, ["data.sets.a-b.images=off"]).data.sets == {"a-b": SetConfig("x", "off", text=1)}


def test_a_mapping_may_take_up_another(tmp_path: Path) -> None:
    parts = "data: {train: &files {annotations: 012}, val: {<<: *files, images: on}}\n"
    assert load(write(tmp_path, "a.yaml", parts)).data.val == SplitConfig("012", "on")


def text_fields(kind: Any, key: str = "") -> Iterator[str]:
    for name, own in get_type_hints(kind).items():
        if is_dataclass(own):
            yield from text_fields(own, f"{key}{name}.")
        elif own is str:
            yield key + name


def test_every_text_field_is_typed_in_both_ways(tmp_path: Path) -> None:
    path = write(tmp_path, "x.yaml", "")
    keys = [*text_fields(Config)]
    assert {"name", "output", "data.root", "data.val.images", "model.backbone.weights", "logging.group"} <= {*keys}
    for key in keys:
        # W&B takes no # in a project's name, which the settings say.
        for typed in ("02146", "a b" if key == "logging.project" else "a #b"):
            of: Any = load(path, [f"{key}={typed}"])
            for part in key.split("."):
                of = getattr(of, part)
            assert of == typed, key


@pytest.mark.parametrize("typed", TYPED)
def test_text_keeps_the_characters_that_were_typed(tmp_path: Path, typed: str) -> None:
    path = write(tmp_path, "x.yaml", "")
    for key, of in (
        ("name", lambda config: config.name),
        ("data.root", lambda config: config.data.root),
        ("data.val.images", lambda config: config.data.val.images),
    ):
        assert of(load(path, [f"{key}={typed}"])) == typed
        assert of(override(Config(), [f"{key}='{typed}'"])) == typed
    assert load(path, ["data.train={annotations: 2026_11, images: on}"]).data.train == SplitConfig("2026_11", "on")
    assert load(path, ["data.train.images=a", "data.train={annotations: 1.0}"]).data.train == SplitConfig("1.0", "a")
    assert load(path, ["train.frozen=[on, 007]"]).train.frozen == ["on", "007"]


def test_text_of_files_keeps_its_characters(tmp_path: Path) -> None:
    parent = write(tmp_path, "p.yaml", "name: 2026_11_27\ndata: {root: on, batch_size: 0x10, train: {images: 1_0}}\n")
    child = write(tmp_path, "x.yaml", "base: p.yaml\ndata: {train: {annotations: 02146}}\ntrain: {frozen: [off]}\n")
    config = load(child)
    assert (load(parent).name, config.name, config.data.root, config.data.batch_size) == ("2026_11_27",) * 2 + (
        "on",
        16,
    )
    assert config.data.train == SplitConfig("02146", "1_0")
    assert config.train.frozen == ["off"]
    save(config, tmp_path / "saved.yaml")
    assert load(tmp_path / "saved.yaml") == config


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    path = write(tmp_path, "x.yaml", "data: {root: ~/coco}\n")
    assert load(path, ["output=~/runs"]).data.root == "/home/me/coco"
    assert load(path, ["output=~/runs", "name=a~/b"]).output == "/home/me/runs"
    assert load(path, ["name=~other/b"]).name == "~other/b"
