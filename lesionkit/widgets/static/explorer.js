// The explorer of a detection on canvases: planes, alpha bars, profile, table. It runs on anything that has the small
// interface of an anywidget model (get, on, send): a kernel, or the recording in an exported page.
// Volumes and steps are here, so that moving and stepping draw at once; what they mean is decided where the model lives.

const REACH = 6;   // sigma: where a Gaussian ends, as in the detector
const RING = 2;    // sigma: radius of the rings

class Explorer {
  constructor(model, el) {
    this.model = model;
    this.pending = {};       // what was asked for and is drawn already: cursor, position, threshold
    this.queue = new Map();  // commands that wait: the newest of each kind wins
    this.asked = 0;
    this.flight = null;
    this.zoom = 1;
    this.axis = 0;
    this.drawn = 0;
    this.root = make("div.lk", { tabIndex: -1 }, el);
    this.root.classList.toggle("lk-compact", model.get("compact"));
    this.build();
    this.listen();
    this.load().then(() => this.redraw());
  }

  // ---- state -----------------------------------------------------------------------------------------------------
  get scene() { return this.model.get("scene"); }
  get frame() { return { ...this.model.get("frame"), ...this.pending }; }
  get view() { return this.model.get("view"); }

  async load() {
    const unpack = async (name) => {
      const value = this.model.get(name);
      const bytes = value instanceof Uint8Array ? value : new Uint8Array(value.buffer ?? value, value.byteOffset ?? 0, value.byteLength);
      if (!bytes.length) return null;
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      return await new Response(stream).arrayBuffer();
    };
    const scene = this.scene;
    try {
      const [image, heat] = await Promise.all([unpack("image"), unpack("heat")]);
      if (scene !== this.scene) return;  // another case came meanwhile: it loads itself
      this.image = image && new Uint8Array(image);
      this.heat = new Uint16Array(heat);
      this.loaded = scene;
    } catch (error) {
      this.fail(`The volumes could not be unpacked (${error.message}); a browser of 2023 or later is needed.`);
    }
    this.planes.forEach((plane) => { plane.box.hidden = scene.ndim === 2 && plane.name !== "axial"; });
    this.findTissue();
  }

  findTissue() {
    const { shape } = this.scene, [ni, nj, nk] = shape, low = [ni, nj, nk], high = [0, 0, 0];
    if (this.image) {
      for (let i = 0, o = 0; i < ni; i++) for (let j = 0; j < nj; j++) for (let k = 0; k < nk; k++, o++) {
        if (this.image[o] < 13) continue;
        if (i < low[0]) low[0] = i; if (i > high[0]) high[0] = i;
        if (j < low[1]) low[1] = j; if (j > high[1]) high[1] = j;
        if (k < low[2]) low[2] = k; if (k > high[2]) high[2] = k;
      }
    }
    const found = this.image && high[0] >= low[0];
    this.box = [0, 1, 2].map((a) => (found ? [Math.max(low[a] - 5, 0), Math.min(high[a] + 5, shape[a] - 1)] : [0, shape[a] - 1]));
    const extent = (a) => (this.box[a][1] - this.box[a][0] + 1) * this.scene.spacing[a];
    const shown = this.planes.filter((plane) => !plane.box.hidden);
    this.tallest = Math.max(...shown.map((p) => extent(p.up)));
    this.extent = extent;
    this.grid.style.gridTemplateColumns = shown.map((p) => `minmax(0, ${extent(p.right)}fr)`).join(" ");
    const wide = shown.reduce((sum, p) => sum + extent(p.right), 0);
    this.grid.style.maxWidth = `${Math.round((wide / this.tallest) * (this.model.get("compact") ? 270 : 430))}px`;
    for (const plane of this.planes) {
      plane.canvas.style.aspectRatio = `${extent(plane.right)} / ${this.tallest}`;
      plane.slider.max = this.scene.shape[plane.across] - 1;
    }
  }

  // The lesions after n steps: replayed from what each step changed.
  moment(n) {
    const steps = this.model.get("trajectory");
    if (this.replayed?.of !== steps) this.replayed = { of: steps, upto: 0, all: [new Map()] };
    const { all } = this.replayed;
    while (all.length <= n) {
      const lesions = new Map(all.at(-1)), change = steps.changes[all.length - 1];
      for (const found of change.drop) lesions.delete(found);
      for (const [found, ...values] of change.set) lesions.set(found, values);
      all.push(lesions);
    }
    return all[n];
  }

  // Where the views look at a cursor, if they follow the peak.
  peak(cursor) {
    const step = this.model.get("trajectory").steps[Math.floor(cursor / 3)];
    if (cursor < 0 || !step) return null;
    if (cursor % 3 === 0 || step.mu === null || ["not_converged", "escaped"].includes(step.status)) return step.voxel;
    const moved = cursor % 3 === 2 ? this.moment(step.number + 1).get(step.number) : null;
    return moved ? moved.slice(0, 3) : step.mu;
  }

  // ---- asking ----------------------------------------------------------------------------------------------------
  // One question is under way at a time; of those that wait, the newest of each kind is asked.
  ask(command, value = null, shown = {}) {
    Object.assign(this.pending, shown);
    this.queue.delete(command);
    this.queue.set(command, value);
    this.flush();
    this.redraw(true);
  }

