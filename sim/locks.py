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
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path

from sim.files import unwritable

NAME = ".moesim.lock"
BEAT_S = 10.0
"""Time between two touches of a lock."""
STALE_S = 60.0
"""Time without a touch, until a lock of another host is stale."""
_LOOK_S, _LONGEST_LOOK_S = 0.1, 1.0  # between two looks at another's lock
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)


@dataclass(frozen=True, slots=True)
class Owner:
    """The holder of a lock."""

    host: str
    """Name, boot and process numbers of a machine: two containers of one name are two hosts."""
    pid: int
    started: str
    """Start of the process, in the words of its machine; "" where it does not say."""
    thread: int
    token: str
    """Unique to this very lock."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition('/')[0]}"


@contextmanager
def hold(folder: Path, tell: Callable[[str], None] = lambda _: None, name: str = NAME) -> Iterator[None]:
    """Hold the lock of a folder while the body runs; wait as long as another process holds it.

    A lock that this thread holds already is held on. The folder is made where it is missing, and removed again
    where it is left empty. `tell` is called once, with a line that says who is waited for. InputError where
    nothing can be written; MoesimError where the disk is full.
    """
    path = folder / name
    made: list[Path] = []
    try:
        made = _make(folder)
        owner = _acquire(path, tell)
    except OSError as error:
        _remove(made)
        raise unwritable(folder, error) from None
    if owner is None:
        yield
        return
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, owner, ended), daemon=True)
    try:
        beat.start()
        yield
    finally:
        ended.set()
        with contextlib.suppress(OSError):
            if _read(path)[0] == owner:
                path.unlink(missing_ok=True)
        _remove(made)


def _remove(made: Iterable[Path]) -> None:
    """Remove folders, the outermost first, that are still empty."""
    for empty in reversed(list(made)):
        with contextlib.suppress(OSError):
            empty.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a folder; return those of it and its parents that were not there, the outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _acquire(path: Path, tell: Callable[[str], None]) -> Owner | None:
    """Make the lock; return its owner, or None where this thread has it already."""
    ours = Owner(_host(), os.getpid(), _started(os.getpid()), threading.get_ident(), uuid.uuid4().hex)
    pause_s, is_reported = _LOOK_S, False
    while True:
        now_s = _try(path, ours)
        if now_s is None:
            return ours
        owner, touched_s = _read(path)
        if owner is not None and _same_thread(owner, ours):
            return None
        if touched_s is None:  # it is gone meanwhile
            continue
        if _stale(owner, now_s - touched_s):
            _break(path, owner)
            continue
        if not is_reported:
            tell(f"waiting: {owner or 'another process'} writes into {path.parent}")
            is_reported = True
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, _LONGEST_LOOK_S)


def _try(path: Path, owner: Owner) -> float | None:
    """Make the lock, with its content, at one blow; return None, or, where there is one, the file system's time [s]."""
    own = path.with_name(f"{path.name}.{owner.token}")
    try:
        own.write_text(json.dumps(asdict(owner)), encoding="utf-8")
        try:
            os.link(own, path)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno in _NO_LINKS:
                return None if _made_alone(path, own) else own.stat().st_mtime
            if not isinstance(error, FileNotFoundError) and own.stat().st_nlink < 2:
                raise
        state = own.stat()
        return None if state.st_nlink > 1 else state.st_mtime  # NFS may lose the answer of a link it made
    except FileNotFoundError:  # the folder: who made it has removed it again
        path.parent.mkdir(parents=True, exist_ok=True)
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            own.unlink(missing_ok=True)


def _made_alone(path: Path, own: Path) -> bool:
    """Make the lock where the file system knows no links; return whether it was not there."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(own.read_bytes())
    return True


def _read(path: Path) -> tuple[Owner | None, float | None]:
    """Return the owner of a lock, None where it names none, and when it was touched, None where there is no lock.

    Opened, not only looked at: a client of NFS asks the server when a file is opened.
    """
    try:
        with path.open(encoding="utf-8") as file:
            touched_s = os.fstat(file.fileno()).st_mtime
            tree = json.loads(file.read(4096))
        return Owner(**{field.name: tree[field.name] for field in fields(Owner)}), touched_s
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, TypeError, KeyError):
        try:
            return None, path.stat().st_mtime
        except FileNotFoundError:
            return None, None


def _same_thread(owner: Owner, other: Owner) -> bool:
    return replace(owner, token=other.token) == other


def _stale(owner: Owner | None, silent_s: float) -> bool:
    """Return whether nobody holds a lock any more that has not been touched for `silent_s`."""
    if owner is None or owner.host != _host():
        return silent_s > STALE_S
    if not _runs(owner.pid):
        return True
    started = _started(owner.pid)
    if owner.started and started:
        return owner.started != started
    return silent_s > STALE_S


def _break(path: Path, owner: Owner | None) -> None:
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


def _beat(path: Path, owner: Owner, ended: threading.Event) -> None:
    """Touch the lock now and then, as long as it is its owner's."""
    while not ended.wait(BEAT_S):
        if _read(path)[0] != owner:
            return
        with contextlib.suppress(OSError):
            os.utime(path)


@cache
def _host() -> str:
    """Return what tells this machine from others, and its process numbers from those of a container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def _runs(pid: int) -> bool:
    """Return whether a process of this machine runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return _stat(pid)[:1] != ["Z"]


def _started(pid: int) -> str:
    """Return when a process began, in clock ticks since the machine did; "" where the machine does not say."""
    return (_stat(pid) + [""] * 20)[19]


def _stat(pid: int) -> list[str]:
    """Return what Linux reports of a process after its name: state, parent ..."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
