"""The live explorer: a server on the loopback interface that simulates each notch anew for the page that it serves.

Why this way: the page is the one that `--export` writes; a server of Python's own has four things to do, and a framework would bring
a second page and forty packages. Nobody else on the machine may ask: every address carries a token, and only names of the
loopback interface are answered, so that no page from elsewhere reaches it under a name of its own. Nothing is written but scenarios, into
the folder that was given, and none over another.
"""

from __future__ import annotations

import hmac
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sim import documents, files
from sim.answers import cube
from sim.answers.motion import motion, motion_of
from sim.answers.preview import preview
from sim.documents import Document
from sim.errors import MoesimError
from sim.runs.kinds import Result
from sim.runs.run import run_document
from sim.show.pages.explorer import explorer_html, point_json
from sim.show.pages.motion import motion_html
from sim.show.pages.report import report_html
from sim.sweeps.file import Sweep
from sim.sweeps.points import Batch, evaluate
from sim.sweeps.workers import Workers, start

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"


class LiveExplorer:
    """A sweep whose points are run when they are asked for; `folder` takes the scenarios that are saved.

    Runs are made one after another, those of a notch before those that only fill in its curve. What takes seconds
    (`answers.preview`) is run with alike ranks at once, and exactly by processes that end when another is asked.
    """

    def __init__(self, sweep: Sweep, folder: Path, port: int = 0) -> None:
        self.sweep, self.folder, self.token = sweep, folder, secrets.token_urlsafe(24)
        self.page = explorer_html({"schema": cube.SCHEMA, **cube.described(sweep)}, is_live=True).encode()
        self._known: dict[str, Any] = {}
        self._previews: dict[str, Document | None] = {}
        self._lock = threading.Lock()
        self._turn, self._is_running, self._num_urgent = threading.Condition(), False, 0
        self._processes: Workers | None = None
        self._exact_at: tuple[int, ...] = ()
        self.server = ThreadingHTTPServer((HOST, port), _handler(self))
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        """Address of the page, with its token."""
        return f"http://{HOST}:{self.server.server_port}/?token={self.token}"

    def places(self, asked: str) -> tuple[int, ...]:
        """Read where the sliders stand: `3,1,0`. Raises `ValueError`."""
        places = tuple(map(int, asked.split(",")))
        beside = cube.compared(self.sweep)
        sizes = [len(axis.values) for axis in self.sweep.space.axes if axis is not beside]
        if len(places) != len(sizes) or not all(
            0 <= place < size for place, size in zip(places, sizes, strict=True)
        ):
            raise ValueError(asked)
        return places

    def documents(self, places: tuple[int, ...]) -> list[Document]:
        """Return the scenarios of one setting, by what is compared."""
        space, beside = self.sweep.space, cube.compared(self.sweep)
        numbers = []
        for choice in range(len(beside.values) if beside else 1):
            rest, number = iter(places), 0
            for axis in space.axes:
                number = number * len(axis.values) + (choice if axis is beside else next(rest))
            numbers.append(number)
        return [self.sweep.document(number) for number in numbers]

    def point(self, places: tuple[int, ...], *, urgent: bool = True) -> list[dict[str, Any]]:
        """Run the scenarios of one setting, each at most once; `preview` is set in those that were run with alike ranks."""
        asked = [(cube.run_address(document), document) for document in self.documents(places)]
        if all(key in self._known for key, _ in asked):
            return [dict(self._known[key]) for key, _ in asked]
        for key, document in asked:
            if key not in self._previews:
                self._previews[key] = preview(document)
        previews = [self._previews[key] for key, _ in asked]
        if urgent:
            self._give_up_exact(but=places)
        if not any(previews):
            return [self._entry(key, document, urgent) for key, document in asked]
        alike = [other or document for (_, document), other in zip(asked, previews, strict=True)]
        return [{**self._entry(cube.run_address(each), each, urgent), "preview": True} for each in alike]

    def _entry(self, key: str, document: Document, urgent: bool) -> dict[str, Any]:
        if key not in self._known:
            with self._turn:
                self._num_urgent += urgent
                self._turn.wait_for(lambda: not self._is_running and (urgent or not self._num_urgent))
                self._is_running = True
                self._num_urgent -= urgent
            try:
                if key not in self._known:
                    self._known[key] = cube.entry(self.sweep, evaluate(document, self.sweep.constraints))
            finally:
                with self._turn:
                    self._is_running = False
                    self._turn.notify_all()
        return dict(self._known[key])

    def exact(self, places: tuple[int, ...]) -> list[dict[str, Any]] | None:
        """Run the scenarios of one setting as they are; None where another setting was asked for meanwhile."""
        documents_ = self.documents(places)
        keys = [cube.run_address(document) for document in documents_]
        asked = dict(zip(keys, documents_, strict=True))
        missing = [(key, document) for key, document in asked.items() if key not in self._known]
        with self._lock:
            self.end_exact()
            self._processes, self._exact_at = start() if missing else None, places
            batches = [Batch(((0, document),), self.sweep.constraints) for _, document in missing]
            futures = [self._processes.submit(batch) for batch in batches if self._processes]
        try:
            for (key, _), future in zip(missing, futures, strict=True):
                ((_, row),) = future.result()
                self._known[key] = cube.entry(self.sweep, row)
        except (BrokenExecutor, CancelledError):
            return None
        return [dict(self._known[key]) for key in keys]

    def motion(self, places: tuple[int, ...]) -> str:
        """Write the page that plays the all-to-all of one setting, on the first and the last machine. Raises `MoesimError`."""
        machines = self._first_and_last(places)
        if len(machines) == 1:
            return motion_html(motion(self.documents(places)[0]))
        return motion_html(motion_of(machines, None))

    def result(self, places: tuple[int, ...]) -> Result:
        """Run one setting as `moesim run` does, on the first machine and on the last. Raises `MoesimError`."""
        machines = self._first_and_last(places)
        first = next(iter(machines.values()))
        tree = {key: value for key, value in first.tree.items() if key != "expect"}
        tree["title"] = self.sweep.title
        if len(machines) > 1:
            tree["variants"] = {
                re.sub(r"[^\w.-]+", "-", name): {
                    f"cluster.{key}": value for key, value in each.tree["cluster"].items()
                }
                for name, each in machines.items()
            }
        return run_document(Document(tree, first.name, folder=first.folder))

    def _first_and_last(self, places: tuple[int, ...]) -> dict[str, Document]:
        """Return the scenarios of one setting on the first machine and on the last, by their names."""
        documents_, beside = self.documents(places), cube.compared(self.sweep)
        names = beside.values if beside else ("",)
        by_name = {
            "your machine" if name == "yours" else str(name): document
            for name, document in zip(names, documents_, strict=True)
        }
        ends = dict.fromkeys((next(iter(by_name)), next(reversed(by_name))))
        return {name: by_name[name] for name in ends}

    def _give_up_exact(self, but: tuple[int, ...]) -> None:
        """End the exact runs of another setting, which take the cores that a notch waits for; not while they begin."""
        if self._exact_at != but and self._lock.acquire(blocking=False):
            try:
                self.end_exact()
            finally:
                self._lock.release()

    def end_exact(self) -> None:
        """End the exact runs that are under way."""
        if self._processes is not None:
            self._processes.close(now=True)
            self._processes = None

    def save(self, places: tuple[int, ...]) -> Path:
        """Write the first scenario of one setting into the folder, under a name that is free. Raises `MoesimError`."""
        document = self.documents(places)[0]
        text = documents.dumps(document.tree).encode()
        with self._lock:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                for number in range(1, 10_000):
                    path = self.folder / f"{self.sweep.name}-{number}.yaml"
                    try:
                        with path.open("xb") as stream:
                            stream.write(text)
                    except FileExistsError:
                        continue
                    return path
            except OSError as error:
                raise files.unwritable(self.folder, error) from None
        raise MoesimError(f"{self.folder}: too many scenarios")


