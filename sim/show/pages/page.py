"""A page: one HTML file, filled from a template, with plotly inlined once and nothing fetched.

Why this way: figures travel as JSON in the page and are drawn by `page.js`, which picks the light or dark template, fits
them to the screen, and draws each when it comes near the screen: a page opens as fast as its first figure. Plotly is the
whole library (its smaller bundles draw what they lack as something else, without a word), inlined as gzip: two megabytes
instead of five. Ids and numbers are fixed, so the same result gives the same bytes.

Templates lie in `templates/`, one for each kind of report. Each takes one frozen record, `page`, and escapes every text in it;
only what is marked safe here stands as it is.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from sim import kept
from sim.show import style
from sim.show.canvas import Picture
from sim.show.failures import Failure
from sim.show.grid import Grid

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = resources.files("sim.show.pages") / "templates"
_LEVEL = 5  # of gzip; 9 takes twice as long for 1 % fewer bytes
_OPTIONS: dict[str, Any] = {
    "autoescape": True,
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
}
"""Of jinja: they decide what a template is compiled to."""
_LONG = frozenset(
    {
        "why and source", "source", "quantity", "metric", "one of them", "most of it", "works around", "reason", "verdict",
        "citation", "sets", "goes with it",
    }
)  # fmt: skip
"""Heads of columns that may wrap."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure ready for a page."""

    ident: str
    title: str
    """The sentence that it shows."""
    alt: str
    """Its description for a screen reader."""
    height_px: int
    data: str
    """Its traces and layout as JSON."""
    least_px: int = 0
    """Width below which it scrolls sideways."""


Figure = Drawing | Failure
"""A figure of a report, or the note that stands in its place."""


def drawing(ident: str, figure: Any, title: str | None = None) -> Drawing:
    """Prepare a `Picture` or a plotly figure for a page.

    Its title, or `title`, leaves the figure: the page prints it as text that wraps.
    """
    picture = figure if isinstance(figure, Picture) else Picture(**json.loads(figure.to_json()))
    spec = picture.plain()
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
        ident, title, meta.get("alt", title), round(height), in_script(spec), meta.get("least_px", 0)
    )


def figure_page(name: str, figure: Any) -> str:
    """Return a page with one figure on it."""
    return render("figure", drawing(name, figure))


def render(template: str, page: Any) -> str:
    """Fill the template of a kind of page with the record it takes."""
    return _environment().get_template(f"{template}.html.j2").render(page=page)


@functools.cache
def plotly() -> str:
    """Return plotly's whole script, as gzip in base64; packed once on a machine, which takes as long as a small report."""
    script = resources.files("plotly").joinpath("package_data/plotly.min.js").read_bytes()
    name = f"plotly-{_LEVEL}-{hashlib.sha256(script).hexdigest()[:24]}.base64"
    packed = kept.read(name)
    if packed is None:
        packed = base64.b64encode(gzip.compress(script, _LEVEL, mtime=0))
        kept.write(name, "plotly", packed)
    return packed.decode()


@functools.cache
def _environment() -> Environment:
    """Templates with their filters; `inlined` is what every whole page holds."""
    from jinja2 import BytecodeCache, Environment, PackageLoader, StrictUndefined
    from jinja2.bccache import Bucket
    from markupsafe import Markup

    class Compiled(BytecodeCache):
        """Bytecode of templates, whose text and versions jinja compares itself."""

        def load_bytecode(self, bucket: Bucket) -> None:
            if code := kept.read(f"{bucket.key}-{options}.template"):
                bucket.bytecode_from_string(code)

        def dump_bytecode(self, bucket: Bucket) -> None:
            kept.write(f"{bucket.key}-{options}.template", bucket.key, bucket.bytecode_to_string())

    options = hashlib.sha256(repr(_OPTIONS).encode()).hexdigest()[:8]

    made = Environment(
        loader=PackageLoader("sim.show.pages"),
        undefined=StrictUndefined,
        auto_reload=False,
        bytecode_cache=Compiled(),
        **_OPTIONS,
    )
    made.globals["inlined"] = lambda: {key: Markup(text) for key, text in _shell().items()}
    made.globals["look"] = lambda: Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8"))
    made.globals["script"] = lambda name: Markup((_TEMPLATES / f"{name}.js").read_text(encoding="utf-8"))
    made.tests["failure"] = lambda figure: isinstance(figure, Failure)
    made.filters |= {
        "unbroken": lambda sentence: sentence.replace(" %", "\u00a0%"),  # percentages do not break
        "whole_words": lambda title: Markup(" ").join(
            Markup('<span class="word-whole">{}</span>').format(word) if "-" in word else word
            for word in title.split(" ")
        ),  # DeepSeek-V3 does not break at its hyphen
        "in_script": Markup,
        "class_of": lambda names: Markup(f' class="{names}"') if names else "",
        "column_looks": _column_looks,
        "row_look": _row_look,
    }
    return made


@functools.cache
def _shell() -> dict[str, str]:
    return {
        "css": (_TEMPLATES / "page.css").read_text(encoding="utf-8"),
        "js": (_TEMPLATES / "page.js").read_text(encoding="utf-8"),
        "themes": in_script({theme: style.template(theme) for theme in ("light", "dark")}),
        "plotly": plotly(),
    }


def _column_looks(grid: Grid) -> list[str]:
    """The classes of each column: `word` stands left, `long` may wrap."""
    return [
        " ".join(name for name, is_so in (("word", column in grid.words), ("long", head in _LONG)) if is_so)
        for column, head in enumerate(grid.heads)
    ]


def _row_look(grid: Grid, row: int) -> str:
    """The classes of a row: `bad` misses a tolerance, `break` begins a group."""
    return " ".join(name for name, rows in (("bad", grid.bad), ("break", grid.breaks)) if row in rows)


def in_script(value: Any) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    return text.replace("</", "<\\/").replace("<!--", "\\u003c!--")
