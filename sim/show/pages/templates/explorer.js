"use strict";
/* Sliders over points that were computed beforehand, or that the page's server computes.

   For tests: `moesim.settled()` resolves once the page shows what its sliders say. */

const CUBE = JSON.parse(document.getElementById("cube").textContent);
const AXES = CUBE.axes, MACHINES = CUBE.compared.labels, REFERENCE = MACHINES.length - 1;
const SAME = 0.005; // relative; less is no move
const DASHES = ["", "7 4", "2 3", "9 3 2 3", "1 5", "12 4"];
const SCALES = {s: [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]};
const $ = id => document.getElementById(id);
const known = {exact: new Map(), preview: new Map()}; // of a live page: points by their address
const PREVIEW = "Preview: all ranks alike. The exact answer, of ranks that differ, is being simulated";
let state = AXES.map(() => 0), before = null, dragging = false, active = 0, pending = Promise.resolve(), spent = {};

const address = at => at.reduce((whole, place, i) => whole * AXES[i].values.length + place, 0);

function points(at, kind = "exact") { // the points of one setting, by what is compared; null while a server has not told
  if (!CUBE.live) return CUBE.points[address(at)];
  return known[kind].get(address(at)) || known.exact.get(address(at)) || known.preview.get(address(at)) || null;
}

const isPreview = at => CUBE.live && !known.exact.has(address(at)) && known.preview.has(address(at));

async function load(at, what = "point", more = "") {
  if (!CUBE.live || (what === "point" ? points(at) : known.exact.has(address(at)))) return;
  const begun = performance.now();
  const answer = await fetch(query(what, at, more));
  if (answer.status === 409) return; // another setting was asked for meanwhile
  if (!answer.ok) throw new Error((await answer.text()) || "the server does not answer");
  const made = await answer.json();
  known[made.some(point => point.preview) ? "preview" : "exact"].set(address(at), made);
  spent[what] = (performance.now() - begun) / 1000;
}

const query = (what, at, more = "") => `${what}?at=${at.join(",")}${more}&token=${new URLSearchParams(location.search).get("token")}`;
const last = what => spent[what] > 0.3 ? ` (the last took ${spent[what].toPrecision(2)} s)` : "";

const total = point => point && point.values ? point.values.reduce((a, b) => a + b, 0) : null;
const takes = point => { const value = total(point); return value === null ? null : CUBE.more_is_better ? 1 / value : value; };

function text(value, digits = number => number >= 1000 ? Math.round(number).toLocaleString("en") : number.toPrecision(3)) {
  if (value === null || value === undefined) return "–";
  const scales = SCALES[CUBE.dimension];
  if (!scales) return value >= 1e4 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
  const [factor, unit] = scales.find(([factor]) => Math.abs(value) >= factor) || scales.at(-1);
  return `${digits(value / factor)} ${unit}`;
}

function much(ratio) { // `as long as`, `12 % longer than`, `2.19 times as long as`
  if (Math.abs(ratio - 1) < SAME) return "as long as";
  if (ratio >= 2) return `${ratio.toFixed(2)} times as long as`;
  return ratio > 1 ? `${(100 * (ratio - 1)).toFixed(1)} % longer than` : `${(100 * (1 - ratio)).toFixed(1)} % less time than`;
}

function slowest(point) { // the class that binds the longest part
  if (!point || !point.values) return "";
  return point.binding[point.values.indexOf(Math.max(...point.values))];
}

const capital = words => words.charAt(0).toUpperCase() + words.slice(1);
const binding = point => CUBE.binds[slowest(point)] || "";

