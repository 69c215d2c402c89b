"""Every cell of granularity and fusion trains with text and with visual prompts, and comes back from its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trex2_lightning.config import Config, TextConfig
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.models.hub.names import BERT, hub_names
from trex2_lightning.models.text import BertEncoder
from trex2_lightning.prompting.protocol_names import PROTOCOLS
from trex2_lightning.structures import Prompts
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.fit import train

TinyConfig = Callable[..., Config]


@pytest.mark.parametrize("granularity", ["phrase", "word"])
@pytest.mark.parametrize("fusion", ["late", "early"])
def test_a_cell_trains_in_both_kinds_of_iterations_and_is_evaluated(
    tiny_config: TinyConfig, granularity: str, fusion: str
) -> None:
    cell = (f"model.granularity={granularity}", f"model.fusion={fusion}", "train.ema_decay=0")
    prompts = ("train.rhythm={visual: 2, text: 1}", "train.memory_bank.size=2", "data.exemplars.cross_image=0.5")
    config = tiny_config(*cell, *prompts, "train.max_steps=3", "eval.references=[2]")
    module = train(config)
    report = evaluate(config, module, "test")
    assert {*report.rows, "region_classification"} == {*PROTOCOLS, "generic_2"} - {"generic"}
    assert all(0 <= evaluation.figures["ap"] <= 1 for evaluation in report.rows.values())
    assert all(len(evaluation.results) == 3 for evaluation in report.rows.values())
    path = config.folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["config"]["model"]["init_from"] = "a/folder/that/is/gone"  # all weights are in the checkpoint
    torch.save(checkpoint, path)
    _, loaded = load_checkpoint(path)
    for name, tensor in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
        assert tensor.isfinite().all(), name


def test_a_checkpoint_with_a_bert_needs_no_other_file(tiny_config: TinyConfig, tmp_path: Path) -> None:
    sizes = {"width": 32, "layers": 1, "heads": 2, "context_length": 16, "vocabulary": len(PIECES)}
    encoder = BertEncoder(TextConfig("custom-bert", **sizes), 32, "word")  # type: ignore[arg-type]
    state = encoder.tower.state_dict()
    names = {name: hub_names(f"text_encoder.tower.{name}", 0) for name in state}
    pieces = {name: state[name].chunk(len(parts)) for name, parts in names.items()}
    folder = tmp_path / "bert"
    folder.mkdir()
    save_file(
        {
            part.removeprefix(BERT): x.clone()
            for name in names
            for part, x in zip(names[name], pieces[name], strict=True)
        },
        folder / "model.safetensors",
    )
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")

    text = [f"model.text.{key}={value}" for key, value in sizes.items()]
    cell = ("model.granularity=word", "model.fusion=early", "model.text.name=custom-bert", "train.max_steps=2")
    config = tiny_config(*cell, *text, f"model.text.pretrained={folder}", "train.ema_decay=0.5")
    train(config)
    (folder / "model.safetensors").unlink()
    (folder / "vocab.txt").unlink()
    _, loaded = load_checkpoint(config.folder / "checkpoints" / "last.ckpt")
    prompts = loaded.detector.encode_prompts(Prompts(("red block", "blue")))
    assert prompts.category.tolist() == [-1, 0, 0, -1, 1, -1, -1]
    assert loaded.detector.text_encoder.tokenizer.pieces == PIECES


PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "red", "green", "blue", "block"]
