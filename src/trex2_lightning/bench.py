"""`make bench`: what detectors, their costly parts and the input pipeline take, beside others that do the same.

Peer and ours run in turn in one process; the fastest of each counts, and only their ratio is worth quoting.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from trex2_lightning import bench_index, bench_input, build, costs
from trex2_lightning.errors import InputError
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.models.early_fusion import BiAttention
from trex2_lightning.models.hub import load_detector
from trex2_lightning.models.hub_config import model_config
from trex2_lightning.ops.deform_attn import sample_grid, sample_rows
from trex2_lightning.ops.detections import category_scores
from trex2_lightning.structures import DetectorOutput, Images, Prompts, PromptTokens
from trex2_lightning.sweep import console, table

HEIGHT, WIDTH = 800, 1066  # pixels
A100_TFLOPS = 312  # peak in bfloat16, as its maker gives it
CLS, SEP, DOT, FIRST_WORD = 101, 102, 1012, 2000  # word pieces
# Word pieces of a name: COCO's 80 names make 194 tokens with dots and ends, LVIS's 1,203 have 2.2 pieces each.
COCO_LENGTHS = (1, 2, 1, 1, 2, 1, 1, 1, 3, 1)
LVIS_LENGTHS = (2, 1, 2, 3, 2, 1, 2, 1, 2, 4, 2, 1, 2, 3, 1, 6)


class Row(NamedTuple):
    """A line of the page; a ratio above 1 is in our favour."""

    what: str
    peer: float | None  # seconds
    ours: float | None
    figure: str  # the ratio, or a difference
    bar: str = ""


class Setting(NamedTuple):
    """How large everything is; tests make it small."""

    height: int = HEIGHT
    width: int = WIDTH
    few: int = 80  # names
    many: int = 1203
    repeats: int = 3
    # Settings of the reference that differ from Grounding DINO with Swin-T.
    reference: Mapping[str, Any] = MappingProxyType({})
    images: int = bench_index.IMAGES
    boxes: int = bench_index.BOXES


def bench(arguments: list[str]) -> None:
    """`bench.py [--page FILE] [--threads N]`"""
    parser = argparse.ArgumentParser("bench.py", description="Measure speed beside others' implementations.")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"), help="file to write")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch, but for the input pipeline (default: 2)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        sections = {
            "Detectors": detectors(Path(folder), Setting()),
            "Fusion of image and prompts, one layer": fusion(Setting()),
            "Deformable sampling, one layer of the encoder": sampling(Setting()),
            "Input pipeline, one core": input_pipeline(Path(folder), Setting()),
            "Index of a data set, one core": index(Path(folder), Setting()),
        }
        needed = demand(Path(folder), sections["Input pipeline, one core"][0], Setting())
    options.page.write_text(page(sections, options.threads, needed))
    console.print(f"written to {options.page}", soft_wrap=True)


@torch.no_grad()
def detectors(folder: Path, setting: Setting) -> list[Row]:
    """Grounding DINO of `transformers`, and our detectors with its random weights, on one image.

    Raises:
        InputError: `transformers` is not installed.
    """
    reference = _reference(folder, setting)
    early, late = _detector(folder, "early", "word", "plain"), _detector(folder, "late", "phrase", "scaled")
    few, many = _names(COCO_LENGTHS, setting.few), _names(LVIS_LENGTHS, setting.many)
    images = Images(
        torch.randn(1, 3, setting.height, setting.width, generator=torch.Generator().manual_seed(0)),
        torch.ones(1, setting.height, setting.width, dtype=torch.bool),
        torch.tensor([[setting.height, setting.width]]),
    )

    def ask(tokens: Tensor) -> Any:
        return reference(images.pixels, input_ids=tokens, attention_mask=torch.ones_like(tokens))

    def find(detector: PromptedDetector, prompts: PromptTokens) -> Tensor:
        logits = detector.decode(detector.encode_image(images), prompts).queries.logits[-1]
        return category_scores(logits, prompts.category, prompts.valid)

    limit = reference.config.max_text_len
    [sentence], chunks = _sentences(few, limit), _sentences(many, limit)
    theirs = ask(sentence)
    difference = _outputs_differ(theirs, early(images, Prompts(few)), sentence.shape[1])
    largest = float(theirs.logits[..., : sentence.shape[1]].abs().max())
    few_vectors, many_vectors = late.encode_prompts(Prompts(few)), late.encode_prompts(Prompts(many))
    peer, words, phrases, more = _fastest(
        setting.repeats,
        lambda: ask(sentence),
        lambda: find(early, early.encode_prompts(Prompts(few))),
        lambda: find(late, few_vectors),
        lambda: find(late, many_vectors),
    )
    [in_chunks] = _fastest(1, lambda: [ask(chunk) for chunk in chunks])
    what, cached = f"{setting.height} x {setting.width}", "(phrase, late), vectors cached"
    return [
        Row(f"{what}, {len(few)} names, (word, early)", peer, words, _ratio(peer, words), ">= 1.5"),
        Row(
            f"largest difference of boxes and of logits, which reach {largest:.1f}",
            None,
            None,
            f"{difference:.1e}",
            "<= 1e-4",
        ),
        Row(f"{what}, {len(few)} names, {cached}", peer, phrases, _ratio(peer, phrases), ">= 2"),
        Row(
            f"{what}, {len(many)} names in {len(chunks)} chunks, {cached}",
            in_chunks,
            more,
            _ratio(in_chunks, more),
            ">= 40",
        ),
        Row(f"{len(many)} names against {len(few)}, {cached}", None, None, f"{more / phrases:.2f} times", "<= 1.1"),
    ]


def fusion(setting: Setting) -> list[Row]:
    """Bi-directional attention alone, with a layer scale of 1: at its usual 1e-4 the whole hides its errors."""
    from transformers.models.grounding_dino.modeling_grounding_dino import GroundingDinoConfig, GroundingDinoFusionLayer

    config = GroundingDinoConfig(fusion_droppath=0.0)
    torch.manual_seed(0)
    theirs = GroundingDinoFusionLayer(config)
    ours = BiAttention(config.d_model, config.encoder_attention_heads // 2, config.encoder_ffn_dim // 2, drop_path=0.0)
    for scale in (theirs.vision_param, theirs.text_param, ours.image_scale, ours.prompt_scale):
        nn.init.ones_(scale)
    for name, other in FUSION_NAMES.items():
        ours.get_submodule(name).load_state_dict(theirs.get_submodule(other).state_dict())
    num_tokens = sum(height * width for height, width in _shapes(setting))
    image = torch.randn(1, num_tokens, config.d_model, requires_grad=True)
    rows = []
    for length in (82, 195, 254):
        prompts = torch.randn(1, length, config.d_model, requires_grad=True)
        masks = torch.ones(1, num_tokens).bool(), torch.ones(1, length).bool()
        peer = partial(_fused_by_reference, theirs, image, prompts, *masks)
        own = partial(ours, image, masks[0], prompts, masks[1])
        expected, found = (torch.autograd.grad(_summed(side()), [image, prompts]) for side in (peer, own))
        with torch.no_grad():
            difference = max(map(_difference, peer(), own()))
            slow, fast = _fastest(setting.repeats, peer, own)
        relative = max(_difference(*pair) / float(pair[0].abs().max()) for pair in zip(expected, found, strict=True))
        rows += [
            Row(f"{num_tokens} image and {length} prompt tokens", slow, fast, _ratio(slow, fast)),
            Row("largest difference of outputs", None, None, f"{difference:.1e}", "<= 1e-4"),
            Row("largest difference of gradients, relative", None, None, f"{relative:.1e}", "<= 1e-4"),
        ]
    return rows


def sampling(setting: Setting) -> list[Row]:
    """`sample_rows`, which the CPU uses, beside a `grid_sample` for each level."""
    shapes, heads, channels, points = _shapes(setting), 8, 32, 4
    num_tokens = sum(height * width for height, width in shapes)
    torch.manual_seed(0)
    value = torch.randn(1, num_tokens, heads, channels, requires_grad=True)
    locations = torch.rand(1, num_tokens, heads, len(shapes), points, 2, requires_grad=True)
    weights = torch.rand(1, num_tokens, heads, len(shapes), points).flatten(-2).softmax(-1)
    weights = weights.unflatten(-1, (len(shapes), points)).requires_grad_()

    def forward(sample: Callable[..., Tensor]) -> Tensor:
        with torch.no_grad():
            return sample(value, shapes, locations, weights)

    def both(sample: Callable[..., Tensor]) -> Any:
        return torch.autograd.grad(sample(value, shapes, locations, weights).sum(), [value, locations, weights])

    rows = []
    for what, run in (("forward", forward), ("forward and backward", both)):
        slow, fast = _fastest(setting.repeats, partial(run, sample_grid), partial(run, sample_rows))
        rows.append(Row(f"{num_tokens} queries, {what}", slow, fast, _ratio(slow, fast)))
    return rows


def input_pipeline(folder: Path, setting: Setting) -> list[Row]:
    """JPEG files to training batches on one thread, beside PIL and pycocotools."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    bench_input.write(folder)
    rows = []
    for size in bench_input.SIZES:
        sides = [partial(_exhaust, read) for read in bench_input.loaders(folder, size)]
        slow, fast = (seconds / bench_input.FILES for seconds in _fastest(setting.repeats, *sides))
        rows.append(Row(f"an image of {size} px, {1 / fast:.0f} images per second", slow, fast, _ratio(slow, fast)))
    torch.set_num_threads(threads)
    return rows


