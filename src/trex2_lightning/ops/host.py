"""What the operating system tells of this machine, a process and folders; Windows has no `resource` and `sysconf`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryFile

from trex2_lightning.errors import InputError

UNTOLD = 8 * 2**30  # bytes of main memory that are taken for there where the system tells nothing


def peak_resident() -> int:
    """Bytes of this process at its highest; 0: the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main_memory() -> int:
    """Bytes of the machine's."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return UNTOLD


def writable(folder: Path, option: str = "--output") -> Path:
    """The folder, which is there now: so that hours of work do not end with files that cannot be written.

    Raises:
        InputError: it is not, or takes no files; `option` names another one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{folder}: nothing can be written there ({reason}); give another place by {option}"
        ) from error
    return folder