  flush() {
    if (this.flight !== null || !this.queue.size) return;
    const [command, value] = this.queue.entries().next().value;
    this.queue.delete(command);
    this.flight = ++this.asked;
    this.since = performance.now();
    this.model.send({ command, value, ack: this.asked });
    const mine = this.flight;
    setTimeout(() => { if (this.flight === mine) { this.flight = null; this.flush(); } }, 5000);  // an answer got lost
  }

  answered() {
    const frame = this.model.get("frame");
    if (this.flight !== null && frame.ack >= this.flight) {
      this.flight = null;
      if (!this.queue.size) this.pending = {};
      this.flush();
    }
    clearTimeout(this.timer);
    if (frame.playing || frame.busy) this.timer = setTimeout(() => { if (this.flight === null) this.ask("tick"); }, 30);
    this.redraw();
  }

  goTo(cursor) {
    const last = 3 * this.model.get("trajectory").steps.length - 1;
    cursor = clamp(cursor, -1, last);
    const peak = this.frame.follow ? this.peak(cursor) : null;
    const limit = this.scene.shape.map((n) => n * this.scene.stride - 1);
    this.ask("go_to", cursor, { cursor, ...(peak && { position: peak.map((x, a) => clamp(x, 0, limit[a])) }) });
  }
  step(by, whole) {
    const c = this.frame.cursor;
    this.goTo(whole ? (by > 0 ? 3 * Math.floor((c + 1) / 3) + 2 : 3 * Math.floor(c / 3) - 1) : c + by);
  }
  moveTo(position) {
    const p = position.map((x, a) => clamp(x, 0, this.scene.shape[a] * this.scene.stride - 1));
    this.ask("move_to", p.slice(0, this.scene.ndim), { position: p });
  }
  setThreshold(value) {
    const t = clamp(Math.round(value * 200) / 200, 0, this.highest());
    this.ask("set_threshold", t, { threshold: t });
  }
  highest() { return Math.max(1, Math.ceil(10 * Math.max(0, ...this.model.get("trajectory").steps.map((s) => s.alpha ?? 0))) / 10); }
  can(name) { return this.scene.can.includes(name); }

  // ---- elements --------------------------------------------------------------------------------------------------
  build() {
    const head = make("div.lk-head", {}, this.root);
    this.title = make("strong", {}, head);
    this.status = make("span.lk-status", { "aria-live": "polite" }, head);
    this.score = make("span.lk-score", {}, head);

    const walk = make("div.lk-row.lk-walk", { role: "group", "aria-label": "Steps of the search" }, this.root);
    const button = (text, title, act, key) => {
      const b = make("button", { type: "button", textContent: text, title: `${title} (${key})`, "aria-label": title }, walk);
      b.addEventListener("click", act);
      return b;
    };
    button("|◂", "to the start", () => this.goTo(-1), "Home");
    button("◂◂", "one iteration back", () => this.step(-1, true), "Shift+←");
    button("◂", "one phase back", () => this.step(-1), "←");
    this.playButton = button("▶", "play or pause", () => this.ask("toggle_playing"), "Space");
    button("▸", "one phase on", () => this.step(1), "→");
    button("▸▸", "one iteration on", () => this.step(1, true), "Shift+→");
    button("▸|", "to the end", () => this.goTo(1e9), "End");
    this.cursor = this.slider(walk, "cursor", "step", -1, 1, 1, (v) => this.goTo(v), true);
    this.speed = this.slider(walk, "speed", "speed", 1, 30, 1, (v) => this.ask("set_speed", v));

    const tune = make("div.lk-row", { role: "group", "aria-label": "Settings" }, this.root);
    this.sigma = this.slider(tune, "sigma", "sigma (voxels)", 0.5, 4, 0.05, (v) => this.ask("set_sigma", this.sigmas ? this.sigmas[v] : v));
    this.window = this.slider(tune, "window", "fit window", 3, 15, 2, (v) => this.ask("set_window", v));
    this.threshold = this.slider(tune, "threshold", "threshold", 0, 1, 0.005, (v) => this.setThreshold(v), true);
    this.mode = this.select(tune, "mode", "search", { joint: "joint refit", paper: "paper's loop" }, (v) => this.ask("set_mode", v));
    this.overlay = this.select(tune, "overlay", "show", { heatmap: "heatmap", residual: "residual (signed)", label: "label of the truth", none: "image only" }, (v) => this.look({ overlay: v }));
    this.cover = this.slider(tune, "opacity", "opacity", 0, 1, 0.05, (v) => this.look({ opacity: v }));
    this.follow = this.check(tune, "follow", "follow the peak", (v) => this.ask("set_follow", v, { follow: v }));
    this.flip = this.check(tune, "radiological", "radiological", (v) => this.look({ radiological: v }));
    this.zoomBox = this.select(tune, "zoom", "zoom", { 1: "1×", 2: "2×", 4: "4×" }, (v) => { this.zoom = +v; this.redraw(); });

    this.grid = make("div.lk-planes", {}, this.root);
    this.planes = PLANES.map((plane) => {
      const box = make("div.lk-plane", {}, this.grid), place = { ...plane, box, buffer: document.createElement("canvas") };
      place.canvas = make("canvas", { tabIndex: 0, role: "application", "aria-label": `${plane.name} plane; arrow keys move the crosshair, Page Up and Page Down change the slice` }, box);
      place.caption = make("span.lk-caption", {}, box);
      place.slider = make("input", { type: "range", min: 0, max: 1, step: 1, "aria-label": `${plane.name} slice` }, box);
      place.slider.dataset.name = plane.name;
      place.slider.addEventListener("input", () => { const p = [...this.frame.position]; p[plane.across] = +place.slider.value * this.scene.stride; this.moveTo(p); });
      return place;
    });

    this.legend = make("div.lk-legend", { "aria-hidden": "true" }, this.root);
    const charts = make("div.lk-charts", {}, this.root);
    const left = make("div.lk-panel", {}, charts), middle = make("div.lk-panel.lk-profile", {}, charts), right = make("div.lk-panel.lk-list", {}, charts);
    make("h4", { textContent: "Existence probability of each fit" }, left);
    this.bars = make("canvas.lk-bars", { tabIndex: 0, role: "slider", "aria-label": "threshold on alpha; arrow keys up and down move it, click a bar to go to its fit", "aria-orientation": "vertical" }, left);
    const heading = make("h4", { textContent: "Profile through the peak " }, middle);
    this.axisBox = this.select(heading, "axis", "", { 0: "x", 1: "y", 2: "z" }, (v) => { this.axis = +v; this.redraw(); }, "axis of the profile");
    this.profile = make("canvas", { role: "img", "aria-label": "residual, fit and what is left along a line through the current maximum" }, middle);
    make("h4", { textContent: "Lesions" }, right);
    const scroll = make("div.lk-scroll", {}, right);
    this.table = make("table", { role: "grid", "aria-label": "lesions, the highest alpha first; Enter goes to the fit" }, scroll);
    this.error = make("div.lk-error", { role: "alert", hidden: true }, this.root);
  }

