"""The files that a command leaves in a folder, and reads back: result.json, report.html, trace.json.gz, CSV.

Every file is written under a temporary name and then renamed, so that nothing is ever half-written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sim import documents, limits, locks
from sim.errors import InputError, Mark, Problem, nearest
from sim.files import sibling, uncollected, unwritable
from sim.files import text as text_of
from sim.show.failures import attempt
from sim.show.kinds import SCHEMAS, Kind, is_document, kind_of, results_in, runs_in, workload_of

_OF_RUNS = ("report.html", "trace.json.gz", "flow_completion*.csv")
_NAMED = 3  # folders of results in a message
_WRITABLE = "a folder that can be written"
_DOCUMENTS: dict[Kind, str] = {
    "run": "result.json",
    "sweep": "sweep.json",
    "ladder": "ladder.json",
    "validation": "validation.json",
}
"""Kind of a document -> its file, which stands for its folder."""


def dump(document: Any) -> str:
    """Write a document as JSON, a line for each entry."""
    return json.dumps(document, indent=1, allow_nan=False, default=str) + "\n"


def without_flows(result: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a result without the rows that have a CSV of their own: the document of result.json."""
    document = {key: value for key, value in result.items() if key != "flow_completion"}
    for parts in ("variants", "jobs"):
        if parts in document:
            document[parts] = {name: without_flows(run) for name, run in document[parts].items()}
    return document


def numbers(document: Mapping[str, Any]) -> dict[str, str | bytes]:
    """Make the files of a document that hold its numbers: the document, and the CSVs of a run."""
    return {_DOCUMENTS[kind_of(document)]: dump(without_flows(document)), **_csv(document)}


def pictures(document: Mapping[str, Any]) -> dict[str, str | bytes]:
    """Make the report of a document, and the trace of a run that has a course in time; without what could not be made."""
    made: dict[str, object] = {"report.html": attempt("report", partial(_report, document))}
    if kind_of(document) == "run":
        made["trace.json.gz"] = attempt("trace", partial(_trace, document))
    return {name: file for name, file in made.items() if isinstance(file, str | bytes)}


def _report(document: Mapping[str, Any]) -> str:
    from sim.show.pages import report

    return report.report_html(document)


def _trace(result: Mapping[str, Any]) -> bytes | None:
    from sim.show.files import timelines, trace

    timeline = timelines.timeline(result)
    has_course = timeline.slices or timeline.transfers or timeline.counters
    return trace.encode(trace.document(timeline)) if has_course else None


def save(
    folder: Path,
    document: Mapping[str, Any],
    *,
    with_report: bool = True,
    meanwhile: Callable[[], None] | None = None,
) -> list[Path]:
    """Write the files of a document, numbers before any picture is made of them; returns their paths. Raises as `write`.

    `meanwhile` is called once the numbers are written: a reader need not wait for pictures.
    """
    written = numbers(document)
    write(folder, written)
    if meanwhile is not None:
        meanwhile()
    drawn = pictures(document) if with_report else {}
    if drawn:
        write(folder, drawn)
    return [folder / name for name in (*written, *drawn)]


def _csv(result: Mapping[str, Any]) -> dict[str, str]:
    """flow_completion.csv of a `flows` run, or of each of its variants and jobs."""
    files = {}
    for name, run in _runs_and_jobs(result).items():
        if "flow_completion" in run:
            lines = [f"{int(flow)},{start:.6f},{done:.6f}" for flow, start, done in run["flow_completion"]]
            files[_flows_file(name)] = "flow_id,start_us,rx_done_us\n" + "\n".join(lines) + "\n"
    return files


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files into a folder, which is made where it is missing; a document, while no other process writes there.

    A new result.json takes the report, trace and CSVs of the one before it away, so that what stands together belongs together.
    Raises `InputError` where that cannot be, `MoesimError` where the disk is full, which is no mistake of the user.
    """
    if any(name in files for name in _DOCUMENTS.values()):
        with occupied(folder):
            _write(folder, files)
    else:
        _write(folder, files)


def _write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _DOCUMENTS.values():
            if name in files:
                partial_name(folder / name).unlink(missing_ok=True)
        if "result.json" in files:
            for pattern in _OF_RUNS:
                for old in folder.glob(pattern):
                    if old.name not in files:
                        old.unlink()
        for name, content in files.items():
            temporary = folder / f".{name}.{os.getpid()}.tmp"
            try:
                temporary.write_bytes(content.encode() if isinstance(content, str) else content)
                os.replace(temporary, folder / name)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None


@contextmanager
def occupied(folder: Path, tell: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold a folder while nobody else writes into it: a second run, sweep or ladder waits for the first, and says so by `tell`."""
    with locks.hold(folder, tell):
        yield


def partial_name(path: Path) -> Path:
    """The path of the finished part of a document while a whole one from before lies at `path`: `result.partial.json`."""
    return path.with_suffix(f".partial{path.suffix}")


