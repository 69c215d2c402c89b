"""T-Rex2 (arXiv 2403.14610) and its early-fusion baseline as a PyTorch Lightning experiment package."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trex2_lightning.errors import InputError
    from trex2_lightning.inference.predictor import Detection, Predictor
    from trex2_lightning.prompting.prompt_set import PromptSet, join
    from trex2_lightning.structures import Box, Point

try:
    __version__ = version("trex2-lightning")
except PackageNotFoundError:  # read from its folder, without having been installed
    __version__ = "unknown"

_HOMES = {
    "Box": "structures",
    "Detection": "inference.predictor",
    "InputError": "errors",
    "Point": "structures",
    "Predictor": "inference.predictor",
    "PromptSet": "prompting.prompt_set",
    "join": "prompting.prompt_set",
}
__all__ = ["Box", "Detection", "InputError", "Point", "Predictor", "PromptSet", "join"]


def __getattr__(name: str) -> Any:
    """The names above, each imported when it is asked for: with PyTorch and Lightning they take seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
