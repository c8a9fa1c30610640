"""Workers: processes of this machine, or of many by way of Dask, that turn batches into rows.

Both are an executor of `concurrent.futures`; what differs is how a dead worker shows. A pool of processes breaks as a whole
and is built again. Dask gives a dead worker's batch to another by itself, and names the batch that killed several.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from multiprocessing import connection, get_context, parent_process
from typing import Any, Protocol

from sim.errors import Fault, InputError
from sim.explore.points import Batch, Row, work

Rows = list[tuple[int, Row]]
_REACH_S = 5.0  # to find a Dask scheduler
_ADDRESS = re.compile(r"(\w+://)?[^\s/:]+:\d+")
_WANTED = "the address of a running Dask scheduler, like tcp://10.0.0.1:8786"


class Workers(Protocol):
    """Something that turns batches into rows, several at once."""

    slots: int

    def submit(self, batch: Batch) -> Future[Rows]:
        """Start a batch."""

    def died(self, error: BaseException) -> bool:
        """Whether this is how a batch ends whose worker died."""

    def rebuild(self) -> None:
        """Make them able to work again after a death."""

    def close(self, *, now: bool = False) -> None:
        """End them; `now` does not wait for what they are at."""


class Processes:
    """A pool of processes on this machine."""

    def __init__(self, jobs: int) -> None:
        self.slots = jobs
        self.pool = self._pool()

    def _pool(self) -> ProcessPoolExecutor:
        context = get_context("forkserver" if hasattr(os, "fork") else "spawn")
        if hasattr(context, "set_forkserver_preload"):
            context.set_forkserver_preload(["sim.explore.points", "sim.study.training"])
        return ProcessPoolExecutor(self.slots, mp_context=context, initializer=_begin)

    def submit(self, batch: Batch) -> Future[Rows]:
        """Start a batch; on a pool that broke meanwhile it ends like one whose worker died."""
        try:
            return self.pool.submit(work, batch)
        except BrokenExecutor as error:
            failed: Future[Rows] = Future()
            failed.set_exception(error)
            return failed

    def died(self, error: BaseException) -> bool:
        """All batches of a pool end so when one worker dies."""
        return isinstance(error, BrokenExecutor)

    def rebuild(self) -> None:
        """A new pool instead of the broken one."""
        self.close(now=True)
        self.pool = self._pool()

    def close(self, *, now: bool = False) -> None:
        """End the pool."""
        processes = list((getattr(self.pool, "_processes", None) or {}).values())
        self.pool.shutdown(wait=not now, cancel_futures=True)
        for process in processes if now else ():
            process.terminate()


def _begin() -> None:
    """A worker leaves Ctrl-C to the process that drives it, and does not outlive that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: Any) -> None:
    connection.wait([sentinel])
    os._exit(1)


class Dask:
    """Workers of a Dask scheduler that runs already."""

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client, KilledWorker
        except ImportError:
            wanted = "the package distributed: pip install 'moesim[dask]'"
            raise InputError(Fault(None, "--dask", f"'{address}', and no package for it", wanted)) from None
        self._killed: type[BaseException] = KilledWorker
        if not _ADDRESS.fullmatch(address):
            raise InputError(Fault(None, "--dask", f"'{address}'", _WANTED))
        try:
            self.client = Client(address, timeout=_REACH_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(Fault(None, "--dask", f"'{address}': {said}", _WANTED)) from None
        self._require_same_version(address)
        self.executor: Executor = self.client.get_executor(pure=False)
        self.slots = max(1, sum(self.client.nthreads().values()))

    def _require_same_version(self, address: str) -> None:
        from sim.explore.store import version

        try:
            theirs: dict[str, str] = self.client.run(version)
        except Exception as error:  # whatever a foreign worker raises
            self.client.close()
            wanted = "workers that have moesim installed"
            raise InputError(Fault(None, "--dask", f"'{address}': {error}", wanted)) from None
        if not theirs:
            self.client.close()
            raise InputError(
                Fault(None, "--dask", f"'{address}', a scheduler without workers", "one worker or more")
            )
        others = sorted({one for one in theirs.values() if one != version()})
        if others:
            self.client.close()
            raise InputError(
                Fault(None, "--dask", f"workers of version {', '.join(others)}", f"this one, {version()}")
            )

    def submit(self, batch: Batch) -> Future[Rows]:
        """Start a batch."""
        return self.executor.submit(work, batch)

    def died(self, error: BaseException) -> bool:
        """Dask says so of a batch that killed several workers, one after the other."""
        return isinstance(error, self._killed)

    def rebuild(self) -> None:
        """Nothing to do: Dask's nannies start their workers again."""

    def close(self, *, now: bool = False) -> None:
        """Leave the scheduler as it was."""
        self.executor.shutdown(wait=not now)
        self.client.close()


def start(jobs: int | None = None, dask: str | None = None) -> Workers:
    """So many processes on this machine, one for each core by default; or the workers of a Dask scheduler."""
    if dask is not None:
        return Dask(dask)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Processes(jobs or usable)
