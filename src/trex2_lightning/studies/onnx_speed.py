"""A late-fusion detector's exported graphs by ONNX Runtime, beside the same detector in PyTorch, on one image."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from trex2_lightning.inference.export import graphs, input_names, require_onnx, write_graph
from trex2_lightning.ops.prompt_tokens import from_vectors
from trex2_lightning.studies.detector_speed import random_detector
from trex2_lightning.studies.timing import Row, Setting, difference, fastest, ratio


@torch.no_grad()
def exported(folder: Path, setting: Setting) -> list[Row]:
    """Both steps that an image needs, with cached prompts; here PyTorch is the peer.

    Args:
        folder: with the settings, and maybe the weights, of a Grounding DINO.
        setting: sizes.

    Raises:
        InputError: the `onnx` extra is not installed.
    """
    require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    detector = random_detector(folder, "late", "phrase", "scaled")
    written = graphs(detector, knows_exemplars=False)
    pixels = torch.randn(1, 3, setting.height, setting.width, generator=torch.Generator().manual_seed(0))
    inputs = {"image": [pixels, torch.ones_like(pixels[:, 0], dtype=torch.bool)]}
    features = [each for kind in written["image"].module(*inputs["image"]) for each in kind]
    tokens = from_vectors(torch.randn(1, setting.few, detector.decoder.width))
    inputs["decode"] = [tokens.embed, tokens.category, tokens.attend, tokens.position, *features]
    rows = []
    for name, given in inputs.items():
        session = onnxruntime.InferenceSession(write_graph(name, written[name], folder), options)
        read = {one.name for one in session.get_inputs()}
        named = {each: value.numpy() for each, value in zip(input_names(written[name]), given, strict=True)}
        fed = {each: value for each, value in named.items() if each in read}
        levels = len(features) // 2
        called = given if name == "image" else [*given[:4], given[4 : 4 + levels], given[4 + levels :]]
        module = written[name].module
        differ = difference(torch.from_numpy(session.run(None, fed)[0]), _first(module(*called)))
        peer, ours = fastest(setting.repeats, partial(module, *called), partial(session.run, None, fed))
        what = f"{name}.onnx, {setting.height} x {setting.width}" + (
            f", {setting.few} names" if name == "decode" else ""
        )
        rows += [
            Row(what, peer, ours, ratio(peer, ours)),
            Row("largest difference of its first output", None, None, f"{differ:.1e}"),
        ]
    return rows


def _first(outputs: object) -> torch.Tensor:
    while not isinstance(outputs, torch.Tensor):
        assert isinstance(outputs, list | tuple)
        outputs = outputs[0]
    return outputs
