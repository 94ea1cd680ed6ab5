// What all views draw with: elements, colours, slices and charts. No view knows of another; nothing is fetched.
"use strict";

// What is said of a lesion, and how it is marked: on the planes, in the legend and in the charts alike.
const VERDICTS = {
  tp: { colour: "#2fbf8f", word: "hit", title: "found, and matched with a true lesion" },
  fp: { colour: "#f2725c", word: "false alarm", title: "found, but no true lesion is near", ticks: true },
  fn: { colour: "#4aa8ff", word: "missed", title: "a true lesion without a detection", dash: [5, 4] },
  kept: { colour: "#2fbf8f", word: "kept", title: "alpha reaches the threshold" },
  below: { colour: "#8a94a3", word: "below threshold", title: "found, but alpha is below the threshold", dash: [2, 3], width: 1.2 },
  fit: { colour: "#ffffff", word: "this fit", title: "the Gaussian of this step", width: 2.4 },
  ghost: { colour: "#c9d1da", word: "before this step", title: "where a lesion was, and its alpha, before the joint refit moved it", dash: [1, 3], width: 1.4 },
  truth: { colour: "#ffffff", word: "true centre of a hit", cross: 5 },
  maximum: { colour: "#ffd24a", word: "maximum", title: "the highest voxel of the residual", cross: 8 },
};
const LINES = ["#4aa8ff", "#f2725c", "#2fbf8f", "#c79bff", "#e0a526"];
const HEAT = ["#1b0c41", "#6a176e", "#b8325a", "#ee6a24", "#fca50a", "#fcffa4"];
const COLD = ["#0b1b3a", "#1450a0", "#3f94e8", "#b5e0ff"];
const PLANES = [
  { name: "axial", across: 2, right: 0, up: 1, low: ["L", "P"], high: ["R", "A"], axis: "z" },
  { name: "coronal", across: 1, right: 0, up: 2, low: ["L", "I"], high: ["R", "S"], axis: "y" },
  { name: "sagittal", across: 0, right: 1, up: 2, low: ["P", "I"], high: ["A", "S"], axis: "x" },
];

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const number = (value, digits) => (value === null || value === undefined || !Number.isFinite(value) ? "–" : value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−"));

// make("button.small", {title: "..."}, parent): an element, its classes, its properties and attributes.
function make(what, properties = {}, parent = null) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag);
  element.className = classes.join(" ");
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && !name.startsWith("aria")) element[name] = value;
    else element.setAttribute(name, value);
  }
  // JupyterLab takes keys from whatever has the focus, unless that element itself says no.
  if (["button", "input", "select", "canvas", "tr"].includes(tag)) element.dataset.lmSuppressShortcuts = "true";
  if (parent) parent.append(element);
  return element;
}

// 256 steps of a colour scale: red, green, blue and how much of the image below is covered.
function ramp(colours, clearBelow) {
  const stops = colours.map((c) => [1, 3, 5].map((p) => parseInt(c.slice(p, p + 2), 16)));
  const table = new Float32Array(256 * 4);
  for (let v = 0; v < 256; v++) {
    const t = (v / 255) * (stops.length - 1), n = Math.min(Math.floor(t), stops.length - 2);
    for (let c = 0; c < 3; c++) table[4 * v + c] = stops[n][c] + (stops[n + 1][c] - stops[n][c]) * (t - n);
    table[4 * v + 3] = clamp((v / 255 - clearBelow) / 0.22, 0, 1);
  }
  return table;
}
const HEAT_RAMP = ramp(HEAT, 0.03), COLD_RAMP = ramp(COLD, 0.03);

// Paint one slice, first row at the bottom, into a canvas of its own size. grey: 0 to 255, or null; warm: -1 to 1, or null;
// what is black and what is white of the grey.
function paintSlice(buffer, width, height, grey, warm, cover, [dark, bright] = [0, 255]) {
  if (buffer.width !== width || buffer.height !== height) Object.assign(buffer, { width, height });
  const context = buffer.getContext("2d"), picture = context.createImageData(width, height), out = picture.data;
  const base = grey ? cover : 1, shade = new Uint8ClampedArray(256).map((_, v) => (255 * (v - dark)) / Math.max(bright - dark, 1));
  for (let row = 0, o = 0; row < height; row++) {
    for (let k = (height - 1 - row) * width, end = k + width; k < end; k++, o += 4) {
      const g = grey ? shade[grey[k]] : 8, v = warm ? warm[k] : 0;
      const table = v < 0 ? COLD_RAMP : HEAT_RAMP, h = 4 * Math.min(255, Math.round(255 * Math.abs(v))), a = table[h + 3] * base;
      out[o] = g + (table[h] - g) * a;
      out[o + 1] = g + (table[h + 1] - g) * a;
      out[o + 2] = g + (table[h + 2] - g) * a;
      out[o + 3] = 255;
    }
  }
  context.putImageData(picture, 0, 0);
}

