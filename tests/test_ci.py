"""What CI runs is what the package promises."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")
VERSIONS = re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])


def test_the_workflow_runs_the_check_on_the_versions_that_the_package_names() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["check"]
    assert job["strategy"]["matrix"]["python"] == VERSIONS
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


def test_the_oldest_version_is_the_one_that_the_tools_check() -> None:
    assert SETUP["options"]["python_requires"] == f">={VERSIONS[0]}"
    assert SETUP["mypy"]["python_version"] == VERSIONS[0]
    assert f'target-version = "py{VERSIONS[0].replace(".", "")}"' in (ROOT / "ruff.toml").read_text()


def test_the_check_runs_every_target_that_a_change_must_pass() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert {"test", "test-ci", "smoke", "lint", "type"} <= set(re.findall(r"^make ([a-z-]+)", script, re.MULTILINE))


def test_every_test_is_in_one_of_the_targets() -> None:
    """What is slow is in test-all alone; the rest is fast or for CI."""
    recipes = dict(re.findall(r"^(test[a-z-]*): .*\n\t(.*)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    chosen = {
        target: re.findall(r'-m "(.*?)"', re.split(r"PYTEST\)|pytest", recipe)[1]) for target, recipe in recipes.items()
    }
    assert chosen == {"test": ["not slow and not ci"], "test-ci": ["ci and not slow"], "test-all": []}
