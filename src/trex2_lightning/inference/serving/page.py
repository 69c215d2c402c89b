"""The page: drop pictures, say what to look for, see what is found; drawn by NiceGUI, whose server side this is."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from io import BytesIO
from typing import Any

from fastapi import FastAPI
from nicegui import events, ui
from PIL import Image

from trex2_lightning.errors import InputError
from trex2_lightning.inference.serving.overlay import overlay
from trex2_lightning.inference.serving.served_detector import ServedDetector
from trex2_lightning.inference.serving.serving_limits import MIB, ServingLimits, too_many_bytes
from trex2_lightning.inference.serving.session import Session
from trex2_lightning.structures import Box, Detection, Exemplar, Point

PREVIEW = 1024  # pixels of the longer side of a picture as it is shown
CHANGED = "press Detect to look for this"
LEFT_OUT = "nothing is above the threshold; the best score is {:.2g}, of '{}'"


def add_page(app: FastAPI, served: ServedDetector, limits: ServingLimits) -> None:
    """The page at `/`, of a session for whoever opens it; once in a process, as NiceGUI is."""

    @ui.page("/", title="trex2")
    def opened() -> None:
        session = Session(served, limits)
        ui.context.client.on_delete(session.close)
        DrawingPage(session, limits)

    ui.run_with(app, reconnect_timeout=10, tailwind=False, show_welcome_message=False)


class DrawingPage:
    """What one person sees of a session.

    Args:
        session: theirs.
        limits: of the server.
    """

    def __init__(self, session: Session, limits: ServingLimits) -> None:
        self._session = session
        self._scales: dict[str, float] = {}  # by picture: pixels of what is shown for one of the file
        self._images: dict[str, ui.interactive_image] = {}
        self._found: dict[str, Sequence[Detection]] = {}  # by picture: what is shown
        self._corner: tuple[float, float] | None = None  # where a box began that is being drawn
        with ui.row(wrap=False).style("width: 100%; gap: 2rem; align-items: flex-start"):
            with ui.column().style("width: 22rem; flex: none"):
                self._ask_pictures(limits)
                self._ask_prompts(limits)
                self._ask_results()
            self._gallery = ui.row().style("flex: auto; gap: 1rem")

    def _ask_pictures(self, limits: ServingLimits) -> None:
        ui.upload(
            label="Pictures: drop them here",
            multiple=True,
            auto_upload=True,
            max_total_size=limits.max_upload * MIB,
            on_multi_upload=self._take_pictures,  # in one request, so that they keep their order
            on_rejected=lambda: ui.notify(too_many_bytes(limits), type="negative"),
        ).props("flat bordered").style("width: 100%; max-height: 8rem")
        with ui.row().style("align-items: center"):
            self._kind = ui.toggle(["box", "point"], value="box")
            self._marked = ui.input("name of what you mark", value="object")

    def _ask_prompts(self, limits: ServingLimits) -> None:
        self._phrase = ui.input("phrase, and Enter").on("keydown.enter", self._told(self._take_phrase))
        self._phrase.style("width: 100%")
        self._categories = ui.column().style("width: 100%; gap: 0")
        with ui.row():
            ui.button("Save prompts", on_click=self._told(self._save)).props("outline dense")
            ui.button("Download COCO", on_click=self._told(self._download)).props("outline dense")
        ui.upload(
            label="Prompt file: drop it here",
            auto_upload=True,
            max_file_size=limits.max_upload * MIB,
            on_upload=self._told(self._load),
            on_rejected=lambda: ui.notify(too_many_bytes(limits), type="negative"),
        ).props("flat bordered accept=.safetensors").style("width: 100%; max-height: 6rem")

    def _ask_results(self) -> None:
        self._detect = ui.button("Detect", on_click=self._told(self._look)).style("width: 100%")
        self._told_threshold = ui.label("threshold: the checkpoint's own")
        self._slider = ui.slider(min=0, max=1, step=0.01, value=0)
        self._slider.on("update:model-value", self._move_threshold, throttle=0.05, leading_events=False)
        self._count = ui.label()

    def _told(self, work: Callable[..., object]) -> Callable[[Any], Awaitable[None]]:
        """A handler that tells on the page what a person can mend."""

        async def handle(event: Any) -> None:
            try:
                result = work(event)
                if isawaitable(result):
                    await result
            except InputError as error:
                ui.notify(str(error), type="negative", multi_line=True, close_button=True)

        return handle

    async def _take_pictures(self, event: events.MultiUploadEventArguments) -> None:
        for file in event.files:
            await self._told(self._take_picture)(file)
        event.sender.reset()  # type: ignore[attr-defined]
        self._show_changed()

    async def _take_picture(self, file: ui.upload.FileUpload) -> None:
        name = file.name
        picture = await self._session.add_picture(name, await file.read())
        shown, self._scales[name] = await asyncio.to_thread(_shown, picture)
        if name in self._images:
            self._images[name].set_source(shown)
        else:
            with self._gallery, ui.column().style("gap: 0; width: 26rem"):
                ui.label(name)
                self._images[name] = ui.interactive_image(
                    shown,
                    on_mouse=lambda mouse: self._draw(name, mouse),
                    events=["mousedown", "mousemove", "mouseup"],
                ).style("width: 100%; cursor: crosshair")

    def _draw(self, picture: str, mouse: events.MouseEventArguments) -> None:
        """A point where the button goes down, or a box from there to where it comes up."""
        height, width = self._session.sizes[picture]
        at = mouse.image_x / self._scales[picture], mouse.image_y / self._scales[picture]
        x, y = min(max(at[0], 0), width), min(max(at[1], 0), height)
        if mouse.type == "mousedown" and self._kind.value == "point":
            self._mark(picture, Point(x, y))
        elif mouse.type == "mousedown":
            self._corner = x, y
        elif self._corner:
            left, right = sorted((self._corner[0], x))
            top, bottom = sorted((self._corner[1], y))
            box = Box(left, top, right, bottom)
            if mouse.type == "mousemove":
                self._show_picture(picture, [box])
                return
            self._corner = None
            if left < right and top < bottom:
                self._mark(picture, box)

    def _mark(self, picture: str, exemplar: Exemplar) -> None:
        name = self._marked.value.strip() or "object"
        self._session.marks.setdefault(picture, {}).setdefault(name, []).append(exemplar)
        self._show_changed()

    def _take_phrase(self, _: object) -> None:
        self._session.add_phrase(self._phrase.value)
        self._phrase.value = ""
        self._show_changed()

    async def _load(self, event: events.UploadEventArguments) -> None:
        names = await self._session.load(event.file.name, await event.file.read())
        event.sender.reset()  # type: ignore[attr-defined]
        ui.notify(f"{event.file.name}: {', '.join(names)}")
        self._show_changed()

    async def _save(self, _: object) -> None:
        ui.download.content(await self._session.save(), "prompts.safetensors")

    def _download(self, _: object) -> None:
        ui.download.content(self._session.coco(), "labels.json")

    async def _look(self, _: object) -> None:
        self._detect.disable()
        try:
            await self._session.look()
        finally:
            self._detect.enable()
        if self._session.threshold is None:
            self._slider.value = self._session.own_threshold
        self._show_found()

    def _move_threshold(self, event: events.GenericEventArguments) -> None:
        self._session.threshold = float(event.args)
        self._told_threshold.text = f"threshold: {self._session.threshold:.2f}"
        self._show_found()

    def _show_changed(self) -> None:
        """All that there is, where pictures or prompts are others."""
        self._categories.clear()
        with self._categories:
            for name in self._session.names:
                self._show_category(name)
        self._show_found()
        self._count.text = CHANGED

    def _show_category(self, name: str) -> None:
        def negate(event: events.ValueChangeEventArguments) -> None:
            (self._session.negative.add if event.value else self._session.negative.discard)(name)
            self._count.text = CHANGED

        def remove() -> None:
            self._session.remove(name)
            self._show_changed()

        with ui.row(wrap=False).style("width: 100%; align-items: center; gap: 0.5rem"):
            ui.label(f"{name} ({self._session.origin(name)})").style("flex: auto; overflow-wrap: anywhere")
            ui.checkbox("negative", value=name in self._session.negative, on_change=negate).props("dense")
            ui.button(icon="close", on_click=remove).props("flat dense round size=sm aria-label='remove'")

    def _show_found(self) -> None:
        """Boxes and marks, from the threshold on."""
        rows, best = self._session.rows(), self._session.best
        self._found = {row.name: row.found for row in rows}
        for name in self._images:
            self._show_picture(name)
        number = sum(map(len, self._found.values()))
        self._count.text = f"{number} detections in {len(rows)} pictures" if rows else ""
        if not number and best:
            self._count.text = LEFT_OUT.format(best.score, best.name)

    def _show_picture(self, name: str, drawing: Sequence[Exemplar] = ()) -> None:
        marks = self._session.marks.get(name, {}) | ({"": drawing} if drawing else {})
        size, scale = self._session.sizes[name], self._scales[name]
        self._images[name].content = overlay(self._found.get(name, ()), marks, size, scale)


def _shown(picture: Image.Image) -> tuple[str, float]:
    """The picture as an address that holds it, and pixels of that for one of the picture."""
    shown, file = picture.copy(), BytesIO()
    shown.thumbnail((PREVIEW, PREVIEW))
    shown.save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}", shown.width / picture.width
