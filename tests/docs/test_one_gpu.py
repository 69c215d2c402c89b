"""Visual prompts on a published detector, from a training to its evaluation, by the document's own commands."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from documents import ROOT, Block, blocks, commands
from safetensors.torch import load_file
from test_document_commands import printed

from trex2_lightning.commands import evaluate, train
from trex2_lightning.data.shapes import nameless
from trex2_lightning.data.shapes.layout import PRESETS
from trex2_lightning.training.checkpoint import load_checkpoint

PAGE = ROOT / "docs" / "grounding_dino.md"
MAINS = {"train": train.main, "evaluate": evaluate.main}
FEW = ["data.shapes.num_train=24", "data.root=shapes", "logging.wandb=disabled"]
STEPS = {"train": [*FEW, "train.max_steps=3", "train.val_every=3", "optim.warmup_steps=1"]}
EVALUATION = ["eval.references=[1]", "logging.wandb=disabled"]


@pytest.fixture
def section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Block]:
    """What the page tells to do, in order, in a folder that has the experiments and few pictures."""
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    few = {"val": 2, "test": 4, "reference": 8}
    monkeypatch.setitem(PRESETS, "easy", replace(PRESETS["easy"], num_images=few))
    monkeypatch.setattr(nameless, "STAR_IMAGES", 4)
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # no processes to render so few pictures
    return [block for block in blocks(PAGE) if block.reason and Path(__file__).name in block.reason]


def test_a_published_detector_gets_visual_prompts_and_finds_by_text_what_it_found(section: list[Block]) -> None:
    calls = {command.line: command.words for command in commands(PAGE)}
    compared = []
    for block in section:
        if block.language == "python":
            printed(block.content)
            continue
        for line in block.content.splitlines():
            program, *words = calls[line]
            if program == "cmp":
                compared.append([Path(word).read_bytes() for word in words])
            else:
                script = Path(words[0]).stem
                MAINS[script]([*words[1:], *(STEPS["train"] if script == "train" else EVALUATION)])
    [[before, after]] = compared
    assert before == after
    assert json.loads(before)

    hub = load_file("runs/demo/hub/model.safetensors")
    random = load_file("runs/demo/random/model.safetensors")
    assert any(not tensor.equal(random[name]) for name, tensor in hub.items()), "it was trained with text"
    config, module = load_checkpoint(Path("runs/demo/one_gpu/checkpoints/last.ckpt"))
    assert config.model.init_from == "runs/demo/hub"
    assert module.visual_trained
    figures = json.loads(Path("runs/demo/one_gpu/evaluation.json").read_text())["ap"]
    assert {"text", "hinted_text", "interactive_box", "generic_1"} <= figures.keys()