  slider(parent, name, label, min, max, step, act, wide) {
    const box = make(wide ? "label.lk-wide" : "label", {}, parent), text = make("span", { textContent: label }, box);
    const input = make("input", { type: "range", min, max, step, "aria-label": label }, box), output = make("output", {}, box);
    input.dataset.name = name;
    input.addEventListener("input", () => act(+input.value));
    return { box, input, output, text };
  }
  select(parent, name, label, options, act, aria = label) {
    const box = make("label", {}, parent);
    make("span", { textContent: label }, box);
    const input = make("select", { "aria-label": aria }, box);
    input.dataset.name = name;
    for (const [value, text] of Object.entries(options)) make("option", { value, textContent: text }, input);
    input.addEventListener("change", () => act(input.value));
    return { box, input };
  }
  check(parent, name, label, act) {
    const box = make("label", {}, parent), input = make("input", { type: "checkbox" }, box);
    input.dataset.name = name;
    make("span", { textContent: label }, box);
    input.addEventListener("change", () => act(input.checked));
    return { box, input };
  }
  look(change) {
    this.model.set("view", { ...this.view, ...change });
    this.model.save_changes();
    this.redraw();
  }
  fail(message) { this.broken = message; this.redraw(); }

  // ---- listening -------------------------------------------------------------------------------------------------
  listen() {
    this.handlers = [
      ["change:scene", () => this.load().then(() => this.redraw())],
      ["change:frame", () => this.answered()],
      ["change:trajectory", () => this.redraw()],
      ["change:view", () => this.redraw()],
    ];
    for (const [event, act] of this.handlers) this.model.on(event, act);
    this.resizer = new ResizeObserver(() => this.redraw());
    this.resizer.observe(this.root);
    this.root.addEventListener("keydown", (event) => this.key(event));
    for (const plane of this.planes) this.pointPlane(plane);
    this.pointBars();
    this.table.addEventListener("click", (event) => { const row = event.target.closest("tr[data-row]"); if (row) this.jump(+row.dataset.row); });
    this.table.addEventListener("keydown", (event) => {
      const row = event.target.closest("tr[data-row]");
      if (!row) return;
      const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
      if (next) next.focus(); else if (event.key === "Enter" || event.key === " ") this.jump(+row.dataset.row); else return;
      event.preventDefault(); event.stopPropagation();
    });
  }

  destroy() {
    for (const [event, act] of this.handlers) this.model.off?.(event, act);
    this.resizer.disconnect();
    clearTimeout(this.timer);
  }

  jump(row) {
    const found = this.model.get("frame").outcome[row][0];
    const cursor = 3 * found + 1, peak = this.peak(cursor);
    this.ask("jump_to_lesion", row, { cursor, ...(this.frame.follow && peak && { position: peak }) });
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const inputs = ["INPUT", "SELECT"].includes(event.target.tagName);
    if (inputs && (event.target.tagName === "SELECT" || event.key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(event.key) || (event.key === " " && event.target.type === "checkbox"))) return;
    const actions = {
      ArrowRight: () => this.step(1, event.shiftKey), ArrowLeft: () => this.step(-1, event.shiftKey),
      Home: () => this.goTo(-1), End: () => this.goTo(1e9), " ": () => this.ask("toggle_playing"),
      "[": () => this.setThreshold(this.frame.threshold - 0.02), "]": () => this.setThreshold(this.frame.threshold + 0.02),
      f: () => this.ask("set_follow", !this.frame.follow), r: () => this.look({ overlay: this.view.overlay === "residual" ? "heatmap" : "residual" }),
    };
    if (event.key === " " && event.target.tagName === "BUTTON") return;
    const act = actions[event.key];
    if (!act) return;
    event.preventDefault(); event.stopPropagation();
    act();
  }

