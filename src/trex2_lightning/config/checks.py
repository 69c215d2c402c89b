"""What a value of the configuration may be, told by its key as the user typed it."""

from __future__ import annotations

import math
from typing import Any

from trex2_lightning.errors import InputError


class ConfigError(InputError):
    """The configuration is wrong; the message names the keys as the user typed them."""


def check_positive(section: str, values: Any, *names: str) -> None:
    """Raises ConfigError: one of these settings of a section is less than 1."""
    for name in names:
        if getattr(values, name) < 1:
            raise ConfigError(f"{section}.{name}={getattr(values, name)} must be at least 1")


def check_not_negative(section: str, values: Any, *names: str) -> None:
    """Raises ConfigError: one of these settings of a section is negative or not finite."""
    for name in names:
        if not 0 <= getattr(values, name) < math.inf:
            raise ConfigError(f"{section}.{name}={getattr(values, name)} must be a number that is not negative")


def check_share(section: str, values: Any, *names: str) -> None:
    """Raises ConfigError: one of these settings of a section is not from 0 to 1."""
    for name in names:
        if not 0 <= getattr(values, name) <= 1:
            raise ConfigError(f"{section}.{name}={getattr(values, name)} must lie between 0 and 1")
