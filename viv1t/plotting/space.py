"""Neurons in the cortical volume, as one HTML file to turn with the mouse; it loads nothing from elsewhere."""

import html
import json
import re
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from viv1t.plotting.maps import CYCLIC, LINEAR

STEPS = 64  # colours of a scale
DIGITS = 4  # of the numbers inside the page


def cortex_scatter3d(
    title: str, xyz_um: np.ndarray, values: Mapping[str, np.ndarray], periods: Mapping[str, float] | None = None
) -> str:
    """The page: neurons at (N, 3) um, x, y and depth, coloured by one of several values (N,), chosen by name.

    periods: of the values that are circular, in their unit. Sliders hide neurons below a threshold and outside a range
    of depth. Neurons without a value (NaN) are grey and go with the threshold at its lowest only.
    """
    periods = dict(periods or {})
    shown = {name: _numbers(np.asarray(v) % periods[name] if name in periods else v) for name, v in values.items()}
    data = {
        "xyz": [_numbers(axis) for axis in np.asarray(xyz_um).T],
        "values": shown,
        "periods": periods,
        "scales": {name: _colors(CYCLIC if name in periods else LINEAR) for name in values},
    }
    content = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {"TITLE": html.escape(title), "COUNT": str(len(xyz_um)), "DATA": content}
    return re.sub("__(TITLE|COUNT|DATA)__", lambda found: parts[found[1]], PAGE)


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in np.asarray(values, dtype=float)]


def _colors(name: str) -> list[str]:
    return [to_hex(color) for color in matplotlib.colormaps[name](np.linspace(0, 1, STEPS))]


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>__TITLE__</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; color: #1a1a1a; margin: 1rem }
canvas { width: 100%; height: 70vh; border: 1px solid #ccc; cursor: grab; touch-action: none }
label { margin-right: 1.2rem; white-space: nowrap } input, select { vertical-align: middle }
#scale { display: inline-block; width: 12rem; height: 0.8rem; vertical-align: middle; margin: 0 0.4rem }
</style></head><body>
<h1 style="font-size: 1.2rem">__TITLE__</h1>
<p><label>colour <select id="name"></select></label>
<span id="low"></span><span id="scale"></span><span id="high"></span></p>
<canvas id="view"></canvas>
<p><label>at least <input id="least" type="range" min="0" max="1" step="0.005" value="0">
<span id="told"></span></label>
<label>depth from <input id="top" type="range" step="any"> <span id="from"></span></label>
<label>to <input id="bottom" type="range" step="any"> <span id="to"></span></label>
<span id="count"></span> of __COUNT__ neurons; drag to turn, scroll to zoom</p>
<script>
const data = __DATA__;
const get = id => document.getElementById(id), view = get("view"), draw2d = view.getContext("2d");
const [x, y, z] = data.xyz, middle = data.xyz.map(v => (Math.min(...v) + Math.max(...v)) / 2);
const reach = Math.hypot(...data.xyz.map(v => Math.max(...v) - Math.min(...v))) / 2 || 1;
let turn = 0.6, tilt = 0.5, zoom = 1, held = null;

for (const name in data.values) get("name").add(new Option(name, name));
for (const id of ["top", "bottom"]) { get(id).min = Math.min(...z); get(id).max = Math.max(...z) }
get("top").value = get("top").min; get("bottom").value = get("bottom").max;

function limits(name) {
  if (name in data.periods) return [0, data.periods[name]];
  const sorted = data.values[name].filter(v => v !== null).sort((a, b) => a - b);
  return sorted.length ? [sorted[Math.floor(0.01 * sorted.length)], sorted[Math.floor(0.99 * (sorted.length - 1))]]
                       : [0, 1];
}

function draw() {
  const name = get("name").value, values = data.values[name], colors = data.scales[name], [low, high] = limits(name);
  const least = low + get("least").value * (high - low), all = +get("least").value === 0;
  const ratio = window.devicePixelRatio || 1;
  view.width = view.clientWidth * ratio; view.height = view.clientHeight * ratio;
  const size = zoom * 0.45 * Math.min(view.width, view.height) / reach;
  const [ct, st, ci, si] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
  const project = p => {  // place on the screen, and distance; depth points down
    const [a, b, c] = [p[0] - middle[0], p[1] - middle[1], p[2] - middle[2]];
    const along = a * st + b * ct;
    const [right, down] = [a * ct - b * st, c * ci - along * si];
    return [view.width / 2 + size * right, view.height / 2 + size * down, along * ci + c * si];
  };
  const points = [];
  for (let i = 0; i < x.length; i++) {
    const kept = all || (values[i] !== null && values[i] >= least);
    const inside = z[i] >= +get("top").value && z[i] <= +get("bottom").value;
    if (kept && inside) points.push([...project([x[i], y[i], z[i]]), i]);
  }
  points.sort((a, b) => b[2] - a[2]);  // near ones over far ones
  const radius = Math.max(1.5, Math.min(5, 160 / Math.sqrt(x.length))) * ratio * Math.sqrt(zoom);
  for (const [u, v, , i] of points) {
    const place = Math.round((values[i] - low) / (high - low || 1) * (colors.length - 1));
    draw2d.fillStyle = values[i] === null ? "#cccccc" : colors[Math.max(0, Math.min(colors.length - 1, place))];
    draw2d.beginPath(); draw2d.arc(u, v, radius, 0, 2 * Math.PI); draw2d.fill();
  }
  const corner = data.xyz.map(v => Math.min(...v)), start = project(corner);
  draw2d.fillStyle = draw2d.strokeStyle = "#1a1a1a"; draw2d.font = `${12 * ratio}px system-ui, sans-serif`;
  ["x 100 µm", "y 100 µm", "depth 100 µm"].forEach((text, axis) => {
    const end = project(corner.map((v, k) => v + (k === axis) * 100));
    draw2d.beginPath(); draw2d.moveTo(start[0], start[1]); draw2d.lineTo(end[0], end[1]); draw2d.stroke();
    draw2d.fillText(text, end[0] + 4, end[1]);
  });
  const short = v => +v.toPrecision(3);
  get("count").textContent = points.length; get("told").textContent = all ? "all" : short(least);
  get("from").textContent = `${Math.round(get("top").value)} µm`;
  get("to").textContent = `${Math.round(get("bottom").value)} µm`;
  get("low").textContent = short(low); get("high").textContent = short(high);
  get("scale").style.background = `linear-gradient(to right, ${colors.join(",")})`;
}

view.onpointerdown = event => { held = [event.clientX, event.clientY]; view.setPointerCapture(event.pointerId) };
view.onpointerup = () => { held = null };
view.onpointermove = event => {
  if (!held) return;
  turn += (event.clientX - held[0]) / 150; tilt += (event.clientY - held[1]) / 150;
  tilt = Math.max(-1.57, Math.min(1.57, tilt)); held = [event.clientX, event.clientY]; draw();
};
view.onwheel = event => { event.preventDefault(); zoom *= Math.exp(-event.deltaY / 500); draw() };
for (const id of ["name", "least", "top", "bottom"]) get(id).oninput = draw;
window.onresize = draw; draw();
</script></body></html>
"""