function say(now) {
  const [ours] = now;
  const words = [];
  if (before && before.axis !== null) {
    const axis = before.axis, kind = [before.state, state].some(isPreview) ? "preview" : "exact";
    const [was] = points(before.state, kind) || [null], [ours] = points(state, kind);
    const start = `${CUBE.labels[axis]} from ${AXES[axis].words[before.state[axis]]} to ${AXES[axis].words[state[axis]]}`;
    const earlier = takes(was), other = takes(ours);
    if (other === null) words.push(`${start}: it cannot be, ${ours.reason}.`);
    else if (earlier === null) words.push(`${start}: it runs${binding(ours) ? `, and ${binding(ours)}` : ""}.`);
    else {
      const ratio = other / earlier;
      const moved = Math.abs(ratio - 1) < SAME ? "nothing moves" : much(ratio).replace(/ (than|as)$/, "");
      words.push(`${start}: ${moved}${binding(ours) ? `, ${binding(ours)}` : ""}.`);
    }
  } else if (takes(ours) === null) words.push(`It cannot be: ${ours.reason}.`);
  else words.push(`${capital(CUBE.metric)}${MACHINES[0] ? ` on ${MACHINES[0]}` : ""}: ${text(total(ours))}${binding(ours) ? `, ${binding(ours)}` : ""}.`);
  $("moved").textContent = words.join(" ");
  const reference = takes(now[REFERENCE]);
  const alike = new Map(); // how long, with the machines that take so long
  if (REFERENCE && reference) now.slice(0, REFERENCE).forEach((point, i) => {
    if (takes(point) === null) return;
    const long = much(takes(point) / reference);
    alike.set(long, [...(alike.get(long) || []), MACHINES[i]]);
  });
  const others = [...alike].map(([long, names]) => `${names.join(" and ")} take${names.length > 1 ? "" : "s"} ${long} ${MACHINES[REFERENCE]}`);
  $("compared").textContent = others.length ? `${capital(others.join("; "))}.` : "";
}

function element(name, look = {}, ...inside) {
  const made = document.createElement(name);
  Object.assign(made.style, look);
  made.append(...inside);
  return made;
}

function row(into, i, bars, value, bound, whole) {
  let name = into.children[2 * i], track = into.children[2 * i + 1];
  if (!track) {
    name = element("div", {}, MACHINES[i] ? capital(MACHINES[i]) : CUBE.metric);
    track = element("div");
    track.className = "track";
    into.append(name, track);
  }
  while (track.querySelectorAll(".bar").length < bars.length) {
    const bar = element("div");
    bar.className = "bar";
    track.prepend(bar);
  }
  [...track.querySelectorAll(".bar")].forEach((bar, j) => {
    const [length, colour, title] = bars[j] || [0, "transparent", ""];
    bar.style.width = `${72 * length / whole}%`;
    bar.style.backgroundColor = colour;
    bar.title = title;
  });
  let label = track.querySelector(".value");
  if (!label) { label = element("span"); label.className = "value"; track.append(label); }
  label.textContent = value;
  let mark = track.querySelector(".bound");
  if (!mark) { mark = element("i"); mark.className = "bound"; track.append(mark); }
  mark.hidden = bound === null;
  if (bound !== null) mark.style.left = `${72 * bound / whole}%`;
}

function along(axis) { // every setting of one slider, the others as they stand
  return AXES[axis].values.map((_, place) => state.map((own, i) => i === axis ? place : own));
}

function most(values) { return Math.max(...values.filter(value => value !== null && Number.isFinite(value)), 1e-30); }

const colour = name => CUBE.colours[name] || CUBE.colours[""];

function bars(now) {
  const reference = takes(now[REFERENCE]);
  const ratio = point => takes(point) === null || !reference ? null : takes(point) / reference;
  const ends = along(active).map(at => points(at)).filter(Boolean);
  const top = most(ends.flatMap(row => row.map(point => takes(point) === null || takes(row[REFERENCE]) === null ? null : takes(point) / takes(row[REFERENCE]))).concat(2));
  const longest = most(ends.flatMap(row => row.map(total)));
  now.forEach((point, i) => {
    const is = ratio(point);
    if (REFERENCE) row($("ratios"), i, is === null ? [] : [[is, colour(slowest(point)), binding(point)]], is === null ? "cannot be" : is.toFixed(2), null, top);
    const parts = point && point.values ? point.values.map((value, j) =>
      [value, colour(point.binding[j]), `${CUBE.parts[j]}: ${text(value)}${CUBE.binds[point.binding[j]] ? `, ${CUBE.binds[point.binding[j]]}` : ""}`]) : [];
    const bound = point && point.bound && point.bound.every(value => value !== null) ? point.bound.reduce((a, b) => a + b, 0) : null;
    row($("times"), i, parts, point && point.values ? text(total(point)) : "cannot be", bound, longest);
  });
  $("ratios").closest("figure").hidden = !REFERENCE;
  $("ratio-title").textContent = REFERENCE ? `Times as long as ${MACHINES[REFERENCE]}` : "";
}

