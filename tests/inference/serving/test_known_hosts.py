"""A page from elsewhere has a visitor's browser ask nothing, under whatever name it leads here."""

from __future__ import annotations

import pytest

pytest.importorskip("nicegui", reason="the extra `serve` is not installed")

from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from trex2_lightning.inference.serving.known_hosts import KnownHosts


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).accept()
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


@pytest.fixture
def client() -> TestClient:
    return TestClient(KnownHosts(application, ("localhost", "Box.lan"), ("detect.example.org",)))


ALLOWED = [
    {"host": "127.0.0.1:8080"},
    {"host": "[::1]:8080"},
    {"host": "192.168.1.7"},
    {"host": "localhost:8080", "origin": "http://localhost:8080"},
    {"host": "LOCALHOST."},
    {"host": "box.lan:80"},
    {"host": "detect.example.org", "origin": "https://detect.example.org"},
    {"host": "127.0.0.1:8080", "origin": "https://detect.example.org"},  # by a proxy that gives its own name for Host
]
REFUSED = [
    {"host": "evil.example:8080"},
    {"host": "127.0.0.1.evil.example:8080"},
    {"host": "localhost.evil.example"},
    {"host": ""},
    {"host": "[::1"},
    {"host": "evil.example:8080", "origin": "http://evil.example:8080"},
    {"host": "127.0.0.1:8080", "origin": "https://evil.example"},
    {"host": "127.0.0.1:8080", "origin": "http://10.0.0.1"},
    {"host": "localhost:8080", "origin": "http://localhost:3000"},
    {"host": "localhost:8080", "origin": "null"},
    {"host": "localhost:8080", "origin": ""},
]


@pytest.mark.parametrize("headers", ALLOWED)
def test_its_own_pages_and_programs_are_answered(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/predict", headers=headers).status_code == 200
    with client.websocket_connect("/socket", headers=headers):
        pass


@pytest.mark.parametrize("headers", REFUSED)
def test_pages_from_elsewhere_are_not(client: TestClient, headers: dict[str, str]) -> None:
    for answer in (client.get("/", headers=headers), client.post("/predict", headers=headers)):
        assert answer.status_code == 403
        assert "--name" in answer.json()["error"]
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket", headers=headers):
        pass
