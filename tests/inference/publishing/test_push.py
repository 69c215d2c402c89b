"""Checkpoints become folders with a model card, and go to a stand-in for the hub: only its HTTP layer is replaced."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import ModelCard

from trex2_lightning.commands.evaluate import main as evaluate
from trex2_lightning.commands.predict import main as predict
from trex2_lightning.commands.push import main as push
from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.inference import pretrained
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.inference.publishing.model_card import CONTROLS
from trex2_lightning.prompting.protocol_names import PROTOCOLS
from trex2_lightning.training.fit import train

FILES = {"README.md", "config.json", "model.safetensors"}


class Hub:
    """Answers as the hub does; what is committed is in `files`, by repository."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.made: list[dict[str, Any]] = []

    def answer(self, request: Any) -> Any:
        path, content = request.url.path, request.read()
        if path == "/api/repos/create":
            self.made.append(json.loads(content))
            return httpx2.Response(200, json={"url": "https://huggingface.co/me/cells"})
        if path == "/api/validate-yaml":  # of the card's head
            return httpx2.Response(200, json={"errors": [], "warnings": []})
        if "/preupload/" in path:
            asked = json.loads(content)["files"]
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]
            return httpx2.Response(200, json={"files": files})
        if "/commit/" in path:
            lines = [json.loads(line) for line in content.decode().splitlines()]
            own = self.files.setdefault("/".join(path.split("/")[3:5]), {})
            for value in (line["value"] for line in lines if line["key"] == "file"):
                own[value["path"]] = base64.b64decode(value["content"])
            commit = {"commitUrl": "https://huggingface.co/me/cells/commit/1", "commitOid": "1", "hookOutput": ""}
            return httpx2.Response(200, json=commit | {"success": True})
        return httpx2.Response(404, json={"error": f"nothing at {path}"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    stand_in = Hub()
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    huggingface_hub.set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(stand_in.answer)))
    yield stand_in
    huggingface_hub.set_client_factory(huggingface_hub.utils._http.default_client_factory)


def test_a_checkpoint_goes_to_the_hub_and_back(
    visual_checkpoint: Path, hub: Hub, tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push([str(visual_checkpoint), "me/cells", "--licence", "mit", "--private"])
    assert hub.made == [{"name": "cells", "organization": "me", "visibility": "private"}]
    files = hub.files["me/cells"]
    assert set(files) == FILES
    downloaded = tmp_path / "snapshots" / "0123"
    downloaded.mkdir(parents=True)
    for name, content in files.items():
        (downloaded / name).write_bytes(content)
    monkeypatch.setattr(pretrained, "hub_folder", lambda source: {"me/cells": downloaded}[source])
    own, theirs = Predictor.from_pretrained(visual_checkpoint), Predictor.from_pretrained("me/cells")
    found = [one.detect(image, one.text(("red block", "ring")), 0.0) for one in (own, theirs)]
    assert found[0] == found[1] != []
    assert 'Predictor.from_pretrained("me/cells")' in files["README.md"].decode()


@pytest.mark.ci
def test_a_folder_is_a_model_everywhere(
    checkpoint: Path, tiny_config: Callable[..., Config], tiny_coco: Path, image: Path, tmp_path: Path, hub: Hub
) -> None:
    folder = tmp_path / "cells"
    push([str(checkpoint.parent.parent), "--folder", str(folder), "--licence", "mit"])
    assert {file.name for file in folder.iterdir()} == FILES
    assert hub.files == {}
    predict([str(image), "--model", str(folder), "--text", "red block", "--output", str(tmp_path / "found")])
    evaluate(["--model", str(folder), f"data.root={tiny_coco}", "data.num_workers=0", "--protocol", "text",
              "--output", str(tmp_path / "figures")])  # fmt: skip
    assert json.loads((tmp_path / "figures" / "evaluation.json").read_text())["checkpoint"] == str(folder)
    module = train(tiny_config("name=next", f"train.init_from={folder}", "train.max_steps=1"))
    assert [entry["run"] for entry in module.provenance] == ["tiny", "next"]
    push([str(folder), "me/cells"])
    assert hub.files["me/cells"]["README.md"] == (folder / "README.md").read_bytes()


def test_the_card_says_what_the_run_was(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, hub: Hub
) -> None:
    run = checkpoint.parent.parent
    rows = {"text": {"all": 0.662, "seen": 0.7}, "random_phrases": {"all": 0.006}}
    about = {"checkpoint": f"elsewhere/{checkpoint.name}", "split": "test"}
    (run / "evaluation.json").write_text(json.dumps(about | {"ap": rows, "categories": {}}))
    (run / "eval" / "coco").mkdir(parents=True)
    (run / "eval" / "coco" / "evaluation.json").write_text(json.dumps(about | {"checkpoint": "best.ckpt"}))
    folder = tmp_path / "cells"
    with caplog.at_level(logging.WARNING):
        push([str(checkpoint), "--folder", str(folder), "--license", "apache-2.0"])
    assert "coco/evaluation.json is of another checkpoint" in caplog.text
    assert "data.train coco train.json: its licence is not known here" in caplog.text
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "trex2_lightning")
    assert "| text | 0.662 | 0.700 |  |" in card.content
    assert "| random_phrases | 0.006 |  | text: the names are swapped |" in card.content
    assert "1 steps" in card.content
    assert "coco train.json (6 images, " in card.content
    assert str(run.parent) not in card.content + (folder / "config.json").read_text(), "paths of this machine"
    caplog.clear()
    push([str(folder), "me/cells"])
    assert "has fields that nobody has filled in" in caplog.text
    os.utime(run / "evaluation.json", (0, 0))
    push([str(checkpoint), "--folder", str(folder), "--license", "apache-2.0"])
    assert "evaluation.json is of another checkpoint, or of an earlier state" in caplog.text
    assert "0.662" not in (folder / "README.md").read_text()


def test_what_cannot_be_pushed_is_told(checkpoint: Path, tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(InputError, match="where to: give OWNER/NAME"):
        push([str(checkpoint)])
    with pytest.raises(InputError, match="under which licence: give --licence ID"):
        push([str(checkpoint), "me/cells"])
    with pytest.raises(InputError, match="'My own' is no licence"):
        push([str(checkpoint), "me/cells", "--licence", "My own"])
    with pytest.raises(InputError, match="has something else in it"):
        push([str(checkpoint), "--folder", str(checkpoint.parent), "--licence", "mit"])
    folder = tmp_path / "cells"
    push([str(checkpoint), "--folder", str(folder), "--licence", "mit"])
    with pytest.raises(InputError, match="is a folder to publish as it is"):
        push([str(folder), "me/cells", "--licence", "mit"])
    with pytest.raises(InputError, match="the hub does not take no name at all"):
        push([str(folder), "no name at all"])
    hub.answer = lambda _: httpx2.Response(401, json={"error": "who are you?"})  # type: ignore[method-assign]
    huggingface_hub.set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(hub.answer)))
    with pytest.raises(InputError, match=r"the hub does not take me/cells .*log in by `hf auth login`"):
        push([str(folder), "me/cells"])
    (folder / "README.md").write_text("# mine\n")
    with pytest.raises(InputError, match="names no licence"):
        push([str(folder), "me/cells"])
    assert hub.files == {}


def test_controls_are_protocols() -> None:
    assert set(CONTROLS) < set(PROTOCOLS)
