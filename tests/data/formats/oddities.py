"""What strangers' tools do to the files of a format, without a change of what they mean, or so that it must be told.

A `Sample` is changed in place by one of `ODDITIES`; each leaves alone what it has nothing to do with.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import unicodedata
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

from odd_samples import Place, Sample, places_in

SHORT_NAMES = ("yes", "off", "1e3", "012", "nan", "1_0", "0x1", "2.0", "NUL", "é ü")  # as long as `dog`
NUMBER = re.compile(r"(?<![\w./-])-?(?:\d+\.?\d*|\.\d+)(?![\w./-])")
LEAF = re.compile(r"<(\w+)>([^<]*)</\1>")
FLAGS = ("iscrowd", "ignore", "legible", "was_cancelled")  # truths


def odd_numbers(sample: Sample, rng: Random) -> None:
    """As text, as a float, with a sign, or none at all."""
    place = _some(
        sample,
        rng,
        lambda place: type(place.value) in (int, float) and place.key not in FLAGS and abs(place.value) < 1e9,
    )
    if place:
        value = place.value
        choices = [str(value), f" {value} ", f"{value},5", -value, math.nan, math.inf, -math.inf, 10**400, 1e308]
        choices += [None, "", "x", [value], {}, bool(value), float(value), f"{float(value)}"]
        place.holder[place.key] = rng.choice(choices)


def odd_texts(sample: Sample, rng: Random) -> None:
    place = _some(sample, rng, lambda place: isinstance(place.value, str) and place.key not in ("caption", *FLAGS))
    if place:
        value = place.value
        odd = rng.choice([f"  {value} ", "", " ", None, True, [value], {}, "\ud800", "a\0", "x" * 5000])
        place.holder[place.key] = odd
        if isinstance(odd, str) and odd.strip() and odd != "\ud800":
            sample.call(value, odd)  # if it is a name


def odd_structure(sample: Sample, rng: Random) -> None:
    """A list or an object is missing, wrapped, doubled or something else, or has more than it should."""
    place = _some(sample, rng, lambda place: place.key not in (*FLAGS, "extra") and isinstance(place.holder, dict))
    if place:
        action = rng.randrange(5)
        if action == 0:
            del place.holder[place.key]
        elif action == 1:
            place.holder["more"] = rng.choice([1, None, "x", [], {}])
        elif action == 2:
            place.holder[place.key] = rng.choice([None, False, "", {}, [place.value], [[]], [None], True])
        elif isinstance(place.value, list) and place.value:
            row = rng.choice(place.value)
            if isinstance(row, dict):
                place.value.append(
                    deepcopy(row) | ({"id": 99} if "id" in row and "caption" not in row and action == 3 else {})
                )
            elif len(place.value) in (2, 4) and action == 3:
                place.value.append(row) if rng.random() < 0.5 else place.value.pop()


def another_order(sample: Sample, rng: Random) -> None:
    for file, content in sample.files.items():
        if isinstance(content, dict):
            keys = sorted(content, key=lambda _: rng.random())
            sample.files[file] = {key: content[key] for key in keys}


def odd_flags(sample: Sample, rng: Random) -> None:
    """A truth as a number, as text, or as YAML and XML have it; see `marked`."""
    for place in [place for place in places_in(sample) if place.key in FLAGS and isinstance(place.value, int)]:
        truth = place.value
        spelt: list[Any] = [int(truth), float(truth), bool(truth), str(int(truth)), str(float(truth)), str(bool(truth))]
        place.holder[place.key] = rng.choice(
            [*spelt, str(bool(truth)).lower(), "maybe", 7, [], None if not truth else 1]
        )
    word = rng.choice(["0", "0.0", "false", "False"]), rng.choice(["1", "1.0", "true", "True"])
    for file, content in sample.files.items():
        if isinstance(content, str):
            content = re.sub(r"<difficult>([01])<", lambda found: f"<difficult>{word[int(found[1])]}<", content)
            sample.files[file] = re.sub(r"(?<=,)([01])(?=\n$)", lambda found: word[int(found[1])], content)


def names_yaml_would_guess(sample: Sample, rng: Random) -> None:
    new = rng.choice(SHORT_NAMES)
    if any("dog" in sample.text(file) for file in sample.files):
        sample.rename("dog", new)
        sample.call("dog", new)


def boxes_in_shares(sample: Sample, rng: Random) -> None:
    """Of the image, where pixels are meant."""
    for place in places_in(sample):
        if place.key in ("bbox", "vbox", "vertices") and isinstance(place.value, list):
            place.holder[place.key] = json.loads(
                json.dumps(place.value),
                parse_int=lambda text: float(text) / 40,
                parse_float=lambda text: float(text) / 40,
            )
        if place.key in ("x", "y", "width", "height") and "rectanglelabels" in place.holder:  # where percent are
            place.holder[place.key] = place.value / 100 if type(place.value) in (int, float) else place.value
    for file, content in sample.files.items():
        if isinstance(content, str) and "<annotation>" in content:
            sample.files[file] = re.sub(
                r"<([xy]m..)>([\d.]+)<", lambda found: f"<{found[1]}>{float(found[2]) / 40}<", content
            )


def odd_name_of_the_picture(sample: Sample, rng: Random) -> None:
    """On disk or in the file: another case, extension, system, folder or spelling."""
    new = rng.choice(["A.jpg", "a.JPG", "a.jpeg", "a.png", "sub/a.jpg", "é b.jpg", "b.jpg", "a", "._a.jpg"])
    in_file = rng.choice(
        [
            *("a.jpg", "./a.jpg", "images\\a.jpg", "C:\\photos\\a.jpg", "/mnt/photos/a.jpg", "file:///mnt/a.jpg"),
            *("A.JPG", "../a.jpg", "..\\..\\a.jpg", "a%2Ejpg", "/data/local-files/?d=a.jpg", "a", "A", " a.jpg "),
        ]
    )
    if new == "é b.jpg":
        in_file = rng.choice([new, unicodedata.normalize("NFD", new), "%C3%A9%20b.jpg", "\\é b.jpg", "É B.jpg"])
        new = unicodedata.normalize(rng.choice(["NFC", "NFD"]), new)
    if rng.random() < 0.7:
        sample.picture = f"images/{new}"
    if rng.random() < 0.7:
        sample.rename("a.jpg", in_file)


def odd_lines(sample: Sample, rng: Random) -> None:
    """Of text: a number, a row or a field otherwise."""
    file = rng.choice([*sample.files])
    content = sample.files[file]
    if not isinstance(content, str):
        return
    action = rng.randrange(5)
    found = [*NUMBER.finditer(content)]
    if action == 0 and found and file != "data.yaml":
        some = rng.choice(found)
        odd = [
            f"{some[0]}.0",
            "nan",
            "inf",
            "-inf",
            f"-{some[0]}",
            "",
            "x",
            "1e400",
            "0,5",
            f"+{some[0]}",
            f" {some[0]} ",
        ]
        sample.files[file] = content[: some.start()] + rng.choice(odd) + content[some.end() :]
    elif action == 1 and (leaves := [leaf for leaf in LEAF.finditer(content) if leaf[1] != "difficult"]):
        leaf = rng.choice(leaves)
        instead = rng.choice(["", f"<{leaf[1]}/>", leaf[0] * 2, f"<{leaf[1]}>\n  {leaf[2]}\n</{leaf[1]}>"])
        sample.files[file] = content.replace(leaf[0], instead, 1)
    elif action == 2 and file != "data.yaml":
        rows = content.splitlines()
        sample.files[file] = "\n".join([*rows, rng.choice([rows[-1], "", " ", "x", "0"])]) + "\n"
    elif action == 3 and "," in content and file.endswith(".csv"):
        rows = [row.split(",") for row in content.splitlines()]
        order = sorted(range(len(rows[0])), key=lambda _: rng.random())
        change = rng.randrange(3)
        kept = order[1:] if change == 0 else order
        more = {1: ["extra"]}.get(change, [])
        sample.files[file] = "".join(",".join([row[at] for at in kept] + more) + "\n" for row in rows)


def odd_data_yaml(sample: Sample, rng: Random) -> None:
    if "data.yaml" in sample.files:
        name = re.search(r"\[(.*)\]", sample.files["data.yaml"])
        assert name
        names = [f"names: [{name[1]}]", f"names: ['{name[1]}']", f"names:\n  0: {name[1]}", f"names:\n- {name[1]}"]
        names += [f"names: {{0: {name[1]}}}", f"names:\n  '0': \"{name[1]}\"\nnc: 1", f"names: [{name[1]}] # all"]
        places = ["images", "./images", "images/", "../images", '"images"', "[images]", "\n- images", "images.txt"]
        roots = ["", "path: .\n", "path:\n", "path: ./\n", "path: ''\n", "path: ~\n", "path: gone\n"]
        rest = [
            rng.choice(roots),
            rng.choice(names),
            rng.choice(["val: gone", "valid: images", "test:", "extra: {a: 1}"]),
        ]
        sample.files["data.yaml"] = "\n".join([f"train: {rng.choice(places)}", *rest, ""])


def odd_labels_of_yolo(sample: Sample, rng: Random) -> None:
    """A polygon, a confidence, a class that is none, numbers in pixels, a file in another place."""
    if "labels/a.txt" in sample.files:
        x, y, w, h = 0.0625, 0.1333, 0.075, 0.1333
        left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        corners = f"{left} {top} {right} {top} {right} {bottom} {left} {bottom}"
        box, pixels = f"{x} {y} {w} {h}", f"{x * 40} {y * 30} {w * 40} {h * 30}"
        lines = [f"0 {corners}", f"0 {corners} {left} {top}", f"0 {box} 0.9", f"0.0\t{box}", f" 0  {box} ", f"00 {box}"]
        lines += [f"7 {box}", f"dog {box}", f"-1 {box}", f"0.5 {box}", f"0 {pixels}", f"0 {box} {box} 3", f"0,{box}"]
        sample.files["labels/a.txt"] = rng.choice(lines) + rng.choice(["", "\n", "\n\n", "\n# end", "\n0"])
        if rng.random() < 0.2:
            sample.files[rng.choice(["images/a.txt", "a.txt", "Labels/a.txt"])] = sample.files.pop("labels/a.txt")


def odd_encoding(sample: Sample, rng: Random) -> None:
    file = rng.choice([*sample.files])
    codes = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"]
    ways: list[Callable[[str], bytes]] = [lambda text, code=code: text.encode(code, "replace") for code in codes]  # type: ignore[misc]
    ways += [
        lambda text: gzip.compress(text.encode(errors="replace")),
        lambda text: text.replace("\n", "\r\n").encode(errors="replace"),
        lambda text: f"\n\n{text}\n\n".encode(errors="replace"),
        lambda text: f"{text} \r\n".encode(errors="replace"),
        lambda text: b"\xff\xfe\0" + text.encode(errors="replace"),
        lambda text: text.encode(errors="replace") + b"\0" * 20,
    ]
    if not isinstance(sample.files[file], str):
        ways += [
            lambda text: json.dumps(json.loads(text), indent=1).encode(),
            lambda text: text.encode()[: -rng.randint(1, 40)],
            lambda text: f"[{text}]".encode(errors="replace"),
            lambda text: b"\n".join([text.encode(errors="replace")] * 2),
        ]
    sample.written[file] = rng.choice(ways)


ODDITIES = (
    *(odd_numbers, odd_texts, odd_structure, another_order, odd_flags, names_yaml_would_guess, boxes_in_shares),
    *(odd_name_of_the_picture, odd_lines, odd_data_yaml, odd_labels_of_yolo, odd_encoding),
)


def _some(sample: Sample, rng: Random, wanted: Callable[[Place], bool]) -> Place | None:
    places = [place for place in places_in(sample) if wanted(place)]
    return rng.choice(places) if places else None
