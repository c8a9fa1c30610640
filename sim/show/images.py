"""Figures as files: self-contained HTML always, PNG, SVG and PDF where a browser is found.

Each file is written under a temporary name and then moved, so that a half-written picture never stands in a folder.
Why one server: starting the browser takes seconds, a picture a fraction of one (kaleido's server mode draws them all).
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sim.errors import Fault, InputError, nearest
from sim.show import page

FORMATS = ("html", "png", "svg", "pdf")
HOW = (
    "pip install 'moesim[images]' and a Chrome or Chromium (apt install chromium, or run plotly_get_chrome; "
    "BROWSER_PATH=/path/to/chrome names one that is not found)"
)
_SCALE = 2  # pixels per CSS pixel of a PNG
_NO_NAME = re.compile(r"^\.|[^\w.+-]")
"""What a file's name is spared: names of results and variants may come from a file that somebody else wrote."""
_LONGEST_NAME = 200


class NoBrowserError(InputError):
    """An image format was asked for and nothing here can draw it; `written` says what was written all the same."""

    def __init__(self, formats: Iterable[str], why: str, written: tuple[Path, ...]) -> None:
        self.written = written
        super().__init__(Fault(None, "format", f"{', '.join(formats)} ({why})", HOW))


def check_formats(formats: Iterable[str]) -> tuple[str, ...]:
    """The formats, each once. Raises `InputError` for unknown ones, all together."""
    asked = tuple(dict.fromkeys(one.strip().lower().removeprefix(".") for one in formats if one.strip()))
    wanted = f"one of: {', '.join(FORMATS)}"
    faults = [
        Fault(None, "format", f"'{one}'", wanted, nearest(one, FORMATS))
        for one in asked
        if one not in FORMATS
    ]
    if faults or not asked:
        raise InputError(faults or Fault(None, "format", "none", wanted))
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
        raise InputError(Fault(None, "out", f"{folder} ({error.strerror or error})", wanted)) from error
    return written


class UnableError(Exception):
    """Kaleido or its browser is missing or broke down; the message is one line."""


def _write_images(figures: Mapping[str, Any], folder: Path, formats: Iterable[str]) -> list[Path]:
    try:
        import kaleido
    except ImportError as error:
        raise UnableError("kaleido is not installed") from error
    logging.getLogger("choreographer").setLevel(logging.ERROR)
    logging.getLogger("kaleido").setLevel(logging.ERROR)
    written = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*kopts.*")
        try:
            kaleido.start_sync_server(silence_warnings=True)
            for name, figure in figures.items():
                for one in formats:
                    data = figure.to_image(format=one, scale=_SCALE if one == "png" else 1)
                    written.append(_replace(folder / f"{name}.{one}", data))
        except OSError:
            raise
        except Exception as error:  # kaleido's own errors share no base class
            first = str(error).strip().splitlines()
            raise UnableError(first[0].rstrip(".") if first else type(error).__name__) from error
        finally:
            kaleido.stop_sync_server(silence_warnings=True)
    return written


def _replace(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
