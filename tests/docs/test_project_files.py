"""CITATION.cff and .pre-commit-config.yaml say what the project says elsewhere."""

from __future__ import annotations

import configparser
import re
from typing import Any

import yaml
from documents import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_the_citation_is_of_this_version_and_names_the_paper() -> None:
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # required by CFF 1.2.0
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["authors"] == [{"name": "trex2_lightning contributors"}]
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert citation["version"] == setup["metadata"]["version"]
    assert citation["license"] == setup["metadata"]["license"]
    [paper] = citation["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    readme = (ROOT / "README.md").read_text()
    bibtex = re.search(r"^@inproceedings.*?^}", readme, re.MULTILINE | re.DOTALL)
    assert bibtex is not None
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    for value in (paper["title"], authors, str(paper["year"])):
        assert f"{{{value}}}" in bibtex[0]
    assert f"{{{citation['title']}}}" in readme
    assert f"{{{citation['version']}}}" in readme


def test_the_hooks_run_what_make_lint_runs_with_the_pinned_ruff() -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    [repository] = read(".pre-commit-config.yaml")["repos"]
    hooks = repository["hooks"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in hooks] == [
        line.strip().removeprefix("$(BIN)/") for line in recipe[1].splitlines()
    ]
    pinned = re.findall(r"^ruff==.*$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert all(hook["additional_dependencies"] == pinned for hook in hooks)
    assert all(hook["language"] == "python" and hook["pass_filenames"] is False for hook in hooks)
    assert len({hook["id"] for hook in hooks}) == len(hooks)


def test_every_pin_is_in_the_range_that_the_package_asks_for() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lists = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    asked = [Requirement(line) for lines in lists for line in lines.split("\n") if line]
    pins = re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    pinned = {canonicalize_name(name): version for name, version in pins}
    assert {canonicalize_name(one.name) for one in asked} <= pinned.keys()
    assert [str(one) for one in asked if not one.specifier.contains(pinned[canonicalize_name(one.name)])] == []
    # Parity does not hold with earlier ones: tests/models/hub/test_hub_parity.py says why.
    [reference] = [one.specifier for one in asked if one.name == "transformers"]
    assert [reference.contains(version) for version in ("5.17.0", "5.22.2", "5.23.0", "5.24.0")] == [0, 0, 1, 1]


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    assert len(re.findall(r"!\[", text)) == 1  # one picture


def test_the_readme_s_figures_are_those_of_the_results() -> None:
    measured = (ROOT / "docs" / "results.md").read_text()
    rows = dict(re.findall(r"^\| (\w+) \| (0\.\d+ .*) \|$", measured, re.MULTILINE))
    shown = re.findall(r"^\| .*\(`(\w+)`\) \| (0\.\d+) \| (0\.\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(shown) == 7
    for name, seen, novel in shown:
        columns = rows[name].split(" | ")
        assert [seen, novel] == [columns[0], columns[-1]], name
