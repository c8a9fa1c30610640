"""Locks of folders: of several processes that write into one, on one machine or many, one writes at a time.

A lock is a file in the folder that names its owner: host, process, the time at which that process began. It is made under
another name and then *linked* to its own, which fails where there is one already, on NFS too; where a file system knows no
links, it is made with O_EXCL. The owner touches it every few seconds.

A lock is stale, and is broken by whoever waits for it,
- at once, where its host is this one and no such process runs (or another, by its start time, that was given the number);
- where its host is another one, when it has not been touched for a minute by the clock of the file system.

Only one process breaks a lock: the one that first links the very lock to a name made of its token.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

from sim.files import unwritable

NAME = ".moesim.lock"
BEAT_S = 10.0
"""Between two touches of a lock."""
STALE_S = 60.0
"""Without a touch, until a lock of another host is stale."""
_LOOK_S, _LONGEST_LOOK_S = 0.1, 1.0  # between two looks at another's lock
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock."""

    host: str
    """Name, boot and process numbers of a machine: two containers of one name are two hosts."""
    pid: int
    started: str
    """When the process began, in the words of its machine; "" where it does not say."""
    thread: int
    token: str
    """Of this very lock."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition('/')[0]}"


@contextmanager
def hold(folder: Path, tell: Callable[[str], None] = lambda _: None, name: str = NAME) -> Iterator[None]:
    """Hold the lock of a folder, which is made where it is missing; wait as long as another process holds it.

    Parameters: `tell`, told once who is waited for; `name`, of the lock's file. What this thread holds already is held on.
    Raises `InputError` where nothing can be written, `MoesimError` where the disk is full.
    """
    path = folder / name
    made: list[Path] = []
    try:
        made = _make(folder)
        mine = _acquire(path, tell)
    except OSError as error:
        _remove(made)
        raise unwritable(folder, error) from None
    if mine is None:
        yield
        return
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, mine, ended), daemon=True)
    try:
        beat.start()
        yield
    finally:
        ended.set()
        with contextlib.suppress(OSError):
            if _read(path)[0] == mine:
                path.unlink(missing_ok=True)
        _remove(made)


def _remove(made: Iterable[Path]) -> None:
    """Remove folders, the outermost first, that are still empty."""
    for empty in reversed(list(made)):
        with contextlib.suppress(OSError):
            empty.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a folder; those of it and its parents that were not there, the outermost first."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _acquire(path: Path, tell: Callable[[str], None]) -> Owner | None:
    """Make the lock; its owner, or None where this thread has it already."""
    mine = Owner(_host(), os.getpid(), _started(os.getpid()), threading.get_ident(), uuid.uuid4().hex)
    pause_s, told = _LOOK_S, False
    while True:
        now_s = _try(path, mine)
        if now_s is None:
            return mine
        owner, touched_s = _read(path)
        if owner is not None and _same_thread(owner, mine):
            return None
        if touched_s is None:  # it is gone meanwhile
            continue
        if _stale(owner, now_s - touched_s):
            _break(path, owner, mine)
            continue
        if not told:
            tell(f"waiting: {owner or 'another process'} writes into {path.parent}")
            told = True
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, _LONGEST_LOOK_S)


def _try(path: Path, mine: Owner) -> float | None:
    """Make the lock, with its content, at one blow. None, or, where there is one, the time by the file system's clock [s]."""
    own = path.with_name(f"{path.name}.{mine.token}")
    try:
        own.write_text(json.dumps(asdict(mine)), encoding="utf-8")
        try:
            os.link(own, path)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno in _NO_LINKS:
                return None if _made_alone(path, own) else own.stat().st_mtime
            if not isinstance(error, FileNotFoundError) and own.stat().st_nlink < 2:
                raise
        found = own.stat()
        return (
            None if found.st_nlink > 1 else found.st_mtime
        )  # NFS may lose the answer of a link that was made
    except FileNotFoundError:  # the folder: who made it has removed it again
        path.parent.mkdir(parents=True, exist_ok=True)
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            own.unlink(missing_ok=True)


def _made_alone(path: Path, own: Path) -> bool:
    """Make the lock where the file system knows no links; whether it was not there."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(own.read_bytes())
    return True


def _read(path: Path) -> tuple[Owner | None, float | None]:
    """The owner of a lock, None for one that it does not name, and when it was touched; None where there is none.

    Opened, not only looked at: a client of NFS asks the server when a file is opened.
    """
    try:
        with path.open(encoding="utf-8") as file:
            touched_s = os.fstat(file.fileno()).st_mtime
            tree = json.loads(file.read(4096))
        return Owner(**{one.name: tree[one.name] for one in fields(Owner)}), touched_s
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, TypeError, KeyError):
        try:
            return None, path.stat().st_mtime
        except FileNotFoundError:
            return None, None


def _same_thread(owner: Owner, mine: Owner) -> bool:
    return (owner.host, owner.pid, owner.started, owner.thread) == (
        mine.host,
        mine.pid,
        mine.started,
        mine.thread,
    )


def _stale(owner: Owner | None, silent_s: float) -> bool:
    """Whether nobody holds a lock any more that has not been touched for `silent_s`."""
    if owner is None or owner.host != _host():
        return silent_s > STALE_S
    if not _runs(owner.pid):
        return True
    started = _started(owner.pid)
    if owner.started and started:
        return owner.started != started
    return silent_s > STALE_S


def _break(path: Path, owner: Owner | None, mine: Owner) -> None:
    """Take a stale lock away, unless somebody else does, or has."""
    gone = path.with_name(f"{path.name}.{owner.token if owner else 'unknown'}.gone")
    try:
        os.link(path, gone)
    except FileNotFoundError:
        return
    except FileExistsError:
        with contextlib.suppress(OSError):
            if time.time() - gone.stat().st_ctime > STALE_S:  # who was about to break it has died
                gone.unlink()
        time.sleep(_LOOK_S)
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.replace(path, gone)  # a moment's chance that it is another's, where there are no links
        gone.unlink(missing_ok=True)
        return
    try:
        if _read(gone)[0] == owner:
            path.unlink(missing_ok=True)
    finally:
        gone.unlink(missing_ok=True)


def _beat(path: Path, mine: Owner, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        if _read(path)[0] != mine:
            return
        with contextlib.suppress(OSError):
            os.utime(path)


@cache
def _host() -> str:
    """What tells this machine from others, and its process numbers from those of a container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def _runs(pid: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return _stat(pid)[:1] != ["Z"]


def _started(pid: int) -> str:
    """When a process began, in clock ticks since the machine did; "" where the machine does not say."""
    return (_stat(pid) + [""] * 20)[19]


def _stat(pid: int) -> list[str]:
    """What Linux says of a process after its name: state, parent ..."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return []
