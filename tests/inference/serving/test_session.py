"""Sessions have nothing of one another's, the threshold costs no look, and what is kept is bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image
from predictor_parts import BOX, OTHER, POINT

from trex2_lightning.errors import InputError
from trex2_lightning.inference.encoding import EncodedImage
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.inference.serving.overlay import overlay
from trex2_lightning.inference.serving.served_detector import FeatureCache, ServedDetector
from trex2_lightning.inference.serving.serving_limits import MIB, ServingLimits, TooLargeError
from trex2_lightning.inference.serving.session import MOST_PICTURES, Session
from trex2_lightning.structures import Detection


@pytest.fixture
def opened(served: ServedDetector, limits: ServingLimits, images: list[Path]) -> Callable[[], Session]:
    """Sessions that have the pictures `0` to `2`."""

    def made() -> Session:
        session = Session(served, limits)
        for number, image in enumerate(images):
            asyncio.run(session.add_picture(str(number), image.read_bytes()))
        return session

    return made


@pytest.fixture
def looks(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A word for each time that the detector sees a picture, or decodes what it has seen."""
    calls: list[str] = []
    detector = predictor.module.detector
    for name in ("encode_image", "decode"):
        called = getattr(detector, name)
        monkeypatch.setattr(detector, name, lambda *args, n=name, c=called: calls.append(n) or c(*args))
    return calls


def test_two_sessions_at_once_find_what_each_finds_alone(
    opened: Callable[[], Session], predictor: Predictor, images: list[Path]
) -> None:
    one, two = opened(), opened()
    one.add_phrase("red block")
    one.marks["0"] = {"cell": [BOX]}
    two.marks["1"] = {"cell": [OTHER], "dust": [POINT]}
    two.negative.add("dust")

    async def both() -> None:
        await asyncio.gather(one.look(), two.look(), one.look())

    asyncio.run(both())
    asked = [
        (predictor.mixed(("red block",), [(images[0], {"cell": [BOX]})]), ()),
        (predictor.generic([(images[1], {"cell": [OTHER], "dust": [POINT]})]), ("dust",)),
    ]
    for session, (prompts, negative) in zip((one, two), asked, strict=True):
        session.threshold = 0.01
        for row, image in zip(session.rows(), images, strict=True):
            expected = predictor.detect(image, prompts, 0.01, negative)
            assert [(d.name, d.score) for d in row.found] == [
                (d.name, pytest.approx(d.score, abs=1e-5)) for d in expected
            ]
    assert [d["name"] for d in json.loads(two.coco())["categories"]] == ["cell"]


def test_the_threshold_is_moved_without_the_detector(opened: Callable[[], Session], looks: list[str]) -> None:
    session = opened()
    session.add_phrase("red block")
    asyncio.run(session.look())
    assert (looks.count("encode_image"), looks.count("decode")) == (3, 3)
    numbers = []
    for threshold in (None, 0.0, session.best.score, 1.0):
        session.threshold = threshold
        numbers.append(len(json.loads(session.coco())["annotations"]))
    assert numbers[1] > numbers[2] >= 1 > numbers[3]
    assert len(looks) == 6
    session.add_phrase("dust")
    asyncio.run(session.look())
    assert (looks.count("encode_image"), looks.count("decode")) == (3, 6)


def test_prompts_are_saved_and_loaded_into_another_session(opened: Callable[[], Session]) -> None:
    one, two = opened(), opened()
    one.add_phrase("red block")
    one.marks["0"] = {"cell": [BOX, OTHER], "red block": [BOX]}
    assert asyncio.run(two.load("x.safetensors", asyncio.run(one.save()))) == ("red block", "cell")
    assert [one.origin(name) for name in one.names] == ["phrase, 1 mark", "2 marks"]
    assert [two.origin(name) for name in two.names] == ["file", "file"]
    for session in (one, two):
        asyncio.run(session.look())
        session.threshold = 0.0
    assert one.rows() == two.rows()
    two.negative.add("cell")
    two.remove("cell")
    asyncio.run(two.look())
    assert {found.name for row in two.rows() for found in row.found} == {"red block"}
    with pytest.raises(InputError, match=r"y\.safetensors is no safetensors file"):
        asyncio.run(two.load("y.safetensors", b"other"))


