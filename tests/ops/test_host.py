"""What runs where the operating system lacks what Unix has: all modules are imported, fall back and write UTF-8."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trex2_lightning.data.index.columns import Column, ColumnWriter
from trex2_lightning.ops.host import UNTOLD, main_memory, peak_resident

SRC = Path(__file__).parents[2] / "src"
# Imports everything that the package needs as it is, then hides what Windows lacks, and imports the package.
WITHOUT_UNIX = """
import importlib, os, pkgutil, signal, sys

import lightning.pytorch, matplotlib.figure, open_clip, rich.progress, safetensors, timm, torch, torchvision

for name in ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog"):
    sys.modules[name] = None
for name in ("preadv", "pread", "pwritev", "fork", "forkpty", "sched_getaffinity", "sysconf", "getuid", "geteuid",
             "getpgid", "killpg", "setsid", "mkfifo", "chown", "nice", "wait3", "O_DIRECTORY"):
    delattr(os, name)
for name in ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGALRM", "SIGCHLD", "alarm", "pause"):
    delattr(signal, name)
import trex2_lightning
names = [part.name for part in pkgutil.walk_packages(trex2_lightning.__path__, "trex2_lightning.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


@pytest.mark.ci
def test_every_module_is_imported_without_what_windows_lacks() -> None:
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    done = subprocess.run([sys.executable, "-c", WITHOUT_UNIX], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.splitlines()[-1]) > 200


def test_text_is_utf_8_on_every_system() -> None:
    """Where nobody says it, Windows takes a code of its country. ruff's PLW1514 sees a third of these calls."""
    wrong = [
        f"{file.relative_to(SRC)}, line {call.lineno}"
        for file in SRC.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and takes_the_system_s_encoding(call)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        *(("path.read_text()", True), ("path.read_text('utf-8')", False), ("path.read_text(encoding='utf-8')", False)),
        *(("path.write_text(text)", True), ("path.write_text(text, encoding='utf-8')", False)),
        *(("path.open()", True), ("path.open('w')", True), ("path.open('rb')", False), ("av.open(path)", False)),
    ],
)
def test_what_takes_the_system_s_encoding(call: str, wrong: bool) -> None:
    expression = ast.parse(call, mode="eval").body
    assert isinstance(expression, ast.Call)
    assert takes_the_system_s_encoding(expression) == wrong


def takes_the_system_s_encoding(call: ast.Call) -> bool:
    name, given = getattr(call.func, "attr", ""), {keyword.arg for keyword in call.keywords}
    if "encoding" in given:
        return False
    if name == "open":  # of a path: of libraries it takes one
        modes = [argument.value for argument in call.args[:1] if isinstance(argument, ast.Constant)]
        return (not call.args and not given) or modes in (["r"], ["w"], ["a"], ["r+"], ["x"])
    return len(call.args) < {"read_text": 1, "write_text": 2}.get(name, 0)


def test_memory_that_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_resident() > 2**24
    assert main_memory() > 2**28
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delattr(os, "sysconf")
    assert peak_resident() == 0
    assert main_memory() == UNTOLD


def test_columns_are_read_where_there_is_no_preadv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ColumnWriter(tmp_path / "a.npy", np.dtype("<i8"))
    writer.add(np.arange(1000))
    written = writer.close()["crc32"]
    column = Column(tmp_path / "a.npy")
    assert column.checksum() == written
    monkeypatch.delattr(os, "preadv")
    assert column.read(998, 1000).tolist() == [998, 999]
    assert column.read(3, 5).tolist() == [3, 4]
    assert column.checksum() == written
    monkeypatch.setattr("trex2_lightning.data.index.columns.BYTES_AT_ONCE", 24)
    assert column.checksum() == written
