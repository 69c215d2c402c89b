"""A checkpoint's own settings are a stranger's: what they may say, and what is refused in one line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from trex2_lightning.config import Config, ConfigError, check_harmless, from_dict, load, to_dict
from trex2_lightning.config.untrusted import MOST, MOST_OF_OPTION

TINY = Path(__file__).parents[1] / "tiny.yaml"


def of_a_stranger(**changes: Any) -> dict[str, Any]:
    """The settings of a checkpoint, with other values under some keys, whose dots are `__`."""
    values = to_dict(load(TINY))
    for key, value in changes.items():
        *sections, name = key.split("__")
        section = values
        for part in sections:
            section = section[part]
        section[name] = value
    return values


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def doubled(times: int) -> Any:
    """A few references that stand for 2 to the power of `times` values."""
    value: list[Any] = [1]
    for _ in range(times):
        value = [value, value]
    return value


def test_settings_as_runs_have_them_are_taken(tmp_path: Path) -> None:
    swin = {"embed_dim": 32, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 4, "drop_path_rate": 0.1}
    tasks = {"AerialMaritimeDrone_large": {"folder": "AerialMaritimeDrone/large"}, "*": {}}
    values = of_a_stranger(name="demo/stage1", output=str(tmp_path), model__backbone__options=swin, eval__tasks=tasks)
    config = from_dict(values)
    assert config.model.backbone.options == swin
    assert config.name == "demo/stage1"
    assert [*config.eval.tasks] == [*tasks]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model__backbone__options", {"checkpoint_path": "x.pth"}, "options.checkpoint_path is none of the options"),
        (
            "model__backbone__options",
            {"pretrained_cfg": {"file": "x"}},
            "options.pretrained_cfg is none",
        ),
        ("model__backbone__options", {"pretrained_cfg_overlay": {"url": "x"}}, "is none of the options"),
        ("model__backbone__options", {"cache_dir": "/tmp/x"}, "is none of the options"),
        ("model__backbone__options", {"num_classes": 10}, "is none of the options"),
        ("model__backbone__options", {"depths": [1, {"a": 1}]}, "a number, a switch, a name or a short list"),
        ("model__backbone__options", {"depths": [1] * 65}, "a short list"),
        ("model__backbone__options", {"depths": [10**9]}, "1,024 at most"),
        ("model__backbone__options", {"embed_dim": -(10**9)}, "65,536 at most"),
        ("model__backbone__options", {"mlp_ratio": math.inf}, "65,536 at most"),
        ("model__backbone__options", {"mlp_ratio": math.nan}, "65,536 at most"),
        ("model__appearance__options", {"checkpoint_path": "x.pth"}, "appearance.options.checkpoint_path is none"),
        ("model__backbone__name", "local-dir:/tmp/x", "not a folder or a repository"),
        ("model__appearance__name", "hf-hub:somebody/x", "not a folder or a repository"),
        ("model__text__name", "hf-hub:somebody/x", "not a folder or a repository"),
        ("model__backbone__name", "resnet18\n", "not a folder or a repository"),
        ("model__backbone__name", "x" * 201, "not a folder or a repository"),
        ("name", "x" * 201, "is too long or would lead"),
        ("eval__tasks", {"x" * 201: {}}, "is too long or would lead"),
        ("name", "../x", "would lead to another folder"),
        ("name", "/x", "would lead to another folder"),
        ("name", r"a\..\..\x", "would lead to another folder"),
        ("name", "c:x", "would lead to another folder"),
        ("eval__tasks", {"../../x": {}}, "would lead to another folder"),
        ("eval__tasks", {"/x": {}}, "would lead to another folder"),
        ("eval__tasks", {"a/b": {}}, "would lead to another folder"),
        ("eval__tasks", {r"a\b": {}}, "would lead to another folder"),
        ("eval__tasks", {"..": {}}, "would lead to another folder"),
        ("eval__tasks", {"": {}}, "would lead to another folder"),
        ("data__root", "${oc.env:HOME}", "not what is to be looked up elsewhere"),
        ("logging__tags", ["a", "${oc.env:HOME}"], "not what is to be looked up elsewhere"),
        ("eval__tasks", {"${name}": {}}, "not what is to be looked up elsewhere"),
        ("seed", 10**400, "a int is no setting"),
        ("name", b"x", "a bytes is no setting"),
        ("name", "x" * 20_000, "not what is to be looked up"),
        ("data__train_sizes", doubled(40), "no run has so many"),
        ("data__sets", nested(40), "no run has so many"),
        ("data__size", 10**9, "16,384 at most"),
        ("data__num_workers", 10**9, "256 at most"),
        ("data__shapes__nameless_kinds", 10**9, "100,000 at most"),
        ("model__num_queries", 10**9, "65,536 at most"),
        ("model__transformer__decoder_layers", 10**9, "1,024 at most"),
        ("model__transformer__ffn", 10**9, "1,048,576 at most"),
        ("model__text__vocabulary", 10**9, "1,048,576 at most"),
        ("model__appearance__scale", 1e9, "16 at most"),
        ("eval__references", [1, 10**9], "10,000 at most"),
    ],
)
def test_what_a_stranger_may_not_say(key: str, value: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "secret")
    values = of_a_stranger(**{key: value, **({"data__max_size": 10**9} if key == "data__size" else {})})
    with pytest.raises(ConfigError) as error:
        from_dict(values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    assert len(str(error.value)) < 400


def test_what_a_user_writes_himself_is_free() -> None:
    options = "model.backbone.options={num_classes: 10, checkpoint_path: x.pth}"
    config = load(TINY, [options, "eval.tasks={a/b: {}}", "data.num_workers=500", "model.backbone.name=hf-hub:a/b"])
    assert config.model.backbone.options["checkpoint_path"] == "x.pth"
    with pytest.raises(ConfigError, match=r"checkpoint_path is none|folder"):
        check_harmless(config)


def test_pictures_are_rendered_where_this_user_keeps_them(tmp_path: Path) -> None:
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    there.mkdir()
    (there / "shapes.json").touch()
    taken = [from_dict(of_a_stranger(data__format="shapes", data__root=str(p))).data.root for p in (there, elsewhere)]
    assert taken == [str(there), ""]
    assert from_dict(of_a_stranger(data__root=str(elsewhere))).data.root == str(elsewhere), "it is read from alone"


def test_every_limit_is_of_a_setting_that_passes_by_default() -> None:
    config = Config()
    for key in MOST:
        section: Any = config
        for name in key.split("."):
            section = getattr(section, name)
    check_harmless(config)
    assert not {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"} & MOST_OF_OPTION.keys()
