"""A trained detector as ONNX graphs, with what ONNX Runtime's side (`onnx_predictor.py`) needs beside them.

Late fusion: `image`, the prompts (`text`, `boxes`, `points`) and `decode`. Early fusion: one graph, `detect`, from
pixels to boxes; what makes vectors of phrases and exemplars, as prompt files have them, is beside it. Numbers of
images, prompts and exemplars and the images' size stay free.

Of a checkpoint of text alone that compares appearance, `known` has the prompts that find boxes for exemplars.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from trex2_lightning.config import Config
from trex2_lightning.data.sampling.collate import STRIDE
from trex2_lightning.errors import InputError, reason_of
from trex2_lightning.inference.export_text import exported_text, tokenizer_of
from trex2_lightning.inference.exported import (
    EXEMPLAR_GRAPHS,
    EXPORTED_FILES,
    KNOWN_NAMES,
    TOKEN_PARTS,
    TOKENIZER,
    ExportedAppearance,
    ExportedDetector,
)
from trex2_lightning.inference.graphs import (
    AppearanceGraph,
    DecodingGraph,
    DetectionGraph,
    ExemplarGraph,
    ImageGraph,
    TextGraph,
    fixed_padding,
)
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.models.early import EarlyFusionDetector
from trex2_lightning.ops.prompt_tokens import from_vectors
from trex2_lightning.prompting.prompt_set import fingerprint, network_fingerprint
from trex2_lightning.structures import Images
from trex2_lightning.training.module import DetectionModule

OPSET = 18  # the first whose Resize and reductions are today's; ONNX Runtime's CPU has all of it
MOST_BYTES = 1_500 * 2**20  # bytes of weights in one file: protocol buffers end at 2 GiB
FREE = torch.export.Dim.DYNAMIC
EXAMPLES = ("red star", "a blue moon")  # phrases of different lengths, whose words every vocabulary can spell
log = logging.getLogger(__name__)

Inputs = dict[str, tuple[Tensor | list[Tensor], Sequence[int]]]  # by name: an example, and which dimensions are free


class Graph(NamedTuple):
    """What is exported; the tensors of a list are called NAME_0, NAME_1, ..."""

    module: nn.Module
    inputs: Inputs
    outputs: list[str]


def export(config: Config, module: DetectionModule, folder: Path) -> list[Path]:
    """Write a detector's graphs, tokenizer and settings to a folder, in place of those of another.

    Args:
        config: the run.
        module: its trained module.
        folder: is made.

    Returns:
        The files.

    Raises:
        InputError: the `onnx` extra is not installed, or a part of the detector cannot be exported.
    """
    require_onnx()
    detector = module.to("cpu").eval().detector
    for key, learned in (("input", detector.appearance_input), ("learned_weight", detector.appearance_term)):
        if learned is not None:
            raise InputError(
                f"a detector that was trained with model.appearance.{key}=true cannot be exported: what its decoder "
                "reads of the network that compares appearance has no graph"
            )
    if "swin" in config.model.backbone.name:
        raise InputError(
            f"model.backbone.name={config.model.backbone.name}: a Swin's windows have no graph for images of any size; "
            "export a detector with a convolutional backbone"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for file in EXPORTED_FILES:
        (folder / file).unlink(missing_ok=True)
    for name, graph in graphs(detector, knows_exemplars=module.knows_exemplars).items():
        log.info("%s is written", write_graph(name, graph, folder))
    tokenizer_of(detector.text_encoder).save(str(folder / TOKENIZER))
    write_known_names(module, folder)
    settings(config, module).write(folder)  # last: without them it is no exported detector
    return [folder / file for file in EXPORTED_FILES if (folder / file).is_file()]


def write_known_names(module: DetectionModule, folder: Path) -> None:
    """What finds boxes for exemplars that were not learned, where there is anything."""
    if (known := module.proposing()) is not None:
        np.savez(folder / KNOWN_NAMES, **{part: getattr(known, part).numpy() for part in TOKEN_PARTS})


def require_onnx() -> None:
    """Raises InputError: the `onnx` extra is not installed."""
    if find_spec("onnxscript") is None or find_spec("onnxruntime") is None:
        raise InputError("export needs further packages: pip install 'trex2_lightning[onnx]'")


@torch.no_grad()
def graphs(detector: PromptedDetector, *, knows_exemplars: bool) -> dict[str, Graph]:
    """The graphs of a detector by the names of their files, with examples of random numbers."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 3, 3 * STRIDE, 4 * STRIDE, generator=generator)
    valid = torch.ones_like(pixels[:, 0], dtype=torch.bool)
    valid[1, :, -STRIDE:] = False
    images: Inputs = {"pixels": (pixels, (0, 2, 3)), "valid": (valid, (0, 1, 2))}
    prompts = from_vectors(torch.randn(1, 3, detector.decoder.width, generator=generator))
    tokens: Inputs = {
        "embed": (prompts.embed, (1,)),
        "category": (prompts.category, (0,)),
        "attend": (prompts.attend, (0, 1)),
        "position": (prompts.position, (0,)),
    }
    early, seen = isinstance(detector, EarlyFusionDetector), ImageGraph(detector)
    features, real, *neck = ([level.contiguous() for level in maps] for maps in seen(pixels, valid))
    found = ["logits", "boxes", *(["presence"] if detector.presence is not None else [])]
    kinds = ("features", "real", "neck") if neck else ("features", "real")
    names = [f"{kind}_{level}" for kind in kinds for level in range(len(real))]
    maps: Inputs = {"features": (features, (0, 1, 2)), "real": (real, (0, 1, 2))}
    written: dict[str, Graph] = {}
    if early:
        written["detect"] = Graph(DetectionGraph(detector), tokens | images, found)
    else:
        written["decode"] = Graph(DecodingGraph(detector), tokens | maps, found)
    rows = pad_sequence([torch.tensor(row) for row in detector.text_encoder.rows(EXAMPLES)], batch_first=True)
    lengths = torch.tensor([len(row) for row in detector.text_encoder.rows(EXAMPLES)])
    text: Inputs = {"tokens": (rows, (0, 1)), "lengths": (lengths, (0,))}
    written["text"] = Graph(TextGraph(detector.text_encoder), text, ["vectors"])
    if not early or knows_exemplars:
        written["image"] = Graph(seen, images, names)
    if knows_exemplars:
        boxes, shown = 0.2 + 0.4 * torch.rand(2, 3, 4, 4, generator=generator), torch.ones(2, 3, 4, dtype=torch.bool)
        exemplars: Inputs = {"exemplars": (boxes, (0, 1, 2)), "shown": (shown, (0, 1, 2))}
        read: Inputs = {"features": (neck[0] if neck else features, (0, 1, 2)), "real": (real, (0, 1, 2))}
        for kind, name in EXEMPLAR_GRAPHS.items():
            written[name] = Graph(ExemplarGraph(detector, kind), exemplars | read, ["vectors"])
    if detector.appearance is not None:
        levels = [f"map_{level}" for level in range(len(detector.appearance(Images(pixels, valid, valid)).maps))]
        written["appearance"] = Graph(AppearanceGraph(detector.appearance), images, levels)
    return written


