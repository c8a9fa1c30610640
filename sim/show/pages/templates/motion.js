"use strict";
/* Plays an all-to-all: frames of what each link carries, on a clock that all machines share.

   For tests: `moesim.seek(frame)` shows a frame; nothing plays by itself where motion is not wanted. */

const MOTION = JSON.parse(document.getElementById("motion").textContent);
const LENGTH_MS = 12000; // of a whole play
const GPU = 22, GAP = 6, HEIGHT = 176;
const $ = id => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");
let frame = 0, playing = false, last = 0, stages = [];

function shape(into, name, look, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(look)) made.setAttribute(key, value);
  made.textContent = text;
  into.append(made);
  return made;
}

function time(seconds) {
  const [factor, unit] = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]].find(([factor]) => MOTION.frames * MOTION.frame_s >= factor) || [1e-9, "ns"];
  return `${(seconds / factor).toFixed(2)} ${unit}`;
}

const LEVELS = 10; // of how full a link is: links of one level are one path, of one look and one speed

function build(svg, machine) { // returns every link with its course, and a path for each kind and level
  const per = MOTION.gpus_per_node, wide = per * (GPU + GAP) + GAP + 12, across = Math.min(MOTION.nodes, wide > 250 ? 2 : 4);
  const rows = Math.ceil(MOTION.nodes / across), links = [];
  svg.setAttribute("viewBox", `0 0 ${across * (wide + 10) + 2} ${rows * (HEIGHT + 16) + 2}`);
  const wire = (name, kind, x, from, to) => {
    shape(svg, "path", {d: `M${x} ${from}V${to}`, class: "wire"});
    const course = machine.links[name];
    if (course) links.push({kind, course, d: `M${x} ${from}V${to}`});
  };
  for (let node = 0; node < MOTION.nodes; node++) {
    const left = (node % across) * (wide + 10) + 1, top = Math.floor(node / across) * (HEIGHT + 16) + 1;
    shape(svg, "rect", {x: left, y: top, width: wide, height: 134, rx: 6, class: "box"});
    shape(svg, "rect", {x: left + 8, y: top + 8, width: wide - 16, height: 18, rx: 3, class: "part"});
    shape(svg, "text", {x: left + wide / 2, y: top + 21, "text-anchor": "middle"}, `node ${node}: NVLink switch`);
    shape(svg, "rect", {x: left + 8, y: top + 154, width: wide - 16, height: 18, rx: 3, class: "part"});
    shape(svg, "text", {x: left + wide / 2, y: top + 167, "text-anchor": "middle"}, "leaf switches");
    const nics = new Set();
    for (let gpu = 0; gpu < per; gpu++) {
      const x = left + GAP + 6 + gpu * (GPU + GAP) + GPU / 2, name = `node${node}/gpu${gpu}/scale_up`;
      wire(`${name}/egress`, "scale_up", x - 5, top + 62, top + 26);
      wire(`${name}/ingress`, "scale_up", x + 5, top + 26, top + 62);
      shape(svg, "rect", {x: x - GPU / 2, y: top + 62, width: GPU, height: GPU, rx: 3, class: "part"});
      shape(svg, "text", {x, y: top + 77, "text-anchor": "middle"}, String(gpu));
      const nic = [`node${node}/nic${gpu}`, `node${node}/nic${Math.floor(gpu / 2)}`].find(nic => `${nic}/tx` in machine.links || `${nic}/rx` in machine.links);
      if (!nic || nics.has(nic)) continue;
      nics.add(nic);
      shape(svg, "path", {d: `M${x} ${top + 84}V${top + 106}`, class: "wire"});
      shape(svg, "rect", {x: x - 8, y: top + 106, width: 16, height: 14, rx: 2, class: "part"});
      wire(`${nic}/tx`, "nic", x - 4, top + 120, top + 154);
      wire(`${nic}/rx`, "nic", x + 4, top + 154, top + 120);
    }
  }
  const flows = Object.fromEntries(Object.entries(MOTION.colours).map(([kind, stroke]) => [kind, Array.from({length: LEVELS}, (_, i) => {
    const used = (i + 1) / LEVELS;
    return {used, d: "", offset: 0, path: shape(svg, "path", {class: "flow", stroke, opacity: (0.3 + 0.7 * used).toFixed(2), "stroke-width": (1.5 + 2.5 * used).toFixed(2)})};
  })]));
  return {links, flows};
}

