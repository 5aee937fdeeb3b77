"""Engines: what makes the batches of an atlas, this process or the workers of a Ray cluster.

An engine takes batches as they come and gives what was made of each, in any order. It has a few of
them at a time, so that their number does not matter; and what it gives does not depend on it.
"""

from __future__ import annotations

import collections
import os
import re
import socket
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from featvis.atlas.work import Made, Work, make
from featvis.cache import enable_cache
from featvis.errors import FeatvisError, InputError, OutputError, printable
from featvis.models import Model

#: Seconds in which a cluster answers.
_KNOCK = 10.0

Outcome = tuple[Work, Made | None, InputError | None]
"""A batch, what was made of it (None after a Ctrl-C), or why it cannot be."""


#: By the names that the driver and the command line take.
ENGINES = ("local", "ray")


class Engine(Protocol):
    """What makes batches."""

    def run(self, model: Model, batches: Iterable[Work]) -> Iterator[Outcome]:
        """What is made of each batch, as they are ready."""
        ...


@dataclass(frozen=True)
class Local:
    """This process, on all its devices: one batch after the other."""

    def run(self, model: Model, batches: Iterable[Work]) -> Iterator[Outcome]:
        """What is made of each batch, in their order."""
        for work in batches:
            try:
                yield work, make(work, model), None
            except InputError as error:
                if work.role != "facet":
                    raise
                yield work, None, error


