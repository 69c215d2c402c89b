"""Label many pictures, or the frames of a video."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trex2_lightning.commands.prompt_options import add_prompt_options, add_refine_options, marked, refining
from trex2_lightning.commands.terminal import add_model, console, if_stopped, shown_progress
from trex2_lightning.errors import InputError

if TYPE_CHECKING:
    from trex2_lightning.inference.labelling.label_pictures import Written
    from trex2_lightning.inference.labelling.sources import Shard, Source

FORMATS = ("coco", "label_studio", "voc", "yolo")
NAMED = 5  # skipped pictures that are named on the terminal; the file has all


def main(arguments: list[str], prog: str = "label.py") -> None:
    """`label.py PICTURES --model MODEL --text PHRASE ... [--format coco] [--output FOLDER]`"""
    options = _parser(prog).parse_args(arguments)
    references, (general, single) = marked(options), _thresholds(options.threshold)

    from trex2_lightning.inference.labelling.journal import pictures_in
    from trex2_lightning.inference.labelling.label_pictures import Work, label_pictures, write_labels
    from trex2_lightning.inference.labelling.labeller import Labeller, LabelRequest
    from trex2_lightning.inference.labelling.refined_request import refined_request
    from trex2_lightning.inference.labelling.sources import leave_out

    request = LabelRequest(
        model=options.model,
        phrases=tuple(options.text),
        references=tuple((Path(file), exemplars) for file, exemplars in references.items()),
        prompt_files=tuple(map(Path, options.prompts)),
        mix=options.mix,
        negative=tuple(options.negative),
        threshold=general,
        thresholds=single,
        nms=options.nms,
    )
    source, work = _source(options), Work(options.batch_size, options.workers, _shard(options.shard))
    source = leave_out(source, pictures_in(options.other) if options.other else (), options.limit)
    kept = f"what was labelled so far is in {options.output}; the same command goes on from there"
    with if_stopped(lambda: kept):
        if which := refining(options):
            with shown_progress("pictures to refine by") as told:
                request = refined_request(request, source, options.output, which, told)
        labeller = Labeller(request)
        with shown_progress("pictures") as told:
            label_pictures(labeller, source, options.output, work, told)
        if not options.shard:
            _tell(write_labels(labeller, source, options.output, options.format, work))
            return
    console.print(f"shard {options.shard} is done; when all are, the same command without --shard writes the files")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog,
        description="Label many pictures: find in each of them what phrases name, what looks like exemplars, and what "
        "a prompt file holds. Stopped or killed, the same command goes on where it was.",
    )
    parser.add_argument(
        "pictures",
        metavar="PICTURES",
        help="folder, with those in it; pattern in quotes; .txt file with a picture a line; or video",
    )
    add_model(parser)
    add_prompt_options(parser, ("--text", "--reference", "--prompts", "--negative"))
    add_refine_options(parser, "the PICTURES")
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="[NAME=]SCORE",
        help="lowest score that is kept, of all categories or of one; default: the checkpoint's for each kind",
    )
    parser.add_argument(
        "--nms",
        type=float,
        metavar="IOU",
        help="of two boxes of one category above this IoU keep the better (default: both)",
    )
    parser.add_argument("--format", choices=FORMATS, default="coco", help="of the labels (default: coco)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/label"),
        help="folder for labels, uncertain.png and the journal (default: runs/label)",
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="label the first N pictures alone")
    parser.add_argument(
        "--except",
        dest="other",
        type=Path,
        metavar="FOLDER",
        help="--output of an earlier call: leave its pictures out",
    )
    parser.add_argument(
        "--every", type=_count, default=1, metavar="N", help="of a video take every Nth frame (default: 1)"
    )
    parser.add_argument(
        "--shard", metavar="I/N", help="label the Ith of N parts; when all are done, call it once without this"
    )
    parser.add_argument(
        "--batch-size", type=_count, default=8, metavar="N", help="pictures that are looked at together (default: 8)"
    )
    parser.add_argument(
        "--workers",
        type=partial(_count, least=0),
        default=2,
        metavar="N",
        help="processes that read pictures; 0: none (default: 2)",
    )
    return parser


def _count(text: str, least: int = 1) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text}: write a whole number from {least} on")
    return int(text)


def _thresholds(texts: list[str]) -> tuple[float | None, dict[str, float]]:
    """Of all categories, and of single ones by name."""
    general, single = None, {}
    for text in texts:
        name, given, score = text.rpartition("=")
        try:
            value = float(score)
        except ValueError:
            raise InputError(f"--threshold {text}: write --threshold 0.3 or --threshold NAME=0.3") from None
        if given:
            single[name.strip()] = value
        else:
            general = value
    return general, single


def _shard(text: str | None) -> Shard:
    from trex2_lightning.inference.labelling.sources import Shard

    if text is None:
        return Shard()
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InputError(f"--shard {text}: write --shard I/N, from 1/N to N/N")
    return Shard(int(number), int(count))


def _source(options: argparse.Namespace) -> Source:
    """The pictures; those of a video are written first."""
    from trex2_lightning.inference.labelling.sources import find_pictures
    from trex2_lightning.inference.labelling.video import is_video, write_frames

    video = Path(options.pictures)
    if not is_video(video):
        return find_pictures(options.pictures, options.output)
    folder = options.output / "frames"
    with shown_progress("frames") as told:
        write_frames(video, folder, options.every, lambda number: told(number + 1, None))
    return find_pictures(str(folder))


def _tell(written: Written) -> None:
    """What there is now, and what is missing."""
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(written.counts.items())) or "nothing"
    files = ", ".join(map(str, written.files))
    told = [f"{written.pictures - len(written.skipped):,} pictures: {counts}; written to {files}"]
    if written.skipped:
        named = ", ".join(name for name, _ in written.skipped[:NAMED])
        more = ", ..." if len(written.skipped) > NAMED else ""
        told.append(f"{len(written.skipped):,} skipped, as they cannot be read: {named}{more}")
    for line in told:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
