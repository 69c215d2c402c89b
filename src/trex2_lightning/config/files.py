"""Experiment files and checkpoints to configurations, and back.

An experiment file names at most one parent (`base: ../base.yaml`, relative to the file) and states only what differs;
the command line adds `key=value`. The package brings its own: `experiments/...` is read from there where the working
folder has no such file. What is saved has a format number, and earlier formats are read too (migrations.py).
A file without one is written by hand, in today's format.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trex2_lightning.config.checks import ConfigError
from trex2_lightning.config.evaluation import EvalConfig
from trex2_lightning.config.experiment import Config
from trex2_lightning.config.migrations import CONFIG_FORMAT, migrate, what_became_of
from trex2_lightning.config.typed_text import as_typed, in_full, is_text, kind_of
from trex2_lightning.config.untrusted import check_harmless, check_plain, own_places

SHIPPED = Path(__file__).parents[1] / "experiments"  # in a clone a link to the folder of that name


def load(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read an experiment file with its parents and apply `key=value` overrides.

    Raises:
        ConfigError: missing file, unknown key, wrong type, or keys that contradict each other.
    """
    try:
        return _validated(OmegaConf.merge(_read(Path(path), seen=[]), _parsed(overrides or [])))
    except OmegaConfBaseException as error:
        raise ConfigError(_readable(error, path)) from error


def from_dict(values: dict[str, Any]) -> Config:
    """The configuration that `to_dict` wrote into a checkpoint, in this format or an earlier one.

    A stranger may have written it, so it says no more than a checkpoint may (`config.untrusted`).

    Raises:
        ConfigError: as `load`, or the format is newer than this program, or it says more.
    """
    check_plain(values)
    try:
        config = _validated(_migrated(OmegaConf.create(values), "the checkpoint"))
    except OmegaConfBaseException as error:
        raise ConfigError(_readable(error, "the checkpoint")) from error
    check_harmless(config)
    own_places(config)
    return config


def override(config: Config, overrides: list[str]) -> Config:
    """A copy of `config` with `key=value` overrides.

    Raises:
        ConfigError: as `load`.
    """
    try:
        return _validated(OmegaConf.merge(OmegaConf.create(asdict(config)), _parsed(overrides)))
    except OmegaConfBaseException as error:
        raise ConfigError(_readable(error, "command line")) from error


def for_evaluation(config: Config, overrides: list[str]) -> Config:
    """As `override`, on any devices: `train.total_batch` is of training alone, so it becomes one that they can have.

    Raises:
        ConfigError: as `load`.
    """
    try:
        values = _typed(OmegaConf.merge(OmegaConf.create(asdict(config)), _parsed(overrides)))
        batch = values.data.batch_size * values.train.devices * values.train.nodes
        values.train.total_batch = max(batch, 1)  # a factor of 0 is refused by its own name
        return cast(Config, OmegaConf.to_object(values))
    except OmegaConfBaseException as error:
        raise ConfigError(_readable(error, "command line")) from error


def for_benchmark(config: Config, path: Path) -> Config:
    """A copy of a checkpoint's `config` with the data and the protocols of the evaluation file `path`.

    The file is like an experiment file, but has `data` and `eval` alone; all else is the checkpoint's, but for what
    it trained on, the folder of the data, its sets, its limit and its share of nameless images, and for how that is
    evaluated: of `eval` the size of batches and the numbers of references stay, for the rest there are defaults.

    Raises:
        ConfigError: as `load`, or the file has other sections.
    """
    benchmark = _read(path, seen=[])
    if others := sorted(set(benchmark) - {"data", "eval"}):
        raise ConfigError(f"{path}: {others[0]} is the checkpoint's; an evaluation file has data and eval alone")
    trained = asdict(config)
    trained["data"] |= {"root": "", "sets": {}, "limit": 0}
    trained["data"]["nameless"]["share"] = 0.0
    trained["eval"] = asdict(EvalConfig(batch_size=config.eval.batch_size, references=config.eval.references))
    try:
        return _validated(OmegaConf.merge(OmegaConf.create(trained), benchmark))
    except OmegaConfBaseException as error:
        raise ConfigError(_readable(error, path)) from error