// Make a canvas as sharp as the screen, clear it and return its context; null while it has no size.
function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return null;
  const w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const c = canvas.getContext("2d");
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  return c;
}

function inks(element) {
  const style = getComputedStyle(element);
  return { ink: style.getPropertyValue("color"), font: `12px ${style.fontFamily}` };
}

// The colour behind a canvas.
const paper = (element) => getComputedStyle(element.closest(".lk, .lk-lesson")).backgroundColor;

// A ring, dashed or with ticks, always on a dark rim so that it reads on any picture.
function ring(c, x, y, rx, ry, colour, { dash = [], ticks = false, width = 2 } = {}) {
  const stroke = (style, w) => {
    c.strokeStyle = style; c.lineWidth = w;
    c.beginPath(); c.ellipse(x, y, Math.max(rx, 0.5), Math.max(ry, 0.5), 0, 0, 2 * Math.PI); c.stroke();
    if (!ticks) return;
    c.beginPath();
    for (const [u, v] of [[1, 1], [1, -1], [-1, 1], [-1, -1]]) {
      c.moveTo(x + u * 0.71 * rx, y + v * 0.71 * ry);
      c.lineTo(x + u * (0.71 * rx + 5), y + v * (0.71 * ry + 5));
    }
    c.stroke();
  };
  c.setLineDash(dash);
  stroke("rgb(0 0 0 / .55)", width + 1.6);
  stroke(colour, width);
  c.setLineDash([]);
}

function cross(c, x, y, colour, size = 5) {
  for (const [style, width] of [["rgb(0 0 0 / .7)", 3.4], [colour, 1.6]]) {
    c.strokeStyle = style; c.lineWidth = width;
    c.beginPath(); c.moveTo(x - size, y); c.lineTo(x + size, y); c.moveTo(x, y - size); c.lineTo(x, y + size); c.stroke();
  }
}

// The one way in which a verdict is drawn: a ring, a cross or, for what is missed, both.
function drawMark(c, name, x, y, rx, ry) {
  const mark = VERDICTS[name];
  if (!mark.cross) ring(c, x, y, rx, ry, mark.colour, mark);
  if (mark.cross || name === "fn") cross(c, x, y, mark.colour, mark.cross ?? Math.min(4, rx * 0.6));
}

// Text that reads on any picture.
function haloed(c, text, x, y, colour) {
  c.lineJoin = "round"; c.lineWidth = 3.5; c.strokeStyle = "rgb(0 0 0 / .8)"; c.fillStyle = colour;
  c.strokeText(text, x, y); c.fillText(text, x, y);
}

