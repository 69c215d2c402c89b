"""What the operating system tells of this machine and process; Windows has neither `resource` nor `sysconf`."""

from __future__ import annotations

import os
import sys

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