def write_graph(name: str, graph: Graph, folder: Path) -> Path:
    """Export a graph to `NAME.onnx`.

    Raises:
        InputError: it cannot be exported.
    """
    inputs = [values for values, _ in graph.inputs.values()]
    free = [
        [dict.fromkeys(axes, FREE)] * len(values) if isinstance(values, list) else dict.fromkeys(axes, FREE)
        for values, axes in graph.inputs.values()
    ]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # of its operators ONNX has none
    try:
        with (
            torch.no_grad(),
            fixed_padding(graph.module),
            warnings.catch_warnings(),
            StringIO() as nowhere,
            redirect_stdout(nowhere),
        ):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph.module.eval(),
                tuple(inputs),
                dynamo=True,
                dynamic_shapes=tuple(free),
                input_names=input_names(graph),
                output_names=graph.outputs,
                opset_version=OPSET,
                optimize=False,  # onnxscript's optimizer loses a node of the decoder; ONNX Runtime has its own
                verbose=False,
            )
            assert program is not None
            for node in program.model.graph.all_nodes():  # nine tenths of a file, with this machine's paths
                parts: list[Any] = [node, *node.outputs]
                for part in parts:
                    part.metadata_props.clear()
            size = sum(weight.numel() * weight.element_size() for weight in graph.module.parameters())
            program.save(folder / f"{name}.onnx", external_data=size > MOST_BYTES)
    except Exception as error:  # the exporter raises anything
        raise InputError(f"the {name} of this detector cannot be exported: {reason_of(error)}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return folder / f"{name}.onnx"


def input_names(graph: Graph) -> list[str]:
    """Of each tensor."""
    return [
        each
        for name, (values, _) in graph.inputs.items()
        for each in ([f"{name}_{place}" for place in range(len(values))] if isinstance(values, list) else [name])
    ]


def settings(config: Config, module: DetectionModule) -> ExportedDetector:
    """What the runtime's side has to know beside the graphs."""
    detector = module.detector
    calibration, appearance, pixels = detector.calibration, detector.appearance, detector.backbone.pixels
    return ExportedDetector(
        fusion=config.model.fusion,
        width=config.model.width,
        levels=config.model.num_levels,
        num_queries=config.model.num_queries,
        max_tokens=detector.max_tokens,
        max_detections=config.eval.max_detections,
        size=config.data.size,
        max_size=config.data.max_size,
        stride=STRIDE,
        mean=[*pixels.mean],
        std=[*pixels.std],
        learned_exemplars=module.visual_trained,
        exemplar_maps="neck" if ImageGraph(detector).neck_too else "features",
        weights=fingerprint(detector),
        network=network_fingerprint(detector),
        text=exported_text(detector.text_encoder),
        calibration_weight=calibration.weight.tolist(),
        calibration_bias=calibration.bias.tolist(),
        calibration_threshold=calibration.threshold.tolist(),
        calibration_fitted=calibration.fitted_sources(),
        appearance=None
        if appearance is None
        else ExportedAppearance(
            appearance.mean.tolist(),
            appearance.transform.tolist(),
            float(appearance.temperature),
            float(appearance.logit_scale),
        ),
    )
