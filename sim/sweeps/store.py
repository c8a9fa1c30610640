"""The store of a sweep: rows that outlive whatever happens to the process, in SQLite's write-ahead mode.

A row is addressed by all that it follows from: the scenario with its overrides, the content of every file that it names, and
the version of this package down to source and data (but for what draws), with the libraries that compute. So a row that stands here is right
whichever sweep asks for it, and a second run of the same sweep computes nothing. Resolving a scenario only to look its row up
would take longer than the lookup; what it resolves to is determined by the address.

One process writes, the one that drives the sweep. A row is there once `put` returns, and stays there when that process is
killed at any moment.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from sim import documents, files
from sim.documents import Document
from sim.errors import InputError, Mark, MoesimError, Problem
from sim.files import is_settled, unwritable
from sim.sweeps.points import PointRow, Status
from sim.trees import is_number
from sim.version import __version__

SCHEMA = "moesim.store/1"
_LIBRARIES = ("numpy", "numba", "simpy")
_UNADDRESSED = ("name", "title", "question", "expect", "variants")  # no figure follows from them
_AT_ONCE = 500  # keys of one question to the database
_LEAST_BYTES = 2**16  # of a database and its log


class StoreError(MoesimError):
    """The store cannot be written (a full disk, say); what it holds stays."""


class Store:
    """Rows by address."""

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = path
        try:
            for suffix in ("", "-wal", "-shm") if fresh else ():
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path, error) from None
        try:
            self.connection = sqlite3.connect(path, timeout=10.0)
        except sqlite3.Error as error:
            raise self._refusal(error) from None
        try:
            self._open()
        except sqlite3.Error as error:
            self.connection.close()
            raise self._refusal(error) from None
        except InputError:
            self.connection.close()
            raise

    def _refusal(self, error: sqlite3.Error) -> MoesimError:
        """Return the error of a file that is no store, or no longer a whole one, and of a full disk."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        full = code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _is_full(self.path.parent)
        if full or code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return StoreError(f"{self.path}: {'no space left on device' if full else error}")
        wanted = "a store of this command, or another --out, or --fresh"
        return InputError(Problem(Mark(str(self.path)), "", str(error), wanted))

    def _open(self) -> None:
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")
        with self.connection:
            self.connection.execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT)")
            self.connection.execute("CREATE TABLE IF NOT EXISTS rows (address TEXT PRIMARY KEY, row TEXT)")
        about = dict(self.connection.execute("SELECT name, value FROM about"))
        if not about:
            with self.connection:
                self.connection.executemany(
                    "INSERT INTO about VALUES (?, ?)", [("schema", SCHEMA), ("version", version())]
                )
        elif about.get("schema") != SCHEMA or about.get("version") != version():
            theirs = f"a store of version {about.get('version', about.get('schema', 'unknown'))}"
            wanted = f"one of this version, {version()}; --fresh computes it anew, another --out keeps both"
            raise InputError(Problem(Mark(str(self.path)), "", theirs, wanted))

    def get(self, addresses: Iterable[str]) -> dict[str, PointRow]:
        """Return those of the rows that it has, by address. Raises `InputError` where the file is damaged."""
        wanted = list(addresses)
        kept: dict[str, PointRow] = {}
        try:
            for first in range(0, len(wanted), _AT_ONCE):
                part = wanted[first : first + _AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = self.connection.execute(
                    f"SELECT address, row FROM rows WHERE address IN ({marks})", part
                )
                kept |= {address: _row(text) for address, text in rows}
        except sqlite3.Error as error:
            raise self._refusal(error) from None
        return kept

    def put(self, rows: Mapping[str, PointRow]) -> None:
        """Keep rows by address. Raises `StoreError` where the disk refuses; what it had stays."""
        entries = [(address, json.dumps(_plain(row), allow_nan=False)) for address, row in rows.items()]
        try:
            with self.connection:
                self.connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", entries)
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path}: {error}; {len(self)} finished rows are kept there, and the same command goes on from them"
            ) from None

    def __len__(self) -> int:
        return int(self.connection.execute("SELECT count(*) FROM rows").fetchone()[0])

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.connection.close()


