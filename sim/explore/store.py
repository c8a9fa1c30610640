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
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import sim
from sim import documents
from sim.documents import Document
from sim.errors import Fault, InputError, Mark, MoesimError
from sim.explore.points import Row

SCHEMA = "moesim.store/1"
_LIBRARIES = ("numpy", "numba", "simpy")
_UNADDRESSED = ("name", "title", "expect", "variants")  # no figure follows from them
_AT_ONCE = 500  # keys of one question to the database


class StoreError(MoesimError):
    """The store cannot be written (a full disk, say); what it holds stays."""


class Store:
    """Rows by address."""

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = path
        if fresh:
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.connection = sqlite3.connect(path, timeout=10.0)
            self._open()
        except OSError as error:
            wanted = "a folder that can be written"
            raise InputError(
                Fault(Mark(str(path)), "--out", (error.strerror or str(error)).lower(), wanted)
            ) from None
        except sqlite3.Error as error:
            wanted = "a store of this command, or another --out, or --fresh"
            raise InputError(Fault(Mark(str(path)), "", str(error), wanted)) from None

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
            raise InputError(Fault(Mark(str(self.path)), "", theirs, wanted))

    def get(self, addresses: Iterable[str]) -> dict[str, Row]:
        """Those of the rows that are there, by address."""
        wanted = list(addresses)
        found: dict[str, Row] = {}
        for first in range(0, len(wanted), _AT_ONCE):
            part = wanted[first : first + _AT_ONCE]
            marks = ",".join("?" * len(part))
            rows = self.connection.execute(f"SELECT address, row FROM rows WHERE address IN ({marks})", part)
            found |= {address: Row(**json.loads(text)) for address, text in rows}
        return found

    def put(self, rows: Mapping[str, Row]) -> None:
        """Keep rows by address. Raises `StoreError` where the disk refuses; what stood here stays."""
        told = [(address, json.dumps(_plain(row), allow_nan=False)) for address, row in rows.items()]
        try:
            with self.connection:
                self.connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", told)
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


def _plain(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__slots__}


# --- addresses -----------------------------------------------------------------------------------------------------


def address(document: Document) -> str:
    """What a scenario's row is found by: 64 hexadecimal digits; see the module."""
    tree = {key: value for key, value in document.tree.items() if key not in _UNADDRESSED}
    files = sorted(
        {text: digest for text in _texts(tree) if (digest := _content(text, document.folder))}.items()
    )
    told = json.dumps([tree, files, version()], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(told.encode()).hexdigest()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


@functools.lru_cache(maxsize=4096)
def _content(text: str, folder: Path | None) -> str:
    """A digest of the file that a text of a scenario names, beside it or here; "" where it names none."""
    if "." not in text or len(text) > 1000:
        return ""
    for base in [Path(), *([folder] if folder else [])]:
        try:
            if (base / text).is_file():
                return hashlib.sha256((base / text).read_bytes()).hexdigest()
        except OSError:
            continue
    return ""


@functools.cache
def version() -> str:
    """This package's version and a digest of its source, its data and the libraries that compute: `0.1.0+1f3a5b7c9d0e`."""
    digest = hashlib.sha256()
    for name in _LIBRARIES:
        digest.update(f"{name} {metadata.version(name)}\n".encode())
    package = Path(sim.__file__).resolve().parent
    source = [path for path in package.rglob("*.py") if path.parent.name != "show"]
    data = [documents.data_folder("hardware"), documents.data_folder("scenarios") / "models"]
    for path in sorted([*source, *(path for folder in data for path in folder.rglob("*.yaml"))]):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"{sim.__version__}+{digest.hexdigest()[:12]}"