function shape(name, look) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(look)) made.setAttribute(key, value);
  return made;
}

const LEFT = 64, RIGHT = 22; // of the curve [px]

function abscissa(place) {
  const last = AXES[active].values.length - 1, right = wide - RIGHT;
  return last < 1 ? (LEFT + right) / 2 : LEFT + (right - LEFT) * place / last;
}

function mark() { // where the slider stands on its curve
  const line = $("curve").querySelector(".here");
  for (const end of ["x1", "x2"]) line.setAttribute(end, abscissa(state[active]));
}

let drawn = [], wide = 640; // what the curve was drawn from, and its width, which is not measured while a slider moves

function curve() {
  const kind = along(active).some(at => known.preview.has(address(at))) ? "preview" : "exact";
  const svg = $("curve"), axis = AXES[active], rows = along(active).map(at => points(at, kind));
  const from = [kind, wide, active, ...rows];
  if (from.length === drawn.length && from.every((part, i) => part === drawn[i])) return mark();
  drawn = from;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${wide} 260`);
  const left = LEFT, right = wide - RIGHT, floor = 214, ceiling = 14;
  const found = most(rows.filter(Boolean).flatMap(row => row.map(total))), highest = found > 1e-30 ? found : 1; // all may be 0
  const scale = 10 ** Math.floor(Math.log10(highest / 4));
  const step = scale * [1, 2, 2.5, 5, 10].find(part => scale * part >= highest / 4.5);
  const top = step * Math.ceil(1.02 * highest / step);
  const x = abscissa;
  const y = value => floor - (floor - ceiling) * value / top;
  for (let part = 0; part <= Math.round(top / step); part++) {
    svg.append(shape("line", {x1: left, x2: right, y1: y(step * part), y2: y(step * part), class: "grid"}));
    const label = shape("text", {x: left - 8, y: y(step * part) + 4, "text-anchor": "end"});
    label.textContent = part ? text(step * part, number => String(Number(number.toPrecision(3)))) : "0";
    svg.append(label);
  }
  const every = Math.ceil(axis.values.length * 48 / (right - left));
  axis.words.forEach((value, place) => {
    if (place % every) return;
    const label = shape("text", {x: x(place), y: floor + 18, "text-anchor": "middle"});
    label.textContent = value.replace(/ [A-Za-z]*\/?s$/, "");
    svg.append(label);
  });
  const name = shape("text", {x: (left + right) / 2, y: floor + 38, "text-anchor": "middle"});
  const unit = (axis.values[0].match(/ ([A-Za-z]*\/?s)$/) || [])[1];
  name.textContent = CUBE.labels[active] + (unit ? ` [${unit}]` : "");
  svg.append(name, shape("line", {y1: ceiling, y2: floor, class: "here"}));
  mark();
  for (let i = MACHINES.length - 1; i >= 0; i--) {
    let path = "", up = true;
    rows.forEach((row, place) => {
      const value = row ? total(row[i]) : null;
      if (value === null) { up = true; return; }
      path += `${up ? "M" : "L"}${x(place).toFixed(1)} ${y(value).toFixed(1)}`;
      up = false;
    });
    svg.append(shape("path", {d: path, class: "line", "stroke-dasharray": DASHES[i % DASHES.length]}));
    rows.forEach((row, place) => {
      const value = row ? total(row[i]) : null;
      if (value !== null) svg.append(shape("circle", {cx: x(place), cy: y(value), r: 5 - i, fill: colour(slowest(row[i]))}));
    });
  }
  $("curve-title").textContent = `${capital(CUBE.metric)} along ${CUBE.labels[active]}${kind === "preview" ? ", all ranks alike" : ""}`;
}

function keys(now) {
  const used = new Set(along(active).map(at => points(at)).filter(Boolean).flat().flatMap(point => point && point.binding || []));
  const named = [...used].filter(name => CUBE.resources[name]);
  if (renew("key", named)) $("key").replaceChildren(...named.map(name => {
    const patch = element("i", {backgroundColor: colour(name)});
    return element("span", {}, patch, `${capital(CUBE.resources[name])} binds`.replace("SMs binds", "SMs bind"));
  }));
  if (renew("lines", MACHINES)) $("lines").replaceChildren(...MACHINES.filter(Boolean).map((name, i) => {
    const svg = shape("svg", {viewBox: "0 0 34 10", "aria-hidden": "true"});
    svg.append(shape("path", {d: "M0 5H34", class: "line", "stroke-dasharray": DASHES[i % DASHES.length]}));
    return element("span", {}, svg, capital(name));
  }));
  const isTold = now.some(point => point && (!point.values || point.binding.some(name => CUBE.resources[name])));
  const heads = ["", ...CUBE.parts, ...(CUBE.parts.length > 1 ? ["together"] : []), "lower bound", ...(isTold ? ["binds"] : [])];
  const isWord = i => !i || heads[i] === "binds";
  if (renew("heads", heads)) {
    $("heads").replaceChildren(...heads.map((head, i) => cell("th", head, isWord(i) ? "word" : "")));
    $("numbers").replaceChildren(...now.map(() => element("tr", {}, ...heads.map((head, i) =>
      cell(i ? "td" : "th", "", isWord(i) ? (i ? "word long" : "word") : "")))));
  }
  now.forEach((point, row) => {
    const binds = point && point.values ? [...new Set(point.binding)].map(name => CUBE.resources[name] || "–").join(", ") : (point ? point.reason : "");
    const bound = point && point.bound && point.bound.every(value => value !== null) ? point.bound.reduce((a, b) => a + b, 0) : null;
    const words = [capital(MACHINES[row] || CUBE.metric), ...CUBE.parts.map((_, j) => point && point.values ? text(point.values[j]) : "–"),
      ...(CUBE.parts.length > 1 ? [text(total(point))] : []), text(bound), ...(isTold ? [binds] : [])];
    words.forEach((word, i) => fillIn($("numbers").children[row].children[i], word));
  });
}

const made = {}; // part of the page -> what it was made from
function renew(part, from) { // whether it has to be made anew
  const text = JSON.stringify(from), isNew = made[part] !== text;
  made[part] = text;
  return isNew;
}

function fillIn(node, words) { if (node.textContent !== words) node.textContent = words; }

function cell(kind, words, look) {
  const made = element(kind, {}, words);
  made.className = look;
  return made;
}

function show() {
  const now = points(state);
  AXES.forEach((axis, i) => {
    $(`axis-${i}`).value = state[i];
    $(`axis-${i}`).setAttribute("aria-valuetext", axis.words[state[i]]);
    $(`value-${i}`).textContent = axis.words[state[i]];
  });
  $("wait").textContent = isPreview(state) ? `${PREVIEW}${last("exact")}.` : "";
  document.querySelector(".explorer").classList.toggle("preview", isPreview(state));
  if (CUBE.live) $("report").href = query("report", state);
  if (CUBE.live && CUBE.base.workload?.kind === "all_to_all") {
    $("play").href = query("motion", state);
    $("play").hidden = false;
  }
  if (!now) return;
  say(now);
  bars(now);
  curve();
  keys(now);
}

async function refresh() {
  const asked = state.slice(), here = () => asked.every((place, i) => place === state[i]);
  const waiting = setTimeout(() => { if (here()) $("wait").textContent = `Simulating${last("point")} …`; }, 300);
  try {
    await load(asked);
    if (before) await load(before.state);
    $("note").textContent = "";
  } catch (error) { $("note").textContent = error.message; }
  clearTimeout(waiting);
  if (here()) show();
  if (CUBE.live) { fill(asked, here); await exactly(asked, here); }
}

async function fill(asked, here) { // the curve fills as its points come; then the next notch of every slider is made ready
  for (const at of along(active)) {
    if (!here()) return;
    try { await load(at, "point", "&fill=1"); } catch { return; }
    if (here()) { bars(points(state)); curve(); keys(points(state)); }
  }
  for (const at of nextTo(asked)) {
    if (!here()) return;
    try { await load(at, "point", "&fill=1"); } catch { return; }
  }
}

function nextTo(at) { // the settings one notch away
  return AXES.flatMap((axis, i) => [at[i] - 1, at[i] + 1].filter(place => place in axis.values).map(place => at.map((own, j) => i === j ? place : own)));
}

async function exactly(asked, here) { // once the sliders rest
  await new Promise(done => setTimeout(done, isPreview(asked) ? 400 : 0));
  if (!here() || !isPreview(asked)) return;
  try { await load(asked, "exact"); } catch (error) { $("note").textContent = error.message; }
  if (here()) show();
}

function read() { // the address after `#`: slider=value, by name
  const asked = new URLSearchParams(location.hash.slice(1));
  AXES.forEach((axis, i) => {
    const place = axis.values.indexOf(asked.get(axis.name) ?? "");
    if (place >= 0) state[i] = place;
  });
}