def check(folder: Path) -> Path:
    """Return the folder itself. Raises `InputError` where nothing could be written into it: before the work, not after."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise InputError(Problem(Mark(str(folder)), "--out", f"'{there}', which is no folder", _WRITABLE))
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(Problem(Mark(str(folder)), "--out", f"'{there}', which is read-only", _WRITABLE))
    return folder


def read(path: Path) -> dict[str, Any]:
    """Read a document of a command.

    A folder stands for the result.json, sweep.json, ladder.json or validation.json in it, a shipped hardware's name for its profile.
    """
    if not path.exists() and str(path) in documents.shipped("hardware"):
        from sim.cluster.hardware import load_hardware
        from sim.runs.kernel_list import hardware_launches

        return hardware_launches(load_hardware(str(path)))
    if not os.path.lexists(path):
        known = documents.shipped("hardware")
        wanted = "a document of a command, its folder, or the name of shipped hardware"
        near = sibling(path) or nearest(str(path), known)
        raise InputError(Problem(Mark(str(path)), "", "no such file or directory", wanted, near))
    names = _DOCUMENTS.values()
    if path.is_dir() and (below := _folders_with_documents(path)):
        wanted = f"one of the folders in it: {', '.join(below[:_NAMED])}{', ...' * (len(below) > _NAMED)}"
        raise InputError(Problem(Mark(str(path)), "", "a folder of results", wanted))
    inside = [path / name for name in names if (path / name).is_file()] or [path / _DOCUMENTS["run"]]
    file = inside[0] if path.is_dir() else path
    wanted = f"one of: {', '.join(names)}"
    result = _tree(file, wanted)
    if not is_document(result):
        got = result.get("schema", "no schema") if isinstance(result, dict) else "no mapping"
        raise InputError(Problem(Mark(str(file)), "schema", f"'{got}'", f"one of: {', '.join(SCHEMAS)}"))
    document: dict[str, Any] = result
    with blame(file):
        _read_flows(document, file.parent)
    return document


def _folders_with_documents(path: Path) -> list[str]:
    """Name the folders of results in one that has no document of its own."""
    if any((path / name).is_file() for name in _DOCUMENTS.values()):
        return []
    return sorted(
        str(child)
        for child in path.iterdir()
        if child.is_dir() and any((child / name).is_file() for name in _DOCUMENTS.values())
    )


def read_each(path: Path) -> list[dict[str, Any]]:
    """Read the documents of a file: those of its scenarios, where `moesim run --json` printed several."""
    document = read(path)
    with blame(path):
        return results_in(document)


@contextmanager
def blame(file: Path) -> Iterator[None]:
    """Report what goes wrong inside as a problem of a file: a document that was changed by hand may break any of its readers."""
    try:
        yield
    except InputError as error:
        raise InputError(
            replace(problem, where=problem.where or Mark(str(file))) for problem in error.problems
        ) from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        got = f"a document that breaks what reads it ({type(error).__name__}: {error})"
        wanted = "the document as its command wrote it"
        raise InputError(Problem(Mark(str(file)), "", got, wanted)) from error


def _tree(file: Path, wanted: str) -> Any:
    """The tree in a JSON file; no number in it is infinite, and none is NaN."""
    text = text_of(file, wanted)
    if sum(map(text.count, ",[{")) > limits.JSON_ENTRIES:
        got = f"JSON of more than {limits.JSON_ENTRIES:,} entries"
        raise InputError(Problem(Mark(str(file)), "", got, "a document of fewer GPUs, variants or points"))
    try:
        with uncollected():
            return json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        mark, got = Mark(str(file), error.lineno, error.colno), "text that is not whole JSON"
    except RecursionError:
        mark, got = Mark(str(file)), "JSON that is nested too deep"
    except ValueError as error:
        mark, got = Mark(str(file)), f"JSON with an impossible number: {error}"
    raise InputError(Problem(mark, "", got, wanted))


def _no_number(word: str) -> Any:
    raise ValueError(word)


def _read_flows(result: dict[str, Any], folder: Path) -> None:
    """Put the rows of a run's CSVs, where they are still next to it, back into its document."""
    for name, run in _runs_and_jobs(result).items():
        file = folder / _flows_file(name)
        if workload_of(run) not in ("flows", "") or "flow_completion" in run or not file.is_file():
            continue
        try:
            rows = [line.split(",") for line in file.read_text(encoding="utf-8").splitlines()[1:]]
            run["flow_completion"] = [[float(cell) for cell in row] for row in rows]
        except ValueError:
            raise InputError(
                Problem(Mark(str(file)), "", "a row that is no flow", "what `moesim run` wrote")
            ) from None


def _runs_and_jobs(document: Mapping[str, Any]) -> dict[str, Any]:
    """Each run by the name of its variant, as `runs_in`, and each of its jobs by both names."""
    runs = runs_in(document)
    jobs = {(name, job): own for name, run in runs.items() for job, own in (run.get("jobs") or {}).items()}
    return runs | {"-".join(filter(None, names)): own for names, own in jobs.items()}


def _flows_file(name: str) -> str:
    return f"flow_completion{'-' + name if name else ''}.csv"