  pointPlane(plane) {
    const { canvas } = plane;
    const go = (event) => {
      const g = this.geometry(plane), p = [...this.frame.position], [r, u] = g.voxel(event.offsetX, event.offsetY);
      p[plane.right] = r; p[plane.up] = u;
      this.moveTo(p);
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); canvas.focus(); go(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1 && canvas.hasPointerCapture(event.pointerId)) go(event); });
    canvas.addEventListener("wheel", (event) => { if (document.activeElement !== canvas) return; event.preventDefault(); this.nudge(plane.across, event.deltaY < 0 ? 1 : -1); }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const sign = this.flipped(plane) ? -1 : 1;
      const moves = { ArrowLeft: [plane.right, -sign], ArrowRight: [plane.right, sign], ArrowUp: [plane.up, 1], ArrowDown: [plane.up, -1], PageUp: [plane.across, 1], PageDown: [plane.across, -1] };
      if (!moves[event.key]) return;
      event.preventDefault(); event.stopPropagation();
      this.nudge(...moves[event.key]);
    });
  }
  nudge(axis, by) {
    const p = [...this.frame.position], s = this.scene.stride;
    p[axis] = (Math.round(p[axis] / s) + by) * s;
    this.moveTo(p);
  }

  pointBars() {
    const { bars } = this;
    let dragging = false;
    const near = (event) => this.barScale && Math.abs(event.offsetY - this.barScale.Y(this.frame.threshold)) < 7;
    const level = (event) => { const { box, top } = this.barScale; return (1 - (event.offsetY - box.top) / box.height) * top; };
    bars.addEventListener("pointerdown", (event) => {
      if (!this.barScale) return;
      if (near(event)) { dragging = true; bars.setPointerCapture(event.pointerId); return; }
      const n = Math.floor(((event.offsetX - this.barScale.box.left) / this.barScale.box.width) * this.barScale.n);
      if (n >= 0 && n < this.barScale.n) this.goTo(3 * n + 1);
    });
    bars.addEventListener("pointermove", (event) => { if (dragging) this.setThreshold(level(event)); else bars.style.cursor = near(event) ? "ns-resize" : "pointer"; });
    bars.addEventListener("pointerup", () => { dragging = false; });
    bars.addEventListener("keydown", (event) => {
      const by = { ArrowUp: 0.01, ArrowDown: -0.01, PageUp: 0.1, PageDown: -0.1 }[event.key];
      if (!by) return;
      event.preventDefault(); event.stopPropagation();
      this.setThreshold(this.frame.threshold + by);
    });
  }

  // ---- drawing ---------------------------------------------------------------------------------------------------
  // What a person moves is drawn at once (with the answer, where a recording gives it at once), but once a frame; all else
  // with the next frame.
  redraw(now = false) {
    const paint = () => { if (this.dirty) this.paint(); };
    this.dirty = true;
    if (now && !this.fresh) { this.fresh = true; queueMicrotask(paint); }
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = this.fresh = false; paint(); });
  }
  paint() {
    this.dirty = false;
    try { this.draw(); } catch (error) { this.error.textContent = `The view failed: ${error.message}`; this.error.hidden = false; throw error; }
  }

  // First the canvases, which ask how large they are, then texts and controls: each change of those costs a new layout.
  draw() {
    const { scene, view } = this, frame = this.frame, steps = this.model.get("trajectory");
    const n = Math.floor((frame.cursor + 1) / 3), ready = this.loaded === scene && this.heat, full = !this.model.get("compact");
    if (ready) {
      const lesions = this.moment(Math.min(n, steps.steps.length)), verdicts = this.verdicts(frame, lesions, n);
      for (const plane of this.planes) if (!plane.box.hidden) this.drawPlane(plane, frame, steps, lesions, verdicts);
      this.drawBars(frame, steps);
      if (full) this.drawProfile(frame, steps, n);
    }
    this.say(frame, steps, view);
    if (!ready) return;
    for (const plane of this.planes) if (!plane.box.hidden) this.sayPlane(plane, frame.position);
    if (full) this.fillTable(frame);
    this.drawn += 1;
    this.root.dataset.drawn = this.drawn;
    this.root.dataset.ack = this.model.get("frame").ack;
    this.root.dataset.cursor = frame.cursor;
    this.root.dataset.position = frame.position.map((x) => x.toFixed(2)).join(" ");
  }

  // What is known of each lesion at the cursor; until the answer is here, the verdict at the end of the search stands in.
  verdicts(frame, lesions, n) {
    const exact = this.model.get("frame"), known = new Map();
    for (const [found, , , , , verdict] of exact.outcome) known.set(found, verdict);
    if (Math.floor((exact.cursor + 1) / 3) === n) [...lesions.keys()].forEach((found, i) => { if (exact.verdicts[i]) known.set(found, exact.verdicts[i]); });
    const result = new Map();
    for (const [found, [, , , alpha]] of lesions) {
      const verdict = known.get(found) ?? "kept";
      result.set(found, alpha < frame.threshold ? "below" : verdict === "below" ? "kept" : verdict);
    }
    return result;
  }

  say(frame, steps, view) {
    const put = (control, value, text, range = {}) => {
      Object.assign(control.input, range);
      if (document.activeElement !== control.input || +control.input.value !== value) control.input.value = value;
      control.output.textContent = text;
    };
    const scene = this.scene, exact = this.model.get("frame");
    this.title.textContent = scene.title;
    const words = ["maximum", "fit", "subtract"], total = steps.steps.length;
    this.status.textContent = exact.cursor === frame.cursor ? exact.status : frame.cursor < 0 ? `start, ${total} steps` : `${Math.floor(frame.cursor / 3) + 1} of ${total}, ${words[frame.cursor % 3]}`;
    this.status.classList.toggle("lk-busy", frame.busy);
    const s = exact.score;
    this.score.replaceChildren();
    const chip = (verdict, text) => { const e = make("b", { textContent: text }, this.score); if (verdict) e.style.setProperty("--mark", VERDICTS[verdict].colour); };
    if (s) {
      chip("tp", `${s.tp} ${s.tp === 1 ? "hit" : "hits"}`); chip("fp", `${s.fp} false`); chip("fn", `${s.fn} missed`);
      chip("", `precision ${number(s.precision, 2)}`); chip("", `recall ${number(s.recall, 2)}`); chip("", `F1 ${number(s.f1, 2)}`);
    } else chip("kept", `${frame.outcome.filter((row) => row[5] !== "below").length} lesions`);

    this.playButton.textContent = frame.playing ? "❚❚" : "▶";
    this.playButton.setAttribute("aria-pressed", frame.playing);
    put(this.cursor, frame.cursor, `${frame.cursor + 1}/${3 * total}`, { max: Math.max(3 * total - 1, -1) });
    put(this.speed, frame.speed, `${number(frame.speed, 0)}/s`);
    this.sigmas = scene.sigmas;
    const sigma = frame.sigma;
    if (this.sigmas) put(this.sigma, this.sigmas.indexOf(sigma), number(sigma, 2), { min: 0, max: this.sigmas.length - 1, step: 1 });
    else if (typeof sigma === "number") put(this.sigma, sigma, number(sigma, 2), { min: 0.5, max: Math.max(4, sigma), step: 0.05 });
    else this.sigma.output.textContent = Array.isArray(sigma) ? sigma.map((x) => number(x, 2)).join(" ") : steps.sigma.map((x) => number(x, 2)).join(" ");
    put(this.window, frame.window, `${frame.window}`);
    put(this.threshold, frame.threshold, number(frame.threshold, 2), { max: this.highest() });
    this.mode.input.value = frame.mode;
    this.overlay.input.value = view.overlay;
    this.overlay.input.options[2].disabled = !frame.truth;
    put(this.cover, view.opacity, "");
    this.follow.input.checked = frame.follow;
    this.flip.input.checked = view.radiological;
    this.axisBox.input.value = this.axis;
    this.axisBox.input.options[2].hidden = scene.ndim === 2;
    for (const control of [this.window, this.cover, this.follow]) control.box.hidden = this.model.get("compact");
    for (const [control, name] of [[this.sigma, "set_sigma"], [this.window, "set_window"], [this.mode, "set_mode"]]) control.box.hidden ||= !this.can(name);
    this.flip.box.hidden = !scene.anatomical;
    const message = this.broken || frame.error;
    this.error.textContent = message;
    this.error.hidden = !message;
    const names = frame.truth ? ["tp", "fp", "fn", "below"] : ["kept", "below"];
    const key = names.join() + view.overlay;
    if (this.legend.dataset.key !== key) {
      this.legend.dataset.key = key;
      this.legend.replaceChildren();
      for (const name of names) { const e = make("span", { textContent: VERDICTS[name].word }, this.legend); e.style.setProperty("--mark", VERDICTS[name].colour); e.className = `lk-${name}`; }
      if (frame.truth) make("span.lk-truth", { textContent: "true centre" }, this.legend);
      make("span.lk-current", { textContent: "current fit (2 sigma)" }, this.legend);
      if (view.overlay === "residual") make("span.lk-scale", { innerHTML: "<i class='lk-cold'></i> too much subtracted <i class='lk-warm'></i> left over" }, this.legend);
      else if (view.overlay !== "none") make("span.lk-scale", { innerHTML: "low <i class='lk-warm'></i> high" }, this.legend);
    }
  }

  flipped(plane) { return this.scene.anatomical && this.view.radiological && plane.right === 0; }

  geometry(plane) {
    const { canvas } = plane, width = canvas.clientWidth, height = canvas.clientHeight, { spacing, stride } = this.scene;
    const at = this.frame.position.map((x) => x / stride);
    const scale = Math.min(height / this.tallest, width / this.extent(plane.right)) * this.zoom;
    const centre = (a) => (this.zoom > 1 ? at[a] : (this.box[a][0] + this.box[a][1]) / 2);
    const sign = this.flipped(plane) ? -1 : 1, sx = scale * spacing[plane.right], sy = scale * spacing[plane.up];
    const cx = centre(plane.right), cy = centre(plane.up);
    return {
      width, height, scale, sign, sx, sy, cx, cy,
      x: (v) => width / 2 + sign * (v / stride - cx) * sx, y: (v) => height / 2 - (v / stride - cy) * sy,
      rx: sx / stride, ry: sy / stride,
      voxel: (x, y) => [(cx + (sign * (x - width / 2)) / sx) * stride, (cy - (y - height / 2) / sy) * stride],
    };
  }

  // Cut a slice: grey 0 to 255, and the overlay as a share of the map's maximum.
  cut(plane, frame, steps, lesions) {
    const { shape, heat_low, heat_high, stride } = this.scene, overlay = this.view.overlay;
    const strides = [shape[1] * shape[2], shape[2], 1], w = shape[plane.right], h = shape[plane.up];
    const slice = clamp(Math.round(frame.position[plane.across] / stride), 0, shape[plane.across] - 1);
    const base = slice * strides[plane.across], dr = strides[plane.right], du = strides[plane.up];
    const grey = this.image ? new Uint8Array(w * h) : null, warm = new Float32Array(w * h);
    const factor = (heat_high - heat_low) / 65535 / this.top, offset = heat_low / this.top, heated = overlay === "heatmap" || overlay === "residual";
    for (let u = 0, k = 0; u < h; u++) {
      for (let r = 0, from = base + u * du; r < w; r++, k++, from += dr) {
        if (grey) grey[k] = this.image[from];
        if (heated) warm[k] = this.heat[from] * factor + offset;
      }
    }
    const add = (mu, alpha) => {
      const { sigma } = steps, away = (slice * stride - mu[plane.across]) / sigma[plane.across];
      if (Math.abs(away) > REACH && shape[plane.across] > 1) return;
      const peak = (alpha * steps.peak * (shape[plane.across] > 1 ? Math.exp(-0.5 * away * away) : 1)) / this.top;
      const range = (a) => [Math.max(Math.ceil((mu[a] - REACH * sigma[a]) / stride), 0), Math.min(Math.floor((mu[a] + REACH * sigma[a]) / stride), shape[a] - 1)];
      const [r0, r1] = range(plane.right), [u0, u1] = range(plane.up);
      for (let u = u0; u <= u1; u++) {
        const du2 = (u * stride - mu[plane.up]) / sigma[plane.up], row = peak * Math.exp(-0.5 * du2 * du2);
        for (let r = r0; r <= r1; r++) { const d = (r * stride - mu[plane.right]) / sigma[plane.right]; warm[u * w + r] += row * Math.exp(-0.5 * d * d); }
      }
    };
    if (overlay === "residual") for (const [x, y, z, alpha] of lesions.values()) add([x, y, z], -alpha);
    if (overlay === "label") for (const point of frame.truth ?? []) add(point, 1);
    return { grey, warm: overlay === "none" ? null : warm, w, h };
  }
  // Paint the slice, unless it is painted already: rings and crosshair lie over it.
  paintPlane(plane, frame, steps, lesions) {
    const { overlay, opacity } = this.view, slice = Math.round(frame.position[plane.across] / this.scene.stride);
    const of = [this.loaded, this.heat, slice, overlay, opacity, ...(overlay === "residual" ? [lesions] : overlay === "label" ? [frame.truth, steps] : [])];
    if (plane.painted?.length !== of.length || plane.painted.some((value, i) => value !== of[i])) {
      const { grey, warm, w, h } = this.cut(plane, frame, steps, lesions);
      paintSlice(plane.buffer, w, h, grey, warm, opacity);
      plane.painted = of;
    }
    return [this.scene.shape[plane.right], this.scene.shape[plane.up]];
  }

  get top() { return Math.max(this.scene.heat_high, 1e-12); }

  drawPlane(plane, frame, steps, lesions, verdicts) {
    const c = prepare(plane.canvas);
    if (!c) return;
    const g = this.geometry(plane), { sigma } = steps, scene = this.scene, across = plane.across, flat = scene.shape[across] === 1;
    c.fillStyle = "#000";
    c.fillRect(0, 0, g.width, g.height);
    const [w, h] = this.paintPlane(plane, frame, steps, lesions);
    c.save();
    c.translate(g.width / 2, g.height / 2);
    c.scale(g.sign, 1);
    c.imageSmoothingEnabled = g.sx < 6;
    c.imageSmoothingQuality = "high";
    c.drawImage(plane.buffer, -(g.cx + 0.5) * g.sx, -(h - g.cy - 0.5) * g.sy, w * g.sx, h * g.sy);
    c.restore();

    const at = frame.position, px = g.x(at[plane.right]), py = g.y(at[plane.up]), gap = Math.max(10, 1.3 * RING * sigma[plane.right] * g.rx);
    c.strokeStyle = "rgba(255,255,255,.34)"; c.lineWidth = 1;
    c.beginPath(); c.moveTo(0, py); c.lineTo(px - gap, py); c.moveTo(px + gap, py); c.lineTo(g.width, py);
    c.moveTo(px, 0); c.lineTo(px, py - gap); c.moveTo(px, py + gap); c.lineTo(px, g.height); c.stroke();

    // the section of the ball of 2 sigma with this plane is a circle, in units of sigma
    const section = (mu) => { const d = flat ? 0 : (at[across] - mu[across]) / sigma[across]; return Math.abs(d) < RING ? Math.sqrt(RING * RING - d * d) : 0; };
    const around = (mu, colour, style) => {
      const k = section(mu);
      if (k > 0) ring(c, g.x(mu[plane.right]), g.y(mu[plane.up]), k * sigma[plane.right] * g.rx, k * sigma[plane.up] * g.ry, colour, style);
    };
    const close = (mu) => flat || Math.abs(at[across] - mu[across]) <= Math.max(RING * sigma[across], 1.5);
    const truth = frame.truth ?? [], found = this.model.get("frame").truth_found ?? [];
    truth.forEach((mu, n) => {
      if (!close(mu)) return;
      if (found[n]) cross(c, g.x(mu[plane.right]), g.y(mu[plane.up]), "#fff");
      else { around(mu, VERDICTS.fn.colour, { dash: [5, 4] }); cross(c, g.x(mu[plane.right]), g.y(mu[plane.up]), VERDICTS.fn.colour); }
    });
    for (const [found_, [x, y, z]] of lesions) {
      const verdict = verdicts.get(found_);
      around([x, y, z], VERDICTS[verdict].colour, { ticks: verdict === "fp", dash: verdict === "below" ? [2, 3] : [], width: verdict === "below" ? 1.2 : 2 });
    }
    const step = frame.cursor >= 0 ? steps.steps[Math.floor(frame.cursor / 3)] : null;
    if (step) {
      const peak = this.peak(frame.cursor);
      if (frame.cursor % 3 > 0 && step.mu) around(peak, "#fff", { width: 2.4 });
      else if (frame.cursor % 3 === 0 && close(step.voxel)) cross(c, g.x(step.voxel[plane.right]), g.y(step.voxel[plane.up]), "#ffd24a", 8);
    }
    c.font = "600 12px system-ui, sans-serif"; c.textBaseline = "middle"; c.fillStyle = "#f5d063";
    if (scene.anatomical) {
      const [l, r] = this.flipped(plane) ? [plane.high[0], plane.low[0]] : [plane.low[0], plane.high[0]];
      c.textAlign = "left"; c.fillText(l, 6, g.height / 2);
      c.textAlign = "right"; c.fillText(r, g.width - 6, g.height / 2);
      c.textAlign = "center"; c.fillText(plane.high[1], g.width < 300 ? g.width - 12 : g.width / 2, 11); c.fillText(plane.low[1], g.width / 2, g.height - 10);  // the caption is on the left
    }
  }

  sayPlane(plane, at) {
    const { scene } = this, across = plane.across;
    const text = scene.ndim === 2 ? "" : scene.anatomical ? `${plane.name} ${plane.axis} = ${number(this.mm(at)[across], 1)} mm` : `${plane.name} · slice ${Math.round(at[across])}`;
    if (plane.caption.textContent !== text) plane.caption.textContent = text;
    if (document.activeElement !== plane.slider) plane.slider.value = Math.round(at[across] / scene.stride);
    plane.slider.hidden = scene.shape[across] === 1;
  }

  mm(p) { const a = this.scene.affine; return [0, 1, 2].map((r) => a[r][0] * p[0] + a[r][1] * p[1] + a[r][2] * p[2] + a[r][3]); }

  drawBars(frame, steps) {
    const { bars } = this, c = prepare(bars), top = this.highest() * 1.05, n = steps.steps.length;
    bars.setAttribute("aria-valuenow", number(frame.threshold, 3)); bars.setAttribute("aria-valuemin", 0); bars.setAttribute("aria-valuemax", this.highest());
    if (!c) return;
    const box = { left: 54, top: 10, width: bars.clientWidth - 64, height: bars.clientHeight - 54 };
    const every = Math.max(1, Math.ceil(n / Math.max(box.width / 32, 1)));
    const xticks = Array.from({ length: n }, (_, i) => i).filter((i) => (i + 1) % every === 0 || (i === 0 && every < 3)).map((i) => [i + 0.5, `${i + 1}`]);
    const { X, Y } = axes(c, bars, box, { x: [0, Math.max(n, 1)], y: [0, top], xlabel: "iteration (click to go there)", ylabel: "alpha", xticks });
    this.barScale = { X, Y, box, n, top };
    const verdict = new Map(this.model.get("frame").outcome.map(([found, , , , alpha, word]) => [found, [alpha, word]]));
    const current = Math.floor(frame.cursor / 3), wide = box.width / Math.max(n, 1), gap = Math.min(2, wide * 0.15);
    steps.steps.forEach((step, i) => {
      const [alpha, word] = verdict.get(i) ?? [step.alpha ?? 0, null], y = Y(clamp(alpha, 0, top));
      const kept = alpha >= frame.threshold, shown = word === null ? null : kept ? (word === "below" ? "kept" : word) : "below";
      c.globalAlpha = shown === null ? 0.5 : kept ? 1 : 0.45;
      c.fillStyle = VERDICTS[shown ?? "below"].colour;
      if (shown === null) { c.strokeStyle = c.fillStyle; c.lineWidth = 1; c.setLineDash([2, 2]); c.strokeRect(X(i) + gap, y, Math.max(wide - 2 * gap, 1), Y(0) - y); c.setLineDash([]); }
      else c.fillRect(X(i) + gap, y, Math.max(wide - 2 * gap, 1), Y(0) - y);
      c.globalAlpha = 1;
      if (i === current && frame.cursor >= 0) { c.fillStyle = "#e0a526"; c.beginPath(); c.moveTo(X(i + 0.5), Y(0) + 1); c.lineTo(X(i + 0.5) - 5, Y(0) + 8); c.lineTo(X(i + 0.5) + 5, Y(0) + 8); c.fill(); c.strokeStyle = "#e0a526"; c.lineWidth = 1.5; c.strokeRect(X(i) + gap, y, Math.max(wide - 2 * gap, 1), Y(0) - y); }
    });
    const { ink, font } = inks(bars), y = Y(frame.threshold);
    c.strokeStyle = ink; c.fillStyle = ink; c.lineWidth = 1.6; c.setLineDash([6, 4]);
    c.beginPath(); c.moveTo(box.left, y); c.lineTo(box.left + box.width, y); c.stroke(); c.setLineDash([]);
    c.beginPath(); c.roundRect(box.left + box.width - 26, y - 5, 26, 10, 5); c.fill();
    c.font = font; c.textAlign = "right"; c.textBaseline = "bottom"; c.fillText(`keep alpha ≥ ${number(frame.threshold, 2)}`, box.left + box.width - 32, y - 3);
  }

  // The residual along a line, after the first n steps.
  line(axis, voxel, from, to, n, steps) {
    const { shape, heat_low, heat_high, stride } = this.scene, strides = [shape[1] * shape[2], shape[2], 1], values = [];
    const lesions = [...this.moment(n).values()];
    for (let v = from; v <= to; v++) {
      const p = [...voxel];
      p[axis] = v * stride;
      const o = p.reduce((sum, x, a) => sum + clamp(Math.round(x / stride), 0, shape[a] - 1) * strides[a], 0);
      let value = (this.heat[o] * (heat_high - heat_low)) / 65535 + heat_low;
      for (const [x, y, z, alpha] of lesions) value -= this.gaussian(p, [x, y, z], alpha, steps);
      values.push(value);
    }
    return values;
  }
  gaussian(p, mu, alpha, steps) {
    let q = 0;
    for (let a = 0; a < this.scene.ndim; a++) { const d = (p[a] - mu[a]) / steps.sigma[a]; if (Math.abs(d) > REACH) return 0; q += d * d; }
    return alpha * steps.peak * Math.exp(-0.5 * q);
  }

  drawProfile(frame, steps, n) {
    const step = frame.cursor >= 0 ? steps.steps[Math.floor(frame.cursor / 3)] : null, { spacing, stride, shape } = this.scene;
    if (!step) {
      const c = prepare(this.profile);
      if (!c) return;
      const { ink, font } = inks(this.profile);
      c.font = font; c.fillStyle = ink; c.globalAlpha = 0.6; c.textAlign = "center";
      c.fillText("step on to see the first maximum", this.profile.clientWidth / 2, this.profile.clientHeight / 2);
      c.globalAlpha = 1;
      return;
    }
    const a = Math.min(this.axis, this.scene.ndim - 1), reach = Math.max(Math.ceil(5 * steps.sigma[a]), 5), at = Math.round(step.voxel[a] / stride);
    const from = Math.max(at - Math.ceil(reach / stride), 0), to = Math.min(at + Math.ceil(reach / stride), shape[a] - 1);
    const x = Array.from({ length: to - from + 1 }, (_, i) => ((from + i) * stride - step.voxel[a]) * (spacing[a] / stride));
    const before = this.line(a, step.voxel, from, to, step.number, steps), after = this.line(a, step.voxel, from, to, step.number + 1, steps);
    const fine = [], fit = [];
    if (step.mu) for (let v = from; v <= to; v += 0.2) { const p = [...step.voxel]; p[a] = v * stride; fine.push((v * stride - step.voxel[a]) * (spacing[a] / stride)); fit.push(this.gaussian(p, step.mu, step.alpha, steps)); }
    const all = [...before, ...after, ...(frame.cursor % 3 ? fit : []), 0], high = Math.max(...all) * 1.08 || 1, low = Math.min(...all) * 1.08;
    const [w0, w1] = step.window[a], phase = frame.cursor % 3;
    lineChart(this.profile, {
      x: [x[0], x.at(-1)], y: [low, high], xlabel: "mm from the maximum", ylabel: "mass per voxel",
      band: [(w0 - 0.5 - step.voxel[a]) * (spacing[a] / stride), (w1 - 0.5 - step.voxel[a]) * (spacing[a] / stride)],
      series: [
        { name: "residual before", x, y: before, colour: "#4aa8ff" },
        ...(phase > 0 && step.mu ? [{ name: "fit", x: fine, y: fit, colour: "#e0a526", fill: true }] : []),
        ...(phase > 1 ? [{ name: "after", x, y: after, colour: "#f2725c", dash: [5, 3] }] : []),
      ],
    });
  }

  fillTable(frame) {
    const exact = this.model.get("frame"), { outcome } = exact, key = JSON.stringify(outcome);
    if (this.tableKey !== key) {
      this.tableKey = key;
      const units = this.scene.anatomical ? " mm" : "", names = ["x", "y", "z"].slice(0, this.scene.ndim);
      const head = `<thead><tr><th>#</th><th></th><th>alpha</th>${names.map((a) => `<th>${a}${units}</th>`).join("")}</tr></thead>`;
      const order = outcome.map((_, row) => row).sort((p, q) => outcome[q][4] - outcome[p][4]);
      const body = order.map((row, place) => {
        const [found, x, y, z, alpha, verdict] = outcome[row], p = this.scene.anatomical ? this.mm([x, y, z]) : [x, y, z];
        const cells = p.slice(0, this.scene.ndim).map((v) => `<td>${number(v, 1)}</td>`).join("");
        return `<tr data-row="${row}" data-found="${found}" data-lm-suppress-shortcuts="true" tabindex="${place ? -1 : 0}" class="lk-${verdict}"><td>${place + 1}</td><td class="lk-word">${VERDICTS[verdict].word}</td><td>${number(alpha, 2)}</td>${cells}</tr>`;
      });
      this.table.innerHTML = `${head}<tbody>${body.join("")}</tbody>`;
    }
    const current = frame.cursor >= 0 ? Math.floor(frame.cursor / 3) : -1;
    for (const row of this.table.querySelectorAll("tr[data-row]")) row.setAttribute("aria-selected", +row.dataset.found === current);
  }
}

function renderExplorer({ model, el }) {
  const explorer = new Explorer(model, el);
  return () => explorer.destroy();
}
