"""A headless Chromium for tests: opens a page, says what it logged and fetched, runs script, takes pictures.

It speaks the DevTools protocol over a pipe (file descriptors 3 and 4), so it needs no driver and no open port.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip

OVERLAPS = """
(() => {
  const found = [];
  for (const root of document.querySelectorAll(".plot")) {
    const id = root.id, box = root.getBoundingClientRect();
    const texts = [...root.querySelectorAll("svg text")].filter(t => t.textContent.trim() && !t.closest(".hoverlayer, .legend"));
    const boxes = texts.map(t => [t.textContent, t.getBoundingClientRect()]);
    for (const [words, b] of boxes) if (b.right > box.right + 1 || b.left < box.left - 1) found.push([id, words, "cut"]);
    for (let i = 0; i < boxes.length; i++) for (let j = 0; j < i; j++) {
      const [a, p] = boxes[i], [b, q] = boxes[j];
      const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left), high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (wide > 1 && high > 3) found.push([id, a, b]);
    }
  }
  return found;
})()
"""
"""Script: texts of figures that lie on one another or are cut by their figure."""

FRAMES = """
(async () => {{
  let changes = 0;
  const watch = new MutationObserver(records => {{ changes += records.length; }});
  watch.observe(document.body, {{subtree: true, childList: true, attributes: true, characterData: true}});
  const counts = [];
  for (let frame = 0; frame < {frames}; frame++) {{
    await new Promise(done => requestAnimationFrame(done));
    changes = 0;
    {step};
    await new Promise(done => setTimeout(done));
    counts.push(changes);
  }}
  watch.disconnect();
  return counts;
}})()
"""
"""Script, to be formatted: changes of the page that each of some `frames` makes, in which `step` is done."""

NAMES_CUT = "[...document.querySelectorAll('caption span')].filter(s => s.getBoundingClientRect().right > innerWidth).length"
"""Script: how many names of tables do not end on the screen."""


def find() -> str | None:
    """The browser's path, or None where this machine has none."""
    return os.environ.get("BROWSER_PATH") or next(
        (path for name in NAMES if (path := shutil.which(name))), None
    )


class Tab:
    """One page; `errors` and `requests` grow as the page lives."""

    def __init__(self, out: int, into: int) -> None:
        self._out, self._in, self._last, self._rest = out, into, 0, b""
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, timeout_s: float = 60.0, **params: Any) -> dict[str, Any]:
        """Call a protocol method and wait for its answer; events that come meanwhile are kept."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout_s
        while True:
            answer = self._read(end - time.monotonic())
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self._note(answer)

    def open(
        self, path: Path, *, width: int = 1400, height: int = 1000, dark: bool = False, draw: bool = True
    ) -> None:
        """Load a file at a size and in a colour scheme; with `draw`, draw every figure outside closed folds."""
        self.visit(path.resolve().as_uri(), width=width, height=height, dark=dark, draw=draw)

    def visit(
        self, url: str, *, width: int = 1400, height: int = 1000, dark: bool = False, draw: bool = True
    ) -> None:
        """Load an address, as `open` does a file."""
        mobile = width < 600
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.errors.clear()
        self.requests.clear()
        self.send("Page.navigate", url=url)
        end = time.monotonic() + 60
        while self.run("document.readyState") != "complete" or self.run("location.href") == "about:blank":
            if time.monotonic() > end:
                raise TimeoutError(f"{url} does not load")
            time.sleep(0.05)
        if draw:
            self.draw_all()
        self.settle()

    def draw_all(self) -> None:
        """Draw the figures that were not near the screen yet."""
        self.run("window.moesim && moesim.drawAll()")
        self.settle()

    def point(self, x: float, y: float) -> None:
        """Move the mouse to a place on the screen."""
        for step in (-3, 0):
            self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x + step, y=y)
            self.settle()

    def press(self, key: str, code: int) -> None:
        """Press a key and let it go."""
        for kind in ("rawKeyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, nativeVirtualKeyCode=code
            )  # fmt: skip
        self.settle()

    def spoken(self, role: str) -> list[str]:
        """The name of each part with a role, as a screen reader is told it."""
        self.send("Accessibility.enable")
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        found = [node for node in nodes if node.get("role", {}).get("value") == role]
        return [node["name"]["value"] for node in found]

    def settle(self) -> None:
        """Wait for two frames and for what they set off."""
        self.run(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 120))))"
        )

    def run(self, script: str) -> Any:
        """The value of a script; promises are awaited."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def layouts(self) -> int:
        """How often the page was laid out since it was loaded."""
        self.send("Performance.enable")
        metrics = self.send("Performance.getMetrics")["metrics"]
        return int(next(metric["value"] for metric in metrics if metric["name"] == "LayoutCount"))

    def frames(self, number: int, step: str) -> tuple[list[int], int]:
        """Changes to the page in each frame in which a step is taken, and how often the page was laid out meanwhile."""
        first = self.layouts()
        changes = self.run(FRAMES.format(frames=number, step=step))
        return changes, self.layouts() - first

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the page."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        if whole:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}
            data = self.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self, path: Path) -> None:
        """The page as it prints."""
        path.write_bytes(base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"]))

    def _read(self, left_s: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if left_s <= 0 or not select.select([self._in], [], [], left_s)[0]:
                raise TimeoutError("the browser does not answer")
            got = os.read(self._in, 1 << 20)
            if not got:
                raise RuntimeError("the browser went away")
            self._rest += got
        one, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(one))

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"])))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(
                " ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"])
            )
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:", "about:")):
                self.requests.append(url)


def _pipe() -> tuple[int, int]:
    """A pipe whose descriptors are 10 or more, clear of those that the browser wants."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in ends)
    for fd in ends:
        os.close(fd)
    return high[0], high[1]


@contextmanager
def tab() -> Iterator[Tab]:
    """A fresh browser with one page; it is closed, and its profile removed, at the end."""
    path = find()
    if path is None:
        raise FileNotFoundError("no Chromium here")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        their_in, our_out = _pipe()
        our_in, their_out = _pipe()
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{their_in} 4>&{their_out}', "bash", path, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(their_in, their_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(their_in)
        os.close(their_out)
        try:
            yield Tab(our_out, our_in)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(our_out)
            os.close(our_in)
