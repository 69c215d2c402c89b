"""`trex2 serve` as people and programs meet it: a real browser, many clients at once, and what its page says.

TREX2_SCREENSHOTS=CHECKPOINT draws and detects with that detector on pictures of `shapes`, and writes the picture of
docs/serve.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from clients import questions, wrong_answers
from live_server import LiveServer, live_server
from person import FOUND, Person, api, draw
from PIL import Image

from trex2_lightning.config import ShapesConfig
from trex2_lightning.data.shapes.rendering import prepare
from trex2_lightning.inference.predictor import Predictor

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests" / "docs"))

from documents import commands, snippets  # noqa: E402

CHROMIUM = shutil.which("chromium")
PICTURED = os.environ.get("TREX2_SCREENSHOTS", "")
SHOWN = ROOT / "docs" / "pictures" / "serve.png"


class Shown(NamedTuple):
    """Pictures of one category, and a box of it in the first."""

    pictures: list[Path]
    name: str
    other: str  # name of another category
    box: list[float]  # left, top, width, height in pixels


@pytest.fixture
def shown(tiny_coco: Path) -> Shown:
    root = prepare(ShapesConfig()) if PICTURED else tiny_coco
    content = json.loads((root / "test.json").read_text())
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    files = {entry["id"]: root / "test" / entry["file_name"] for entry in content["images"]}
    (category, _), (other, _) = Counter(box["category_id"] for box in content["annotations"]).most_common(2)
    boxes = {box["image_id"]: box["bbox"] for box in content["annotations"] if box["category_id"] == category}
    chosen = [*boxes, *(image for image in files if image not in boxes)][:4]
    return Shown([files[image] for image in chosen], names[category], names[other], boxes[chosen[0]])


@pytest.fixture(scope="module")
def random_checkpoint(_random_visual: Path) -> Path:
    return _random_visual / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def server(random_checkpoint: Path) -> Iterator[LiveServer]:
    with live_server(Path(PICTURED or random_checkpoint), "--max-upload", "1") as server:
        yield server


@pytest.fixture
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.ci
def test_draw_detect_adjust_save_and_reload(browser: Any, server: LiveServer, shown: Shown, tmp_path: Path) -> None:
    person = Person(browser, server.address)
    person.drop_pictures(shown.pictures)
    person.page.get_by_label("name of what you mark").fill(shown.name)
    draw(person, shown.pictures[0].name, shown.box)
    person.page.get_by_text(f"{shown.name} (1 mark)").wait_for()
    person.write(shown.other)
    person.detect()
    if PICTURED:
        save_small(person.page.screenshot())

    person.move_threshold(0.0)
    assert (everything := FOUND.match(person.count()))
    assert int(everything[2]) == len(shown.pictures)
    found = json.loads(person.download("Download COCO", tmp_path / "a.json").read_text())
    assert [image["file_name"] for image in found["images"]] == [file.name for file in shown.pictures]
    assert len(found["annotations"]) == int(everything[1]) > 0
    scores = sorted(box["score"] for box in found["annotations"])
    share = round(scores[len(scores) // 2], 2) if PICTURED else scores[-1]
    person.move_threshold(share + 0.02)
    fewer = FOUND.match(person.count())
    assert (int(fewer[1]) if fewer else 0) < int(everything[1])

    prompts = person.download("Save prompts", tmp_path / "own.safetensors")
    person.page.reload()
    api.expect(person.pictures).to_have_count(0)
    person.drop(prompts, upload=1)
    for name in (shown.name, shown.other):
        person.page.get_by_text(f"{name} (file)").wait_for()
    person.drop_pictures(shown.pictures)
    person.detect()
    person.move_threshold(0.0)
    assert json.loads(person.download("Download COCO", tmp_path / "b.json").read_text()) == found

    person.page.get_by_role("checkbox").nth(1).click()
    person.detect()
    less = json.loads(person.download("Download COCO", tmp_path / "c.json").read_text())
    assert [category["name"] for category in less["categories"]] == [found["categories"][0]["name"]]
    assert person.complaints == []
    assert {url.split("/")[2] for url in person.elsewhere if "://" in url} == {server.address.split("/")[2]}


def save_small(screenshot: bytes) -> None:
    picture = Image.open(BytesIO(screenshot)).convert("RGB")
    picture.thumbnail((860, 860), Image.Resampling.LANCZOS)
    picture.quantize(128, kmeans=2, dither=Image.Dither.NONE).save(SHOWN, optimize=True)
    assert SHOWN.stat().st_size < 150_000


@pytest.mark.ci
def test_others_see_nothing_of_it_and_mistakes_are_told(
    browser: Any, server: LiveServer, shown: Shown, tmp_path: Path
) -> None:
    one, two = Person(browser, server.address), Person(browser, server.address)
    one.drop_pictures(shown.pictures)
    one.write("red block")
    two.write("blue block")
    for person, other in ((one, "blue block"), (two, "red block")):
        assert other not in person.page.content()
    two.page.get_by_role("button", name="Detect").click()
    two.page.get_by_text("there is no picture to look at: drop some").wait_for()
    (tmp_path / "x.jpg").write_text("no picture")
    (tmp_path / "large.jpg").write_bytes(b"0" * 2**20 + b"1")
    for name, told in (("x.jpg", "x.jpg: is no picture, or damaged"), ("large.jpg", "more than 1 MiB were sent")):
        two.drop(tmp_path / name)
        two.page.get_by_text(told).wait_for()
    one.page.get_by_role("button", name="point").click()
    place = one.box_of(shown.pictures[0].name)
    one.page.mouse.click(place["x"] + 20, place["y"] + 20)
    one.page.get_by_text("object (1 mark)").wait_for()
    assert one.page.locator("svg circle").count() == 1
    one.detect()
    one.page.get_by_role("button", name="remove").nth(1).click()
    api.expect(one.page.locator("svg circle")).to_have_count(0)
    assert one.complaints == two.complaints == []


@pytest.mark.ci
def test_clients_at_once_get_the_answers_of_clients_alone(
    server: LiveServer, random_checkpoint: Path, images: list[Path]
) -> None:
    known = questions(server.address, images)
    predictor = Predictor.from_pretrained(random_checkpoint)
    expected = predictor.detect(images[0], predictor.text("red block"), 0.01)
    assert known[0][0].answer["detections"] == json.loads(json.dumps([found._asdict() for found in expected]))
    assert len({json.dumps(one.answer) for own in known for one in own}) == len(known) * len(images)
    assert wrong_answers(server.address, known, each=5) == 0


@pytest.mark.ci
def test_what_the_page_of_the_documents_says(
    server: LiveServer, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, image in (("image.jpg", images[0]), ("a.png", images[1])):
        Image.open(image).resize((96, 96)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "serve.md"
    asking = [command.words for command in commands(page) if command.words[0] == "curl"]
    assert len(asking) == 5
    for words in asking:
        sent = [word.replace("http://127.0.0.1:8080", server.address) for word in words]
        told = subprocess.run([*sent, "--silent", "--show-error", "--fail-with-body"], capture_output=True, text=True)
        assert told.returncode == 0, told.stdout + told.stderr
        assert not told.stdout or "detections" in json.loads(told.stdout)
    as_elsewhere = ["curl", "--silent", "--header", "Host: elsewhere.example", server.address]
    assert "is no name of this server" in subprocess.run(as_elsewhere, capture_output=True, text=True).stdout
    [snippet] = snippets(page)
    with contextlib.redirect_stdout(StringIO()) as output:
        exec(snippet.content.replace("http://127.0.0.1:8080", server.address), {})
    assert {line.split(" 0.")[0] for line in output.getvalue().splitlines()} <= {"red star", "blue ring", "cell"}
    assert output.getvalue()


@pytest.mark.slow
def test_memory_does_not_grow_with_requests(server: LiveServer, images: list[Path]) -> None:
    known = questions(server.address, images)
    wrong_answers(server.address, known, each=25)
    before = server.memory
    assert wrong_answers(server.address, known, each=200) == 0
    assert server.memory - before < 50  # MiB
