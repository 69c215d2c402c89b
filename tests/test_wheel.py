"""What a stranger gets: the wheel alone, in an empty folder, with a detector that `transformers` wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "models" / "hub"))

from hub_reference import reference

ROOT = Path(__file__).parents[1]
PACKAGED = ("LICENSE", "README.md", "experiments", "pyproject.toml", "setup.cfg", "src")
# The README's example, and a command with an experiment of the package.
NEWCOMER = """
import sys
import trex2_lightning
from trex2_lightning.__main__ import run
assert trex2_lightning.__file__.startswith(sys.argv[1]), trex2_lightning.__file__
{example}
run(["predict", "image.jpg", "--model", "dino", "--text", "red star", "--threshold", "0", "--json"])
run(["train", "experiments/small_coco.yaml", "data.root=x", "--folder"])
"""


@pytest.mark.ci
def test_a_newcomer_detects_with_the_wheel_in_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    for name in PACKAGED:  # not of this clone: what an earlier build left there would be in the wheel too
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / "clone" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "./clone", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run(pip, cwd=tmp_path, check=True, timeout=200)
    [wheel] = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    (tmp_path / "empty").mkdir()
    reference(tmp_path / "empty" / "dino")
    Image.new("RGB", (96, 64), "red").save(tmp_path / "empty" / "image.jpg")
    [example] = [part.split("```")[0] for part in (ROOT / "README.md").read_text().split("```python\n")[1:]]
    program = NEWCOMER.format(example=example.replace('"runs/stage2"', '"dino"').replace("blue ring", "ring"))
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "installed")],
        cwd=tmp_path / "empty",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "installed"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    _, brace, rest = done.stdout.partition("{\n")
    found, end = json.JSONDecoder().raw_decode(brace + rest)
    assert {one["name"] for one in found["detections"]} == {"red star"}
    assert (brace + rest)[end:].split() == ["runs/small_coco"]
