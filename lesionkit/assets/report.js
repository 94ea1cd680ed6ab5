"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("report-data").textContent);
  const { shape, spacing, affine, lesions, truth, colours } = data;
  const RING_MM = 5;
  const PLANES = [
    { name: "Axial", across: 2, right: 0, up: 1, low: ["L", "P"], high: ["R", "A"], axis: "z" },
    { name: "Coronal", across: 1, right: 0, up: 2, low: ["L", "I"], high: ["R", "S"], axis: "y" },
    { name: "Sagittal", across: 0, right: 1, up: 2, low: ["P", "I"], high: ["A", "S"], axis: "x" },
  ];

  const state = {
    at: data.start, threshold: data.threshold, heat: true, opacity: 0.75, brightness: 1, flip: true, zoom: 1, selected: null,
    shown: { TP: true, FP: true, FN: true, detected: true, truth: true },
  };
  let kept = 0;                                           // lesions[0..kept) reach the threshold
  const partner = new Int32Array(lesions.length);         // lesion -> matched true lesion, -1: none
  const finder = new Int32Array(truth ? truth.length : 0); // true lesion -> matched lesion, -1: missed

  // ---- the two volumes -------------------------------------------------------------------------------------------
  async function unpack(id) {
    const bytes = Uint8Array.from(atob($(id).textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }
  let image, heat;
  try {
    [image, heat] = await Promise.all([unpack("image-data"), unpack("heat-data")]);
  } catch (error) {
    $("error").textContent = `The pictures could not be unpacked (${error.message}). A browser of 2023 or later is needed; or the file is damaged.`;
    $("error").hidden = false;
    return;
  }
  const strides = [shape[1] * shape[2], shape[2], 1];
  const heatLut = new Float32Array(256 * 4);              // red, green, blue, cover
  {
    const stops = data.heat_colours.map((c) => [1, 3, 5].map((p) => parseInt(c.slice(p, p + 2), 16)));
    for (let v = 0; v < 256; v++) {
      const t = (v / 255) * (stops.length - 1), n = Math.min(Math.floor(t), stops.length - 2);
      for (let c = 0; c < 3; c++) heatLut[4 * v + c] = stops[n][c] + (stops[n + 1][c] - stops[n][c]) * (t - n);
      heatLut[4 * v + 3] = Math.min(1, Math.max(0, v / 255 - 0.02) / 0.25);  // noise near 0 stays clear
    }
  }

  // ---- small helpers ---------------------------------------------------------------------------------------------
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const number = (value, digits) => (value === null || value === undefined || !Number.isFinite(value) ? "–" : value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−"));
  const world = (p) => [0, 1, 2].map((r) => affine[r][0] * p[0] + affine[r][1] * p[1] + affine[r][2] * p[2] + affine[r][3]);
  const make = (tag, className, parent) => { const e = document.createElement(tag); if (className) e.className = className; parent.append(e); return e; };
  const status = (n) => (n >= kept ? null : !truth ? "detected" : partner[n] >= 0 ? "TP" : "FP");
  const WORDS = { TP: "hit", FP: "false alarm", FN: "missed", detected: "detected" };

  // Which true lesion each detection is matched with, as computed for every number of detections; replayed to `kept`.
  function rematch() {
    kept = lesions.filter((lesion) => lesion.alpha >= state.threshold).length;
    partner.fill(-1);
    finder.fill(-1);
    for (const [count, lesion, target] of data.matches) {
      if (count > kept) break;
      partner[lesion] = target;
    }
    partner.forEach((target, lesion) => { if (target >= 0) finder[target] = lesion; });
  }

  // ---- planes ----------------------------------------------------------------------------------------------------
  const [boxLow, boxHigh] = data.box;                     // the voxels that hold tissue: what the pictures are fitted to
  const extent = (axis) => (boxHigh[axis] - boxLow[axis]) * spacing[axis];
  const tallest = Math.max(...PLANES.map((p) => extent(p.up)));
  $("planes").style.gridTemplateColumns = PLANES.map((p) => `minmax(0, ${extent(p.right)}fr)`).join(" ");
  for (const plane of PLANES) {
    const box = make("div", "plane", $("planes"));
    plane.canvas = make("canvas", "picture", box);
    plane.canvas.style.aspectRatio = `${extent(plane.right)} / ${tallest}`;
    plane.canvas.tabIndex = 0;
    plane.canvas.setAttribute("role", "application");
    plane.canvas.setAttribute("aria-label", `${plane.name} plane. Arrow keys move the crosshair, Page Up and Page Down change the slice.`);
    const caption = make("div", "caption", box);
    caption.append(`${plane.name} `);
    plane.caption = make("small", "", caption);
    const slice = make("div", "slice", box);
    plane.marks = make("canvas", "", slice);
    plane.marks.setAttribute("aria-hidden", "true");
    plane.slider = make("input", "", slice);
    Object.assign(plane.slider, { type: "range", min: 0, max: shape[plane.across] - 1, step: 1 });
    plane.slider.setAttribute("aria-label", `${plane.name} slice`);
    plane.slider.addEventListener("input", () => { state.at[plane.across] = +plane.slider.value; redraw(); });
    plane.buffer = document.createElement("canvas");
    plane.buffer.width = shape[plane.right];
    plane.buffer.height = shape[plane.up];
    plane.hits = [];
    listen(plane);
  }

  function geometry(plane) {
    const width = plane.canvas.clientWidth, height = plane.canvas.clientHeight;
    const scale = Math.min(height / tallest, width / extent(plane.right)) * state.zoom;  // pixels a mm
    const centre = (axis) => (state.zoom > 1 ? state.at[axis] : (boxLow[axis] + boxHigh[axis] - 1) / 2);
    const sign = state.flip ? -1 : 1;
    const sx = scale * spacing[plane.right], sy = scale * spacing[plane.up];
    return {
      width, height, scale, sign, sx, sy, cx: centre(plane.right), cy: centre(plane.up),
      x: (i) => width / 2 + sign * (i - centre(plane.right)) * sx,
      y: (j) => height / 2 - (j - centre(plane.up)) * sy,
      voxel: (x, y) => [centre(plane.right) + (sign * (x - width / 2)) / sx, centre(plane.up) - (y - height / 2) / sy],
    };
  }

  function paintSlice(plane) {
    const width = shape[plane.right], height = shape[plane.up];
    const context = plane.buffer.getContext("2d"), picture = context.createImageData(width, height), out = picture.data;
    const base = state.at[plane.across] * strides[plane.across], dr = strides[plane.right], du = strides[plane.up];
    const cover = state.heat ? state.opacity : 0;
    let o = 0;
    for (let row = height - 1; row >= 0; row--) {
      let from = base + row * du;
      for (let column = 0; column < width; column++, from += dr, o += 4) {
        const grey = Math.min(255, image[from] * state.brightness), h = 4 * heat[from], a = heatLut[h + 3] * cover;
        out[o] = grey + (heatLut[h] - grey) * a;
        out[o + 1] = grey + (heatLut[h + 1] - grey) * a;
        out[o + 2] = grey + (heatLut[h + 2] - grey) * a;
        out[o + 3] = 255;
      }
    }
    context.putImageData(picture, 0, 0);
  }

  function drawPlane(plane) {
    const ratio = window.devicePixelRatio || 1, g = geometry(plane), canvas = plane.canvas;
    if (!g.width) return;
    const w = Math.round(g.width * ratio), h = Math.round(g.height * ratio);
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
    const c = canvas.getContext("2d");
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.fillStyle = "#000";
    c.fillRect(0, 0, g.width, g.height);
    paintSlice(plane);
    c.save();
    c.translate(g.width / 2, g.height / 2);
    c.scale(g.sign, 1);
    c.imageSmoothingQuality = "high";
    c.drawImage(plane.buffer, -(g.cx + 0.5) * g.sx, -(shape[plane.up] - g.cy - 0.5) * g.sy, shape[plane.right] * g.sx, shape[plane.up] * g.sy);
    c.restore();

    // crosshair, open in the middle so that it hides nothing
    const cx = g.x(state.at[plane.right]), cy = g.y(state.at[plane.up]), gap = Math.max(12, (RING_MM + 2) * g.scale);
    c.strokeStyle = "rgba(255,255,255,.32)";
    c.lineWidth = 1;
    c.beginPath();
    c.moveTo(0, cy); c.lineTo(cx - gap, cy); c.moveTo(cx + gap, cy); c.lineTo(g.width, cy);
    c.moveTo(cx, 0); c.lineTo(cx, cy - gap); c.moveTo(cx, cy + gap); c.lineTo(cx, g.height);
    c.stroke();

    plane.hits = [];
    if (truth) truth.forEach((target, n) => drawTrue(plane, g, c, target, n));
    for (let n = kept - 1; n >= 0; n--) drawDetection(plane, g, c, n);   // the most probable on top

    c.font = "600 13px system-ui, sans-serif";
    c.fillStyle = "#ffd479";
    c.textAlign = "center";
    c.textBaseline = "middle";
    const [left, right] = state.flip ? [plane.high[0], plane.low[0]] : [plane.low[0], plane.high[0]];
    c.shadowColor = "#000";
    c.shadowBlur = 3;
    c.fillText(left, 14, g.height / 2);
    c.fillText(right, g.width - 14, g.height / 2);
    c.fillText(plane.high[1], g.width / 2, 14);
    c.fillText(plane.low[1], g.width / 2, g.height - 14);
    c.shadowBlur = 0;
    drawScaleBar(c, g);
  }

  function drawScaleBar(c, g) {
    const mm = [50, 20, 10, 5].find((length) => length * g.scale < 0.28 * g.width) || 5, length = mm * g.scale;
    const x = g.width - 16 - length, y = g.height - 14;
    c.strokeStyle = c.fillStyle = "#dfe6ee";
    c.lineWidth = 2;
    c.beginPath(); c.moveTo(x, y); c.lineTo(x + length, y); c.stroke();
    c.font = "12px system-ui, sans-serif";
    c.textAlign = "right";
    c.fillText(`${mm} mm`, g.width - 16, y - 10);
  }

  function ring(c, x, y, radius, colour, options) {
    c.save();
    for (const [style, extra] of [["rgba(0,0,0,.6)", 2.5], [colour, 0]]) {   // a dark halo first: readable on any tissue
      c.globalAlpha = extra ? 0.75 : options.opacity;
      c.strokeStyle = style;
      c.lineWidth = options.width + extra;
      c.setLineDash(extra ? [] : options.dash || []);
      c.beginPath();
      c.arc(x, y, radius, 0, 2 * Math.PI);
      c.stroke();
    }
    c.restore();
  }

  // Radius, in pixels, of the section of a sphere around `point`, or 0 where the plane misses it.
  function section(plane, g, point, radius) {
    const off = (point[plane.across] - state.at[plane.across]) * spacing[plane.across];
    const rest = radius * radius - off * off;
    return rest > 0 ? Math.max(3, Math.sqrt(rest) * g.scale) : 0;
  }

  function drawDetection(plane, g, c, n) {
    const lesion = lesions[n], kind = status(n);
    if (!state.shown[kind]) return;
    const radius = section(plane, g, lesion.ijk, RING_MM);
    if (!radius) return;
    const x = g.x(lesion.ijk[plane.right]), y = g.y(lesion.ijk[plane.up]);
    const chosen = state.selected && state.selected.lesion === n;
    const alpha = clamp(lesion.alpha, 0, 1);
    if (chosen) ring(c, x, y, radius + 4, "#fff", { opacity: 0.95, width: 1.5 });
    ring(c, x, y, radius, colours[kind], { opacity: 0.45 + 0.55 * alpha, width: 1.4 + 1.2 * alpha });
    if (kind === "FP") {                                  // shape as well as colour tells a false alarm
      const s = radius * 0.7071, t = Math.max(0, radius - 5) * 0.7071;
      c.strokeStyle = colours.FP;
      c.lineWidth = 2;
      c.beginPath();
      for (const [a, b] of [[1, 1], [1, -1], [-1, 1], [-1, -1]]) { c.moveTo(x + a * s, y + b * s); c.lineTo(x + a * t, y + b * t); }
      c.stroke();
    }
    if (chosen) label(c, g, x, y, radius, `${n + 1}  α ${number(lesion.alpha, 2)}`);
    plane.hits.push({ x, y, radius, lesion: n });
  }

  function drawTrue(plane, g, c, target, n) {
    const missed = finder[n] < 0;
    if (!(missed ? state.shown.FN : state.shown.truth)) return;
    const radius = section(plane, g, target.ijk, missed ? target.radius : Math.min(RING_MM, 3));
    if (!radius) return;
    const x = g.x(target.ijk[plane.right]), y = g.y(target.ijk[plane.up]);
    const chosen = state.selected && state.selected.truth === n;
    if (!missed) {
      for (const [style, width] of [["rgba(0,0,0,.7)", 3.5], ["#fff", 1.5]]) {
        c.strokeStyle = style;
        c.lineWidth = width;
        c.beginPath();
        c.moveTo(x - 4, y); c.lineTo(x + 4, y); c.moveTo(x, y - 4); c.lineTo(x, y + 4);
        c.stroke();
      }
      return;
    }
    if (chosen) ring(c, x, y, radius + 4, "#fff", { opacity: 0.95, width: 1.5 });
    ring(c, x, y, radius, colours.FN, { opacity: 1, width: 2, dash: [5, 4] });
    if (chosen) label(c, g, x, y, radius, "missed");
    plane.hits.push({ x, y, radius, truth: n });
  }

  function label(c, g, x, y, radius, text) {
    c.font = "600 12.5px system-ui, sans-serif";
    const width = c.measureText(text).width + 12, left = x + radius + 9 + width > g.width ? x - radius - 9 - width : x + radius + 9;
    c.fillStyle = "rgba(8,12,17,.82)";
    c.beginPath();
    c.roundRect(left, y - 11, width, 22, 5);
    c.fill();
    c.fillStyle = "#fff";
    c.textAlign = "left";
    c.textBaseline = "middle";
    c.fillText(text, left + 6, y + 0.5);
  }

  // Ticks above a slider: the slices in which something is.
  function drawMarks(plane) {
    const ratio = window.devicePixelRatio || 1, width = plane.marks.clientWidth, height = 9;
    plane.marks.width = width * ratio;
    plane.marks.height = height * ratio;
    const c = plane.marks.getContext("2d");
    c.scale(ratio, ratio);
    const tick = (point, colour, opacity) => {
      const t = point[plane.across] / Math.max(1, shape[plane.across] - 1);
      c.globalAlpha = opacity;
      c.fillStyle = colour;
      c.fillRect(8 + clamp(t, 0, 1) * (width - 16) - 1, 0, 2, height);
    };
    if (truth) truth.forEach((target, n) => { if (finder[n] < 0 && state.shown.FN) tick(target.ijk, colours.FN, 0.7); });
    for (let n = kept - 1; n >= 0; n--) if (state.shown[status(n)]) tick(lesions[n].ijk, colours[status(n)], 0.4 + 0.6 * clamp(lesions[n].alpha, 0, 1));
  }

  // ---- one redraw a frame, whatever asked for it -----------------------------------------------------------------
  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      const mm = world(state.at);
      for (const plane of PLANES) {
        drawPlane(plane);
        drawMarks(plane);
        const k = state.at[plane.across], n = shape[plane.across], place = `${plane.axis} = ${number(mm[plane.across], 1)} mm`;
        plane.caption.textContent = `${place} · ${k + 1}/${n}`;  // short: the letters of the sides stand beside it
        plane.slider.value = k;
        plane.slider.setAttribute("aria-valuetext", `${place}, slice ${k + 1} of ${n}`);
      }
      const at = state.at[0] * strides[0] + state.at[1] * strides[1] + state.at[2];
      const grey = data.image_low + (image[at] / 255) * (data.image_high - data.image_low);
      $("readout").textContent = `x ${number(mm[0], 1)}  y ${number(mm[1], 1)}  z ${number(mm[2], 1)} mm · image ${Number(grey.toPrecision(3))} · heatmap ${((heat[at] / 255) * data.heat_max).toPrecision(2)}`;
    });
  }

  // ---- table, scores, chart --------------------------------------------------------------------------------------
  const rows = [...document.querySelectorAll("#lesion-table tbody tr")];
  const lesionRows = [], truthRows = [];
  for (const row of rows) (row.dataset.lesion !== undefined ? lesionRows : truthRows)[+(row.dataset.lesion ?? row.dataset.truth)] = row;
  const cell = (row, name) => row.querySelector(`[data-cell="${name}"]`);
  const visible = () => rows.filter((row) => !row.hidden);

  function updateTable() {
    lesionRows.forEach((row, n) => {
      const kind = status(n);
      row.hidden = kind === null;
      if (!kind) return;
      row.className = kind.toLowerCase();
      if (!truth) return;
      const word = cell(row, "status"), target = partner[n] >= 0 ? truth[partner[n]] : null;
      word.textContent = WORDS[kind];
      word.className = kind.toLowerCase();
      cell(row, "distance").textContent = target ? number(Math.hypot(...[0, 1, 2].map((a) => target.mm[a] - lesions[n].mm[a])), 1) : "–";
      cell(row, "size").textContent = target && target.size !== null ? target.size : "–";
    });
    truthRows.forEach((row, n) => { row.hidden = finder[n] >= 0; });
    const hidden = lesions.length - kept;
    $("table-hint").textContent = "Click a row to go to the lesion. Positions in mm, RAS+." + (hidden ? ` ${hidden} candidate${hidden > 1 ? "s" : ""} below the threshold not listed.` : "");
  }

  function updateScores() {
    const put = (id, text) => { if ($(id)) $(id).textContent = text; };
    put("n-detected", kept);
    if (!truth) {
      put("expected", number(lesions.slice(0, kept).reduce((sum, lesion) => sum + clamp(lesion.alpha, 0, 1), 0), 1));
      return;
    }
    const tp = partner.reduce((sum, target) => sum + (target >= 0), 0), fp = kept - tp, fn = truth.length - tp;
    put("n-tp", tp);
    put("n-fp", fp);
    put("n-fn", fn);
    put("precision", number(tp / (tp + fp), 2));
    put("recall", number(tp / (tp + fn), 2));
    put("f1", number((2 * tp) / (2 * tp + fp + fn), 2));
  }

  const chart = $("chart"), figure = data.chart;
  figure.layout.dragmode = false;                         // a click chooses a lesion and never zooms
  const theme = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  function chartLook() {
    const chosen = state.selected ? state.selected.lesion : undefined, ink = theme("--soft");
    const trace = figure.data[0];
    trace.marker.color = lesions.map((_, n) => colours[status(n) || "detected"]);
    if (truth) lesions.forEach((_, n) => { if (n >= kept) trace.marker.color[n] = ink; });
    trace.marker.opacity = lesions.map((_, n) => (n < kept ? 1 : 0.35));
    trace.marker.line = { color: theme("--ink"), width: lesions.map((_, n) => (n === chosen ? 2 : 0)) };
    trace.customdata = lesions.map((_, n) => WORDS[status(n)] || "below the threshold");
    const { layout } = figure;
    layout.font.color = ink;
    for (const axis of ["xaxis", "yaxis"]) Object.assign(layout[axis], { color: ink, fixedrange: true });
    layout.shapes[0].y0 = layout.shapes[0].y1 = layout.annotations[0].y = state.threshold;
    layout.shapes[0].line.color = layout.annotations[0].font.color = theme("--ink");
    layout.annotations[0].text = `threshold ${number(state.threshold, 3)}`;
    layout.datarevision = (layout.datarevision || 0) + 1;
  }
  let charting = false;
  function updateChart() {
    if (charting || !lesions.length) return;
    charting = true;
    requestAnimationFrame(() => { charting = false; chartLook(); Plotly.react(chart, figure.data, figure.layout); });
  }

  function update() {
    rematch();
    // A choice that is no longer on the page is no choice.
    if (state.selected && (state.selected.lesion >= kept || finder[state.selected.truth] >= 0)) select(null);
    updateScores();
    updateTable();
    updateChart();
    const text = number(state.threshold, 3);
    $("threshold-value").textContent = text;
    $("threshold").setAttribute("aria-valuetext", `${text}, ${kept} lesions`);
    const current = visible();
    if (current.length && !current.some((row) => row.tabIndex === 0)) current[0].tabIndex = 0;
    redraw();
  }

  // ---- choosing a lesion -----------------------------------------------------------------------------------------
  function select(choice, focus = false) {
    state.selected = choice;
    let chosenRow = null;
    for (const row of rows) {
      const mine = choice && (choice.lesion !== undefined ? lesionRows[choice.lesion] === row : truthRows[choice.truth] === row);
      row.setAttribute("aria-selected", mine ? "true" : "false");
      row.tabIndex = mine ? 0 : -1;
      if (mine) chosenRow = row;
    }
    if (!choice) {
      const first = visible()[0];
      if (first) first.tabIndex = 0;
      return;
    }
    const item = choice.lesion !== undefined ? lesions[choice.lesion] : truth[choice.truth];
    state.at = item.ijk.map((p, axis) => clamp(Math.round(p), 0, shape[axis] - 1));
    const box = chosenRow.closest(".scroll"), top = chosenRow.offsetTop - 30;   // below the sticky head; the page itself stays
    if (top < box.scrollTop || top + chosenRow.offsetHeight > box.scrollTop + box.clientHeight - 30) box.scrollTop = Math.max(0, top - box.clientHeight / 3);
    if (focus) chosenRow.focus({ preventScroll: true });
    $("live").textContent = describe(choice).replaceAll("\n", ", ");
    updateChart();
    redraw();
  }

  function describe({ lesion, truth: target }) {
    const item = lesion !== undefined ? lesions[lesion] : truth[target];
    const lines = [];
    if (lesion !== undefined) {
      lines.push(`Lesion ${lesion + 1}: alpha ${number(item.alpha, 3)}`);
      if (truth) lines.push(WORDS[status(lesion)] + (partner[lesion] >= 0 ? `, ${cell(lesionRows[lesion], "distance").textContent} mm from the true lesion` : ""));
    } else {
      lines.push("Missed lesion" + (item.size !== null ? ` of ${item.size} voxels` : ""));
    }
    lines.push(`x ${number(item.mm[0], 1)}  y ${number(item.mm[1], 1)}  z ${number(item.mm[2], 1)} mm`);
    return lines.join("\n");
  }

  const choiceOf = (row) => (row.dataset.lesion !== undefined ? { lesion: +row.dataset.lesion } : { truth: +row.dataset.truth });
  function step(by, focus = false) {
    const list = visible();
    if (!list.length) return;
    const now = list.findIndex((row) => row.getAttribute("aria-selected") === "true");
    const next = now < 0 ? (by > 0 ? 0 : list.length - 1) : focus ? clamp(now + by, 0, list.length - 1) : (now + by + list.length) % list.length;
    select(choiceOf(list[next]), focus);
  }

  // ---- what people do --------------------------------------------------------------------------------------------
  function listen(plane) {
    const { canvas } = plane, along = [plane.right, plane.up];
    const move = (axis, by) => { state.at[axis] = clamp(state.at[axis] + by, 0, shape[axis] - 1); redraw(); };
    const under = (event) => {
      const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
      const near = plane.hits.filter((hit) => Math.hypot(hit.x - x, hit.y - y) <= hit.radius + 4);
      near.sort((a, b) => Math.hypot(a.x - x, a.y - y) - Math.hypot(b.x - x, b.y - y));
      return { x, y, hit: near[0] };
    };
    const goTo = (x, y) => {
      geometry(plane).voxel(x, y).forEach((v, n) => { state.at[along[n]] = clamp(Math.round(v), 0, shape[along[n]] - 1); });
      redraw();
    };
    let dragging = false;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      const { x, y, hit } = under(event);
      canvas.focus({ preventScroll: true });
      if (hit) { select(hit.lesion !== undefined ? { lesion: hit.lesion } : { truth: hit.truth }); return; }
      dragging = state.zoom === 1;                        // zoomed, the picture follows the crosshair: one step a click
      if (dragging) canvas.setPointerCapture(event.pointerId);
      goTo(x, y);
    });
    canvas.addEventListener("pointerup", () => { dragging = false; });
    canvas.addEventListener("pointercancel", () => { dragging = false; });
    canvas.addEventListener("pointermove", (event) => {
      const { x, y, hit } = under(event), tip = $("tip");
      if (dragging) goTo(x, y);
      tip.hidden = !hit || dragging;
      canvas.style.cursor = hit ? "pointer" : "crosshair";
      if (tip.hidden) return;
      tip.textContent = describe(hit);
      tip.style.left = `${Math.min(event.clientX + 16, innerWidth - tip.offsetWidth - 8)}px`;
      tip.style.top = `${Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8)}px`;
    });
    canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; });
    let turned = 0;
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey) return;
      event.preventDefault();
      turned += event.deltaMode ? event.deltaY * 40 : event.deltaY;
      const slices = Math.trunc(turned / 40);
      turned -= slices * 40;
      if (slices) move(plane.across, -slices);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const sideways = state.flip ? -1 : 1;
      const moves = {
        ArrowLeft: [plane.right, -sideways], ArrowRight: [plane.right, sideways], ArrowUp: [plane.up, 1], ArrowDown: [plane.up, -1],
        PageUp: [plane.across, 1], PageDown: [plane.across, -1],
      }[event.key];
      if (!moves || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      move(moves[0], moves[1] * (event.shiftKey ? 5 : 1));
    });
  }

  const setThreshold = (value) => { state.threshold = value; $("threshold").value = value; update(); };
  $("threshold").addEventListener("input", () => { state.threshold = +$("threshold").value; update(); });
  $("threshold-reset").addEventListener("click", () => setThreshold(data.threshold));
  $("heat").addEventListener("change", () => { state.heat = $("heat").checked; redraw(); });
  $("opacity").addEventListener("input", () => { state.opacity = $("opacity").value / 100; redraw(); });
  $("brightness").addEventListener("input", () => { state.brightness = $("brightness").value / 100; redraw(); });
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  function choose(name, value) {
    state[name] = name === "flip" ? value === 1 : value;
    for (const button of document.querySelectorAll(`[data-${name}]`)) button.setAttribute("aria-pressed", String(+button.dataset[name] === value));
    redraw();
  }
  for (const name of ["zoom", "flip"]) {
    for (const button of document.querySelectorAll(`[data-${name}]`)) button.addEventListener("click", () => choose(name, +button.dataset[name]));
  }
  for (const box of document.querySelectorAll("[data-show]")) {
    box.addEventListener("change", () => { state.shown[box.dataset.show] = box.checked; redraw(); });
  }
  const body = document.querySelector("#lesion-table tbody");
  body.addEventListener("click", (event) => { const row = event.target.closest("tr"); if (row) select(choiceOf(row), true); });
  body.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr"), by = { ArrowDown: 1, ArrowUp: -1, Home: -1e9, End: 1e9 }[event.key];
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); select(choiceOf(row), true); }
    else if (by) { event.preventDefault(); step(by, true); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const nudge = (by) => setThreshold(clamp(Math.round((state.threshold + by) * 100) / 100, 0, +$("threshold").max));
    const action = {
      n: () => step(1), p: () => step(-1), h: () => $("heat").click(), z: () => choose("zoom", { 1: 2, 2: 4, 4: 1 }[state.zoom]),
      "[": () => nudge(-0.01), "]": () => nudge(0.01),
    }[event.key];
    if (action) { event.preventDefault(); action(); }
  });
  new ResizeObserver(redraw).observe($("planes"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { updateChart(); redraw(); });

  // ---- start -----------------------------------------------------------------------------------------------------
  rematch();
  if (lesions.length) {
    chartLook();
    await Plotly.newPlot(chart, figure.data, figure.layout, { displayModeBar: false, responsive: true, doubleClick: false });
    chart.on("plotly_click", (event) => {
      const n = event.points[0].pointIndex;
      if (n >= kept) setThreshold(Math.floor(lesions[n].alpha * 1000) / 1000);   // a pale bar: bring it in first
      select({ lesion: n });
    });
  } else {
    chart.textContent = "No candidates.";
    chart.style.height = "auto";
  }
  update();
  if (kept) select({ lesion: 0 });
  document.body.dataset.ready = "true";
})();
