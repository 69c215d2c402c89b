"""What was saved in an earlier format loads, and every entry of the table is held by a case here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trex2_lightning.config import Config, ConfigError, from_dict, load, migrate, save, to_dict
from trex2_lightning.config import migrations as table
from trex2_lightning.config.migrations import CONFIG_FORMAT, MIGRATIONS, FormerDefault, Removed, Renamed, RenamedWeights

Entry = tuple[int, Any]
ENTRIES: list[Entry] = [(number, change) for number, changes in MIGRATIONS.items() for change in changes]
IMAGENETS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def aligned(name: str, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint that says something of the alignment, and the same with a setting more."""
    before: dict[str, Any] = {"weight": 0.5}
    return {"config": {"loss": {"alignment": before}}}, {"config": {"loss": {"alignment": before | {name: value}}}}


# By entry: a checkpoint as it was, and what the entry alone makes of it.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "1 eval.backend": (
        {"config": {"eval": {"backend": "pycocotools", "metric": "coco"}}},
        {"config": {"eval": {"metric": "coco"}}},
    ),
    "1 eval.num_pictures": ({"config": {"eval": {"num_pictures": 3}}}, {"config": {"eval": {}}}),
    "1 visual_training_told": (
        {"config": {"train": {"rhythm": {"visual": 8, "text": 1}}}},
        {"config": {"train": {"rhythm": {"visual": 8, "text": 1}}}, "visual_trained": True},
    ),
    "2 imagenet_pixels": (
        {"config": {"model": {"width": 64, "backbone": {"name": "test_resnet"}}}},
        {"config": {"model": {"width": 64, "backbone": {"name": "test_resnet"} | IMAGENETS}}},
    ),
    "2 data.negatives.foreign": (
        {"config": {"data": {"negatives": {"count": 80}}}},
        {"config": {"data": {"negatives": {"count": 80, "foreign": 0}}}},
    ),
    "2 loss.alignment.scope": aligned("scope", "image"),
    "2 loss.alignment.normalize": aligned("normalize", False),
    "2 loss.alignment.temperature": aligned("temperature", 1.0),
    "2 loss.alignment.detach_text": aligned("detach_text", False),
    "3 best_by_one": (
        {"config": {"train": {"rhythm": {"visual": 8, "text": 0}}}},
        {"config": {"train": {"rhythm": {"visual": 8, "text": 0}, "best_by": ["interactive_box"]}}},
    ),
    "4 share_has_a_scale": (
        {"config": {}, "state_dict": {"detector.appearance.temperature": 0.05}, "current_model_state": {"a": 1}},
        {
            "config": {},
            "state_dict": {"detector.appearance.temperature": 0.05, "detector.appearance.logit_scale": 20.0},
            "current_model_state": {"a": 1},
        },
    ),
}


def name_of(entry: Entry) -> str:
    number, change = entry
    return f"{number} {getattr(change, 'key', None) or getattr(change, 'prefix', None) or change.__name__}"


@pytest.mark.parametrize("entry", ENTRIES, ids=name_of)
def test_every_entry_does_what_its_case_says_and_nothing_to_what_it_is_not_about(entry: Entry) -> None:
    before, after = CASES[name_of(entry)]
    entry[1](before)
    assert before == after
    entry[1](after := {"config": {"seed": 3}, "state_dict": {"a": 1}, "visual_trained": True})
    assert after == {"config": {"seed": 3}, "state_dict": {"a": 1}, "visual_trained": True}


def test_there_is_no_case_without_an_entry_and_no_gap_between_formats() -> None:
    assert sorted(CASES) == sorted(map(name_of, ENTRIES))
    assert list(MIGRATIONS) == list(range(1, CONFIG_FORMAT + 1))


def test_an_early_checkpoint_says_by_its_rhythm_whether_visual_prompts_were_trained() -> None:
    for steps, told in ((0, False), (8, True)):
        checkpoint: dict[str, Any] = {"config": {"train": {"rhythm": {"visual": steps}}}}
        migrate(checkpoint, "x")
        assert checkpoint["visual_trained"] is told
    later = {"config": {"train": {"rhythm": {"visual": 0}}}, "visual_trained": True}
    migrate(later, "x")
    assert later["visual_trained"] is True, "the run that its weights came from did"


def test_an_earlier_run_goes_on_without_foreign_names() -> None:
    earlier = to_dict(Config()) | {"format": 1}
    del earlier["data"]["negatives"]["foreign"]
    assert from_dict(earlier).data.negatives.foreign == 0
    assert from_dict({"format": CONFIG_FORMAT}).data.negatives.foreign > 0


def test_an_early_run_aligns_as_equation_9_has_it_and_as_it_was_told() -> None:
    early: dict[str, Any] = {"loss": {"alignment": {"weight": 1.0, "symmetric": False, "temperature": 0.5}}}
    align = from_dict({"format": 0, **early}).loss.alignment
    assert (align.scope, align.normalize, align.temperature, align.detach_text) == ("image", False, 0.5, False)


# Kinds of entries


def test_a_setting_that_is_new_has_its_value_where_its_section_is_and_keeps_another() -> None:
    for settings, expected in (
        ({"a": {"b": 1}}, {"a": {"b": 1, "new": 0}}),
        ({"a": {"new": 3}}, {"a": {"new": 3}}),
        ({}, {}),
    ):
        FormerDefault("a.new", 0)({"config": settings})
        assert settings == expected


