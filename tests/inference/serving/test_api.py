"""The endpoint finds what `Predictor` finds, and says in one line what a person can mend."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from httpx import Response
from PIL import Image
from predictor_parts import BOX, OTHER, PHRASES, POINT

from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.inference.serving.serving_limits import MIB, ServingLimits
from trex2_lightning.prompting.prompt_set import PromptSet, join

Post = Callable[..., Response]
TYPED = {"text": ["red block", "cell"], "box": f"cell={BOX}", "point": f"dust={POINT}", "reference": f"leaf=a:{OTHER}"}


def picture(width: int, height: int, form: str = "PNG") -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, height), "red").save(file, form)
    return file.getvalue()


def plain(detections: list[Any]) -> list[dict[str, Any]]:
    return json.loads(json.dumps([found._asdict() for found in detections]))


@pytest.fixture
def asked(predictor: Predictor, images: list[Path]) -> PromptSet:
    """What `TYPED` asks for."""
    references = [(images[0], {"cell": [BOX], "dust": [POINT]}), (images[1], {"leaf": [OTHER]})]
    return predictor.mixed(("red block", "cell"), references, "mean")


def test_all_ways_to_prompt_find_what_the_predictor_finds(
    post: Post, predictor: Predictor, images: list[Path], asked: PromptSet
) -> None:
    files = {"image": images[0].read_bytes(), "a": images[1].read_bytes()}
    answer = post("/predict", files, **TYPED, mix="mean", negative="dust", threshold=0.01)
    assert answer.status_code == 200
    expected = predictor.detect(images[0], asked, 0.01, ("dust",))
    assert len({found.name for found in expected}) > 1
    assert answer.json() == {"image": "image", "detections": plain(expected)}


def test_prompts_are_written_and_read_again(
    post: Post, predictor: Predictor, images: list[Path], asked: PromptSet, tmp_path: Path
) -> None:
    files = {"image": images[0].read_bytes(), "a": images[1].read_bytes()}
    written = post("/prompts", files, **TYPED, mix="mean").content
    (tmp_path / "own.safetensors").write_bytes(written)
    read = predictor.load(tmp_path / "own.safetensors")
    assert read.names == asked.names
    assert read.vectors.equal(asked.vectors)
    answer = post("/predict", {"image": images[2].read_bytes(), "prompts": written}, text=["ring"], threshold=0.0)
    assert answer.json()["detections"] == plain(predictor.detect(images[2], join(predictor.text("ring"), asked), 0.0))


def test_a_picture_is_looked_at_once(
    post: Post, predictor: Predictor, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, see = [], predictor.see
    monkeypatch.setattr(predictor, "see", lambda images: calls.append(1) or see(images))
    for phrase in PHRASES:
        assert post("/predict", {"image": image.read_bytes()}, text=phrase, box=f"cell={BOX}").status_code == 200
    assert len(calls) == 1


def test_a_threshold_that_is_not_sent_is_the_checkpoint_s(
    post: Post, predictor: Predictor, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = predictor.module.detector.calibration
    monkeypatch.setitem(calibration._buffers, "threshold", torch.full_like(calibration.threshold, 0.02))
    found = post("/predict", {"image": image.read_bytes()}, text=PHRASES).json()["detections"]
    assert found == plain(predictor.detect(image, predictor.text(PHRASES)))
    assert found
    assert min(one["score"] for one in found) >= 0.02


HUGE, WRONG = picture(200, 101), picture(50, 50)[:60]
TORN = picture(50, 50, "AVIF")[:-10] + bytes(10)  # its header is right


@pytest.mark.parametrize(
    ("status", "files", "texts", "said"),
    [
        (400, {"a": None}, {"text": "cell"}, "0 files are sent as 'image': send one"),
        (400, [("image", None), ("image", None)], {"text": "cell"}, "2 files are sent as 'image': send one"),
        (400, {"image": None}, {"txt": "cell"}, "there is no field 'txt': send a file, or one of text, box, point"),
        (400, {"image": None, "text": None}, {}, "'text' is sent as a file: send its text"),
        (400, {"image": None}, {"box": "cell=1,2,3"}, "box cell=1,2,3: write box NAME=X1,Y1,X2,Y2, in pixels"),
        (400, {"image": None}, {"reference": f"cell=a:{BOX}"}, "0 files are sent as 'a': send one"),
        (400, {"image": None, "b": None}, {"text": "cell"}, "the file 'b' is of no reference: send reference=NAME=b:"),
        (400, {"image": None}, {"text": "cell", "threshold": "high"}, "threshold high: send one, and in its form"),
        (400, {"image": None}, {"text": "cell", "threshold": ["0.1", "0.2"]}, "threshold 0.1 0.2: send one"),
        (400, {"image": None}, {"text": "cell", "mix": "all"}, "mix 'all': send half or mean"),
        (
            413,
            {"image": HUGE},
            {"text": "cell"},
            "image: has more than 20,000 pixels: send a smaller one",
        ),
        (413, {"image": None, "a": HUGE}, {"reference": f"cell=a:{BOX}"}, "a: has more than 20,000 pixels"),
        (
            413,
            {"image": b"0" * MIB},
            {"text": "cell"},
            "more than 1 MiB were sent: send less, or start",
        ),
        (415, {"image": b"no picture"}, {"text": "cell"}, "image: is no picture, or damaged: send one of JPEG, PNG"),
        (415, {"image": b"%!PS-Adobe-3.0 EPSF-3.0\n"}, {"text": "cell"}, "image: is no picture, or damaged"),
        (415, {"image": WRONG}, {"text": "cell"}, "bytes of an image: cannot be read (image file is truncated"),
        (415, {"image": TORN}, {"text": "cell"}, "bytes of an image: cannot be read (Failed to decode"),
        (422, {"image": None}, {}, "there is nothing to look for: give a phrase, a box, a point or a prompt file"),
        (422, {"image": None}, {"text": ""}, "phrase"),
        (422, {"image": None}, {"text": "cat . dog ."}, "'cat . dog .' would be one name, dots included"),
        (422, {"image": None}, {"text": "cell", "negative": "cell"}, "there is nothing to look for"),
        (422, {"image": None}, {"text": "cell", "negative": "dust"}, "the negative 'dust' is none of the categories"),
        (422, {"image": None}, {"text": "cell", "threshold": "nan"}, "the threshold nan is no score: give one from 0"),
        (422, {"image": None}, {"box": "cell=0,0,9999,9"}, "0,0,9999,9 of 'cell' is no box in its image of"),
        (422, {"image": None}, {"box": "cell=nan,0,9,9"}, "nan,0,9,9 of 'cell' is no box in its image of"),
        (422, {"image": None}, {"box": f"cell={BOX}", "point": f"cell={POINT}"}, "'cell' has a box and a point: give"),
        (422, {"image": None, "prompts": b"pickle"}, {}, "prompts is no safetensors file, or damaged"),
    ],
)
def test_what_a_person_can_mend_is_said_in_one_line(
    post: Post, image: Path, status: int, files: Any, texts: dict[str, Any], said: str
) -> None:
    pairs = files.items() if isinstance(files, dict) else files
    filled = [(field, image.read_bytes() if data is None else data) for field, data in pairs]
    answer = post("/predict", filled, **texts)
    assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
    assert said in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_what_is_no_form_is_refused(client: TestClient, image: Path) -> None:
    answer = client.post("/predict", content=image.read_bytes(), headers={"content-type": "image/jpeg"})
    assert answer.status_code == 415
    assert answer.json() == {"error": "the body is no form: send multipart/form-data, as curl -F does"}
    answer = client.post("/predict", content=b"x", headers={"content-type": "multipart/form-data"})
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert client.get("/predict").status_code == 405
    assert client.get("/nothing").json() == {"error": "Not Found"}


def test_an_upload_that_does_not_say_its_size_is_cut_off(client: TestClient, limits: ServingLimits) -> None:
    sent = []

    def endless() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        while len(sent) < 64:
            sent.append(1)
            yield b"0" * (MIB // 4)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/predict", content=endless(), headers=headers)
    assert answer.status_code == 413
    assert "--max-upload" in answer.json()["error"]


def test_a_fault_of_the_program_shows_nothing_of_it(
    post: Post, predictor: Predictor, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(predictor, "search", broken)
    answer = post("/predict", {"image": image.read_bytes()}, text="cell")
    assert (answer.status_code, answer.json()) == (500, {"error": "this is a fault of the server, whose log has more"})
