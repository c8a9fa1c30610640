"""Sweeps outlive deaths: of the process that drives them, of a pool's workers, and of a Dask worker on a real scheduler."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sim import documents
from sim.errors import InputError
from sim.sweeps import workers
from sim.sweeps.points import Batch, work
from sim.sweeps.workers import Dask, Processes, Rows, WorkersError, _undisturbed
from sweeping import EXCHANGE, run, sweep_of

ROOT = Path(__file__).resolve().parents[2]
TOKENS = {"from": 16, "to": 16 * 120, "step": 16}
"""120 points, each some tens of milliseconds: a flow-level exchange with tokens that draw."""
BASE = {
    **EXCHANGE,
    "fidelity": "flow",
    "cluster": {"hardware": "h800", "nodes": 4},
    "layout": {"ep": 32},
    "workload": {**EXCHANGE["workload"], "gate": {"kind": "zipf", "exponent": 0.3}},
}

pytestmark = pytest.mark.slow


def write(folder: Path) -> Path:
    file = folder / "long.yaml"
    tree = {
        "name": "long", "base": BASE, "axes": {"workload.tokens_per_rank": TOKENS}, "objectives": {"dispatch.time_s": "minimise"}
    }  # fmt: skip
    file.write_text(documents.dumps(tree))
    return file


def start(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "sim",
        "sweep",
        str(write(folder)),
        "--out",
        str(folder / "out"),
        "--json",
        *more,
    ]
    return subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def rows_in(store: Path) -> int:
    try:
        with closing(sqlite3.connect(store)) as connection:
            return int(connection.execute("SELECT count(*) FROM rows").fetchone()[0])
    except sqlite3.Error:
        return 0


def until(true: Callable[[], bool], what: str, limit_s: float = 120.0) -> None:
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < limit_s, f"waited in vain for {what}"
        time.sleep(0.02)


def finish(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(
        sweep_of(base=BASE, axes={"workload.tokens_per_rank": TOKENS}), tmp_path_factory.mktemp("undisturbed")
    )


def same_points(found: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    assert found["points"] == undisturbed["points"]
    assert found["ranked"] == undisturbed["ranked"]


def test_a_sweep_killed_in_its_middle_goes_on_where_it_was(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    store = tmp_path / "out" / "sweep.sqlite"
    first = start(tmp_path, "--jobs", "2")
    until(lambda: rows_in(store) >= 20, "twenty rows")
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)  # its workers end too, or this would wait for ever
    until(lambda: orphans(first.pid) == [], "the workers of a dead sweep to end", 30)
    kept = rows_in(store)
    assert 20 <= kept < 120
    second = finish(start(tmp_path, "--jobs", "2"))
    assert second["runs"] == {"computed": 120 - kept, "remembered": kept, "of_changes": 0}
    same_points(second, undisturbed)
    third = finish(start(tmp_path, "--jobs", "1"))
    assert third["runs"] == {"computed": 0, "remembered": 120, "of_changes": 0}
    same_points(third, undisturbed)


def orphans(session: int) -> list[int]:
    """Processes that a driver left behind: those of its session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_ctrl_c_leaves_finished_rows_and_says_so(tmp_path: Path) -> None:
    store = tmp_path / "out" / "sweep.sqlite"
    process = start(tmp_path, "--jobs", "2")
    until(lambda: rows_in(store) >= 5, "five rows")
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "finished work is kept" in err.decode()
    assert "Traceback" not in err.decode()
    assert rows_in(store) >= 5


def test_ctrl_c_while_workers_begin_is_no_traceback(tmp_path: Path) -> None:
    """A terminal interrupts all processes at once, those that still import too."""
    process = start(tmp_path, "--jobs", "2")
    until(lambda: len(orphans(process.pid)) > 2, "what forks the workers")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.decode().strip() == "stopped; finished work is kept"


def test_ctrl_c_waits_until_what_it_would_cut_in_half_is_whole() -> None:
    done = []

    def interrupted() -> None:
        with _undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_script_that_calls_a_sweep_at_its_top_is_not_run_again_by_workers(tmp_path: Path) -> None:
    tree = {
        "name": "short", "base": EXCHANGE, "axes": {"layout.ep": [8, 16]}, "objectives": {"dispatch.time_s": "minimise"}
    }  # fmt: skip
    (tmp_path / "short.yaml").write_text(documents.dumps(tree))
    (tmp_path / "script.py").write_text(
        "import sim\nprint('once')\nprint(sim.sweep('short.yaml', jobs=2)['counts']['ok'])\n"
    )
    ran = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert (ran.stdout.split(), ran.stderr) == (["once", "2"], "")


def stillborn() -> None:
    os._exit(1)


def test_a_machine_on_which_no_worker_lives_is_told_and_no_point_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_begin", stillborn)
    pool = Processes(1)
    try:
        with pytest.raises(WorkersError, match="end as soon as they begin") as caught:
            run(sweep_of(axes={"layout.ep": [8, 16]}), tmp_path, pool)
    finally:
        pool.close(now=True)
    assert caught.value.exit_code == 1
    assert rows_in(tmp_path / "sweep.sqlite") == 0