def _handler(explorer: LiveExplorer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers the page, its points, and requests to save."""

        server_version, sys_version = "moesim", ""

        def do_GET(self) -> None:
            asked = self._asked()
            if asked is None:
                return
            if asked["path"] == "/":
                return self._answer(explorer.page, "text/html; charset=utf-8")
            if asked["path"] in ("/point", "/exact"):
                places = self._places(asked)
                if places is None:
                    return
                is_exact, urgent = asked["path"] == "/exact", "fill" not in asked
                made = explorer.exact(places) if is_exact else explorer.point(places, urgent=urgent)
                if made is None:
                    return self._refuse(HTTPStatus.CONFLICT)
                return self._answer(point_json(made).encode(), "application/json")
            if asked["path"] == "/motion":
                return self._write(asked, explorer.motion)
            if asked["path"] == "/report":
                return self._write(asked, lambda places: report_html(explorer.result(places)))
            self._refuse(HTTPStatus.NOT_FOUND)

        def _write(self, asked: Mapping[str, str], page: Callable[[tuple[int, ...]], str]) -> None:
            places = self._places(asked)
            if places is None:
                return
            try:
                self._answer(page(places).encode(), "text/html; charset=utf-8")
            except MoesimError as error:
                self._answer(f"{error}\n".encode(), "text/plain; charset=utf-8", HTTPStatus.CONFLICT)

        def do_POST(self) -> None:
            asked = self._asked()
            if asked is None:
                return
            if asked["path"] != "/save":
                return self._refuse(HTTPStatus.NOT_FOUND)
            places = self._places(asked)
            if places is None:
                return
            try:
                text = f"{explorer.save(places)} is written; moesim run runs it."
            except MoesimError as error:
                text = str(error)
            self._answer(text.encode(), "text/plain; charset=utf-8")

        def _asked(self) -> Mapping[str, str] | None:
            """Return path and parameters; None, with the refusal sent, without the token or under another name."""
            url = urlsplit(self.path)
            given = {key: values[0] for key, values in parse_qs(url.query).items()}
            name = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host") or ""
            token = given.get("token", "").encode()
            if name not in _NAMES or not hmac.compare_digest(token, explorer.token.encode()):
                self._refuse(HTTPStatus.FORBIDDEN)
                return None
            return {**given, "path": url.path}

        def _places(self, asked: Mapping[str, str]) -> tuple[int, ...] | None:
            try:
                return explorer.places(asked.get("at", ""))
            except ValueError:
                self._refuse(HTTPStatus.BAD_REQUEST)
                return None

        def _answer(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
            self.send_response(status)
            for name, value in {
                "Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store",
                "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": _POLICY,
            }.items():  # fmt: skip
                self.send_header(name, value)
            with suppress(ConnectionError):  # the page is gone
                self.end_headers()
                self.wfile.write(body)

        def _refuse(self, status: HTTPStatus) -> None:
            self._answer(f"{status.phrase.lower()}\n".encode(), "text/plain; charset=utf-8", status)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep silent: the address holds the token."""

    return Handler
