"""Workers: processes of this machine, or of many by way of Dask, that turn batches into rows.

Both are an executor of `concurrent.futures`; what differs is how a dead worker shows. A pool of processes breaks as a whole
and is built again. Dask gives a dead worker's batch to another by itself, and names the batch that killed several.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from types import ModuleType
from typing import Any, Protocol

from sim.errors import InputError, MoesimError, Problem
from sim.sweeps.points import Batch, PointRow, work

Rows = list[tuple[int, PointRow]]
_FORKS = hasattr(os, "fork")
_TRIES, _PAUSE_S = 5, 0.3  # to build a pool anew
_END_S = 5.0  # for a pool to see that its processes have ended
_REACH_S = 5.0  # to find a Dask scheduler
_LOOK_S = 5.0  # between two looks at a scheduler
_ALONE_S = 60.0  # without a worker, until nobody waits for one any more
_MOST_JOBS = 61 if sys.platform == "win32" else 1024  # processes that one process of Windows can wait for
_ADDRESS = re.compile(r"(\w+://)?(\[[0-9a-fA-F:.]+\]|[^\s/:]+):\d{1,5}")
_WANTED = "the address of a running Dask scheduler, like tcp://10.0.0.1:8786"


class WorkersError(MoesimError):
    """There is nobody left to work; rows that came are kept."""


class Workers(Protocol):
    """Something that turns batches into rows, several at once."""

    slots: int

    def submit(self, batch: Batch) -> Future[Rows]:
        """Start a batch."""

    def is_death(self, error: BaseException) -> bool:
        """Return whether this is how a batch ends whose worker died."""

    def look(self) -> None:
        """Raise `WorkersError` where nobody is left to work; asked again and again while batches are under way."""

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
        context = get_context("forkserver" if _FORKS else "spawn")
        if _FORKS:
            context.set_forkserver_preload(["sim.sweeps.points", "sim.runs.training"])
        return ProcessPoolExecutor(self.slots, mp_context=context, initializer=_begin)

    def submit(self, batch: Batch) -> Future[Rows]:
        """Start a batch; on a pool that broke meanwhile it ends like one whose worker died."""
        return self._submit(work, batch)

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        try:
            with _undisturbed(), _without_main():
                if _FORKS:
                    from multiprocessing.forkserver import ensure_running

                    ensure_running()
                return self.pool.submit(function, *arguments)
        except (BrokenExecutor, OSError, EOFError) as error:  # what forks the pool's processes may end, too
            failed: Future[Any] = Future()
            failed.set_exception(BrokenExecutor(str(error)))
            return failed

    def is_death(self, error: BaseException) -> bool:
        """Return whether the pool is broken: all its batches end so when one worker dies."""
        return isinstance(error, BrokenExecutor)

    def look(self) -> None:
        """Do nothing: a pool without processes is a broken one."""

    def rebuild(self) -> None:
        """Start a new pool instead of the broken one. Raises `WorkersError` where no new one lives long enough to do nothing."""
        for _ in range(_TRIES):
            self.close(now=True)
            self.pool = self._pool()
            error = self._submit(os.getpid).exception()
            if error is None:
                return
            time.sleep(_PAUSE_S)  # until what died is seen to be dead
        problem = f"processes of this machine end as soon as they begin ({error})"
        raise WorkersError(f"{problem}; finished rows are kept")

    def close(self, *, now: bool = False) -> None:
        """End the pool."""
        processes = list((getattr(self.pool, "_processes", None) or {}).values())
        manager = getattr(self.pool, "_executor_manager_thread", None)
        self.pool.shutdown(wait=not now, cancel_futures=True)
        for process in processes if now else ():
            process.terminate()
        if (
            manager is not None
        ):  # it would be woken, at the end of Python, by a pipe that it is about to close
            manager.join(_END_S)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """While processes start: Ctrl-C waits until they have, and what forks them inherits that it is held back.

    Otherwise half of them would tell how they were interrupted, or what they miss of a process that has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if _FORKS else None
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if handler is not None:  # set by something else than Python
            signal.signal(signal.SIGINT, handler)
        if held and callable(handler):
            handler(held[0], None)


