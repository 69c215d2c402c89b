"""The experiments that come with the package are found from any folder."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest

from trex2_lightning.config import ConfigError, for_benchmark, load

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"


def test_the_package_brings_its_experiments_to_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(EXPERIMENTS / "demo" / "stage2.yaml")
    monkeypatch.chdir(tmp_path)
    assert load("experiments/demo/stage2.yaml") == expected
    assert for_benchmark(expected, Path("experiments/eval/coco.yaml")).eval.max_detections == 100
    own = Path("experiments/demo/stage2.yaml")
    own.parent.mkdir(parents=True)
    own.write_text("name: mine\n")
    assert load(own).name == "mine"
    with pytest.raises(ConfigError, match=r"no experiment file experiments/smal_coco.yaml: did you mean .*/small_coco"):
        load("experiments/smal_coco.yaml")


def test_a_wheel_has_every_file_of_the_experiments() -> None:
    package, settings = ROOT / "src" / "trex2_lightning", ConfigParser()
    settings.read(ROOT / "setup.cfg")
    patterns = settings["options.package_data"]["trex2_lightning"].split()
    shipped = {file.relative_to(package) for pattern in patterns for file in package.glob(pattern)}
    own = {Path("experiments", file.relative_to(EXPERIMENTS)) for file in EXPERIMENTS.rglob("*") if file.is_file()}
    assert shipped == {*own, Path("py.typed")}
