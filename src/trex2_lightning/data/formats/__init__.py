"""One reader a file, which declares its `FORMAT`; whoever wants to know what formats there are asks here."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from trex2_lightning.data.annotations.declaration import Format
from trex2_lightning.errors import InputError


@cache
def every_format() -> dict[str, Format]:
    """The formats by name, in alphabetical order."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    formats: list[Format] = [module.FORMAT for module in modules]
    return {form.name: form for form in sorted(formats, key=lambda form: form.name)}


def format_named(name: str, key: str) -> Format:
    """The format that a setting names.

    Raises:
        InputError: there is none of that name.
    """
    formats = every_format()
    if name not in formats:
        raise InputError(f"{key}={name} is no format: take one of {', '.join(formats)}")
    return formats[name]
