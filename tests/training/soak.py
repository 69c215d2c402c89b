"""Kills runs at random, again and again, and compares each with one that nobody has killed.

`python tests/training/soak.py --kills 100 [--seed N]`. A chain is a run that is killed and resumed until it is done:
with SIGKILL or SIGTERM, at any of the moments at which `Moments` looks, which lie within the start, batches, optimizer
steps, writes and validations, several times. Every loss of every rank, however often it was computed, the steps that
are evaluated, and at the end all that the checkpoints hold must be those of the run that was not killed, to the bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

sys.path.insert(0, str(Path(__file__).parents[1]))

from recorded_runs import assert_same, assert_same_end, read
from tiny_data import TINY, write_tiny

from trex2_lightning.commands.terminal import TERMINATED
from trex2_lightning.config import Config, load
from trex2_lightning.training import checkpoint_io, fit
from trex2_lightning.training.module import DetectionModule

COMMON = (
    *("train.max_steps=6", "train.save_every=2", "train.calibrate=false"),
    *("train.rhythm={visual: 1, text: 1}", "data.augment.crop=0.5", "data.batch_size=1", "eval.batch_size=2"),
)


class Kind(NamedTuple):
    """How a chain trains."""

    ranks: int
    accumulate: int
    val_every: int  # 2: at the steps that are saved

    def config(self, root: Path, name: str) -> Config:
        settings = [f"train.devices={self.ranks}", f"train.total_batch={self.ranks * self.accumulate}"]
        settings.append(f"train.val_every={self.val_every}")
        places = [f"data.root={root / 'tiny'}", f"output={root}", f"name={name}"]
        return load(TINY, [*COMMON, *settings, *places])


KINDS = [Kind(*kind) for kind in product((1, 2), (1, 4), (2, 3))]


class Moments:
    """Counts the moments of a process, and kills its group at one of them.

    Args:
        last: the number of the one at which it is ended; None: never.
        by: SIGKILL, or SIGTERM, which lets it finish its step.
        log: file that every loss is written to.
    """

    def __init__(self, last: int | None, log: Path, by: signal.Signals = signal.SIGKILL) -> None:
        self._last, self._log, self._by, self.count = last, log, by, 0

    def look(self, what: str, before: Callable[[], Any] = lambda: None) -> None:
        self.count += 1
        if self.count == self._last:
            if self._by == signal.SIGKILL:
                before()
            self.note({"ended": f"{what}, {self._by.name}"})
            os.killpg(0, self._by)

    def note(self, what: dict[str, Any]) -> None:
        with self._log.open("a") as file:
            file.write(json.dumps(what) + "\n")

    def watch(self) -> None:
        """In this process from now on."""
        step, save, keep = DetectionModule.training_step, torch.save, checkpoint_io._keep
        end = DetectionModule.on_validation_epoch_end

        def training_step(module: DetectionModule, batch: Any, batch_idx: int) -> torch.Tensor:
            self.look("batch")
            loss = step(module, batch, batch_idx)
            self.note({"rank": module.global_rank, "batch": batch_idx, "loss": loss.item()})
            return loss

        def written(checkpoint: Any, place: Any, **options: Any) -> None:
            if not isinstance(place, Path):  # what ranks send one another
                save(checkpoint, place, **options)
                return
            self.look("write, not begun")
            save(checkpoint, place)
            self.look("write, half", lambda: os.truncate(place, place.stat().st_size // 2))
            self.look("write, not moved")

        def kept(place: Path, copy: Path) -> None:
            keep(place, copy)
            self.look("write, previous.ckpt moved")

        def on_validation_epoch_end(module: DetectionModule) -> None:
            end(module)
            if not module.trainer.sanity_checking:
                self.note({"rank": module.global_rank, "evaluated": module.global_step})

        DetectionModule.training_step = training_step  # type: ignore[method-assign]
        DetectionModule.on_validation_epoch_end = on_validation_epoch_end  # type: ignore[method-assign]
        torch.save, checkpoint_io._keep = written, kept
        self._before(fit, "build_module", "start")
        for name in ("on_before_optimizer_step", "on_train_batch_end", "validation_step", "on_validation_epoch_end"):
            self._before(DetectionModule, name, name)
        self._before(checkpoint_io.RunCheckpointIO, "save_checkpoint", "save")

    def _before(self, owner: Any, name: str, what: str) -> None:
        own = getattr(owner, name)

        def looked(*arguments: Any, **options: Any) -> Any:
            self.look(what)
            return own(*arguments, **options)

        setattr(owner, name, looked)


def start(config: Config, last: int | None, log: Path, by: signal.Signals = signal.SIGKILL) -> bool:
    """Train in a process for each rank, from the start or from what there is; whether nobody was ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    resume = (config.folder / "checkpoints" / "last.ckpt").is_file()
    ranks: list[int] = []
    for rank in range(config.train.devices):
        if not (pid := os.fork()):
            os.setpgid(0, ranks[0] if ranks else 0)
            try:
                _train(config, rank, port, Moments(last if rank == 0 else None, log, by), resume=resume)
            except SIGTERMException:
                os._exit(TERMINATED)
            except BaseException as error:
                Moments(None, log).note({"failed": repr(error)})
                os._exit(1)
            os._exit(0)
        os.setpgid(pid, ranks[0] if ranks else pid)
        ranks.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks]
    if {*codes} - {0, TERMINATED, -signal.SIGKILL, -signal.SIGTERM}:
        raise AssertionError(f"{config.name}: {codes}: {log.read_text()[-2000:]}")
    return not any(codes)


