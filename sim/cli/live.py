"""The live explorer: a server on the loopback interface that simulates each notch anew for the page that it serves.

Why this way: the page is the one that `--export` writes; a server of Python's own has four things to do, and a framework would bring
a second page and forty packages. Nobody else on the machine may ask: every address carries a token, and only names of the
loopback interface are answered, so that no page from elsewhere reaches it under a name of its own. Nothing is written but scenarios, into
the folder that was given, and none over another.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sim import documents, files
from sim.answers import cube
from sim.errors import MoesimError
from sim.show.pages.explorer import explorer_html, point_json
from sim.sweeps.file import Sweep
from sim.sweeps.points import evaluate

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"


class LiveExplorer:
    """A sweep whose points are run when they are asked for; `folder` takes the scenarios that are saved."""

    def __init__(self, sweep: Sweep, folder: Path, port: int = 0) -> None:
        self.sweep, self.folder, self.token = sweep, folder, secrets.token_urlsafe(24)
        self.page = explorer_html({"schema": cube.SCHEMA, **cube.described(sweep)}, is_live=True).encode()
        self._known: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.server = ThreadingHTTPServer((HOST, port), _handler(self))
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        """Address of the page, with its token."""
        return f"http://{HOST}:{self.server.server_port}/?token={self.token}"

    def places(self, asked: str) -> tuple[int, ...]:
        """Read where the sliders stand: `3,1,0`. Raises `ValueError`."""
        places = tuple(map(int, asked.split(",")))
        sizes = [len(axis["values"]) for axis in cube.described(self.sweep)["axes"]]
        if len(places) != len(sizes) or not all(
            0 <= place < size for place, size in zip(places, sizes, strict=True)
        ):
            raise ValueError(asked)
        return places

    def documents(self, places: tuple[int, ...]) -> list[documents.Document]:
        """Return the scenarios of one setting, by what is compared."""
        space, beside = self.sweep.space, cube.compared(self.sweep)
        numbers = []
        for choice in range(len(beside.values) if beside else 1):
            rest, number = iter(places), 0
            for axis in space.axes:
                number = number * len(axis.values) + (choice if axis is beside else next(rest))
            numbers.append(number)
        return [self.sweep.document(number) for number in numbers]

    def point(self, places: tuple[int, ...]) -> list[dict[str, Any]]:
        """Run the scenarios of one setting, each at most once."""
        made = []
        for document in self.documents(places):
            key = documents.dumps(document.tree)
            with self._lock:
                if key not in self._known:
                    self._known[key] = cube.entry(self.sweep, evaluate(document, self.sweep.constraints))
            made.append(self._known[key])
        return made

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
            if asked["path"] == "/point":
                places = self._places(asked)
                if places is not None:
                    self._answer(point_json(explorer.point(places)).encode(), "application/json")
                return
            self._refuse(HTTPStatus.NOT_FOUND)

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
            self.end_headers()
            self.wfile.write(body)

        def _refuse(self, status: HTTPStatus) -> None:
            self._answer(f"{status.phrase.lower()}\n".encode(), "text/plain; charset=utf-8", status)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep silent: the address holds the token."""

    return Handler