@dataclass(frozen=True)
class Ray:
    """The workers of a Ray cluster, each of which keeps the network and its compiled programs.

    A worker that is lost (killed, or with its node) is replaced where there is room, and its
    batches go to others.

    Attributes:
        address: of the cluster, "auto" for the one that this machine is of; None: one is started
            here.
        workers: how many; None: as many as there are accelerators, or cores over `cores`.
        cores: of each worker, where there are no accelerators.
        waiting: batches that each worker has at most, the one under way among them.
        tries: of a batch, before it is the batch that is to blame.
        patience: seconds to wait for a worker where there is none.
    """

    address: str | None = None
    workers: int | None = None
    cores: int = 1
    waiting: int = 2
    tries: int = 4
    patience: float = 600.0

    def __post_init__(self) -> None:
        _ray()  # before a store is made

    def run(self, model: Model, batches: Iterable[Work]) -> Iterator[Outcome]:
        """What is made of each batch, as they are ready.

        Raises:
            InputError: Ray is not installed, or there is no such cluster.
            OutputError: all workers are lost.
        """
        ray = _ray()
        own = self._connect(ray)
        try:
            yield from self._run(ray, model, batches)
        finally:
            if own:
                ray.shutdown()

    def _connect(self, ray: Any) -> bool:
        """Connects to the cluster, and says whether it was not connected before."""
        if ray.is_initialized():
            return False
        try:
            place = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", self.address or "")
            if place is not None:
                # Ray itself tries for minutes.
                with socket.create_connection((place[1], int(place[2])), _KNOCK):
                    pass
            with warnings.catch_warnings():
                # JAX warns of any fork; Ray's starts another program at once.
                warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
                # Of a cluster for this run alone nobody looks at the dashboard's ten processes.
                own = {} if self.address else {"include_dashboard": False}
                ray.init(self.address or "local", log_to_driver=False, logging_level="error", **own)
        # Whatever Ray raises where it finds nobody, or where it cannot start.
        except Exception as error:
            raise InputError(
                f"there is no Ray cluster at {printable(self.address or 'this machine')}: `ray "
                f"start --head` starts one, and --engine local needs none "
                f"({printable(str(error).splitlines()[0], 200)})"
            ) from error
        return True

    def _run(self, ray: Any, model: Model, batches: Iterable[Work]) -> Iterator[Outcome]:
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0))
        count = self.workers or gpus or max(1, int(there.get("CPU", 1)) // self.cores)
        needs = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": self.cores}
        pool = _Pool(ray, model, needs, None if gpus else self.cores)
        todo: collections.deque[tuple[Work, int]] = collections.deque()
        source, ended = iter(batches), False
        for _ in range(count):
            pool.start()
        alone_since = time.monotonic()
        try:
            while True:
                while not ended and len(todo) < count:
                    work = next(source, None)
                    ended = work is None
                    if work is not None:
                        todo.append((work, 1))
                while todo and (worker := pool.free(self.waiting)) is not None:
                    pool.give(worker, *todo.popleft())
                if ended and not todo and not pool.tasks:
                    return
                if pool.ready:
                    alone_since = time.monotonic()
                elif time.monotonic() - alone_since > self.patience:
                    raise OutputError(
                        f"Ray has had no worker for {self.patience:.0f} s (each needs "
                        f"{needs}, of { ({k: there[k] for k in ('CPU', 'GPU') if k in there}) }"
                        f"{f'; {pool.lost}' if pool.lost else ''}): what was done is in the store, "
                        "and the same command goes on"
                    )
                for outcome, lost in pool.collect():
                    if lost is None:
                        if outcome is not None:
                            yield outcome
                        continue
                    work, tried = lost
                    if tried >= self.tries:
                        raise OutputError(
                            f"{tried} workers were lost at the {work}: what was done is in the "
                            "store, and the same command goes on"
                        )
                    todo.appendleft((work, tried + 1))
        finally:
            pool.stop()


class _Pool:
    """Workers that are there or on the way, and what each of them has to do."""

    def __init__(self, ray: Any, model: Model, needs: dict[str, Any], cores: int | None) -> None:
        # In a list Ray leaves it to the worker when to read it.
        self._ray, self._given = ray, ([ray.put(model)], cores)
        self._kind = ray.remote(**needs, max_restarts=0)(_Worker)
        self.ready: dict[Any, int] = {}  # workers that answered, and how many batches each has
        self._starting: dict[Any, Any] = {}  # by the task that says that it is there
        self.tasks: dict[Any, tuple[Any, Work, int]] = {}
        self.lost = ""  # why the last one that never came did not

    def start(self) -> None:
        """Asks for one more worker."""
        worker = self._kind.remote(*self._given)
        self._starting[worker.there.remote()] = worker

    def free(self, waiting: int) -> Any:
        """The worker with the least to do, or None where each has so much."""
        worker = min(self.ready, key=lambda one: self.ready[one], default=None)
        return worker if worker is not None and self.ready[worker] < waiting else None

    def give(self, worker: Any, work: Work, tried: int) -> None:
        """Gives a batch to a worker."""
        self.tasks[worker.make.remote(work)] = worker, work, tried
        self.ready[worker] += 1

    def collect(self) -> Iterator[tuple[Outcome | None, tuple[Work, int] | None]]:
        """What has been done by now, or batches that were lost and how often they were tried."""
        done, _ = self._ray.wait([*self.tasks, *self._starting], timeout=1.0)
        for task in done:
            if task in self._starting:
                worker = self._starting.pop(task)
                try:
                    self._ray.get(task)
                    self.ready[worker] = 0
                except self._ray.exceptions.RayError as error:
                    self.lost = printable(str(error).strip().splitlines()[-1], 200)
                    self.start()
                continue
            worker, work, tried = self.tasks.pop(task)
            if worker in self.ready:
                self.ready[worker] -= 1
            try:
                made, refused = self._ray.get(task)
            except self._ray.exceptions.RayTaskError as error:
                # Of ours it is the line that the local engine gives.
                cause = error.cause if isinstance(error.cause, FeatvisError) else error
                raise cause from error
            except self._ray.exceptions.RayError:
                if self.ready.pop(worker, None) is not None:
                    self.start()
                yield None, (work, tried)
                continue
            yield (work, made, refused), None

    def stop(self) -> None:
        """Lets all workers go."""
        for worker in [*self.ready, *self._starting.values()]:
            self._ray.kill(worker)


class _Worker:
    """A process of a cluster that has the network, and keeps its compiled programs."""

    def __init__(self, model: list[Any], cores: int | None) -> None:
        if cores is not None:
            # As many threads as it has cores, or all workers of a machine want all of them: what
            # XLA reads when it starts, which the weights make it do.
            os.environ["NPROC"] = str(cores)
        with suppress(OutputError):  # compiled anew each time
            enable_cache()
        self._model: Model = _ray().get(model[0])

    def there(self) -> int:
        """Its process: it is there."""
        return os.getpid()

    def make(self, work: Work) -> tuple[Made | None, InputError | None]:
        """What is made of a batch, or why it cannot be."""
        ((_, made, error),) = Local().run(self._model, [work])
        return made, error


def _ray() -> Any:
    """The package.

    Raises:
        InputError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "the engine ray needs the package ray: pip install 'featvis[ray]'"
        ) from error
    return ray