def _plain(row: PointRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in PointRow.__slots__}


def _is_full(folder: Path) -> bool:
    """Return whether the disk has no room for a database."""
    try:
        return shutil.disk_usage(folder).free < _LEAST_BYTES
    except OSError:
        return False


def _row(text: Any) -> PointRow:
    try:
        row = PointRow(**json.loads(text))
    except (TypeError, ValueError):
        raise sqlite3.DatabaseError("a row that is none of a sweep") from None
    if row.status not in get_args(Status):
        raise sqlite3.DatabaseError(f"a row of status {row.status!r}")
    for name, good in _SHAPES.items():
        if not good(getattr(row, name)):
            raise sqlite3.DatabaseError(f"a row with {name} of a wrong type")
    return row


def _is_flat(value: object) -> bool:
    return isinstance(value, dict) and not any(isinstance(one, dict | list) for one in value.values())


def _is_overflow(value: object) -> bool:
    """None, or an overflow of memory: what was needed, over what there is."""
    if not isinstance(value, dict):
        return value is None
    sizes = [value.get("needed_bytes"), value.get("capacity_bytes")]
    return all(map(_is_number, sizes)) and bool(sizes[1]) and isinstance(value.get("parts"), dict)


def _is_number(value: object) -> bool:
    return is_number(value) and math.isfinite(value)


def _are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


_SHAPES: dict[str, Callable[[Any], bool]] = {
    "reason": lambda value: isinstance(value, str),
    "metrics": lambda value: isinstance(value, dict),
    "scenario": _is_flat,
    "memory": _are_numbers,
    "best": _are_numbers,
    "overflow": _is_overflow,
    "excluded": lambda value: isinstance(value, bool),
    "seconds": _is_number,
}
"""Field of a row -> check of its type, which JSON does not state."""


# --- addresses -----------------------------------------------------------------------------------------------------


def address(document: Document) -> str:
    """Return the address of a scenario's row, 64 hexadecimal digits; see the module."""
    tree = {key: value for key, value in document.tree.items() if key not in _UNADDRESSED}
    files = [[text, _contents(text, document.folder)] for text in sorted(set(_texts(tree)))]
    canonical = json.dumps(
        [tree, [file for file in files if file[1]], version()],
        sort_keys=True,
        separators=(",", ":"),
        default=str,
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _contents(text: str, folder: Path | None) -> list[str]:
    """Return digests of the files that a text of a scenario may name: in this folder, and next to the scenario."""
    digests = []
    for base in (Path(), folder) if folder else (Path(),):
        try:
            path = base / text
            there = path.stat()
            if stat.S_ISREG(there.st_mode):
                read = _digest if is_settled(there) else _digest.__wrapped__
                digests.append(read(path, (there.st_ino, there.st_size, there.st_mtime_ns)))
        except (OSError, ValueError):  # no file, or no name that a file could have
            continue
    return digests


@functools.lru_cache(maxsize=4096)
def _digest(path: Path, version: tuple[int, int, int]) -> str:
    """Return a digest of a file; `version` tells it from what was there at other times."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def version() -> str:
    """Return this package's version and a digest of its source, its data and the libraries that compute: `0.1.0+1f3a5b7c9d0e`."""
    digest = hashlib.sha256()
    for name in _LIBRARIES:
        digest.update(f"{name} {_installed(name)}\n".encode())
    for name, path in sorted(_sources(files.package_folder()).items()):
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"{__version__}+{digest.hexdigest()[:12]}"


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def _sources(package: Path) -> dict[str, Path]:
    """Return source and data that figures follow from, by names that are the same in a checkout and an installed package."""
    sources = {
        path.relative_to(package).as_posix(): path
        for path in package.rglob("*.py")
        if "show" not in path.relative_to(package).parts
    }
    for name, folder in (
        ("hardware", documents.data_folder("hardware")),
        ("models", documents.data_folder("scenarios") / "models"),
    ):
        sources |= {f"{name}/{path.relative_to(folder).as_posix()}": path for path in folder.rglob("*.yaml")}
    return sources
