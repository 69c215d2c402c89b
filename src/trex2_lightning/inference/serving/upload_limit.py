"""No request of more bytes than are allowed, whichever part of the application it is for."""

from __future__ import annotations

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trex2_lightning.inference.serving.serving_limits import MIB, ServingLimits, too_many_bytes


class UploadLimit:
    """Answers 413 where more is sent, announced or not, and reads no further.

    Args:
        app: the application behind it.
        limits: of the server.
    """

    def __init__(self, app: ASGIApp, limits: ServingLimits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls an application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most, refuse = self._limits.max_upload * MIB, JSONResponse({"error": too_many_bytes(self._limits)}, 413)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > most:
            await refuse(scope, receive, send)
            return
        received, refused = 0, False

        async def counted() -> Message:
            nonlocal received, refused
            message = await receive()
            received += len(message.get("body", b""))
            if received > most and not refused:
                refused = True
                await refuse(scope, receive, send)
            return {"type": "http.disconnect"} if refused else message

        async def unless_refused(message: Message) -> None:
            if not refused:
                await send(message)

        try:
            await self._app(scope, counted, unless_refused)
        except ClientDisconnect:  # the client's own, or what a refusal looks like to the application
            return
