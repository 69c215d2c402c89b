"""Programs that ask a server at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from predictor_parts import BOX, OTHER, POINT

ASKED: tuple[Mapping[str, Any], ...] = (  # of each client
    {"text": ["red block"]},
    {"text": ["blue block", "dust"], "negative": "dust"},
    {"box": f"cell={BOX}"},
    {"point": f"cell={POINT}"},
    {"text": "cell", "box": [f"cell={BOX}", f"cell={OTHER}"]},
    {"reference": f"cell=other:{OTHER}"},
    {"text": ["red block", "green block", "blue block"]},
    {"box": f"cell={OTHER}", "point": f"dust={POINT}"},
)

CLIENT = httpx.Client(verify=False, timeout=60)  # of all threads


class Question(NamedTuple):
    """A picture, prompts, and the answer to them."""

    files: dict[str, bytes]
    texts: Mapping[str, Any]
    answer: dict[str, Any]


def questions(address: str, images: Sequence[Path]) -> list[list[Question]]:
    """Of each client other prompts, each for all pictures, with answers that were had one after the other."""
    other = images[-1].read_bytes()
    found = []
    for texts in ASKED:
        files = [{"image": image.read_bytes()} | ({"other": other} if "reference" in texts else {}) for image in images]
        found.append([Question(one, texts, asked(address, one, texts)) for one in files])
    return found


def asked(address: str, files: Mapping[str, bytes], texts: Mapping[str, Any]) -> dict[str, Any]:
    sent = {field: (field, data) for field, data in files.items()}
    answer = CLIENT.post(f"{address}/predict", files=sent, data={"threshold": 0.01, **texts})
    assert answer.status_code == 200, answer.text
    return answer.json()


def wrong_answers(address: str, known: list[list[Question]], each: int) -> int:
    """Of so many requests of each client, all clients at once."""

    def client(own: list[Question]) -> int:
        asking = islice(cycle(own), each)
        return sum(asked(address, one.files, one.texts) != one.answer for one in asking)

    with ThreadPoolExecutor(len(known)) as pool:
        return sum(pool.map(client, known))