def index(folder: Path, setting: Setting) -> list[Row]:
    """An index of Objects365's size, beside pycocotools on a tenth of it."""
    tenth, whole = folder / "tenth.json", folder / "whole.json"
    bench_index.write(tenth, setting.images // 10, setting.boxes // 10)
    peer = bench_index.opening_with_pycocotools(tenth)
    bench_index.write(whole, setting.images, setting.boxes)
    built = bench_index.building(whole, folder / "index")
    opened, sampled = bench_index.opening(folder / "index"), bench_index.sampling(folder / "index")
    size = f"{setting.images:,} images with {setting.boxes:,} boxes"
    return [
        Row(
            f"opening {size}; the peer, pycocotools, a tenth of them",
            peer.seconds,
            opened.seconds,
            _ratio(peer.seconds, opened.seconds),
            "< 1 s",
        ),
        Row("memory that it adds, MiB", None, None, f"{opened.added:.0f} (peer: {peer.added:.0f})"),
        Row(
            f"{bench_index.SAMPLES:,} random images of it; memory that they add, MiB",
            None,
            sampled.seconds,
            f"{sampled.added:.0f}",
            "< 150",
        ),
        Row("building it; peak memory of the process, MiB", None, built.seconds, f"{built.peak:.0f}", "< 1,907"),
    ]


def demand(folder: Path, large: Row, setting: Setting) -> str:
    """What the accelerators of the paper could ask of the input pipeline at the most, as a paragraph.

    Args:
        folder: with the weights of `detectors`.
        large: the pipeline's images of the size that the detector is trained on.
        setting: sizes.
    """
    assert large.ours
    side = round((setting.height * setting.width) ** 0.5)
    cost = costs.gflops(_detector(folder, "late", "phrase", "scaled"), _names(COCO_LENGTHS, setting.few), side)
    step = 3 * (cost.image + cost.decode)
    most = A100_TFLOPS * 1e3 / step
    return (
        f"What training asks of it: T-Rex2 with Swin-T costs {step / 3:.0f} GFLOP an image of {setting.height} x "
        f"{setting.width} (matrix products, convolutions and attention, counted), {step:.0f} with its backward pass. "
        f"At its peak of {A100_TFLOPS} TFLOP/s in bfloat16 an A100 would take {most:.0f} images per second, 8 of them "
        f"{8 * most:.0f} and 16 of them {16 * most:.0f}: {most * large.ours:.1f} cores for each, had they this one's "
        f"speed. A third of the peak, more than detectors reach, asks for {most * large.ours / 3:.1f} cores; a machine "
        "of 8 A100 has 12 to 16 for each. `data.num_workers` is the number of cores for each GPU."
    )


def page(sections: Mapping[str, Sequence[Row]], threads: int, needed: str) -> str:
    """The figures as Markdown."""
    blocks = [
        "# Benchmarks",
        "Written by `make bench`; do not edit. The fastest of several runs, which took turns in one process; a ratio "
        "is the peer's time over ours.",
        f"{_processor()}, PyTorch {torch.__version__}, {threads} threads (the input pipeline: 1), float32, random "
        "weights. The peer of the detectors and of fusion is Grounding DINO with Swin-T of `transformers`, whose "
        "weights all detectors share, and which reads at most 256 tokens at a time. Names are made up: as many word "
        f"pieces as COCO's have on average ({sum(COCO_LENGTHS) / len(COCO_LENGTHS):.1f}) where there are few, as "
        f"LVIS's ({sum(LVIS_LENGTHS) / len(LVIS_LENGTHS):.1f}) where there are many.",
    ]
    for title, rows in sections.items():
        lines = [[row.what, _seconds(row.peer), _seconds(row.ours), row.figure, row.bar] for row in rows]
        blocks += [f"## {title}", table(["what", "peer, s", "ours, s", "ratio", "bar"], lines)]
    return "\n\n".join([*blocks, needed]) + "\n"


FUSION_NAMES = {
    "image_norm": "layer_norm_vision",
    "prompt_norm": "layer_norm_text",
    "image_query": "attn.vision_proj",
    "prompt_key": "attn.text_proj",
    "image_value": "attn.values_vision_proj",
    "prompt_value": "attn.values_text_proj",
    "image_output": "attn.out_vision_proj",
    "prompt_output": "attn.out_text_proj",
}


def _reference(folder: Path, setting: Setting) -> Any:
    """A random Grounding DINO, written to `folder` with a vocabulary in which word number n is "wn"."""
    try:
        from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection
    except ImportError as error:
        raise InputError(
            "the benchmarks compare with transformers: pip install 'trex2_lightning[transformers]'"
        ) from error
    torch.manual_seed(0)
    reference = GroundingDinoForObjectDetection(GroundingDinoConfig(**setting.reference)).eval()
    for parameter in reference.parameters():
        if parameter.ndim > 1:  # away from zeros, which layers start with
            parameter += 0.02 * torch.randn_like(parameter)
    # Random logits are ten times those of a trained detector, which the tolerance is meant for.
    reference.model.decoder.layer_norm.weight.mul_(0.1)
    # Near ties, whose order float32 does not settle, shall change the order of the queries and nothing else.
    content = reference.model.query_position_embeddings.weight
    content.copy_(content[:1].expand_as(content))
    # The reference may choose tokens at the border, which are no proposals; with these weights their logits are 0, and
    # those of others above.
    reference.model.enc_output.weight.neg_()
    for module in (reference.model.enc_output, reference.model.enc_output_norm):
        module.bias.zero_()
    reference.save_pretrained(folder)
    pieces = [f"w{number}" for number in range(reference.config.text_config.vocab_size)]
    for number, piece in {0: "[PAD]", 100: "[UNK]", CLS: "[CLS]", SEP: "[SEP]", 103: "[MASK]", DOT: "."}.items():
        pieces[number] = piece
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return reference


def _detector(folder: Path, fusion: Literal["early", "late"], granularity: str, similarity: str) -> PromptedDetector:
    config = model_config(str(folder))
    config.fusion, config.granularity, config.similarity = fusion, granularity, similarity  # type: ignore[assignment]
    detector = build.detector(config).eval()
    load_detector(detector, str(folder))
    return detector


def _names(lengths: Sequence[int], number: int) -> tuple[str, ...]:
    """Names of so many word pieces each, over and over; no piece comes twice."""
    pieces = count(FIRST_WORD)
    return tuple(" ".join(f"w{next(pieces)}" for _ in range(length)) for length in islice(cycle(lengths), number))


def _sentences(names: Iterable[str], limit: int) -> list[Tensor]:
    """The reference's tokens (1, T) of "[CLS] red star . ring . [SEP]", in as many chunks as the limit needs."""
    chunks: list[list[int]] = [[]]
    for name in names:
        tokens = [*(int(word[1:]) for word in name.split()), DOT]
        if len(chunks[-1]) + len(tokens) > limit - 2:
            chunks.append([])
        chunks[-1] += tokens
    return [torch.tensor([[CLS, *chunk, SEP]]) for chunk in chunks]


def _outputs_differ(theirs: Any, ours: DetectorOutput, num_tokens: int) -> float:
    order = torch.cdist(theirs.init_reference_points[0], ours.proposals.boxes[-1, 0]).argmin(-1)
    return max(
        _difference(theirs.logits[0, :, :num_tokens], ours.queries.logits[-1, 0, order]),
        _difference(theirs.pred_boxes[0], ours.queries.boxes[-1, 0, order]),
    )


def _fastest(repeats: int, *sides: Callable[[], object]) -> list[float]:
    """Seconds of each side's fastest run; they take turns."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for side, taken in zip(sides, times, strict=True):
            start = perf_counter()
            side()
            taken.append(perf_counter() - start)
    return list(map(min, times))


def _exhaust(read: Callable[[], Iterable[object]]) -> None:
    for _ in read():
        pass


def _shapes(setting: Setting) -> list[tuple[int, int]]:
    """Of the four levels, strides 8 to 64."""
    return [(-(-setting.height // stride), -(-setting.width // stride)) for stride in (8, 16, 32, 64)]


def _fused_by_reference(
    layer: nn.Module, image: Tensor, prompts: Tensor, valid: Tensor, prompts_valid: Tensor
) -> tuple[Tensor, Tensor]:
    (fused_image, _), (fused_prompts, _) = layer(image, prompts, ~valid, ~prompts_valid)
    return fused_image, fused_prompts


def _summed(outputs: Iterable[Tensor]) -> Tensor:
    return torch.stack([output.sin().sum() for output in outputs]).sum()


def _difference(one: Tensor, two: Tensor) -> float:
    return float((one - two).abs().max())


def _ratio(peer: float, ours: float) -> str:
    return f"{peer / ours:.2f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