def test_a_renamed_setting_moves_with_its_value() -> None:
    checkpoint = {"config": {"train": {"old": [1, 2], "nodes": 1}}}
    Renamed("train.old", "loss.part.new")(checkpoint)
    assert checkpoint == {"config": {"train": {"nodes": 1}, "loss": {"part": {"new": [1, 2]}}}}


def test_a_removed_setting_must_have_had_the_value_that_is_left() -> None:
    gone = Removed("loss.kind", "only the plain one is left", "plain")
    for settings in ({"loss": {"kind": "plain"}}, {"loss": {}}, {}, {"loss": None}):
        gone({"config": settings})
        assert settings in ({"loss": {}}, {}, {"loss": None})
    with pytest.raises(ConfigError, match=r"^loss\.kind=fancy is no longer possible: only the plain one is left$"):
        gone({"config": {"loss": {"kind": "fancy"}}})


def test_a_renamed_module_is_found_in_averaged_and_in_trained_weights() -> None:
    weights = {"neck.a": 1, "necklace.a": 2, "decoder.neck.a": 3}
    checkpoint = {"config": {}, "state_dict": dict(weights), "current_model_state": dict(weights)}
    RenamedWeights("neck.", "pyramid.")(checkpoint)
    renamed = {"pyramid.a": 1, "necklace.a": 2, "decoder.neck.a": 3}
    assert checkpoint == {"config": {}, "state_dict": renamed, "current_model_state": renamed}


@pytest.fixture
def three_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """`seed` is called `draw`, then `draws`, whose value 13 goes."""
    changes = {1: (Renamed("draw", "draws"),), 2: (Removed("gone", "nobody used it"),), 3: (Renamed("draws", "seed"),)}
    monkeypatch.setattr(table, "MIGRATIONS", changes)
    monkeypatch.setattr(table, "CONFIG_FORMAT", 3)


@pytest.mark.usefixtures("three_formats")
@pytest.mark.parametrize("settings", [{"draw": 5}, {"draws": 5, "format": 1}, {"draws": 5, "format": 2}])
def test_formats_are_passed_in_their_order(settings: dict[str, Any]) -> None:
    assert from_dict({"gone": 1, **settings} if settings.get("format", 0) < 2 else settings).seed == 5


@pytest.mark.usefixtures("three_formats")
def test_today_s_settings_are_left_alone() -> None:
    """`draw` may mean something else by now."""
    with pytest.raises(ConfigError, match="draw: it is no longer a setting: it is called draws now"):
        from_dict({"draw": 5, "format": 3})


# Where numbers stand


def test_what_is_saved_has_today_s_number(tmp_path: Path) -> None:
    save(Config(), tmp_path / "config.yaml")
    assert f"format: {CONFIG_FORMAT}\n" in (tmp_path / "config.yaml").read_text()
    assert to_dict(Config())["format"] == CONFIG_FORMAT
    assert from_dict(to_dict(Config())) == load(tmp_path / "config.yaml") == Config()


def test_reading_leaves_the_dictionary_as_it_was() -> None:
    values = {"seed": 3, "eval": {"backend": "pycocotools"}}
    assert from_dict(values).seed == 3
    assert values == {"seed": 3, "eval": {"backend": "pycocotools"}}


def test_a_saved_file_of_an_earlier_format_loads_also_as_a_parent(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "format: 0\nseed: 3\noutput: ${name}\neval: {num_pictures: 4, batch_size: 2}\n"
    )
    (tmp_path / "child.yaml").write_text("base: config.yaml\nname: child\n")
    config = load(tmp_path / "child.yaml")
    assert (config.seed, config.eval.batch_size, config.name, config.output) == (3, 2, "child", "child")


def test_an_experiment_file_is_of_today_s_format_and_is_told_what_became_of_a_setting(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("eval: {backend: pycocotools}\n")
    message = r"eval\.backend: it is no longer a setting: faster_coco_eval counts"
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_text("seed: 1\n")
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "x.yaml", ["eval.backend=pycocotools"])


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (CONFIG_FORMAT + 1, rf"has format {CONFIG_FORMAT + 1}, but .* up to {CONFIG_FORMAT}: update trex2_lightning$"),
        (-1, "format: -1 is no whole number"),
        ("new", "format: new is no whole number"),
    ],
)
def test_a_number_that_this_version_does_not_know(tmp_path: Path, number: Any, message: str) -> None:
    (tmp_path / "x.yaml").write_text(f"format: {number}\nsetting_of_tomorrow: 1\n")
    with pytest.raises(ConfigError, match=rf"x\.yaml.*{message}"):
        load(tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match=message):
        from_dict({"format": number})
    with pytest.raises(ConfigError, match=message):
        migrate({"config": {"format": number}, "state_dict": {"a": torch.zeros(1)}}, "x.ckpt")


def test_a_value_that_was_chosen_and_has_no_effect_any_more_is_told(caplog: pytest.LogCaptureFixture) -> None:
    for pictures in (8, 0):
        migrate({"config": {"eval": {"num_pictures": pictures}}, "format": 0}, "run")
    [said] = [record.getMessage() for record in caplog.records]
    assert said == "eval.num_pictures=0 has no effect any more: the table of pictures at W&B has eight"
