"""The files that a command leaves in a folder, and reads back: result.json, report.html, trace.json.gz, CSV.

Every file is written under a temporary name and then renamed, so that nothing is ever half-written.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sim import documents
from sim.errors import InputError, Mark, MoesimError, Problem, nearest
from sim.files import beside
from sim.files import text as text_of
from sim.show.kinds import SCHEMAS, is_document, kind_of, results_in, runs_in, workload_of

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_OF_RUNS = ("report.html", "trace.json.gz", "flow_completion*.csv")
_WRITABLE = "a folder that can be written"
_DOCUMENTS = ("result.json", "sweep.json", "ladder.json")  # each may stand for its folder


def dump(document: Any) -> str:
    """Write a document as JSON, a line for each entry."""
    return json.dumps(document, indent=1, allow_nan=False, default=str) + "\n"


def without_flows(result: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a result without the rows that have a CSV of their own: the document of result.json."""
    document = {key: value for key, value in result.items() if key != "flow_completion"}
    if "variants" in document:
        document["variants"] = {name: without_flows(run) for name, run in document["variants"].items()}
    return document


def run_files(result: Mapping[str, Any], *, with_report: bool = True) -> dict[str, str | bytes]:
    """Make the files of a run by name; with its report comes its trace, where something has a course in time."""
    files: dict[str, str | bytes] = {"result.json": dump(without_flows(result)), **_csv(result)}
    if with_report:
        from sim.show.files import trace
        from sim.show.files.timelines import timeline as timeline_of
        from sim.show.pages.report import report_html

        files["report.html"] = report_html(result)
        timeline = timeline_of(result)
        if timeline.slices or timeline.transfers or timeline.counters:
            files["trace.json.gz"] = trace.encode(trace.document(timeline))
    return files


def study_files(document: Mapping[str, Any]) -> dict[str, str | bytes]:
    """Make the files of a sweep or ladder by name: its document and its report."""
    from sim.show.pages.report import report_html

    return {f"{kind_of(document)}.json": dump(document), "report.html": report_html(document)}


def _csv(result: Mapping[str, Any]) -> dict[str, str]:
    """flow_completion.csv of a `flows` run, or of each of its variants."""
    files = {}
    for name, run in runs_in(result).items():
        if "flow_completion" in run:
            lines = [f"{int(flow)},{start:.6f},{done:.6f}" for flow, start, done in run["flow_completion"]]
            files[_flows_file(name)] = "flow_id,start_us,rx_done_us\n" + "\n".join(lines) + "\n"
    return files


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files into a folder, which is made where it is missing.

    A new result.json takes the report, trace and CSVs of the one before it away, so that what stands together belongs together.
    Raises `InputError` where that cannot be, `MoesimError` where the disk is full, which is no fault of what was asked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
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
        reason = (error.strerror or str(error)).lower()
        if error.errno in _FULL:
            raise MoesimError(f"{folder}: {reason}; nothing there is half-written") from None
        raise InputError(Problem(Mark(str(folder)), "--out", reason, _WRITABLE)) from None


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

    A folder stands for the result.json, sweep.json or ladder.json in it, a shipped hardware's name for its profile.
    """
    if not path.exists() and str(path) in documents.shipped("hardware"):
        from sim.cluster.hardware import load_hardware
        from sim.runs.kernel_list import hardware_launches

        return hardware_launches(load_hardware(str(path)))
    if not os.path.lexists(path):
        known = documents.shipped("hardware")
        wanted = f"a document of a command, its folder, or one of: {', '.join(known)}"
        near = beside(path) or nearest(str(path), known)
        raise InputError(Problem(Mark(str(path)), "", "no such file or directory", wanted, near))
    inside = [path / name for name in _DOCUMENTS if (path / name).is_file()] or [path / _DOCUMENTS[0]]
    file = inside[0] if path.is_dir() else path
    wanted = f"one of: {', '.join(_DOCUMENTS)}"
    result = _tree(file, wanted)
    if not is_document(result):
        got = result.get("schema", "no schema") if isinstance(result, dict) else "no mapping"
        raise InputError(Problem(Mark(str(file)), "schema", f"'{got}'", f"one of: {', '.join(SCHEMAS)}"))
    document: dict[str, Any] = result
    with blame(file):
        _read_flows(document, file.parent)
    return document


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
    try:
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
    for name, run in runs_in(result).items():
        file = folder / _flows_file(name)
        if workload_of(run) != "flows" or "flow_completion" in run or not file.is_file():
            continue
        try:
            rows = [line.split(",") for line in file.read_text(encoding="utf-8").splitlines()[1:]]
            run["flow_completion"] = [[float(cell) for cell in row] for row in rows]
        except ValueError:
            raise InputError(
                Problem(Mark(str(file)), "", "a row that is no flow", "what `moesim run` wrote")
            ) from None


def _flows_file(variant: str) -> str:
    return f"flow_completion{'-' + variant if variant else ''}.csv"
