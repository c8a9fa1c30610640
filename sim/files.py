"""Files that a person names: their places and their bounded contents, with one message for all that can be wrong.

Nothing but a regular file of a reasonable size is read: a device, a pipe or a folder by the name of a file would be waited for
or never end.
"""

from __future__ import annotations

import difflib
import errno
import gc
import itertools
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from sim import limits
from sim.errors import InputError, Mark, MoesimError, Problem, nearest

_SETTLED_NS = 2 * 10**9  # finer than this the times of some file systems do not tell changes apart
_LOOKED_AT = 2000  # files of a folder, for the nearest name
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_ALIKE = 0.8  # of two file names, ending included
_LISTED = 24  # shipped names that a message has all
_SHELVES = ("scenario", "sweep", "ladder", "hardware", "model", "kernel", "software")
"""Kinds of files that `moesim show` lists."""
_COMMANDS = {"run": "scenarios", "sweep": "scenarios/sweeps", "ladder": "scenarios/ladders"}
"""Command -> the folder of what it takes."""


def package_folder() -> Path:
    """Return the folder of the package `sim`, installed or in a checkout."""
    return Path(__file__).resolve().parent


@cache
def data_folder(name: str) -> Path:
    """Return a data folder, `hardware` or `scenarios`: inside an installed package, or next to it in a checkout."""
    package = package_folder()
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def shipped(folder: str) -> dict[str, Path]:
    """List the YAML files directly in a data folder such as `scenarios/models`, by name without the ending."""
    top, _, rest = folder.partition("/")
    return {path.stem: path for path in sorted((data_folder(top) / rest).glob("*.yaml"))}


def find(
    spec: str,
    folder: str | Sequence[str],
    what: str,
    *,
    near: Path | None = None,
    mark: Mark | None = None,
    aliases: Mapping[str, str] | None = None,
    endings: tuple[str, ...] = (".yaml", ".yml"),
) -> Path:
    """Find the file that a person means: a path, maybe from `near`, or the name or alias of a shipped file.

    Of several folders the first that ships the name counts; by an ending of `endings` a path without a folder
    is known. InputError, at `mark`, with the shipped names of that kind (`what`) and the nearest of them.
    """
    aliases = aliases or {}
    folders = [folder] if isinstance(folder, str) else list(folder)
    bases = [Path(), *([near] if near else [])]
    looks_like_path = spec.endswith(endings) or "/" in spec
    if looks_like_path:
        for base in [*bases, data_folder(folders[0].partition("/")[0]).parent]:
            if os.path.isfile(base / spec):  # False for names that no file can have
                return base / spec
    for top, _, rest in (name.partition("/") for name in folders):
        own = data_folder(top) / rest / f"{aliases.get(spec, spec)}.yaml"
        if not looks_like_path and os.path.isfile(own):
            return own
    known = list(dict.fromkeys([*(name for place in folders for name in shipped(place)), *aliases]))
    meant = spec if looks_like_path else f"{spec}.yaml"
    close = (sibling(base / meant, same=not looks_like_path) for base in bases)
    stem = spec.removesuffix(".yaml").rpartition("/")[2]
    near_name = next(filter(None, close), None) or nearest(stem, known)
    is_folder = spec and any(os.path.isdir(base / spec) for base in bases)
    missing = ", no such file" if looks_like_path else ""
    got = f"'{spec}'{', a folder' if is_folder else missing}"
    wanted = f"a {what} file or one of{_listed(known, stem, what)}"
    for command, other in _COMMANDS.items():
        if not looks_like_path and other not in folders and stem in shipped(other):
            got = f"'{spec}', the name of a {'scenario' if command == 'run' else command}"
            wanted = f"a {what}; it goes with `moesim {command} {spec}`"
            near_name = near_name if (near_name or "").startswith(stem) else None
    raise InputError(Problem(mark, "", got, wanted, near_name))


def _listed(known: Sequence[str], word: str, what: str) -> str:
    """All names where they are few, else those that are near a word, with what lists the rest."""
    if len(known) <= _LISTED:
        return f": {', '.join(known) or 'none shipped'}"
    close = sorted(difflib.get_close_matches(word, known, n=6, cutoff=0.45))
    shelf = f"`moesim show {what}` lists" if what in _SHELVES else "there are"
    such = f", such as {', '.join(close)}" if close else ""
    return f" those shipped{such} ({shelf} {len(known)})"


def sibling(path: Path, *, same: bool = False) -> str | None:
    """Find the file of a folder that a misspelt name most likely means; `same` accepts the name of the path alone."""
    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in itertools.islice(entries, _LOOKED_AT) if not entry.is_dir()]
    except (OSError, ValueError):
        return None
    if path.name in names:
        return path.name if same else None
    for name in () if same else difflib.get_close_matches(path.name, sorted(names), cutoff=_ALIKE):
        if nearest(path.stem, [Path(name).stem]):
            return name
    return None


def is_settled(status: os.stat_result) -> bool:
    """Tell a file whose text may be kept from one that changed just now, and may change again without showing it.

    File systems round times: a change must lie further back than that.
    """
    return time.time_ns() - status.st_mtime_ns > _SETTLED_NS


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python from looking for garbage while a file is taken in: in all that it makes anew there is none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def unwritable(folder: Path, error: OSError) -> MoesimError:
    """Make the error of a folder that cannot be written into: an `InputError`, but for a full disk, nobody's mistake."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        return MoesimError(f"{folder}: {reason}; nothing there is half-written")
    return InputError(Problem(Mark(str(folder)), "--out", reason, "a folder that can be written"))


def content(
    path: Path, wanted: str, where: Mark | None = None, key: str = "", most: int | None = None
) -> bytes:
    """Read the bytes of a file that should hold what is `wanted`; `where` and `key` are the place that names it.

    InputError for no regular file, one that cannot be read, or one larger than `most`, by default
    `limits.FILE_BYTES`.
    """
    most = min(limits.FILE_BYTES, most or limits.FILE_BYTES)
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= most:
            return path.read_bytes()
        if stat.S_ISREG(status.st_mode):
            reason, wanted = f"{status.st_size} bytes", f"{wanted}, of at most {most}"
        else:
            reason = "a folder" if stat.S_ISDIR(status.st_mode) else "something that is no regular file"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    except ValueError:
        reason = "a name that no file can have"
    raise InputError(
        Problem(
            where or Mark(str(path)), key, f"'{path}', {reason}" if where else reason, wanted, sibling(path)
        )
    )


def text(path: Path, wanted: str, where: Mark | None = None, key: str = "", most: int | None = None) -> str:
    """Read the text of a file in UTF-8, without a byte-order mark.

    As `content`, and InputError at the place of a wrong byte.
    """
    raw = content(path, wanted, where, key, most)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = raw.rfind(b"\n", 0, error.start) + 1
        mark = Mark(str(path), raw.count(b"\n", 0, error.start) + 1, error.start - start + 1)
        got = f"a byte that is not UTF-8 at {error.start}"
        raise InputError(Problem(mark, "", got, f"UTF-8 text: {wanted}")) from None
