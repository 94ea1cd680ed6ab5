// Three linked planes: slices with what lies over them, rings, crosshair, letters, scale bar; pointers and keys on them.

const REACH = 6;   // sigma: where a Gaussian ends, as in the detector
const RING = 2;    // sigma: radius of every ring
const CLOSEST = 12;  // the most that is zoomed in

async function unpackVolumes(model) {
  const bytesOf = (value) => (value instanceof Uint8Array ? value : new Uint8Array(value.buffer ?? value, value.byteOffset ?? 0, value.byteLength));
  const inflate = async (bytes) => await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  const image = bytesOf(model.get("image")), heat = bytesOf(model.get("heat")), { shape, mosaic } = model.get("scene");
  const grey = !image.length ? null : mosaic ? await fromMosaic(image, shape, mosaic) : new Uint8Array(await inflate(image));
  return [grey, new Uint16Array(await inflate(heat))];
}

// Slices k that lie beside each other in one picture.
async function fromMosaic(bytes, [ni, nj, nk], columns) {
  const picture = await createImageBitmap(new Blob([bytes], { type: "image/webp" }), { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(picture.width, picture.height), c = canvas.getContext("2d", { willReadFrequently: true });
  c.drawImage(picture, 0, 0);
  const { data, width } = c.getImageData(0, 0, picture.width, picture.height), grey = new Uint8Array(ni * nj * nk);
  for (let k = 0; k < nk; k++) {
    const x = (k % columns) * ni, y = Math.floor(k / columns) * nj;
    for (let j = 0; j < nj; j++) for (let i = 0, from = 4 * ((y + j) * width + x); i < ni; i++, from += 4) grey[(i * nj + j) * nk + k] = data[from];
  }
  return grey;
}

class Planes {
  constructor(store, parent) {
    this.store = store;
    this.zoom = 1;
    this.centre = null;   // where a zoomed view looks, voxels as sent; null: at the middle of the tissue
    this.grid = make("div.lk-planes", {}, parent);
    this.readout = make("div.lk-readout", {}, parent);
    this.all = PLANES.map((plane) => {
      const box = make("div.lk-plane", {}, this.grid), place = { ...plane, box, buffer: document.createElement("canvas") };
      place.canvas = make("canvas", { tabIndex: 0, role: "application", "aria-label": `${plane.name} plane; arrow keys move the crosshair, Page Up and Page Down change the slice` }, box);
      place.caption = make("span.lk-caption", {}, box);
      place.slider = make("input", { type: "range", min: 0, max: 1, step: 1, "aria-label": `${plane.name} slice` }, box);
      place.slider.dataset.name = plane.name;
      place.slider.addEventListener("input", () => { const p = [...this.at]; p[plane.across] = +place.slider.value * this.scene.stride; store.moveTo(p); });
      this.listen(place);
      return place;
    });
  }
  get scene() { return this.store.scene; }
  get at() { return this.store.frame.position; }
  get shown() { return this.all.filter((plane) => !plane.box.hidden); }
  get ready() { return this.loaded === this.scene && !!this.heat; }

  async load() {
    const { scene } = this, [image, heat] = await unpackVolumes(this.store.model);
    if (scene !== this.scene) return;  // another case came meanwhile: it loads itself
    Object.assign(this, { image, heat, loaded: scene, zoom: 1, centre: null });
    for (const plane of this.all) plane.box.hidden = scene.ndim === 2 && plane.name !== "axial";
    this.fitTissue();
  }

  // The box of the tissue, or of the hills of a bare map: what the pictures are fitted to.
  fitTissue() {
    const { shape, spacing } = this.scene, [ni, nj, nk] = shape, low = [ni, nj, nk], high = [0, 0, 0];
    for (let i = 0, o = 0; this.image && i < ni; i++) for (let j = 0; j < nj; j++) for (let k = 0; k < nk; k++, o++) {
      if (this.image[o] < 13) continue;
      if (i < low[0]) low[0] = i; if (i > high[0]) high[0] = i;
      if (j < low[1]) low[1] = j; if (j > high[1]) high[1] = j;
      if (k < low[2]) low[2] = k; if (k > high[2]) high[2] = k;
    }
    const found = this.image && high[0] >= low[0];
    this.box = [0, 1, 2].map((a) => (found ? [Math.max(low[a] - 5, 0), Math.min(high[a] + 5, shape[a] - 1)] : [0, shape[a] - 1]));
    this.extent = (a) => (this.box[a][1] - this.box[a][0] + 1) * spacing[a];
    this.tallest = Math.max(...this.shown.map((p) => this.extent(p.up)));
    this.grid.style.gridTemplateColumns = this.shown.map((p) => `minmax(0, ${this.extent(p.right)}fr)`).join(" ");
    for (const plane of this.all) {
      plane.canvas.style.aspectRatio = `${this.extent(plane.right)} / ${this.tallest}`;
      plane.slider.max = shape[plane.across] - 1;
    }
    this.fitScreen();
  }
  // As tall as the window lets them be with everything else in sight.
  fitScreen() {
    if (!this.extent) return;
    const tall = this.store.compact ? 270 : clamp(window.innerHeight - 545, 300, 700), ratio = this.shown.reduce((sum, p) => sum + this.extent(p.right), 0) / this.tallest;
    this.grid.style.maxWidth = `${Math.round(ratio * tall)}px`;
    const root = this.grid.parentElement, rest = window.innerHeight - 342 - Math.min(tall, root.clientWidth / ratio);
    root.style.setProperty("--lk-chart", `${Math.round(this.store.compact ? 120 : clamp(rest, 170, 420))}px`);
  }

  // ---- pointers and keys -----------------------------------------------------------------------------------------
  // Left button: crosshair; middle, or Shift: move the picture; right, or Alt: brightness and contrast; wheel: zoom.
  listen(plane) {
    const { canvas } = plane, { store } = this;
    let drag = null;
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      canvas.focus();
      const how = event.button === 2 || event.altKey ? "window" : event.button === 1 || event.shiftKey ? "pan" : "move";
      drag = { how, x: event.offsetX, y: event.offsetY, centre: this.middle(), window: [...this.window] };
      if (how !== "window") event.preventDefault();
      if (how === "move") this.point(plane, event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!drag) { this.hover = { plane, x: event.offsetX, y: event.offsetY }; this.say(); return; }
      const dx = event.offsetX - drag.x, dy = event.offsetY - drag.y;
      if (drag.how === "move") this.point(plane, event);
      else if (drag.how === "pan") {
        const g = this.geometry(plane), centre = [...drag.centre];
        centre[plane.right] -= (g.sign * dx) / g.sx; centre[plane.up] += dy / g.sy;
        this.centre = centre;
        store.changed(true);
      } else {  // to the right: brighter; up: more contrast
        const [a, b] = drag.window, width = clamp((b - a) * 2 ** (dy / 150), 8, 510), level = (a + b) / 2 - dx * 0.7;
        store.look({ window: [level - width / 2, level + width / 2] });
      }
    });
    canvas.addEventListener("pointerup", () => { drag = null; });
    canvas.addEventListener("pointercancel", () => { drag = null; });
    canvas.addEventListener("pointerleave", () => { this.hover = null; this.say(); });
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return;  // the page scrolls until a plane is clicked
      event.preventDefault();
      if (event.shiftKey) this.nudge(plane.across, (event.deltaY || event.deltaX) < 0 ? 1 : -1);
      else this.zoomAt(plane, event.offsetX, event.offsetY, 1.2 ** (event.deltaY < 0 ? 1 : -1));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const sign = this.flipped(plane) ? -1 : 1;
      const moves = { ArrowLeft: [plane.right, -sign], ArrowRight: [plane.right, sign], ArrowUp: [plane.up, 1], ArrowDown: [plane.up, -1], PageUp: [plane.across, 1], PageDown: [plane.across, -1] };
      if (!moves[event.key]) return;
      event.preventDefault(); event.stopPropagation();
      this.nudge(...moves[event.key]);
    });
  }
  point(plane, event) {
    const p = [...this.at], [r, u] = this.geometry(plane).voxel(event.offsetX, event.offsetY);
    p[plane.right] = r; p[plane.up] = u;
    this.store.moveTo(p);
  }
  nudge(axis, by) {
    const p = [...this.at], s = this.scene.stride;
    p[axis] = (Math.round(p[axis] / s) + by) * s;
    this.store.moveTo(p);
  }
  get window() { return this.store.view.window ?? [0, 255]; }
  middle() { return this.centre ?? this.box.map(([a, b]) => (a + b) / 2); }
  // Zoom all planes by a factor; what is under the pointer stays there.
  zoomAt(plane, x, y, factor) {
    const zoom = clamp(this.zoom * factor, 1, CLOSEST), g = this.geometry(plane), centre = [...this.middle()], keep = this.zoom / zoom;
    const [r, u] = g.voxel(x, y).map((v) => v / this.scene.stride);
    centre[plane.right] = r + (centre[plane.right] - r) * keep; centre[plane.up] = u + (centre[plane.up] - u) * keep;
    this.centre = zoom > 1 ? centre : null;
    this.zoom = zoom;
    this.store.changed(true);
  }
  zoomBy(factor) {
    const at = this.at.map((x) => x / this.scene.stride), zoom = clamp(this.zoom * factor, 1, CLOSEST);
    this.centre = zoom > 1 ? at : null;
    this.zoom = zoom;
    this.store.changed(true);
  }
  reset() { this.zoom = 1; this.centre = null; this.store.look({ window: [0, 255] }); }

  // ---- drawing ---------------------------------------------------------------------------------------------------
  flipped(plane) { return this.scene.anatomical && this.store.view.radiological && plane.right === 0; }

  geometry(plane) {
    const { canvas } = plane, width = canvas.clientWidth, height = canvas.clientHeight, { spacing, stride } = this.scene, middle = this.middle();
    const scale = Math.min(height / this.tallest, width / this.extent(plane.right)) * this.zoom;
    const sign = this.flipped(plane) ? -1 : 1, sx = scale * spacing[plane.right], sy = scale * spacing[plane.up];
    const cx = middle[plane.right], cy = middle[plane.up];
    return {
      width, height, scale, sign, sx, sy, cx, cy,
      x: (v) => width / 2 + sign * (v / stride - cx) * sx, y: (v) => height / 2 - (v / stride - cy) * sy,
      rx: sx / stride, ry: sy / stride,
      voxel: (x, y) => [(cx + (sign * (x - width / 2)) / sx) * stride, (cy - (y - height / 2) / sy) * stride],
    };
  }

  // Cut a slice: grey 0 to 255, and the overlay as a share of the map's maximum.
  cut(plane, overlay) {
    const { shape, heat_low, heat_high, stride } = this.scene, steps = this.store.trajectory, { sigma } = steps, top = Math.max(heat_high, 1e-12);
    const strides = [shape[1] * shape[2], shape[2], 1], w = shape[plane.right], h = shape[plane.up];
    const slice = clamp(Math.round(this.at[plane.across] / stride), 0, shape[plane.across] - 1);
    const base = slice * strides[plane.across], dr = strides[plane.right], du = strides[plane.up];
    const grey = this.image ? new Uint8Array(w * h) : null, warm = new Float32Array(w * h);
    const factor = (heat_high - heat_low) / 65535 / top, offset = heat_low / top, heated = overlay === "heatmap" || overlay === "residual";
    for (let u = 0, k = 0; u < h; u++) {
      for (let r = 0, from = base + u * du; r < w; r++, k++, from += dr) {
        if (grey) grey[k] = this.image[from];
        if (heated) warm[k] = this.heat[from] * factor + offset;
      }
    }
    const add = (mu, alpha) => {
      const away = (slice * stride - mu[plane.across]) / sigma[plane.across], deep = shape[plane.across] > 1;
      if (Math.abs(away) > REACH && deep) return;
      const peak = (alpha * steps.peak * (deep ? Math.exp(-0.5 * away * away) : 1)) / top;
      const range = (a) => [Math.max(Math.ceil((mu[a] - REACH * sigma[a]) / stride), 0), Math.min(Math.floor((mu[a] + REACH * sigma[a]) / stride), shape[a] - 1)];
      const [r0, r1] = range(plane.right), [u0, u1] = range(plane.up);
      for (let u = u0; u <= u1; u++) {
        const du2 = (u * stride - mu[plane.up]) / sigma[plane.up], row = peak * Math.exp(-0.5 * du2 * du2);
        for (let r = r0; r <= r1; r++) { const d = (r * stride - mu[plane.right]) / sigma[plane.right]; warm[u * w + r] += row * Math.exp(-0.5 * d * d); }
      }
    };
    if (overlay === "residual") for (const [x, y, z, alpha] of this.store.now.lesions.values()) add([x, y, z], -alpha);
    if (overlay === "label") for (const point of this.store.frame.truth ?? []) add(point, 1);
    return { grey, warm: overlay === "none" ? null : warm, w, h };
  }
  // Paint the slice, unless it is painted already: rings and crosshair lie over it.
  paint(plane) {
    const { overlay, opacity } = this.store.view, slice = Math.round(this.at[plane.across] / this.scene.stride), { now, trajectory } = this.store;
    const of = [this.loaded, this.heat, slice, overlay, opacity, ...this.window, ...(overlay === "residual" ? [now.lesions] : overlay === "label" ? [JSON.stringify(this.store.frame.truth), trajectory] : [])];
    if (plane.painted?.length !== of.length || plane.painted.some((value, i) => value !== of[i])) {
      const { grey, warm, w, h } = this.cut(plane, overlay);
      paintSlice(plane.buffer, w, h, grey, warm, opacity, this.window);
      plane.painted = of;
    }
  }

  draw() {
    const at = this.at.map((x) => x / this.scene.stride), moved = this.seen !== `${at}`;
    this.seen = `${at}`;
    if (this.zoom > 1 && moved && this.shown.some((plane) => {  // what is jumped to is brought into view
      const g = this.geometry(plane), x = g.x(this.at[plane.right]), y = g.y(this.at[plane.up]);
      return x < 0 || y < 0 || x > g.width || y > g.height;
    })) this.centre = at;
    for (const plane of this.shown) this.drawPlane(plane);
  }

  drawPlane(plane) {
    const c = prepare(plane.canvas);
    if (!c) return;
    const { store, scene } = this, g = this.geometry(plane), { sigma } = store.trajectory, { across } = plane, flat = scene.shape[across] === 1;
    c.fillStyle = "#000";
    c.fillRect(0, 0, g.width, g.height);
    this.paint(plane);
    const w = scene.shape[plane.right], h = scene.shape[plane.up];
    c.save();
    c.translate(g.width / 2, g.height / 2);
    c.scale(g.sign, 1);
    c.imageSmoothingEnabled = g.sx < 6;
    c.imageSmoothingQuality = "high";
    c.drawImage(plane.buffer, -(g.cx + 0.5) * g.sx, -(h - g.cy - 0.5) * g.sy, w * g.sx, h * g.sy);
    c.restore();

    const { at } = this, px = g.x(at[plane.right]), py = g.y(at[plane.up]), gap = Math.max(10, 1.3 * RING * sigma[plane.right] * g.rx);
    c.strokeStyle = "rgba(255,255,255,.34)"; c.lineWidth = 1;
    c.beginPath(); c.moveTo(0, py); c.lineTo(px - gap, py); c.moveTo(px + gap, py); c.lineTo(g.width, py);
    c.moveTo(px, 0); c.lineTo(px, py - gap); c.moveTo(px, py + gap); c.lineTo(px, g.height); c.stroke();

    // the section of the ball of 2 sigma with this plane is a circle, in units of sigma
    const mark = (name, mu) => {
      const d = flat ? 0 : (at[across] - mu[across]) / sigma[across], k = Math.sqrt(Math.max(RING * RING - d * d, 0));
      if (k > 0) drawMark(c, name, g.x(mu[plane.right]), g.y(mu[plane.up]), k * sigma[plane.right] * g.rx, k * sigma[plane.up] * g.ry);
    };
    const { frame, now, step } = store;
    if (frame.answer) (frame.truth ?? []).forEach((mu, n) => mark(now.hit[n] ? "truth" : "fn", mu));
    for (const { before, after } of changesAt(store.trajectory, frame.cursor)) {
      if (!after || before.slice(0, 3).some((x, a) => Math.abs(x - after[a]) > 0.05)) mark("ghost", before);
    }
    for (const [found, mu] of now.lesions) mark(now.marks.get(found).word, mu);
    if (step && frame.cursor % 3 === 0) mark("maximum", step.voxel);
    else if (step?.mu && !(frame.cursor === store.last)) mark("fit", now.lesions.get(step.number)?.slice(0, 3) ?? step.mu);

    c.font = "600 13px system-ui, sans-serif"; c.textBaseline = "middle";
    if (scene.anatomical) {
      const [left, right] = this.flipped(plane) ? [plane.high[0], plane.low[0]] : [plane.low[0], plane.high[0]];
      c.textAlign = "center";
      for (const [text, x, y] of [[left, 12, g.height / 2], [right, g.width - 12, g.height / 2], [plane.high[1], g.width / 2, g.width < 300 ? 34 : 12], [plane.low[1], g.width / 2, g.height - 12]]) haloed(c, text, x, y, "#f5d063");
    }
    this.drawScale(c, g);
  }
  drawScale(c, g) {
    const mm = [100, 50, 20, 10, 5, 2].find((length) => length * g.scale < 0.3 * g.width) ?? 1, length = mm * g.scale, x = g.width - 12 - length, y = g.height - 12;
    for (const [style, width] of [["rgb(0 0 0 / .8)", 4.5], ["#e6ebf0", 2]]) { c.strokeStyle = style; c.lineWidth = width; c.beginPath(); c.moveTo(x, y); c.lineTo(x + length, y); c.stroke(); }
    c.font = "12px system-ui, sans-serif"; c.textAlign = "right";
    haloed(c, `${mm} mm`, g.width - 12, y - 11, "#e6ebf0");
  }

  // Captions, sliders, and what is under the pointer (else under the crosshair).
  say() {
    if (!this.ready) return;
    const { scene, at } = this, { stride, shape, anatomical } = scene;
    for (const plane of this.shown) {
      const text = scene.ndim === 2 ? "" : anatomical ? `${plane.name} ${plane.axis} = ${number(this.store.mm(at)[plane.across], 1)} mm` : `${plane.name} · slice ${Math.round(at[plane.across])}`;
      if (plane.caption.textContent !== text) plane.caption.textContent = text;
      if (document.activeElement !== plane.slider) plane.slider.value = Math.round(at[plane.across] / stride);
      plane.slider.hidden = shape[plane.across] === 1;
    }
    const p = [...at];
    if (this.hover) {
      const { plane, x, y } = this.hover, [r, u] = this.geometry(plane).voxel(x, y);
      p[plane.right] = r; p[plane.up] = u;
    }
    const v = p.map((x, a) => Math.round(x / stride)), inside = v.every((x, a) => x >= 0 && x < shape[a]), o = (v[0] * shape[1] + v[1]) * shape[2] + v[2];
    const mm = this.store.mm(p).map((x) => number(x, 1)).join(", "), voxel = v.slice(0, scene.ndim).map((x) => x * stride).join(", ");
    const values = !inside ? ["outside the image"] : [
      ...(this.image ? [`image ${number(scene.grey[0] + (this.image[o] / 255) * (scene.grey[1] - scene.grey[0]), scene.grey[1] > 20 ? 0 : 2)}`] : []),
      `heatmap ${((this.heat[o] * (scene.heat_high - scene.heat_low)) / 65535 + scene.heat_low).toPrecision(2)} ${scene.unit}`,
    ];
    this.readout.textContent = [this.hover ? "pointer" : "crosshair", ...(anatomical ? [`x y z ${mm} mm`] : []), `voxel ${voxel}`, ...values].join(" · ");
  }
}