@contextmanager
def _without_main() -> Iterator[None]:
    """While a pool starts its processes: they need nothing of the script that runs, and do not run it again.

    A script that calls `sim.sweep` outside `if __name__ == "__main__"` would call it in every worker, too.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _begin() -> None:
    """A worker leaves Ctrl-C to the process that drives it, and does not outlive that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: Any) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _silence_dask() -> None:
    """Keep Dask's own threads from telling, in tracebacks, about a scheduler or worker that is gone: `look` reports it."""
    dask = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    for name in (*dask, "asyncio", "concurrent.futures", "tornado.application", "tornado.general"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


class Dask:
    """Workers of a Dask scheduler that runs already."""

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client, KilledWorker
        except ImportError:
            wanted = "the package distributed: pip install 'moesim[dask]'"
            raise InputError(Problem(None, "--dask", f"'{address}', and no package for it", wanted)) from None
        _silence_dask()
        self._killed: type[BaseException] = KilledWorker
        if not _ADDRESS.fullmatch(address):
            raise InputError(Problem(None, "--dask", f"'{address}'", _WANTED))
        try:
            self.client = Client(address, timeout=_REACH_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            problem = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(Problem(None, "--dask", f"'{address}': {problem}", _WANTED)) from None
        self._require_same_version(address)
        self.address = address
        self.executor: Executor = self.client.get_executor(pure=False)
        self.slots = max(1, sum(self.client.nthreads().values()))
        self.looked_s = self.seen_s = time.monotonic()

    def _require_same_version(self, address: str) -> None:
        from sim.sweeps.store import version

        try:
            theirs: dict[str, str] = self.client.run(version)
        except Exception as error:  # whatever a foreign worker raises
            self.client.close()
            wanted = "workers that have moesim installed"
            raise InputError(Problem(None, "--dask", f"'{address}': {error}", wanted)) from None
        if not theirs:
            self.client.close()
            raise InputError(
                Problem(None, "--dask", f"'{address}', a scheduler without workers", "one worker or more")
            )
        others = sorted({other for other in theirs.values() if other != version()})
        if others:
            self.client.close()
            raise InputError(
                Problem(None, "--dask", f"workers of version {', '.join(others)}", f"this one, {version()}")
            )

    def submit(self, batch: Batch) -> Future[Rows]:
        """Start a batch."""
        try:
            return self.executor.submit(work, batch)
        except Exception as error:  # whatever a client raises that has lost its scheduler
            raise self._lost() from error

    def _lost(self) -> WorkersError:
        return WorkersError(f"the Dask scheduler at {self.address} is gone; finished rows are kept")

    def is_death(self, error: BaseException) -> bool:
        """Return whether a batch killed several workers, one after the other. Dask cancels what it cannot finish."""
        if isinstance(error, CancelledError):
            raise self._lost()
        return isinstance(error, self._killed)

    def look(self) -> None:
        """Raise `WorkersError` where the scheduler has had no worker for a minute."""
        now = time.monotonic()
        if now - self.looked_s < _LOOK_S:
            return
        self.looked_s = now
        try:
            threads = self.client.nthreads()
        except Exception as error:  # whatever a client raises that has lost its scheduler
            raise self._lost() from error
        if threads:
            self.seen_s = now
        elif now - self.seen_s > _ALONE_S:
            problem = f"the Dask scheduler at {self.address} has had no worker for {_ALONE_S:.0f} s"
            raise WorkersError(f"{problem}; finished rows are kept")

    def rebuild(self) -> None:
        """Do nothing: Dask's nannies start their workers again."""

    def close(self, *, now: bool = False) -> None:
        """Leave the scheduler as it was."""
        self.executor.shutdown(wait=not now)
        self.client.close()


def start(jobs: int | None = None, dask: str | None = None) -> Workers:
    """Start workers: processes, by default one for each core, or those of a Dask scheduler at an address.

    InputError where the scheduler cannot be reached, or its workers are of another version.
    """
    if dask is not None:
        return Dask(dask)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Processes(jobs or min(usable, _MOST_JOBS))