function show(step) { // `step`: frames since the last picture, by which dashes move on
  const at = Math.min(MOTION.frames - 1, Math.floor(frame)), now = frame * MOTION.frame_s;
  $("frame").value = Math.round(frame);
  $("time").textContent = time(now);
  $("frame").setAttribute("aria-valuetext", time(now));
  MOTION.machines.forEach((machine, i) => {
    const sums = {}, {links, flows} = stages[i];
    const drawn = Object.fromEntries(Object.keys(flows).map(kind => [kind, Array(LEVELS).fill("")]));
    for (const link of links) {
      const used = link.course[at];
      if (used > 0.01) drawn[link.kind][Math.min(LEVELS, Math.ceil(LEVELS * used - 0.005)) - 1] += link.d;
      (sums[link.kind] ||= []).push(used);
    }
    for (const [kind, levels] of Object.entries(flows)) levels.forEach((flow, level) => {
      const d = drawn[kind][level];
      if (d !== flow.d) flow.path.setAttribute("d", flow.d = d);
      flow.offset -= flow.used * step * 6;
      if (d && step) flow.path.setAttribute("stroke-dashoffset", flow.offset.toFixed(1));
    });
    const kernel = Object.entries(machine.kernels).sort(([, a], [, b]) => a.start_s - b.start_s).find(([, span]) => now < span.end_s);
    $(`now-${i}`).textContent = now >= machine.end_s ? `ended after ${time(machine.end_s)}` : `${kernel[0]}, until ${time(kernel[1].end_s)}`;
    for (const kind of Object.keys(MOTION.colours)) {
      const share = sums[kind] ? sums[kind].reduce((a, b) => a + b, 0) / sums[kind].length : 0;
      const [, bar, label] = meters[i][kind];
      bar.style.width = `${100 * share}%`;
      label.textContent = `${Math.round(100 * share)} %`;
    }
  });
}

function play(on) {
  playing = on;
  $("play").textContent = on ? "Pause" : "Play";
  if (!on) return;
  if (frame >= MOTION.frames) frame = 0;
  last = performance.now();
  requestAnimationFrame(tick);
}

function tick(now) {
  if (!playing) return;
  const step = Math.max(0, now - last) / LENGTH_MS * MOTION.frames;
  last = now;
  frame = Math.min(MOTION.frames, frame + step);
  show(step);
  if (frame >= MOTION.frames) return play(false);
  requestAnimationFrame(tick);
}

stages = MOTION.machines.map((machine, i) => build($(`stage-${i}`), machine));
const meters = MOTION.machines.map((_, i) => Object.fromEntries(Object.entries(MOTION.colours).map(([kind, colour]) => {
  const parts = ["span", "i", "span"].map(name => document.createElement(name));
  parts[0].textContent = MOTION.labels[kind];
  parts[1].style.backgroundColor = colour;
  $(`meter-${i}`).append(...parts);
  return [kind, parts];
})));
$("play").addEventListener("click", () => play(!playing));
$("frame").addEventListener("input", () => { play(false); frame = Number($("frame").value); show(1); });
window.moesim = {drawAll: () => null, seek: to => { play(false); frame = to; show(1); }, playing: () => playing};
frame = MOTION.frames * 0.15;
show(0);
if (!still.matches) { frame = 0; play(true); }
addEventListener("beforeprint", () => { play(false); frame = MOTION.frames * 0.15; show(0); });
