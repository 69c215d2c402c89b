"""The page and the endpoint on a port of this machine, until somebody stops them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from importlib.util import find_spec

from trex2_lightning.errors import InputError
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.inference.serving.serving_limits import ServingLimits

MOST_CONNECTIONS = 64  # pages and requests at once; more are answered 503


def open_port(host: str, port: int) -> socket.socket:
    """A port that nobody else has; 0: any that is free.

    Raises:
        InputError: it is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port} of {host} cannot be had ({error}): give another by --port or --host") from error


def serve(
    predictor: Predictor,
    place: socket.socket,
    limits: ServingLimits,
    ready: Callable[[str], None],
    own: Iterable[str] = (),
    given: Iterable[str] = (),
) -> None:
    """Serve until the process is told to stop.

    Args:
        predictor: to be used by nobody else.
        place: of `open_port`.
        limits: what clients may send, and what is kept.
        ready: told the page's address.
        own: names of this machine beside `localhost` and the one that it has itself.
        given: names of proxies before it.

    Raises:
        InputError: as `require_serving`.
    """
    require_serving()
    import uvicorn

    from trex2_lightning.inference.serving.api import build_api
    from trex2_lightning.inference.serving.known_hosts import KnownHosts
    from trex2_lightning.inference.serving.page import add_page
    from trex2_lightning.inference.serving.served_detector import ServedDetector
    from trex2_lightning.inference.serving.upload_limit import UploadLimit

    served = ServedDetector(predictor, limits.memory)
    app = build_api(served, limits)
    add_page(app, served, limits)
    host, port = place.getsockname()[:2]
    ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    settings = uvicorn.Config(
        KnownHosts(UploadLimit(app, limits), ("localhost", socket.gethostname(), *own), given),
        log_config=None,
        log_level="warning",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(settings).run(sockets=[place])


def require_serving() -> None:
    """Raises InputError: the extra `serve` is not installed."""
    if any(find_spec(package) is None for package in ("nicegui", "fastapi", "uvicorn")):
        raise InputError("serving needs further packages: pip install 'trex2_lightning[serve]'")
