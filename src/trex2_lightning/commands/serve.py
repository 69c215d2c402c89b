"""Open a page to prompt a detector on, and an HTTP endpoint."""

from __future__ import annotations

import argparse

from trex2_lightning.commands.terminal import add_model, console, if_stopped
from trex2_lightning.errors import InputError


def main(arguments: list[str], prog: str = "serve.py") -> None:
    """`serve.py --model MODEL [--host HOST] [--port PORT] [--name NAME ...] [--max-upload MIB] ...`"""
    parser = argparse.ArgumentParser(
        prog,
        description="Open a page to prompt a detector on, and an HTTP endpoint: docs/serve.md says how they are used.",
    )
    add_model(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to be reached by (default: by this machine alone)")
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free (default: 8080)")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        help="that browsers know it by, as a proxy's; may be repeated (known: addresses, localhost, this machine's)",
    )
    parser.add_argument(
        "--max-upload", type=int, default=32, metavar="MIB", help="of a request and of a page's pictures (default: 32)"
    )
    parser.add_argument(
        "--max-pixels", type=int, default=40_000_000, metavar="N", help="of a picture (default: 40 million)"
    )
    parser.add_argument(
        "--memory", type=int, default=1024, metavar="MIB", help="for what was seen of pictures (default: 1024)"
    )
    options = parser.parse_args(arguments)

    from trex2_lightning.data.images.archives import MAX_PIXELS, most_pixels
    from trex2_lightning.inference.predictor import Predictor
    from trex2_lightning.inference.serving.server import open_port, require_serving, serve
    from trex2_lightning.inference.serving.serving_limits import ServingLimits

    require_serving()  # before it loads a detector
    if options.max_pixels > most_pixels():
        raise InputError(
            f"--max-pixels {options.max_pixels} is more than {MAX_PIXELS}={most_pixels()} lets through: set "
            f"{MAX_PIXELS} in the environment too"
        )
    limits = ServingLimits(options.max_upload, options.max_pixels, options.memory)
    with open_port(options.host, options.port) as place, if_stopped(lambda: "the page is gone, and all that was on it"):
        predictor = Predictor.from_pretrained(options.model)

        def ready(address: str) -> None:
            console.print(f"serving {address}, until Ctrl-C")

        serve(predictor, place, limits, ready, [options.host], options.name)