def test_a_picture_that_is_replaced_has_no_marks_and_nothing_found(
    opened: Callable[[], Session], served: ServedDetector, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, ask = opened(), served.ask
    session.marks["0"] = {"cell": [BOX]}
    first, other = images[0].read_bytes(), images[2].read_bytes()

    async def then_replaced(work: Callable[..., Any], *arguments: Any) -> Any:
        answer = await ask(work, *arguments)
        if work == served.find and arguments[1] == first:
            await session.add_picture("0", other)
        return answer

    monkeypatch.setattr(served, "ask", then_replaced)
    asyncio.run(session.look())
    assert [row.name for row in session.rows()] == ["1", "2"]
    assert session.names == ()


def test_what_is_sent_to_a_page_is_bounded(served: ServedDetector, limits: ServingLimits, image: Path) -> None:
    session, noise = Session(served, limits), BytesIO()
    Image.effect_noise((140, 140), 99).convert("RGB").save(noise, "BMP")
    most = limits.max_upload * MIB // len(noise.getvalue())
    for data, said in ((b"text", "x: is no picture"), (noise.getvalue()[:999], "x: is damaged: send it anew")):
        with pytest.raises(InputError, match=said):
            asyncio.run(session.add_picture("x", data))
    for number in [*range(most), 0]:
        asyncio.run(session.add_picture(str(number), noise.getvalue()))
    with pytest.raises(TooLargeError, match="x: more than 1 MiB were sent: send less"):
        asyncio.run(session.add_picture("x", noise.getvalue()))
    few = Session(served, limits)
    for number in [*range(MOST_PICTURES), 0]:
        asyncio.run(few.add_picture(str(number), image.read_bytes()))
    with pytest.raises(InputError, match="x: 24 pictures are here already: reload the page to begin anew"):
        asyncio.run(few.add_picture("x", image.read_bytes()))


def test_nothing_is_told_before_anything_was_asked(served: ServedDetector, limits: ServingLimits) -> None:
    session = Session(served, limits)
    assert (session.rows(), session.best, session.own_threshold) == ([], None, 0.0)
    with pytest.raises(InputError, match="there is no picture to look at: drop some"):
        asyncio.run(session.look())
    with pytest.raises(InputError, match="nothing was looked for yet: press Detect"):
        session.coco()
    with pytest.raises(InputError, match="there is nothing to look for"):
        asyncio.run(session.save())
    for phrase in (" ", "cat . dog ."):
        with pytest.raises(InputError):
            session.add_phrase(phrase)


def test_whoever_leaves_keeps_nothing(opened: Callable[[], Session], served: ServedDetector) -> None:
    one, two = opened(), opened()
    for session in (one, two):
        session.add_phrase("cell")
        asyncio.run(session.look())
    assert len(served.kept()) == 2

    async def left_while_looking() -> None:
        looking = asyncio.create_task(one.look())
        await asyncio.sleep(0)
        await one.close()
        await looking

    asyncio.run(left_while_looking())
    assert len(served.kept()) == 1


def test_the_oldest_features_go_of_whoever_has_most() -> None:
    cache, encoded = FeatureCache(most=40), []

    def encode(picture: bytes) -> EncodedImage:
        encoded.append(picture)
        return EncodedImage(torch.zeros(10, dtype=torch.uint8), (1, 1))

    for owner, picture in ("a1", "b1", "b2", "b3", "b1", "b4"):
        cache.encoded(owner, picture.encode(), encode)
    assert cache.sizes() == {"a": 10, "b": 30}
    assert encoded == [b"1", b"1", b"2", b"3", b"4"]
    for picture in (b"1", b"4", b"2"):
        cache.encoded("b", picture, encode)
    assert encoded[5:] == [b"2"]
    cache.forget("b")
    assert cache.sizes() == {"a": 10}


def test_what_is_typed_cannot_draw() -> None:
    name = '</text><script>alert("x")</script>&'
    found = [Detection("b", 0.5, (0.0, 0.0, 9.0, 9.0)), Detection(name, 0.25, (100.0, 50.0, 200.0, 60.0))]
    drawn = ElementTree.fromstring(f"<svg>{overlay(found, {name: [POINT]}, (100, 400), 0.5)}</svg>")
    assert {part.tag for part in drawn} == {"rect", "text", "circle"}
    assert [text.text for text in drawn.iter("text")] == [f"{name} 0.25", "b 0.50", f"prompt: {name}"]
    assert drawn[0].attrib | {"x": "50.0", "y": "25.0", "width": "50.0", "height": "5.0"} == drawn[0].attrib
