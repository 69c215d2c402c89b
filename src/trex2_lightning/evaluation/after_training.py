"""What is done for a run's checkpoints once it is trained: their scores are fitted to val."""

from __future__ import annotations

import logging

from trex2_lightning.config import Config, for_evaluation
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.fits import calibrate, is_trained_on_val
from trex2_lightning.ops.distributed import leave_the_other_ranks
from trex2_lightning.structures import PromptSource
from trex2_lightning.training.checkpoint import load_checkpoint, read_checkpoint, write_fits
from trex2_lightning.training.module import DetectionModule

log = logging.getLogger(__name__)


def fit_scores(config: Config) -> None:
    """Fit what scores mean to `last.ckpt` and `best.ckpt` of a trained run, in place (`train.calibrate`).

    Of several processes that have trained it the first one does it alone; the others have nothing to do together any
    more. What cannot be fitted leaves a line in the log: the run is trained all the same.
    """
    if not config.train.calibrate or leave_the_other_ranks() > 0:
        return
    if is_trained_on_val(config):
        log.warning("data.val is what it was trained on, so scores stay as they were learned: see trex2 calibrate")
        return
    fitted: dict[int, tuple[DetectionModule, dict[PromptSource, float]]] = {}  # by step
    for name in ("last.ckpt", "best.ckpt"):
        path = config.folder / "checkpoints" / name
        if not path.is_file():
            continue
        step = read_checkpoint(path)["global_step"]
        run, module = load_checkpoint(path)
        try:
            if step not in fitted:
                alone = for_evaluation(run, ["train.devices=1", "train.nodes=1"])
                fitted[step] = module, calibrate(alone, module)
        except InputError as error:
            log.warning("%s: its scores stay as they were learned: %s", path, error)
            continue
        write_fits(run, fitted[step][0], path, path)
        kept = ", ".join(f"{source} from {least:.2f}" for source, least in fitted[step][1].items())
        log.info("%s: scores are fitted to val; kept are %s", path, kept or "those from 0.30")
