"""Files that a process makes for those after it: machine code, packed scripts. They are never needed, only quicker to have.

A name says all that a file was made from; what is damaged, or cannot be written, is made anew by who asks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_KEPT = 8  # files of one kind in a folder; older ones go
_SUM_BYTES = hashlib.sha256().digest_size


def read(name: str) -> bytes | None:
    """The content of the file of a name; None where there is none that is whole."""
    for folder in _folders():
        with suppress(OSError):
            kept = (folder / name).read_bytes()
            if hashlib.sha256(kept[_SUM_BYTES:]).digest() == kept[:_SUM_BYTES]:
                return kept[_SUM_BYTES:]
    return None


def write(name: str, kind: str, content: bytes) -> None:
    """Write a file into the first folder that takes it, whole or not at all, and drop the oldest of its kind there.

    `kind` is what the name begins with, before a hyphen, and it has the ending of the name.
    """
    for folder in _folders():
        new = folder / f"{name}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            new.write_bytes(hashlib.sha256(content).digest() + content)
            new.replace(folder / name)
        except OSError:
            with suppress(OSError):
                new.unlink()
            continue
        with suppress(OSError):
            ages = {path: path.stat().st_mtime for path in folder.glob(f"{kind}-*{Path(name).suffix}")}
            for path in sorted(ages, key=ages.__getitem__)[:-_KEPT]:
                path.unlink()
        return


def _folders() -> Iterator[Path]:
    """Folders for such files, the first choice first: numba's own alone where one is named, else that next to the source and the user's."""
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(named)
        return
    yield Path(__file__).with_name("__pycache__")
    with suppress(RuntimeError):  # no home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moesim"
