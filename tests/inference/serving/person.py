"""What a person does at the page, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
FOUND = re.compile(r"(\d+) detections in (\d+) pictures")


class Person:
    """What a person does at a page of their own.

    Args:
        browser: Chromium.
        address: of the server.
    """

    def __init__(self, browser: Any, address: str) -> None:
        self.page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda asked: self.elsewhere.append(asked.url))
        self.page.goto(address)

    def drop(self, *files: Path, upload: int = 0) -> None:
        self.page.locator("input[type=file]").nth(upload).set_input_files(files)

    def drop_pictures(self, pictures: list[Path]) -> None:
        self.drop(*pictures)
        api.expect(self.pictures).to_have_count(len(pictures))

    @property
    def pictures(self) -> Any:
        return self.page.locator("img[src^='data:image/jpeg']")

    def box_of(self, picture: str) -> dict[str, float]:
        return self.page.locator(f".nicegui-column:has(> :text-is('{picture}'))").last.locator("img").bounding_box()

    def write(self, phrase: str) -> None:
        field = self.page.get_by_label("phrase, and Enter")
        field.fill(phrase)
        field.press("Enter")
        self.page.get_by_text(f"{phrase} (phrase)").wait_for()

    def detect(self) -> str:
        """After something has changed."""
        self.page.get_by_text("press Detect to look for this").wait_for()
        self.page.get_by_role("button", name="Detect").click()
        return self.count()

    def count(self) -> str:
        told = self.page.get_by_text(re.compile(rf"{FOUND.pattern}|the best score is"))
        api.expect(self.page.get_by_role("button", name="Detect")).to_be_enabled()
        return told.inner_text()

    def move_threshold(self, share: float) -> None:
        place = self.page.get_by_role("slider").bounding_box()
        self.page.mouse.click(place["x"] + share * place["width"], place["y"] + place["height"] / 2)
        self.page.get_by_text(re.compile(r"threshold: \d")).wait_for()
        self.page.wait_for_timeout(300)  # the slider tells the server at most 20 times a second

    def download(self, button: str, target: Path) -> Path:
        with self.page.expect_download() as download:
            self.page.get_by_text(button).click()
        download.value.save_as(target)
        return target


def draw(person: Person, picture: str, box: list[float]) -> None:
    """Left, top, width, height in pixels, by the mouse; the page shows it there, to two pixels of the screen."""
    place = person.box_of(picture)
    left, top, width, height = box
    marks = person.page.locator("svg rect[stroke='white']")
    scale = place["width"] / person.pictures.first.evaluate("picture => picture.naturalWidth")
    person.page.mouse.move(place["x"] + left * scale, place["y"] + top * scale)
    person.page.mouse.down()
    person.page.mouse.move(place["x"] + (left + width) * scale, place["y"] + (top + height) * scale, steps=4)
    person.page.mouse.up()
    api.expect(marks).to_have_count(1)
    drawn = [float(marks.get_attribute(side)) for side in ("x", "y", "width", "height")]
    assert drawn == pytest.approx([left, top, width, height], abs=2 / scale + 0.1)
