"""Figures as files: self-contained HTML always, PNG, SVG and PDF where a browser is found.

Each file is written under a temporary name and then moved, so that a half-written picture never stands in a folder.
Why one browser: it takes seconds to start, a picture a fraction of one. Why not kaleido's server, which keeps one too: what ends
its thread, such as no browser, leaves whoever asked it for a picture waiting for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sim.errors import InputError, Problem, nearest
from sim.show.pages import page

FORMATS = ("html", "png", "svg", "pdf")
HOW = (
    "pip install 'moesim[images]' and a Chrome or Chromium (apt install chromium, or run plotly_get_chrome; "
    "BROWSER_PATH=/path/to/chrome names one that is not found)"
)
_SCALE = 2  # pixels per CSS pixel of a PNG
_WIDTH, _HEIGHT = 700, 500  # CSS pixels of a figure that does not say
_NO_NAME = re.compile(r"^\.|[^\w.+-]")
"""What a file's name is spared: names of results and variants may come from a file that somebody else wrote."""
_LONGEST_NAME = 200


class NoBrowserError(InputError):
    """An image format was asked for and nothing here can draw it; `written` says what was written all the same."""

    def __init__(self, formats: Iterable[str], why: str, written: tuple[Path, ...]) -> None:
        self.written = written
        super().__init__(Problem(None, "format", f"{', '.join(formats)} ({why})", HOW))


def check_formats(formats: Iterable[str]) -> tuple[str, ...]:
    """The formats, each once. Raises `InputError` for unknown ones, all together."""
    asked = tuple(dict.fromkeys(one.strip().lower().removeprefix(".") for one in formats if one.strip()))
    wanted = f"one of: {', '.join(FORMATS)}"
    problems = [
        Problem(None, "format", f"'{one}'", wanted, nearest(one, FORMATS))
        for one in asked
        if one not in FORMATS
    ]
    if problems or not asked:
        raise InputError(problems or Problem(None, "format", "none", wanted))
    return asked


def write(figures: Mapping[str, Any], folder: Path, formats: Iterable[str] = ("html",)) -> list[Path]:
    """Write each figure as `NAME.FORMAT` into a folder, which is made where it is missing.

    Returns the paths. Raises `NoBrowserError` (after the HTML is written) where an image format cannot be drawn, and
    `InputError` where the folder cannot be written.
    """
    asked = check_formats(formats)
    figures = {_NO_NAME.sub("_", name)[:_LONGEST_NAME]: figure for name, figure in figures.items()}
    images = [one for one in asked if one != "html"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        # HTML too when images were asked for and fail: a reader must not be left with nothing.
        if "html" in asked:
            written = [
                _replace(folder / f"{name}.html", page.figure_page(name, figure).encode())
                for name, figure in figures.items()
            ]
        if images:
            try:
                written += _write_images(figures, folder, images)
            except UnableError as error:
                if "html" not in asked:
                    written = [
                        _replace(folder / f"{name}.html", page.figure_page(name, figure).encode())
                        for name, figure in figures.items()
                    ]
                raise NoBrowserError(images, str(error), tuple(written)) from error
    except OSError as error:
        wanted = "a folder that can be written"
        raise InputError(Problem(None, "out", f"{folder} ({error.strerror or error})", wanted)) from error
    return written


class UnableError(Exception):
    """Kaleido or its browser is missing or broke down; the message is one line."""


def _write_images(figures: Mapping[str, Any], folder: Path, formats: Iterable[str]) -> list[Path]:
    try:
        import kaleido  # noqa: F401
    except ImportError as error:
        raise UnableError("kaleido is not installed") from error
    logging.getLogger("choreographer").setLevel(logging.CRITICAL)
    logging.getLogger("kaleido").setLevel(logging.CRITICAL)
    drawn = _drawn(figures, tuple(formats))
    return [_replace(folder / name, data) for name, data in drawn.items()]


def _drawn(figures: Mapping[str, Any], formats: tuple[str, ...]) -> dict[str, bytes]:
    """Every figure in every format, by file name."""
    try:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(_draw(figures, formats))
        with ThreadPoolExecutor(1) as aside:  # in a notebook, whose loop is busy with this very cell
            return aside.submit(asyncio.run, _draw(figures, formats)).result()
    except Exception as error:  # those of kaleido and of the browser share no base class
        said = str(error.args[0] if error.args else "").strip() or type(error).__name__
        raise UnableError(said.splitlines()[0].partition(". ")[0].rstrip(".")) from error


async def _draw(figures: Mapping[str, Any], formats: tuple[str, ...]) -> dict[str, bytes]:
    import kaleido

    drawn = {}
    drawer = kaleido.Kaleido()
    try:
        await drawer.open()
        for name, figure in figures.items():
            layout = figure.layout
            size = {"width": layout.width or _WIDTH, "height": layout.height or _HEIGHT}
            for one in formats:
                options = {**size, "format": one, "scale": _SCALE if one == "png" else 1}
                drawn[f"{name}.{one}"] = await drawer.calc_fig(figure.to_dict(), opts=options)
    finally:
        await drawer.close()
    return drawn


def _replace(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
