"""No request that somebody else's page has a visitor's browser make."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class KnownHosts:
    """Answers 403 to a browser that believes to be elsewhere (`Host`), or that a page from elsewhere asks (`Origin`).

    A stranger's name may lead to this machine while his page is open (DNS rebinding); an IP address is nobody's name.

    Args:
        app: the application behind it.
        own: names of this machine.
        given: names of what hands requests on to it, as a proxy does.
    """

    def __init__(self, app: ASGIApp, own: Iterable[str], given: Iterable[str]) -> None:
        self._app, self._given = app, {name.lower() for name in given}
        self._names = self._given | {name.lower() for name in own}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls an application."""
        wrong = "" if scope["type"] == "lifespan" else self._wrong(Headers(scope=scope))
        if not wrong:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": wrong})
        else:
            await JSONResponse({"error": wrong}, 403)(scope, receive, send)

    def _wrong(self, headers: Headers) -> str:
        """What is not as it must be, and what to do; "": nothing."""
        host, origin = headers.get("host", ""), headers.get("origin")
        name = _name(f"//{host}")
        if name not in self._names and not _is_address(name):
            return f"'{name}' is no name of this server: open it by its address, or start it with --name {name}"
        if origin is None or origin.partition("://")[2] == host or _name(origin) in self._given:
            return ""
        return (
            f"a page of {origin} may not ask this server: start it with --name NAME where that is the name of its proxy"
        )


def _name(address: str) -> str:
    """Without scheme, port, brackets and the dot that a full name may end with."""
    try:
        return (urlsplit(address).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
