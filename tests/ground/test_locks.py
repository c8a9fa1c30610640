"""Locks: of two processes that want one folder the second waits, is told, and nothing is lost; who is gone holds nothing."""

from __future__ import annotations

import errno
import json
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import laddering
import sweeping
from command import Moesim
from sim import locks
from sim.errors import InputError, MoesimError
from sim.locks import Owner
from sim.show.files import folder as folders
from sim.sweeps.points import PointRow
from sim.sweeps.store import Store, StoreError

SCENARIO = (
    "{name: two, cluster: {hardware: h800, nodes: 1}, workload: {kind: all_to_all, bytes_per_rank: 1 MB, kernel: {kind: nccl}}, "
    "variants: {a: {}, b: {seed: 1}}}"
)
SWEEP = {
    "name": "two",
    "base": {**sweeping.EXCHANGE, "name": "x"},
    "axes": {"workload.tokens_per_rank": list(range(1, 41))},
    "objectives": {"dispatch.time_s": "minimise"},
}
PAIRS = 10


def start(cwd: Path, *args: str) -> subprocess.Popen[bytes]:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "sim", *args]
    path = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def told(process: subprocess.Popen[bytes]) -> str:
    """What a command said on standard error, once it has ended well."""
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    return err.decode()


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock of the folder `out`, until it is told to end."""
    script = (
        "import sys; from pathlib import Path; from sim import locks\n"
        "with locks.hold(Path('out')): print('held', flush=True); sys.stdin.readline()\n"
    )
    path = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


# --- two at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "text", "document"),
    [
        pytest.param(("run", "x.yaml", "--out", "out"), SCENARIO, "result.json", marks=pytest.mark.slow),
        pytest.param(
            ("sweep", "x.yaml", "--jobs", "1", "--out", "out"), json.dumps(SWEEP), "sweep.json",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("sweep", "x.yaml", "--jobs", "1", "--out", "out", "--fresh"), json.dumps(SWEEP), "sweep.json",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("ladder", "x.yaml", "--out", "out"), laddering.SMALL.partition("enough:")[0], "ladder.json",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["run", "sweep", "fresh", "ladder"],
)  # fmt: skip
def test_of_two_that_start_at_once_both_end_well_and_nothing_is_lost(
    command: tuple[str, ...], text: str, document: str, tmp_path: Path
) -> None:
    """Ten pairs of each; without locks half of them failed."""
    (tmp_path / "x.yaml").write_text(text)
    whole = {document, "report.html"}
    whole |= {"trace.json.gz"} if document == "result.json" else set()
    whole |= {"sweep.sqlite", "sliders.html"} if document == "sweep.json" else set()
    told(start(tmp_path, *command))
    alone = json.loads((tmp_path / "out" / document).read_text())
    for _ in range(PAIRS):
        pair = [start(tmp_path, *command) for _ in range(2)]
        for process in pair:
            assert "Traceback" not in told(process)
        assert {one.name for one in (tmp_path / "out").iterdir()} == whole
        found = json.loads((tmp_path / "out" / document).read_text())
        for key in ("runs", "provenance"):  # computed or remembered
            alone.pop(key, None), found.pop(key, None)
        assert found == alone
        if document == "sweep.json":
            with closing(sqlite3.connect(tmp_path / "out" / "sweep.sqlite")) as store:
                assert store.execute("SELECT count(*) FROM rows").fetchone() == (40,)


def test_the_second_waits_and_is_told_who_is_first(tmp_path: Path, held: subprocess.Popen[bytes]) -> None:
    (tmp_path / "x.yaml").write_text(SCENARIO)
    second = start(tmp_path, "run", "x.yaml", "--out", "out")
    assert second.stderr is not None
    line = second.stderr.readline().decode()
    assert line.startswith(f"waiting: process {held.pid} on ")
    assert line.endswith(" writes into out\n")
    assert not (tmp_path / "out" / "result.json").exists()
    assert held.stdin is not None
    held.stdin.write(b"\n")
    held.stdin.flush()
    told(second)
    assert (tmp_path / "out" / "result.json").exists()


def test_who_waits_can_be_stopped(tmp_path: Path, held: subprocess.Popen[bytes]) -> None:
    (tmp_path / "x.yaml").write_text(SCENARIO)
    second = start(tmp_path, "run", "x.yaml", "--out", "out")
    assert second.stderr is not None
    assert second.stderr.readline().startswith(b"waiting: ")
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=60)
    assert second.returncode == 130
    assert [one.name for one in (tmp_path / "out").iterdir()] == [locks.NAME]


@pytest.mark.slow
def test_many_threads_and_processes_never_hold_a_lock_at_once(tmp_path: Path) -> None:
    """Each adds one to a number in a file, reading it first: were two inside, one would be lost."""
    script = (
        "import threading; from pathlib import Path; from sim import locks\n"
        "def work():\n"
        "    for _ in range(5):\n"
        "        with locks.hold(Path('out')):\n"
        "            file = Path('number'); file.write_text(str(int(file.read_text()) + 1))\n"
        "threads = [threading.Thread(target=work) for _ in range(3)]\n"
        "[one.start() for one in threads]; [one.join() for one in threads]\n"
    )
    (tmp_path / "number").write_text("0")
    path = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", script]
    processes = [subprocess.Popen(command, cwd=tmp_path, env=environment) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "45"
    assert list((tmp_path / "out").glob("*")) == []


# --- who holds it --------------------------------------------------------------------------------------------------


def waits(folder: Path) -> bool:
    """Whether somebody else holds the lock, as told to who waits."""
    seen: queue.SimpleQueue[str] = queue.SimpleQueue()

    def take() -> None:
        with locks.hold(folder, seen.put):
            seen.put("held")

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    first = seen.get(timeout=60)
    if first != "held":
        (folder / locks.NAME).unlink()  # so that the thread ends
    thread.join()
    return first != "held"


def owner(**changes: Any) -> Owner:
    """A thread of this process, or what it is changed to."""
    mine = Owner(locks._host(), os.getpid(), locks._started(os.getpid()), 1, "0" * 32)
    return replace(mine, **changes)


def left(folder: Path, whose: Owner | str, age_s: float = 0.0) -> Path:
    """A lock that somebody left."""
    file = folder / locks.NAME
    file.write_text(whose if isinstance(whose, str) else json.dumps(asdict(whose)))
    os.utime(file, (time.time() - age_s,) * 2)
    return file


def test_a_lock_of_a_process_that_was_killed_is_broken_at_once(
    tmp_path: Path, held: subprocess.Popen[bytes]
) -> None:
    held.kill()
    held.wait()
    begun = time.monotonic()
    with locks.hold(tmp_path / "out"):
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("changes", "age_s", "holds"),
    [
        ({}, 0, True),
        ({}, 3600, True),  # it runs: stopped by hand, maybe
        ({"started": "1"}, 0, False),  # its number was given to another process
        ({"pid": 2**22 - 1}, 0, False),
        ({"host": "elsewhere"}, 0, True),
        ({"host": "elsewhere"}, 50, True),
        ({"host": "elsewhere"}, 70, False),
        ({"host": "elsewhere", "pid": 2**22 - 1}, 50, True),  # numbers of another machine say nothing
        ({"started": ""}, 50, True),  # a machine that does not say when processes began
        ({"started": ""}, 70, False),
    ],
)
def test_a_lock_is_stale_when_its_owner_is_gone(
    tmp_path: Path, changes: dict[str, Any], age_s: float, holds: bool
) -> None:
    left(tmp_path, owner(**changes), age_s)
    assert waits(tmp_path) == holds
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"host": 3}', "\0" * 10])
def test_a_lock_that_names_nobody_is_stale_after_a_minute(tmp_path: Path, text: str) -> None:
    left(tmp_path, text, 50)
    assert waits(tmp_path)
    left(tmp_path, text, 70)
    assert not waits(tmp_path)


def test_who_holds_a_lock_touches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_S", 0.01)
    with locks.hold(tmp_path):
        file = tmp_path / locks.NAME
        os.utime(file, (1.0, 1.0))
        until(lambda: file.stat().st_mtime > 1.0)


def test_what_a_thread_holds_it_holds_on(tmp_path: Path) -> None:
    with locks.hold(tmp_path):
        with locks.hold(tmp_path):
            pass
        assert (tmp_path / locks.NAME).exists()
        assert waits(tmp_path)


def test_who_was_taken_for_dead_takes_no_lock_from_its_heir(tmp_path: Path) -> None:
    with locks.hold(tmp_path):
        file = left(tmp_path, owner(host="elsewhere"))
    assert file.exists()


@pytest.mark.slow
def test_of_many_that_break_a_stale_lock_one_at_a_time_gets_it(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def take() -> None:
        with locks.hold(tmp_path):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1

    for _ in range(2):
        left(tmp_path, owner(pid=2**22 - 1))
        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == [1]
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_links_has_locks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", unable)
    left(tmp_path, owner(pid=2**22 - 1))
    with locks.hold(tmp_path):
        assert waits(tmp_path)
    assert not waits(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_link_whose_answer_was_lost_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS may send a request again, and be told that what it made is there already."""
    real = os.link

    def lost(*args: Any) -> None:
        real(*args)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", lost)
    with locks.hold(tmp_path):
        assert (tmp_path / locks.NAME).exists()
    assert list(tmp_path.iterdir()) == []


