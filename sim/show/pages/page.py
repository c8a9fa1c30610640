"""The HTML page that figures live on: one file, plotly inlined once, nothing fetched.

Why this way: figures travel as JSON in the page and are drawn by `page.js`, which picks the light or dark template, fits
them to the screen, and draws each when it comes near the screen: a page opens as fast as its first figure. Plotly is the
whole library (its smaller bundles draw what they lack as something else, without a word), inlined as gzip: two megabytes
instead of five. Ids and numbers are fixed, so the same result gives the same bytes.
"""

from __future__ import annotations

import base64
import functools
import gzip
import html
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

from sim.show import style


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure ready for a page: its id, the sentence it shows, what a screen reader says, its size and its JSON."""

    ident: str
    title: str
    alt: str
    height_px: int
    data: str
    least_px: int = 0
    """Width below which it scrolls sideways."""


def drawing(ident: str, figure: Any, title: str | None = None) -> Drawing:
    """Take the title out of a figure (the page prints it, or `title`, as text that wraps) and write the rest as JSON."""
    spec = json.loads(figure.to_json())
    layout = spec["layout"]
    meta = layout.pop("meta", {})
    top, height = meta.get("top_px", 40), meta.get("height_px", layout.get("height", 450))
    for key in ("title", "template", "width"):
        layout.pop(key, None)
    layout["height"] = height
    if "stacked" in meta:
        layout["meta"] = {"stacked": meta["stacked"]}
    layout["margin"] = {"l": 8, "r": 16, "t": top, "b": min(44, meta.get("bottom_px", 44))}
    title = title or str(meta.get("title", ident))
    return Drawing(
        ident, title, meta.get("alt", title), round(height), _json(_rounded(spec)), meta.get("least_px", 0)
    )


def figure_html(one: Drawing) -> str:
    """A figure with its sentence above it."""
    ident = html.escape(one.ident, quote=True)
    before, after = ('<div class="across" tabindex="0">', "</div>") if one.least_px else ("", "")
    least = f";min-width:{one.least_px}px" if one.least_px else ""
    return (
        f'<figure><figcaption id="{ident}-title">{_text(one.title)}</figcaption>{before}'
        f'<div class="plot" id="{ident}" role="img" aria-label="{html.escape(one.alt, quote=True)}" '
        f'style="min-height:{one.height_px}px{least}"></div>{after}'
        f'<script type="application/json" id="{ident}-data">{one.data}</script></figure>'
    )


def figure_page(name: str, figure: Any) -> str:
    """A page with one figure on it."""
    one = drawing(name, figure)
    return shell(one.title, f'<main class="alone">{figure_html(one)}</main>')


def shell(title: str, body: str) -> str:
    """The whole page around a body, with plotly inlined."""
    look, draw = _beside("page.css"), _beside("page.js")
    templates = _json({theme: style.template(theme) for theme in ("light", "dark")})
    script = (
        '<noscript><p class="note">Figures need JavaScript; the tables hold the numbers.</p></noscript>\n'
        f'<script type="application/octet-stream" id="plotly">{plotly()}</script>\n'
        f"<script>const TEMPLATES = {templates};\n{draw}</script>"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="generator" content="moesim">\n'
        f'<link rel="icon" href="data:,">\n<title>{html.escape(title)}</title>\n<style>{look}</style>\n</head>\n'
        f"<body>\n{body}\n{script}\n</body>\n</html>\n"
    )


@functools.cache
def plotly() -> str:
    """Plotly's whole script, as gzip in base64."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


@functools.cache
def _beside(file: str) -> str:
    """The text of a file that stands beside this module."""
    return resources.files("sim.show.pages").joinpath(file).read_text(encoding="utf-8")


def fold(summary: str, inside: str, *, is_open: bool = False, extra: str = "") -> str:
    """A part that opens on demand."""
    more = f' <span class="soft">{html.escape(extra)}</span>' if extra else ""
    return f"<details{' open' if is_open else ''}><summary>{html.escape(summary)}{more}</summary>\n{inside}</details>"


def paragraphs(sentences: Iterable[str], kind: str = "") -> str:
    """Sentences, each a paragraph."""
    mark = f' class="{kind}"' if kind else ""
    return "".join(f"<p{mark}>{_text(one)}</p>" for one in sentences)


def _text(sentence: str) -> str:
    """A sentence as HTML, whose percentages do not break."""
    return html.escape(sentence).replace(" %", "\u00a0%")


def _json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return (
        json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
        .replace("</", "<\\/")
        .replace("<!--", "\\u003c!--")
    )


def _rounded(value: Any) -> Any:
    """Floats at six digits: a screen shows no more, and a page stays small."""
    if isinstance(value, float):
        return None if not math.isfinite(value) else float(f"{value:.6g}")
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return value