def _train(config: Config, rank: int, port: int, moments: Moments, *, resume: bool) -> None:
    if config.train.devices > 1:
        names = {"WORLD_SIZE": config.train.devices, "LOCAL_WORLD_SIZE": config.train.devices, "RANK": rank}
        names |= {"LOCAL_RANK": rank, "GROUP_RANK": 0, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in names.items()}
        os.environ |= {"TORCHELASTIC_RUN_ID": "soak", "MASTER_ADDR": "127.0.0.1"}
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 2)
        os.dup2(nothing.fileno(), 1)
    moments.watch()
    fit.train(config, resume=resume)
    moments.note({"moments": moments.count, "rank": rank})


def notes(log: Path, key: str) -> list[dict[str, Any]]:
    return [note for note in map(json.loads, log.read_text().splitlines()) if key in note]


def evaluated(log: Path) -> set[tuple[int, int]]:
    """Ranks and steps."""
    return {(note["rank"], note["evaluated"]) for note in notes(log, "evaluated")}


def losses(log: Path) -> dict[tuple[int, int], set[float]]:
    found: dict[tuple[int, int], set[float]] = {}
    for note in notes(log, "loss"):
        found.setdefault((note["rank"], note["batch"]), set()).add(note["loss"])
    return found


def soak(kills: int, seed: int, root: Path, tell: Callable[[str], None]) -> dict[str, int]:
    """Kill so many times; how often at which moment.

    Raises:
        AssertionError: a chain differs from the run that was not killed.
    """
    torch.set_num_threads(1)
    write_tiny(root / "tiny")
    whole: dict[Kind, tuple[Config, Path, int]] = {}
    counts: dict[str, int] = {}
    draw, chain = random.Random(seed), 0
    while sum(counts.values()) < kills:
        kind = KINDS[chain % len(KINDS)]
        if kind not in whole:
            config, log = kind.config(root, f"whole-{len(whole)}"), root / f"whole-{len(whole)}.log"
            assert start(config, None, log)
            whole[kind] = config, log, next(n["moments"] for n in notes(log, "moments") if n["rank"] == 0)
        reference, reference_log, moments = whole[kind]
        config, log = kind.config(root, f"chain-{chain}"), root / f"chain-{chain}.log"
        while not start(config, draw.randint(1, moments), log, draw.choice((signal.SIGKILL, signal.SIGTERM))):
            pass
        assert losses(log) == losses(reference_log), f"{config.name}: losses"
        assert evaluated(log) == evaluated(reference_log), f"{config.name}: evaluations"
        assert_same_end(reference, config)
        best, other = (read(run.folder / "checkpoints" / "best.ckpt")["state_dict"] for run in (reference, config))
        assert_same(best, other, "best.ckpt")
        at = [note["ended"] for note in notes(log, "ended")]
        for moment in at:
            counts[moment] = counts.get(moment, 0) + 1
        ranks, accumulate, _ = kind
        tell(f"chain {chain}: {ranks} ranks, accumulation {accumulate}, {len(at)} kills ({', '.join(at)}): equal")
        chain += 1
    return counts


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="at least so many (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args(arguments)

    def tell(line: str) -> None:
        print(line, flush=True)  # noqa: T201

    with tempfile.TemporaryDirectory() as folder:
        counts = soak(options.kills, options.seed, Path(folder), tell)
    tell(f"{sum(counts.values())} kills, all chains equal: {counts}")


if __name__ == "__main__":
    main(sys.argv[1:])