function write() {
  const choices = new URLSearchParams(AXES.map((axis, i) => [axis.name, axis.values[state[i]]]));
  history.replaceState(null, "", `${location.pathname}${location.search}#${choices}`);
}

function move(axis, place) {
  if (!dragging || before.axis !== axis) before = {axis, state: state.slice()}; // where the drag began
  dragging = true;
  active = axis;
  state[axis] = place;
  write();
  pending = refresh();
}

function put(tree, path, value) { // a dotted key, as a scenario file takes it; those below cluster.override stay dotted
  const parts = path.split(".");
  const keys = parts[0] === "cluster" && parts[1] === "override" && parts.length > 3 ? ["cluster", "override", parts.slice(2).join(".")] : parts;
  let node = tree;
  for (const key of keys.slice(0, -1)) node = node[key] = typeof node[key] === "object" && node[key] ? node[key] : {};
  node[keys.at(-1)] = value;
}

function scenario() { // of the first that is compared: JSON, which is YAML
  const tree = JSON.parse(JSON.stringify(CUBE.base));
  AXES.forEach((axis, i) => { for (const [key, value] of Object.entries(axis.sets[state[i]])) put(tree, key, value); });
  for (const [key, value] of Object.entries(CUBE.compared.sets[0])) put(tree, key, value);
  return JSON.stringify(tree, null, 1);
}

AXES.forEach((axis, i) => {
  const slider = $(`axis-${i}`);
  slider.addEventListener("input", () => move(i, Number(slider.value)));
  slider.addEventListener("change", () => { dragging = false; }); // let go
});
$("save").addEventListener("click", async () => {
  if (CUBE.live) {
    const answer = await fetch(query("save", state), {method: "POST"});
    $("note").textContent = await answer.text();
    return;
  }
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([scenario()], {type: "application/yaml"}));
  link.download = `${CUBE.name}.yaml`;
  link.click();
  $("note").textContent = `${CUBE.name}.yaml is saved; moesim run ${CUBE.name}.yaml runs it.`;
});
$("link").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    $("note").textContent = "The address holds where the sliders stand.";
  } catch { $("note").textContent = location.href; }
});
function measure() { wide = Math.max(280, $("curve").clientWidth || 640); }
addEventListener("resize", () => { measure(); if (points(state)) curve(); });
measure();
addEventListener("hashchange", () => { before = null; dragging = false; read(); pending = refresh(); });
state = CUBE.start.slice();
read();
pending = refresh();
window.moesim = {drawAll: () => pending, settled: () => pending, scenario, state: () => state.slice()};
