"""The HTML page that figures live on: one file, plotly inlined once, nothing fetched.

Why this way: figures travel as JSON in the page and are drawn by a few lines of script, which picks the light or dark
template, fits them to the screen, and waits with those inside a closed fold. Ids and numbers are fixed, so the same result
gives the same bytes.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sim.show import style


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure ready for a page: its id, the sentence it shows, what a screen reader says, and its JSON."""

    ident: str
    title: str
    alt: str
    data: str


def drawing(ident: str, figure: Any, title: str | None = None) -> Drawing:
    """Take the title out of a figure (the page prints it, or `title`, as text that wraps) and write the rest as JSON."""
    spec = json.loads(figure.to_json())
    layout = spec["layout"]
    meta = layout.pop("meta", {})
    top, height = meta.get("top_px", 40), meta.get("height_px", layout.get("height", 450))
    for key in ("title", "template", "width"):
        layout.pop(key, None)
    layout["height"] = height
    layout["margin"] = {"l": 8, "r": 16, "t": top, "b": min(44, meta.get("bottom_px", 44))}
    title = title or str(meta.get("title", ident))
    return Drawing(ident, title, meta.get("alt", title), _json(_rounded(spec)))


def figure_html(one: Drawing) -> str:
    """A figure with its sentence above it."""
    ident = html.escape(one.ident, quote=True)
    return (
        f'<figure><figcaption id="{ident}-title">{html.escape(one.title)}</figcaption>'
        f'<div class="plot" id="{ident}" role="img" aria-label="{html.escape(one.alt, quote=True)}"></div>'
        f'<script type="application/json" id="{ident}-data">{one.data}</script></figure>'
    )


def figure_page(name: str, figure: Any) -> str:
    """A page with one figure on it."""
    one = drawing(name, figure)
    return shell(one.title, f'<main class="alone">{figure_html(one)}</main>', drawn=True)


def shell(title: str, body: str, *, drawn: bool) -> str:
    """The whole page around a body; plotly is inlined where something is `drawn`."""
    script = ""
    if drawn:
        from plotly.offline import get_plotlyjs

        templates = _json({theme: style.template(theme) for theme in ("light", "dark")})
        script = (
            f"<script>{get_plotlyjs()}</script>\n<script>const TEMPLATES = {templates};\n{_DRAW}</script>"
        )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="generator" content="moesim">\n'
        f'<link rel="icon" href="data:,">\n<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n'
        f"<body>\n{body}\n{script}\n</body>\n</html>\n"
    )


def fold(summary: str, inside: str, *, is_open: bool = False, extra: str = "") -> str:
    """A part that opens on demand."""
    more = f' <span class="soft">{html.escape(extra)}</span>' if extra else ""
    return f"<details{' open' if is_open else ''}><summary>{html.escape(summary)}{more}</summary>\n{inside}</details>"


def paragraphs(sentences: Iterable[str], kind: str = "") -> str:
    """Sentences, each a paragraph."""
    mark = f' class="{kind}"' if kind else ""
    return "".join(f"<p{mark}>{html.escape(one)}</p>" for one in sentences)


