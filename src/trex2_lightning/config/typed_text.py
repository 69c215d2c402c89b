"""Settings that are text keep the characters that were typed, where YAML guesses a number, a date or a truth.

`name: 2026_11_27` is no 20261127 and a folder called `on` is not `True`.
"""

from __future__ import annotations

from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml  # type: ignore[import-untyped]


def as_typed(guessed: Any, source: str, kind: Any) -> Any:
    """What YAML made of `source`, but text where a field of `kind`, a type of settings, is text.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return _kept(guessed, yaml.load(source, yaml.BaseLoader), kind)  # which takes all for text and runs nothing


def is_text(kind: Any) -> bool:
    return kind is str or (get_origin(kind) is Literal and all(isinstance(value, str) for value in get_args(kind)))


def in_full(text: str) -> str:
    """With the home folder in place of the `~` of a path, which no shell replaces behind `key=`."""
    return str(Path(text).expanduser()) if text.startswith("~/") else text


def kind_of(key: str, kind: Any) -> Any:
    """The type of the setting `key` below `kind`; None: there is no such setting, or its type is not fixed."""
    for part in key.split("."):
        kind = _fields(kind).get(part, _fields(kind).get(""))
    return kind


def _kept(guessed: Any, typed: Any, kind: Any) -> Any:
    if isinstance(guessed, dict) and isinstance(typed, dict):
        fields = _fields(kind)
        own = _with_merged(typed)
        keys = list(own) if len(own) == len(guessed) else list(guessed)  # else YAML took two keys for one
        return {
            key: _kept(value, own.get(str(key)), fields.get(key, fields.get("")))
            for key, value in zip(keys, guessed.values(), strict=True)
        }
    if isinstance(guessed, list) and isinstance(typed, list):
        [element] = get_args(kind) if get_origin(kind) is list else [None]
        return [_kept(*pair, element) for pair in zip(guessed, typed, strict=True)]
    return in_full(typed) if is_text(kind) and isinstance(typed, str) else guessed


def _with_merged(typed: dict[str, Any]) -> dict[str, Any]:
    """With the keys of the mappings that its `<<` names, in YAML's order."""
    given = typed.get("<<", [])
    merged: dict[str, Any] = {}
    for mapping in reversed(given if isinstance(given, list) else [given]):
        merged |= _with_merged(mapping)
    return merged | {key: value for key, value in typed.items() if key != "<<"}


def _fields(kind: Any) -> dict[str, Any]:
    """The types of a section's keys; "" has that of any key."""
    if is_dataclass(kind):
        return get_type_hints(kind)
    return {"": get_args(kind)[1]} if get_origin(kind) is dict else {}
