"""What tests of sweeps share: a small base, a sweep from a few lines, and workers that work in this process."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from sim import documents
from sim.sweeps import file as sweep_file
from sim.sweeps import run as sweeping
from sim.sweeps.points import Batch, work
from sim.sweeps.store import Store
from sim.sweeps.workers import Rows

EXCHANGE: dict[str, Any] = {
    "fidelity": "closed_form",
    "cluster": {"hardware": "h800", "nodes": 2},
    "model": "deepseek-v3",
    "layout": {"ep": 16},
    "workload": {
        "kind": "all_to_all",
        "tokens_per_rank": 128,
        "gate": {"kind": "uniform", "sampling": "expected"},
        "kernel": {"kind": "two_hop", "comm_sms": 24},
    },
}
"""A scenario of milliseconds; its name comes from the sweep."""


def exchange(**workload: Any) -> dict[str, Any]:
    """`EXCHANGE` as flows, with other keys of its workload."""
    rest = {key: value for key, value in EXCHANGE.items() if key != "fidelity"}
    return copy.deepcopy(rest | {"workload": EXCHANGE["workload"] | workload})


STEP: dict[str, Any] = {
    "cluster": {"hardware": "h800", "nodes": 2},
    "model": "mixtral-8x7b",
    "layout": {"pp": 4},
    "workload": {
        "kind": "training",
        "sequence_tokens": 1024,
        "global_batch": 32,
        "schedule": "1f1b",
        "precision": "bf16",
        "dispatch_dtype": "bf16",
        "kernel": {"kind": "two_hop", "comm_sms": 20},
        "skew": {"routed_load": 0, "kernel_jitter": 0, "gpu_spread": 0},
    },
}
"""A training step of a tenth of a second."""


class Here:
    """Workers that work at once, in this process."""

    slots = 1

    def __init__(self, before: Callable[[Batch], None] = lambda _: None) -> None:
        self.before, self.batches = before, list[Batch]()

    def submit(self, batch: Batch) -> Future[Rows]:
        done: Future[Rows] = Future()
        self.batches.append(batch)
        try:
            self.before(batch)
            done.set_result(work(batch))
        except Exception as error:
            done.set_exception(error)
        return done

    def is_death(self, error: BaseException) -> bool:
        return isinstance(error, Died)

    def look(self) -> None:
        return None

    def rebuild(self) -> None:
        return None

    def close(self, *, now: bool = False) -> None:
        return None


class Died(Exception):
    """A worker of `Here` did."""


def sweep_of(text: str = "", **said: Any) -> sweep_file.Sweep:
    """A sweep over `EXCHANGE` (or another `base`), from YAML text or keywords."""
    tree: dict[str, Any] = {
        "name": "tried",
        "base": EXCHANGE,
        "objectives": {"dispatch.time_s": "minimise"},
        **said,
    }
    written = documents.dumps(copy.deepcopy(tree)) + text
    return sweep_file.sweep_of(documents.loads(written, "sweep.yaml"))


def run(sweep: sweep_file.Sweep, folder: Path, workers: Any = None) -> dict[str, Any]:
    """The document of a sweep, its store in a folder."""
    with Store(folder / "sweep.sqlite") as store:
        return sweeping.run(sweep, workers or Here(), store)