def test_where_no_lock_can_be_is_told_as_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"--out: got .*wanted a folder that can be written"),
        locks.hold(tmp_path / "file"),
    ):
        pass

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(MoesimError, match="no space left on device") as caught, locks.hold(tmp_path / "new"):
        pass
    assert caught.value.exit_code == 1
    assert not (tmp_path / "new").exists()


def test_a_document_is_not_written_under_another_run(tmp_path: Path, held: subprocess.Popen[bytes]) -> None:
    saved = threading.Thread(target=folders.write, args=(tmp_path / "out", {"result.json": "{}"}))
    saved.start()
    saved.join(0.5)
    assert saved.is_alive()
    assert not (tmp_path / "out" / "result.json").exists()
    held.kill()
    saved.join(30)
    assert (tmp_path / "out" / "result.json").read_text() == "{}"


# --- the store -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, 0x30A])  # the last: IOERR_WRITE
def test_a_disk_that_fails_when_a_store_is_opened_is_no_fault_of_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fails(_: Store) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(Store, "_open", fails)
    with pytest.raises(StoreError, match=r"sweep\.sqlite: disk I/O error") as caught:
        Store(tmp_path / "sweep.sqlite")
    assert caught.value.exit_code == 1
    full = SimpleNamespace(free=0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: full)
    if code != sqlite3.SQLITE_FULL:
        with pytest.raises(StoreError, match=r"sweep\.sqlite: no space left on device"):
            Store(tmp_path / "sweep.sqlite")


