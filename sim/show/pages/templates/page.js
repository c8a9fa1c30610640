"use strict";
/* Draws the figures of a page, each when it comes near the screen.

   For tests and tools: `await moesim.drawAll()` draws every figure outside closed folds; the performance mark
   "moesim: in view" is set once all that the first screen shows is drawn. TEMPLATES stands before this script. */

const AHEAD_PX = 500; // how far below the screen a figure is drawn before it is seen
const NARROW_PX = 560;
const TIGHT_PX = 420; // of a telephone
const LETTER_PX = 5.9; // of an axis' title on a narrow screen
const IN_VIEW = "moesim: in view";
const CAN_HOVER = matchMedia("(hover: hover)").matches;
const CONFIG = {
  responsive: true, displaylogo: false, displayModeBar: CAN_HOVER ? "hover" : false,
  modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"], toImageButtonOptions: {format: "svg"},
};
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 640px)");
const medium = matchMedia("(max-width: 900px)");
const figures = [...document.querySelectorAll(".plot")];
const waiting = new Set();
let printing = false;
let unfolded = []; // folds that are open only while the page prints
let turn = false;

async function plotly() { // inlined as gzip: a third of the bytes, and as quick
  const text = atob(document.getElementById("plotly").textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const open = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(open).text();
  document.head.append(script);
}

function stack(layout) { // panels that stand side by side where there is room, one below the other
  const {height, ...axes} = layout.meta.stacked;
  layout.height = height;
  for (const [name, said] of Object.entries(axes)) Object.assign(layout[name], said);
}

function wrap(line, most) { // into lines of at most so many letters, between words
  const lines = [""];
  for (const word of line.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (longer.length <= most) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines.filter(Boolean);
}

function fit(layout, data, width) { // to a narrow screen
  layout.font = {size: 11};
  layout.margin.r = 14; // half of the last tick's words
  layout.margin.l = 2;
  layout.annotations = (layout.annotations || []).filter(note => note.name !== "inside");
  for (const note of layout.annotations) if (note.name === "wide") {
    note.text = note.text.replace(/(<br>)?\(/, "<br>(");
    note.font.size = 10;
  }
  for (const note of layout.annotations) if (note.name === "short") note.text = note.text.split(", ")[0];
  for (const key of Object.keys(layout)) if (/^[xy]axis/.test(key)) {
    const axis = layout[key];
    axis.tickfont = {size: 11};
    if (axis.title) {
      axis.title.font = {size: 11};
      const parts = axis.title.text.replace("; ", ";<br>").replace("], ", "],<br>").split("<br>");
      const most = Math.floor((key[0] === "x" ? width : layout.height) / LETTER_PX) - 12;
      axis.title.text = parts.flatMap(part => wrap(part, most)).join("<br>");
    }
    if (axis.nticks === undefined && /^x/.test(key)) axis.nticks = 5;
    if (axis.scaleanchor) layout.height = Math.min(layout.height, width + 40);
  }
  const entries = data.filter(trace => trace.name && trace.showlegend !== false).map(trace => trace.name.length);
  const columns = Math.max(1, Math.floor((width - 70) / (6 * Math.max(...entries, 1) + 48)));
  const lines = Math.ceil(entries.length / columns);
  if (lines > 2) { // room for a legend of several lines
    const more = Math.max(0, 18 * lines + 14 - layout.margin.t);
    layout.margin.t += more;
    layout.height += more;
    layout.legend = {...layout.legend, maxheight: 18 * lines + 30};
  }
  for (const trace of data) {
    if (trace.mode === "text" && trace.name !== "inside") {
      layout.xaxis.range[1] = Math.max(layout.xaxis.range[1], 1.4 * Math.max(...trace.x));
      trace.text = trace.text.map(words => words.split(" · ")[0]);
    }
    if (trace.type === "heatmap" && trace.texttemplate) { // numbers as large as their cells let them be
      const size = 1.5 * (width - 80) / trace.x.length / Math.max(...trace.text.flat().map(text => text.length));
      trace.textfont = {size: Math.min(11, size)};
      if (size < 7) delete trace.texttemplate;
    }
    if (trace.name === "short" && width < TIGHT_PX) trace.text = trace.text.map(words => words.split(" for ")[0]);
    const bar = trace.colorbar || (trace.marker && trace.marker.colorbar);
    if (bar) {
      bar.len = 0.8;
      bar.tickangle = 0;
      if (bar.title && bar.title.text) bar.title.text = bar.title.text.replace("; ", ";<br>");
    }
    if (trace.marker && trace.marker.symbol === "square" && trace.marker.size) {
      trace.marker.size = Math.max(4, trace.marker.size * 0.42);
    }
  }
}

function draw(div) {
  const {data, layout} = JSON.parse(document.getElementById(div.id + "-data").textContent);
  layout.template = TEMPLATES[dark.matches && !printing ? "dark" : "light"];
  layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
  for (const note of layout.annotations || []) {
    if (note.bgcolor) note.bgcolor = layout.template.layout.paper_bgcolor;
  }
  layout.autosize = true;
  layout.dragmode = CAN_HOVER && layout.dragmode || false;
  if (medium.matches && layout.meta) stack(layout);
  if (div.clientWidth < NARROW_PX) fit(layout, data, div.clientWidth);
  Plotly.react(div, data, layout, CONFIG);
  div.style.minHeight = "";
  div.dataset.drawn = "yes";
}

const isOpen = div => !div.closest("details:not([open])");
const isDrawn = div => Boolean(div.dataset.drawn);

function away(div) { // pixels from the screen; 0 on it
  const box = div.getBoundingClientRect();
  return Math.max(0, box.top - innerHeight, -box.bottom);
}

function next() { // one figure, the nearest first; then the browser may paint and scroll
  const [div] = [...waiting].filter(one => !isDrawn(one) && isOpen(one)).sort((a, b) => away(a) - away(b));
  if ((!div || away(div) > 0) && !performance.getEntriesByName(IN_VIEW).length) performance.mark(IN_VIEW);
  turn = Boolean(div);
  if (!div) return waiting.clear();
  waiting.delete(div);
  draw(div);
  setTimeout(next);
}

function ask(divs) {
  for (const div of divs) waiting.add(div);
  if (!turn) next();
}

function again(divs) {
  for (const div of divs) draw(div);
}

const ready = figures.length ? plotly() : Promise.resolve();
ready.then(() => {
  if (!("IntersectionObserver" in window)) {
    for (const fold of document.querySelectorAll("details")) fold.addEventListener("toggle", () => ask(figures));
    return ask(figures);
  }
  const seen = new IntersectionObserver(changes => {
    const near = changes.filter(one => one.isIntersecting).map(one => one.target);
    for (const div of near) seen.unobserve(div);
    ask(near);
  }, {rootMargin: `${AHEAD_PX}px 0px`});
  for (const div of figures) seen.observe(div);
}, () => {
  for (const div of figures) {
    div.textContent = "This browser is too old to draw figures; the tables hold the numbers.";
    div.style.minHeight = "";
  }
});
for (const query of [dark, narrow, medium]) query.addEventListener("change", () => again(figures.filter(isDrawn)));
addEventListener("beforeprint", () => { // paper opens no folds: all are open on it
  printing = true;
  unfolded = [...document.querySelectorAll("details:not([open])")];
  for (const fold of unfolded) fold.open = true;
  if (window.Plotly) again(figures);
});
addEventListener("afterprint", () => {
  printing = false;
  again(figures.filter(isDrawn));
  for (const fold of unfolded) fold.open = false;
});
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", () => navigator.clipboard
    .writeText(document.getElementById(button.dataset.copy).textContent).then(() => { button.textContent = "Copied"; }));
}
window.moesim = {drawAll: () => ready.then(() => again(figures.filter(one => isOpen(one) && !isDrawn(one))))};
