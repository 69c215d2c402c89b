"""A detector's parts as compiled code (`torch.compile`): the backbone, and each layer of encoder, fusion and decoder.

Not the whole: what lies between the layers depends on the prompts and on the sizes of the images in ways that would be
compiled anew for each of them, and layers of one kind share what is compiled for one of them. Of a Swin the blocks are
compiled, as its sizes, rounded up from stage to stage, take a symbolic proof many minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from torch import nn

from trex2_lightning.models.backbone import DetectionSwinBlock
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.models.early import EarlyFusionDetector

log = logging.getLogger(__name__)

# Of one kind of layer: with and without gradients, autocast, one image or several, noised queries or none; and each
# block of a Swin has a drop-path rate of its own, and its stages have widths and windows.
VARIANTS = 256


def compile_parts(detector: PromptedDetector, backend: str = "inductor") -> Trial:
    """Compile the backbone and the layers in place; whatever is compiled already stays as it is.

    Names of parameters stay, so checkpoints are those of a detector that is not compiled. A copy of the detector is
    not compiled. Sizes of images, numbers of prompts and of images are variables of the compiled code: none of them
    has it compiled anew, but for a few kinds: 1, a square image that came first, and of a Swin maps of one window or of
    whole ones. Each variant is compiled when it is first called. Where that fails for a part, it runs as written from
    then on, and a line in the log says so, once; parts that worked stay compiled, as the backward pass may compute them
    again in the same way. Where the first part fails, no other is tried.

    Args:
        detector: of any fusion, on its device or not yet.
        backend: of `torch.compile`; some check all but the code that is made, and need no C++ compiler.

    Returns:
        Whether it has failed, which the first calls tell.
    """
    set_up_compiling()
    blocks: list[nn.Module] = [m for m in detector.backbone.modules() if isinstance(m, DetectionSwinBlock)]
    parts = [*(blocks or [detector.backbone]), *detector.encoder.layers, *detector.decoder.layers]
    if isinstance(detector, EarlyFusionDetector):
        parts += detector.fusions
    state = Trial()
    for part in parts:
        if part._compiled_call_impl is None:
            _compile(part, backend, state)
    return state


class Trial:
    """Whether compiling has failed, and whether it has worked, for any part of a detector."""

    failed = False
    worked = False

    def fail(self, part: nn.Module, error: Exception) -> None:
        """Say so once."""
        if not self.failed:
            error = getattr(error, "inner_exception", error)
            reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
            log.warning(
                "%s cannot be compiled here, so %s run as written (%s: %s); on a CPU it takes a C++ compiler. "
                "Leave train.compile or compile=True out to be rid of this line",
                type(part).__name__,
                "such parts" if self.worked else "all parts",
                type(error).__name__,
                reason.strip(),
            )
        self.failed = True


def _compile(part: nn.Module, backend: str, state: Trial) -> None:
    try:
        part.compile(backend=backend, dynamic=True)
    except Exception as error:  # whatever a system or a version of Python is told that has no compiler
        state.fail(part, error)
        return
    compiled = part._compiled_call_impl
    assert compiled is not None
    # Where `Module.compile` puts it. A copy of the module is without, as one with this call would run the original.
    part._compiled_call_impl = _or_as_written(part, compiled, state)


def _or_as_written(part: nn.Module, compiled: Callable[..., Any], state: Trial) -> Callable[..., Any]:
    works = True

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal works
        if works and (state.worked or not state.failed):
            try:
                result = compiled(*arguments, **named)
            except _errors() as error:
                works = False
                state.fail(part, error)
            else:
                state.worked = True
                return result
        return part._call_impl(*arguments, **named)

    return call


def _errors() -> tuple[type[Exception], ...]:
    """Those of compiling; what a layer itself raises, or a GPU without memory, is none of them."""
    from torch._dynamo.exc import TorchDynamoException  # takes seconds, and most runs compile nothing

    return (TorchDynamoException,)


def set_up_compiling() -> None:
    """What PyTorch decides for whole processes."""
    import torch._dynamo.config
    import torch._functorch.config
    import torch.fx.experimental._config as symbols

    # Two sizes that are the same by chance, such as two images and two coordinates, would have to stay the same.
    symbols.use_duck_shape = False
    dynamo: Any = torch._dynamo.config
    dynamo.cache_size_limit = max(dynamo.cache_size_limit, VARIANTS)
    dynamo.accumulated_cache_size_limit = max(dynamo.accumulated_cache_size_limit, 4 * VARIANTS)
    # The parts are small enough that ranks exchange the gradients of one while another one's are computed.
    dynamo.optimize_ddp = False
    functions: Any = torch._functorch.config
    if hasattr(functions, "force_non_lazy_backward_lowering"):  # of newer versions
        functions.force_non_lazy_backward_lowering = True  # else what fails backwards, fails where nobody can catch it