def test_a_folder_that_a_full_disk_has_no_room_for_is_no_fault_of_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(MoesimError, match="no space left on device") as caught:
        Store(tmp_path / "out" / "sweep.sqlite")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reason", 3), ("metrics", "x"), ("metrics", []), ("scenario", {"a": {}}), ("scenario", None), ("memory", {"a": "b"}),
        ("memory", [1]), ("best", {"a": None}), ("best", {"a": True}), ("overflow", "x"), ("overflow", {}),
        ("overflow", {"needed_bytes": 1, "capacity_bytes": 0, "parts": {}}), ("excluded", 1), ("seconds", "long"),
    ],
)  # fmt: skip
def test_a_stored_row_of_wrong_types_is_told(moesim: Moesim, field: str, value: object) -> None:
    Path("x.yaml").write_text(json.dumps({**SWEEP, "axes": {"workload.tokens_per_rank": [1, 2]}}))
    assert moesim("sweep", "x.yaml", "--jobs", "1", "--out", "out").code == 0
    with closing(sqlite3.connect("out/sweep.sqlite")) as store, store:
        for address, row in store.execute("SELECT address, row FROM rows").fetchall():
            assert set(json.loads(row)) == set(PointRow.__slots__)
            changed = json.dumps({**json.loads(row), field: value})
            store.execute("UPDATE rows SET row = ? WHERE address = ?", (changed, address))
    said = moesim("sweep", "x.yaml", "--jobs", "1", "--out", "out")
    assert said.code == 2
    assert f"got a row with {field} of a wrong type; wanted a store of this command" in said.err