def to_dict(config: Config) -> dict[str, Any]:
    """Plain values and the number of their format, for checkpoints and loggers."""
    return {"format": CONFIG_FORMAT, **asdict(config)}


def save(config: Config, path: Path) -> None:
    """Write the resolved configuration as YAML."""
    OmegaConf.save(OmegaConf.create(to_dict(config)), path)


def experiment_file(path: Path) -> Path:
    """The file, or the package's own where the working folder has none of that name."""
    own = SHIPPED.joinpath(*path.parts[1:])
    return own if path.parts[:1] == (SHIPPED.name,) and own.is_file() and not path.is_file() else path


def _read(path: Path, seen: list[Path]) -> DictConfig:
    path = experiment_file(path)
    if not path.is_file():
        raise ConfigError(f"no experiment file {path}" + (f" (base of {seen[-1]})" if seen else _known(path)))
    if path.resolve() in seen:
        raise ConfigError(f"{path} is its own parent: {' -> '.join(p.name for p in seen)}")
    try:
        values = OmegaConf.load(path)
        if isinstance(values, DictConfig):
            plain = as_typed(OmegaConf.to_container(values), path.read_text("utf-8"), Config)
            _check_said(plain, path)
            values = cast(DictConfig, OmegaConf.create(plain))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, DictConfig):
        raise ConfigError(f"{path} is not a mapping of keys to values")
    base = values.pop("base", None)
    if "format" in values:
        values = _migrated(values, path)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must be one file, not {base}")
    return cast(DictConfig, OmegaConf.merge(_read(path.parent / base, [*seen, path.resolve()]), values))


def _known(path: Path) -> str:
    """The package's files that could be meant."""
    names = [str(Path(SHIPPED.name, file.relative_to(SHIPPED))) for file in SHIPPED.glob("**/*.yaml")]
    close = get_close_matches(str(path), names, 1)
    return f": did you mean {close[0]}?" if close else ""


def _migrated(values: DictConfig, source: str | Path) -> DictConfig:
    """Settings of any format in today's, without the number."""
    plain = cast(dict[str, Any], OmegaConf.to_container(values))
    migrate({"config": plain}, source)
    del plain["format"]
    return OmegaConf.create(plain)


def _validated(values: Any) -> Config:
    return cast(Config, OmegaConf.to_object(_typed(values)))


def _typed(values: Any) -> DictConfig:
    return cast(DictConfig, OmegaConf.merge(OmegaConf.structured(Config), values))


def _parsed(overrides: list[str]) -> DictConfig:
    parsed = OmegaConf.create()
    for item in overrides:
        if not re.match(r"\w[\w-]*(\.[\w-]+)*=", item):
            raise ConfigError(f"'{item}' is not an override: write key=value, for example train.max_steps=1000")
        key, value = item.split("=", 1)
        kind = kind_of(key, Config)
        if is_text(kind):
            quoted = value[:1] in ("'", '"') and value[-1:] == value[:1] and len(value) > 1
            OmegaConf.update(parsed, key, in_full(value[1:-1] if quoted else value))
            continue
        try:
            guessed: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value or repr('')}"]))
            OmegaConf.update(parsed, key, as_typed(guessed["value"], value, kind))
        except yaml.YAMLError as error:
            raise ConfigError(
                f"the value of '{item}' is not valid YAML: put it into quotes, with a space after each colon"
            ) from error
    _check_said(OmegaConf.to_container(parsed), "command line")
    return parsed


def _check_said(values: Any, source: str | Path, key: str = "") -> None:
    """Raises ConfigError: a value is `???`, for which OmegaConf would take that of the parent, or the default."""
    if values == "???":
        raise ConfigError(f"{source}: {key}: ??? says nothing; give a value, or leave it out")
    for name, value in values.items() if isinstance(values, dict) else ():
        _check_said(value, source, f"{key}.{name}".removeprefix("."))


def _readable(error: OmegaConfBaseException, source: str | Path) -> str:
    key = f"{error.full_key}: " if error.full_key else ""
    reason = str(error.msg or error).splitlines()[0]
    if "is not a ListConfig" in reason:
        reason = "is a list: put what is in it into brackets, with commas between"
    became = what_became_of(str(error.full_key))
    return f"{source}: {key}" + (f"it is no longer a setting: {became}" if became else reason)
