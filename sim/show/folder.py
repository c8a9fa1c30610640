"""What a command leaves in a folder, and what it reads back: result.json, report.html, trace.json.gz, CSV.

Every file is written under a temporary name and then renamed, so that nothing is ever half-written.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim import documents
from sim.errors import Fault, InputError, Mark, MoesimError

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_SCHEMAS = ("moesim.result/1", "moesim.results/1", "moesim.sweep/1", "moesim.ladder/1")
_OF_RUNS = ("report.html", "trace.json.gz", "flow_completion*.csv")
_DOCUMENTS = ("result.json", "sweep.json", "ladder.json")  # what a folder stands for


def dump(document: Any) -> str:
    """A document as JSON, a line for each entry."""
    return json.dumps(document, indent=1, allow_nan=False, default=str) + "\n"


def kept(result: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in result.json: everything but the rows that have a CSV of their own."""
    document = {key: value for key, value in result.items() if key != "flow_completion"}
    if "variants" in document:
        document["variants"] = {name: kept(one) for name, one in document["variants"].items()}
    return document


def of_run(result: Mapping[str, Any], *, with_report: bool = True) -> dict[str, str | bytes]:
    """The files of a run by name; with its report comes its trace, where something has a course in time."""
    files: dict[str, str | bytes] = {"result.json": dump(kept(result)), **_csv(result)}
    if with_report:
        from sim.show import report, timelines, trace

        files["report.html"] = report.report_html(result)
        timeline = timelines.of_result(result)
        if timeline.slices or timeline.transfers or timeline.counters:
            files["trace.json.gz"] = trace.encode(trace.document(timeline))
    return files


def of_study(document: Mapping[str, Any]) -> dict[str, str | bytes]:
    """The files of a sweep or ladder by name: its document and its report."""
    from sim.show import report

    name = str(document["schema"]).removeprefix("moesim.").partition("/")[0]
    return {f"{name}.json": dump(document), "report.html": report.report_html(document)}


def _csv(result: Mapping[str, Any]) -> dict[str, str]:
    """flow_completion.csv of a `flows` run and of each of its variants."""
    files = {}
    for name, one in {"": result, **result.get("variants", {})}.items():
        rows = one.get("flow_completion")
        if rows is not None:
            lines = [f"{int(flow)},{start:.6f},{done:.6f}" for flow, start, done in rows]
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
        raise InputError(Fault(Mark(str(folder)), "--out", reason, "a folder that can be written")) from None


def read(path: Path) -> dict[str, Any]:
    """Read a document of a command.

    A folder stands for the result.json, sweep.json or ladder.json in it, a shipped hardware's name for its profile.
    """
    if not path.exists() and str(path) in documents.shipped("hardware"):
        from sim.cluster.hardware import load_hardware
        from sim.study.kernel_list import of_hardware

        return of_hardware(load_hardware(str(path)))
    inside = [path / name for name in _DOCUMENTS if (path / name).is_file()] or [path / _DOCUMENTS[0]]
    file = inside[0] if path.is_dir() else path
    wanted = f"one of: {', '.join(_DOCUMENTS)}"
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            Fault(Mark(str(file)), "", (error.strerror or "unreadable").lower(), wanted)
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", 0)
        raise InputError(Fault(Mark(str(file), line, 1), "", "text that is not whole JSON", wanted)) from None
    if not isinstance(result, dict) or not (result.get("schema") in _SCHEMAS or "groups" in result):
        got = result.get("schema", "no schema") if isinstance(result, dict) else "no mapping"
        raise InputError(Fault(Mark(str(file)), "schema", f"'{got}'", f"one of: {', '.join(_SCHEMAS)}"))
    _read_flows(result, file.parent)
    return result


def _read_flows(result: dict[str, Any], folder: Path) -> None:
    """Put the rows of a run's CSVs, where they still stand beside it, back into its document."""
    for name, one in {"": result, **(result.get("variants") or {})}.items():
        file = folder / _flows_file(name)
        kind = ((one.get("scenario") or {}).get("workload") or {}).get("kind")
        if kind != "flows" or "flow_completion" in one or not file.is_file():
            continue
        try:
            rows = [line.split(",") for line in file.read_text(encoding="utf-8").splitlines()[1:]]
            one["flow_completion"] = [[float(cell) for cell in row] for row in rows]
        except ValueError:
            raise InputError(
                Fault(Mark(str(file)), "", "a row that is no flow", "what `moesim run` wrote")
            ) from None


def _flows_file(variant: str) -> str:
    return f"flow_completion{'-' + variant if variant else ''}.csv"