// Round numbers for the ticks of an axis.
function ticksOf(low, high, most = 6) {
  const span = Math.max(high - low, 1e-12), power = 10 ** Math.floor(Math.log10(span / most));
  const step = [1, 2, 5, 10].map((s) => s * power).find((s) => span / s <= most);
  const ticks = [];
  for (let t = Math.ceil(low / step - 1e-9); t * step <= high + 1e-9 * span; t++) ticks.push(t * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return ticks.map((t) => [t, number(t, Math.min(digits, 6))]);
}

// Axes of a chart; returns what maps numbers to pixels.
function axes(c, element, box, { x: [x0, x1], y: [y0, y1], xlabel = "", ylabel = "", xticks = null, yticks = null }) {
  const { ink, font } = inks(element);
  const X = (v) => box.left + ((v - x0) / (x1 - x0)) * box.width, Y = (v) => box.top + (1 - (v - y0) / (y1 - y0)) * box.height;
  c.font = font; c.fillStyle = ink; c.strokeStyle = ink;
  c.textAlign = "center"; c.textBaseline = "top";
  for (const [v, text] of xticks ?? ticksOf(x0, x1, clamp(Math.floor(box.width / 55), 2, 8))) c.fillText(text, X(v), box.top + box.height + 5);
  c.textAlign = "right"; c.textBaseline = "middle";
  for (const [v, text] of yticks ?? ticksOf(y0, y1, clamp(Math.floor(box.height / 32), 2, 6))) {
    c.fillText(text, box.left - 6, Y(v));
    c.globalAlpha = 0.14; c.lineWidth = 1;
    c.beginPath(); c.moveTo(box.left, Y(v)); c.lineTo(box.left + box.width, Y(v)); c.stroke();
    c.globalAlpha = 1;
  }
  c.textAlign = "center"; c.textBaseline = "bottom"; c.globalAlpha = 0.75;
  c.fillText(xlabel, box.left + box.width / 2, box.top + box.height + 36);
  c.save(); c.translate(box.left - 55, box.top + box.height / 2); c.rotate(-Math.PI / 2); c.textBaseline = "middle"; c.fillText(ylabel, 0, 0); c.restore();
  c.globalAlpha = 0.6; c.lineWidth = 1;
  c.beginPath(); c.moveTo(box.left, box.top); c.lineTo(box.left, box.top + box.height); c.lineTo(box.left + box.width, box.top + box.height); c.stroke();
  c.globalAlpha = 1;
  return { X, Y };
}

// A line chart. spec: {x, y: ranges, xlabel, ylabel, series: [{x, y, colour, dash, name, points, fill}], marks: [{x} or {y}, text], band: [a, b]}.
function lineChart(canvas, spec) {
  const c = prepare(canvas);
  if (!c) return null;
  const named = spec.series.filter((s) => s.name), keys = named.length ? 20 : 6;
  const box = { left: 66, top: keys + 4, width: canvas.clientWidth - 78, height: canvas.clientHeight - keys - 46 };
  const { X, Y } = axes(c, canvas, box, spec), { ink, font } = inks(canvas);
  c.save();
  c.beginPath(); c.rect(box.left, box.top - 1, box.width + 1, box.height + 2); c.clip();
  if (spec.band) { c.globalAlpha = 0.08; c.fillStyle = ink; c.fillRect(X(spec.band[0]), box.top, X(spec.band[1]) - X(spec.band[0]), box.height); c.globalAlpha = 1; }
  for (const [n, s] of spec.series.entries()) {
    const colour = s.colour ?? LINES[n % LINES.length];
    c.strokeStyle = colour; c.fillStyle = colour; c.lineWidth = s.width ?? 2; c.setLineDash(s.dash ?? []);
    c.beginPath();
    let drawing = false;
    s.x.forEach((x, i) => {
      const y = s.y[i];
      if (y === null || !Number.isFinite(y)) { drawing = false; return; }
      if (s.points) { c.moveTo(X(x) + s.points, Y(y)); c.arc(X(x), Y(y), s.points, 0, 2 * Math.PI); }
      else if (drawing) c.lineTo(X(x), Y(y));
      else c.moveTo(X(x), Y(y));
      drawing = true;
    });
    if (s.points) { c.globalAlpha = s.opacity ?? 0.9; c.fill(); c.globalAlpha = 1; }
    else if (s.fill) { c.lineTo(X(s.x.at(-1)), Y(0)); c.lineTo(X(s.x[0]), Y(0)); c.globalAlpha = 0.18; c.fill(); c.globalAlpha = 1; c.stroke(); }
    else c.stroke();
    c.setLineDash([]);
  }
  c.restore();
  c.font = font;
  for (const mark of spec.marks ?? []) {
    c.strokeStyle = ink; c.fillStyle = ink; c.lineWidth = 1.2; c.setLineDash([5, 4]); c.beginPath();
    if ("x" in mark) { c.moveTo(X(mark.x), box.top); c.lineTo(X(mark.x), box.top + box.height); } else { c.moveTo(box.left, Y(mark.y)); c.lineTo(box.left + box.width, Y(mark.y)); }
    c.stroke(); c.setLineDash([]);
    if (mark.text && "x" in mark) { const right = X(mark.x) > box.left + box.width * 0.6; c.textAlign = right ? "right" : "left"; c.textBaseline = "top"; c.fillText(mark.text, X(mark.x) + (right ? -5 : 5), box.top + 2); }
    else if (mark.text) { c.textAlign = "right"; c.textBaseline = "bottom"; c.fillText(mark.text, box.left + box.width - 2, Y(mark.y) - 2); }
  }
  const wide = named.reduce((sum, s) => sum + 34 + c.measureText(s.name).width, 0);
  let x = clamp(canvas.clientWidth - wide, 2, box.left);
  c.textAlign = "left"; c.textBaseline = "middle";
  for (const s of named) {
    const colour = s.colour ?? LINES[spec.series.indexOf(s) % LINES.length];
    c.strokeStyle = colour; c.fillStyle = colour; c.lineWidth = 2.5; c.setLineDash(s.dash ?? []);
    c.beginPath();
    if (s.points) { c.arc(x + 8, 10, 4, 0, 2 * Math.PI); c.fill(); } else { c.moveTo(x, 10); c.lineTo(x + 16, 10); c.stroke(); }
    c.setLineDash([]); c.fillStyle = ink; c.fillText(s.name, x + 21, 10);
    x += 34 + c.measureText(s.name).width;
  }
  return { X, Y, box };
}