class Deadly(Processes):
    """Workers that are killed by points of 64 tokens."""

    def submit(self, batch: Batch) -> Future[Rows]:
        return self._submit(deadly, batch)


def deadly(batch: Batch) -> Rows:
    if any(document.get(("workload", "tokens_per_rank")) == 64 for _, document in batch.tasks):
        os.kill(os.getpid(), signal.SIGKILL)
    return work(batch)


def test_a_pool_is_built_again_and_the_killer_becomes_a_row(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    axes = {"workload.tokens_per_rank": {"from": 16, "to": 160, "step": 16}}
    workers = Deadly(2)
    try:
        found = run(sweep_of(base=BASE, axes=axes), tmp_path, workers)
    finally:
        workers.close(now=True)
    status = {point["values"]["workload.tokens_per_rank"]: point["status"] for point in found["points"]}
    assert status == {tokens: "failed" if tokens == 64 else "ok" for tokens in range(16, 161, 16)}
    for one, other in zip(found["points"], undisturbed["points"], strict=False):
        assert one["status"] == "failed" or one == other


# --- Dask ----------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass(frozen=True)
class Cluster:
    """A scheduler and two workers on loopback."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: tuple[subprocess.Popen[bytes], ...]


def kill(process: subprocess.Popen[bytes]) -> None:
    """A process with its children: a worker and its nanny, so that nobody starts it again."""
    for pid in orphans(process.pid):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster started as README starts it."""
    pytest.importorskip("distributed")
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"

    def begin(what: str, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", what, *words], cwd=tmp_path, env=environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    scheduler = begin("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    workers = tuple(begin("worker", address, "--nthreads", "1", "--no-dashboard") for _ in range(2))
    try:
        until(lambda: reached(address, 2), "two workers")
        yield Cluster(address, scheduler, workers)
    finally:
        for process in (*workers, scheduler):
            kill(process)
            process.wait()


def reached(address: str, count: int) -> bool:
    from distributed import Client

    try:
        with Client(address, timeout=2, set_as_default=False) as client:
            return len(client.scheduler_info()["workers"]) == count
    except (OSError, TimeoutError):
        return False


def test_a_dask_worker_killed_in_mid_sweep_loses_no_point(
    tmp_path: Path, cluster: Cluster, undisturbed: dict[str, Any]
) -> None:
    process = start(tmp_path, "--dask", cluster.address)
    until(lambda: rows_in(tmp_path / "out" / "sweep.sqlite") >= 10, "ten rows")
    kill(cluster.workers[0])
    found = finish(process)
    assert found["counts"] == {"points": 120, "ok": 120, "infeasible": 0, "pruned": 0, "failed": 0}
    assert found["runs"] == {"computed": 120, "remembered": 0, "of_changes": 0}
    assert rows_in(tmp_path / "out" / "sweep.sqlite") == 120
    same_points(found, undisturbed)


def test_a_dask_scheduler_killed_in_mid_sweep_is_told(tmp_path: Path, cluster: Cluster) -> None:
    process = start(tmp_path, "--dask", cluster.address)
    until(lambda: rows_in(tmp_path / "out" / "sweep.sqlite") >= 10, "ten rows")
    kill(cluster.scheduler)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    said = f"moesim: the Dask scheduler at {cluster.address} is gone; finished rows are kept"
    *notes, last = err.decode().strip().splitlines()
    assert last == said
    kept = [note.rpartition(" is partial: it holds ")[0] for note in notes]
    assert kept == [f"note: {tmp_path}/out/sweep.json"], err.decode()
    assert rows_in(tmp_path / "out" / "sweep.sqlite") >= 10


def test_dask_tells_nothing_of_its_own_about_a_scheduler_that_is_gone(cluster: Cluster) -> None:
    Dask(cluster.address).close()
    speakers = (
        "distributed.client",
        "distributed.core",
        "distributed.comm.tcp",
        "asyncio",
        "tornado.application",
    )
    assert not [name for name in speakers if logging.getLogger(name).isEnabledFor(logging.ERROR)]


def test_a_dask_scheduler_without_workers_is_not_waited_for(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_LOOK_S", 0.2)
    monkeypatch.setattr(workers, "_ALONE_S", 1.0)
    dask = Dask(cluster.address)
    for process in cluster.workers:
        kill(process)
    try:
        with pytest.raises(WorkersError, match="has had no worker for 1 s; finished rows are kept"):
            run(sweep_of(axes={"layout.ep": [8, 16]}), tmp_path, dask)
    finally:
        dask.close(now=True)


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.1:8786", "tls://node-3:80", "here:8786", "tcp://[::1]:8786"]
)
def test_what_is_an_address_is_taken_for_one(address: str) -> None:
    assert workers._ADDRESS.fullmatch(address)


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1", "http//here:80/x", "tcp://here:999999"])
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match="the address of a running Dask scheduler"):
        Dask(address)


def test_an_unreachable_address_is_named_after_a_short_wait(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    process = start(tmp_path, "--dask", f"tcp://127.0.0.1:{free_port()}")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--dask: got 'tcp://127.0.0.1:" in err.decode()
    assert "wanted the address of a running Dask scheduler" in err.decode()
    assert "Traceback" not in err.decode()