def _json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return (
        json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
        .replace("</", "<\\/")
        .replace("<!--", "<\\!--")
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


_DRAW = r"""
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 640px)");
const NARROW_PX = 560;
let printing = false;
const CONFIG = {responsive: true, displaylogo: false, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
  modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"], toImageButtonOptions: {format: "svg"}};
function spec(div) {
  const one = JSON.parse(document.getElementById(div.id + "-data").textContent);
  const layout = one.layout;
  layout.template = TEMPLATES[dark.matches && !printing ? "dark" : "light"];
  layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
  layout.autosize = true;
  layout.dragmode = matchMedia("(hover: hover)").matches && layout.dragmode || false;
  if (div.clientWidth < NARROW_PX) {
    layout.font = {size: 11};
    layout.margin.r = 6; layout.margin.l = 2;
    layout.annotations = (layout.annotations || []).filter(note => note.name !== "inside");
    for (const note of layout.annotations) if (note.name === "wide") { note.text = note.text.replace(/(<br>)?\(/, "<br>("); note.font.size = 10; }
    for (const key of Object.keys(layout)) if (/^[xy]axis/.test(key)) {
      const axis = layout[key];
      axis.tickfont = {size: 11};
      if (axis.title) { axis.title.font = {size: 11}; axis.title.text = axis.title.text.replace("; ", ";<br>").replace("], ", "],<br>"); }
      if (axis.nticks === undefined && /^x/.test(key)) axis.nticks = 5;
      if (axis.scaleanchor) layout.height = Math.min(layout.height, div.clientWidth + 40);
    }
    for (const trace of one.data) {
      if (trace.mode === "text") layout.xaxis.range[1] = Math.max(layout.xaxis.range[1], 1.4 * Math.max(...trace.x));
      if (trace.mode === "text") trace.text = trace.text.map(t => t.split(" · ")[0]);
      const bar = trace.colorbar || (trace.marker && trace.marker.colorbar);
      if (bar) bar.len = 0.8;
      if (trace.marker && trace.marker.symbol === "square" && trace.marker.size) trace.marker.size = Math.max(4, trace.marker.size * 0.42);
    }
  }
  return one;
}
function draw(div) {
  const one = spec(div);
  Plotly.react(div, one.data, one.layout, CONFIG);
  div.dataset.drawn = "yes";
}
function visible(div) { const fold = div.closest("details"); return !fold || fold.open; }
function drawAll(again) {
  for (const div of document.querySelectorAll(".plot")) if (visible(div) && (again || !div.dataset.drawn)) draw(div);
}
for (const fold of document.querySelectorAll("details")) fold.addEventListener("toggle", () => drawAll(false));
for (const query of [dark, narrow]) query.addEventListener("change", () => drawAll(true));
addEventListener("beforeprint", () => { printing = true; drawAll(true); });
addEventListener("afterprint", () => { printing = false; drawAll(true); });
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", () => navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent)
    .then(() => { button.textContent = "Copied"; }));
}
drawAll(false);
"""

_CSS = """
:root { --ink: #1c2126; --soft: #55606a; --rule: #dfe4e8; --paper: #ffffff; --ground: #f5f6f8; --accent: #0a6aa6; --bad: #b34700;
  --tint: #eef4f9; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ecf0; --soft: #a3aeb9; --rule: #313a43; --paper: #14181c; --ground: #0d1013;
  --accent: #63b3e4; --bad: #ff9a4d; --tint: #1a232b; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 3rem 1.5rem 4rem; }
main.alone { padding-top: 1.5rem; }
header { margin-bottom: 2rem; }
.kicker { margin: 0 0 .4rem; color: var(--soft); font-size: .82rem; letter-spacing: .08em; text-transform: uppercase; }
h1 { margin: 0 0 1.1rem; font-size: clamp(1.55rem, 1.1rem + 2vw, 2.3rem); line-height: 1.18; letter-spacing: -.015em; font-weight: 680; text-wrap: balance; }
h2 { margin: 2.8rem 0 .9rem; font-size: 1.28rem; letter-spacing: -.005em; font-weight: 660; }
h3 { margin: 1.8rem 0 .6rem; font-size: 1.02rem; font-weight: 640; }
p { margin: .5rem 0; max-width: 46rem; }
.answer { border-left: 4px solid var(--accent); padding: .2rem 0 .2rem 1.2rem; margin: 1.5rem 0 1.6rem; }
.answer p { font-size: 1.08rem; max-width: 52rem; }
.answer p:first-child { font-size: clamp(1.15rem, 1rem + .6vw, 1.38rem); line-height: 1.42; font-weight: 560; }
.soft, .note { color: var(--soft); }
.note { font-size: .88rem; white-space: pre-line; }
dl.facts { display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; margin: 0; font-size: .92rem; }
dl.facts div { display: flex; gap: .45rem; min-width: 0; }
dl.facts dt { color: var(--soft); } dl.facts dd { margin: 0; font-weight: 560; overflow-wrap: anywhere; }
figure, .card { margin: 1rem 0; padding: 1.1rem 1.2rem .8rem; background: var(--paper); border: 1px solid var(--rule); border-radius: 10px; min-width: 0; }
figcaption { font-weight: 600; line-height: 1.4; max-width: 56rem; margin-bottom: .3rem; text-wrap: pretty; overflow-wrap: anywhere; }
.plot { width: 100%; min-height: 120px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 0 1rem; align-items: start; }
.scroll { overflow-x: auto; background: var(--paper); border: 1px solid var(--rule); border-radius: 10px; margin: .8rem 0 .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .75rem .9rem .35rem; font-weight: 620; }
th, td { padding: .38rem .9rem; text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 520; font-size: .84rem; border-bottom: 1px solid var(--rule); }
tbody th { color: inherit; font-weight: 560; font-size: inherit; border: 0; }
.word { text-align: left; } td.long { white-space: normal; min-width: 16rem; }
tbody tr + tr td, tbody tr + tr th { border-top: 1px solid color-mix(in srgb, var(--rule) 45%, transparent); }
tbody tr.break td, tbody tr.break th { border-top: 1px solid var(--soft); }
tbody tr:hover { background: var(--tint); }
tr.bad td, tr.bad th { color: var(--bad); font-weight: 560; }
details { margin: .6rem 0; border-top: 1px solid var(--rule); }
details:last-of-type { border-bottom: 1px solid var(--rule); }
summary { cursor: pointer; padding: .75rem .2rem; font-weight: 600; }
summary .soft { font-weight: 400; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 4px; }
pre { margin: 0; padding: 1rem 1.1rem; overflow-x: auto; background: var(--paper); border: 1px solid var(--rule); border-radius: 10px;
  font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; }
button { font: inherit; font-size: .85rem; color: var(--accent); background: none; border: 1px solid var(--rule); border-radius: 6px; padding: .25rem .7rem; cursor: pointer; margin-bottom: .6rem; }
code { font: .92em ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; }
dl.terms { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.2rem; font-size: .94rem; max-width: 52rem; }
dl.terms dt { font-weight: 600; } dl.terms dd { margin: 0; color: var(--soft); }
footer { margin-top: 3rem; color: var(--soft); font-size: .85rem; }
.skip { position: absolute; left: -999px; } .skip:focus { position: static; }
@media (max-width: 640px) { main { padding: 1.6rem .9rem 3rem; } body { font-size: 15px; } figure { padding: .9rem .6rem .5rem; border-radius: 8px; }
  figcaption { padding: 0 .3rem; } th, td { padding: .36rem .6rem; } dl.terms { grid-template-columns: 1fr; gap: .1rem; } dl.terms dd { margin-bottom: .5rem; }
  .answer { padding-left: .9rem; } }
@media print { :root { --ink: #000; --soft: #444; --rule: #bbb; --paper: #fff; --ground: #fff; --accent: #0a6aa6; --bad: #b34700; --tint: #fff; }
  main { max-width: none; padding: 0; } figure, .scroll, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } .scroll { overflow: visible; }
  th, td { padding: .2rem .45rem; white-space: normal; } table { font-size: .74rem; } button { display: none; } pre { white-space: pre-wrap; } }
"""
