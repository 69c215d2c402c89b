"""Ranks train together or end together: none waits for one that could not begin, nor for a child that cannot end."""

from __future__ import annotations

import atexit
import multiprocessing.util  # which ends children at exit; what is registered after it comes before it
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, ClassVar

from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from trex2_lightning.errors import InputError, reason_of

LIMIT = timedelta(minutes=15)  # until the last rank has to be there
_POLL, _PARENT_POLL, _PATIENCE = 0.1, 2.0, 5.0  # seconds
_STARTED_BY = "TREX2_STARTED_BY"  # in the environment: the first rank's process, where it starts the others


class ReadyDDP(DDPStrategy):
    """DDP whose ranks tell one another that they are ready before they do anything together."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if os.environ.get("LOCAL_RANK", "0") == "0":
            os.environ[_STARTED_BY] = str(os.getpid())  # which Lightning hands on to the ranks that it starts

    def setup_distributed(self) -> None:
        """Raises InputError: a rank has failed, with its message; or was not there in time."""
        self.set_world_ranks()
        assert self.cluster_environment is not None
        with _Meeting(self.cluster_environment) as meeting:  # whose server is the process group's too
            if not _Meeting.is_over:
                meeting.wait()
            super().setup_distributed()


@contextmanager
def end_together() -> Iterator[None]:
    """Around what a rank does before it is ready: if it fails, the others end with its message.

    A rank that Lightning has started ends with the first one, which has started it, whenever that is killed.

    Raises:
        InputError: what went wrong, and where, if there are others.
    """
    environment = _of_launcher()
    if isinstance(environment, LightningEnvironment) and environment.local_rank() and _STARTED_BY in os.environ:
        threading.Thread(target=_end_with, args=(int(os.environ[_STARTED_BY]),), daemon=True).start()
    try:
        yield
    except Exception as error:
        if _Meeting.is_over or environment is None or environment.world_size() == 1:
            raise
        message = str(error) if isinstance(error, InputError) else reason_of(error)
        told = f"{message} (rank {environment.global_rank()}, on {socket.gethostname()})"
        with suppress(InputError), _Meeting(environment) as meeting:
            meeting.fail(told)
        raise InputError(told) from error


class _Meeting:
    """What ranks tell one another by a store of the first one, or of torchrun.

    Raises:
        InputError: not all are there in time.
    """

    is_over: ClassVar[bool] = False  # for this process, which trains or ends now

    def __init__(self, environment: ClusterEnvironment) -> None:
        os.environ["MASTER_ADDR"] = environment.main_address
        os.environ["MASTER_PORT"] = str(environment.main_port)
        self._rank, self._world = environment.global_rank(), environment.world_size()
        self._end = time.monotonic() + LIMIT.total_seconds()

    def __enter__(self) -> _Meeting:
        try:
            store, *_ = next(distributed.rendezvous("env://", self._rank, self._world, timeout=LIMIT))
        except RuntimeError as error:  # of several kinds, by rank and by what is missing
            raise self._late() from error
        self._store = distributed.PrefixStore("ready", store)
        return self

    def __exit__(self, *_: object) -> None:
        del self._store

    def wait(self) -> None:
        """Until all are ready."""
        _Meeting.is_over = True
        self._store.add("ready", 1)
        if not self._until(lambda: self._has_failed() or self._store.add("ready", 0) == self._world):
            raise self._late()
        if self._has_failed():
            message = self._store.get("failed").decode()
            self._leave()
            raise InputError(message)

    def fail(self, message: str) -> None:
        """Of several that fail the first is heard."""
        _Meeting.is_over = True
        self._store.compare_set("failed", "", message)
        self._leave()

    def _leave(self) -> None:
        """The first rank goes last, with the store; and Lightning kills who stays behind a rank that it has started."""
        with suppress(RuntimeError):
            self._store.add("left", 1)
            self._until(lambda: self._store.add("left", 0) == self._world)

    def _has_failed(self) -> bool:
        return self._store.check(["failed"])

    def _until(self, is_so: Callable[[], bool]) -> bool:
        while not is_so():
            if time.monotonic() > self._end:
                return False
            time.sleep(_POLL)
        return True

    def _late(self) -> InputError:
        return InputError(
            f"not all of the {self._world} ranks were ready within {LIMIT.total_seconds() / 60:.0f} minutes: look at "
            f"what the others say (this is rank {self._rank}, on {socket.gethostname()})"
        )


def _end_with(parent: int) -> None:
    """Nobody else ends a process whose parent was killed."""
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL)
    os._exit(1)


@atexit.register
def _end_children() -> None:
    """Python waits for ever for a process that SIGTERM does not end, as one that loads and hung before it heard."""
    children = [child for child in multiprocessing.active_children() if child.daemon]
    for child in children:
        child.terminate()
    for child in children:
        child.join(_PATIENCE)
        if child.is_alive():
            child.kill()


def _of_launcher() -> ClusterEnvironment | None:
    """Who has started this process beside others; None: nobody."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if SLURMEnvironment.detect():
        return SLURMEnvironment(auto_requeue=False)
    if not {"MASTER_ADDR", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys():
        return None
    environment = LightningEnvironment()  # all on this machine
    environment.set_global_rank(environment.local_rank())
    environment.set_world_size(int(os.environ["WORLD_SIZE"]))
    return environment
