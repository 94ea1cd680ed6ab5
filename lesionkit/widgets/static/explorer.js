// The explorer of a detection on canvases: its parts on one page, the controls, the keys, and when what is drawn. It runs on
// anything that has the small interface of an anywidget model (get, on, send): a kernel, or the recording in a page.

const KEYS = [
  ["→ ←", "one phase on, back (Shift: a whole step)"], ["Home End", "start, end"], ["Space", "play, pause"],
  ["n", "next step that keeps a lesion"], ["a", "next false alarm"], ["m", "next missed lesion"], ["s", "show or hide the answer"],
  ["[ ]", "threshold down, up"], ["r", "residual or heatmap"], ["f", "follow the peak"], ["+ − 0", "zoom in, out, whole image"], ["?", "this list"],
];
const MOUSE = [
  ["click, drag", "crosshair"], ["wheel", "zoom at the pointer (click the plane first, or hold Ctrl)"], ["Shift + wheel", "other slice (also Page Up, Page Down)"],
  ["Shift + drag", "move the picture (also the middle button)"], ["right drag", "across: brightness; up: contrast (also Alt + drag)"], ["double click", "whole image, plain greys"],
];
const ABOUT = [
  ["alpha", "the probability that a lesion exists at a place, from fitting a Gaussian to the heatmap there. The heatmap counts lesions: its sum over a lesion is that lesion's alpha."],
  ["rings", "sections of a ball of 2 sigma around each lesion: widest in the slice through its centre."],
  ["answer", "hits, false alarms and missed lesions are told at the end of the search, or with Show answer: predict them first."],
  ["sides", "follow the image file's header; R is the patient's right."],
];

class Explorer {
  constructor(model, el) {
    this.model = model;
    this.drawn = 0;
    this.store = new Store(model, (now) => this.redraw(now));
    this.root = make("div.lk", { tabIndex: -1 }, el);
    this.root.classList.toggle("lk-compact", model.get("compact"));
    this.build();
    this.handlers = [
      ["change:scene", () => this.load()], ["change:frame", () => this.store.answered()],
      ["change:trajectory", () => this.redraw()], ["change:view", () => this.redraw()],
    ];
    for (const [event, act] of this.handlers) model.on(event, act);
    this.resizer = new ResizeObserver(() => { this.planes.fitScreen(); this.redraw(); });
    this.resizer.observe(this.root);
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.load();
  }
  async load() {
    try { await this.planes.load(); } catch (error) { this.broken = `The volumes could not be unpacked (${error.message}); a browser of 2023 or later is needed.`; }
    this.redraw();
  }
  destroy() {
    for (const [event, act] of this.handlers) this.model.off?.(event, act);
    this.resizer.disconnect();
    this.store.close();
  }

  // ---- elements --------------------------------------------------------------------------------------------------
  build() {
    const { store, root } = this, head = make("div.lk-head", {}, root);
    this.title = make("strong", {}, head);
    this.status = make("span.lk-status", { "aria-live": "polite" }, head);
    this.score = make("span.lk-score", { "aria-live": "polite" }, head);

    this.walkRow = make("div.lk-row.lk-walk", { role: "group", "aria-label": "Steps of the search" }, root);
    const group = make("span.lk-buttons", {}, this.walkRow), jumps = make("span.lk-buttons", {}, this.walkRow);
    const button = (parent, text, title, key, act) => {
      const b = make("button", { type: "button", textContent: text, title: `${title} (${key})`, "aria-label": title }, parent);
      b.addEventListener("click", act);
      return b;
    };
    button(group, "|◂", "to the start", "Home", () => store.goTo(-1));
    button(group, "◂◂", "one step back", "Shift+←", () => store.walk(-1, true));
    button(group, "◂", "one phase back", "←", () => store.walk(-1));
    this.playButton = button(group, "▶", "play or pause", "Space", () => store.ask("toggle_playing"));
    button(group, "▸", "one phase on", "→", () => store.walk(1));
    button(group, "▸▸", "one step on", "Shift+→", () => store.walk(1, true));
    button(group, "▸|", "to the end", "End", () => store.goTo(1e9));
    this.jumps = { kept: button(jumps, "next kept", "next step that keeps a lesion", "n", () => store.jump("kept")) };
    this.jumps.fp = button(jumps, "next false alarm", "next false alarm", "a", () => store.jump("fp"));
    this.jumps.fn = button(jumps, "next missed", "next missed lesion", "m", () => store.jump("fn"));
    this.answer = this.check(this.walkRow, "answer", "show answer", (v) => store.ask("show_answer", v, { answer: v }));
    this.cursor = this.slider(this.walkRow, "cursor", "", -1, 1, 1, (v) => store.goTo(v), true, "position in the search");
    this.speed = this.slider(this.walkRow, "speed", "speed", 1, 30, 1, (v) => store.ask("set_speed", v));

    const tune = make("div.lk-row", { role: "group", "aria-label": "Settings" }, root);
    this.threshold = this.slider(tune, "threshold", "threshold", 0, 1, 0.0001, (v) => store.setThreshold(v), true);
    this.sigma = this.slider(tune, "sigma", "sigma (voxels)", 0.5, 4, 0.05, (v) => store.ask("set_sigma", this.sigmas ? this.sigmas[v] : v));
    this.window = this.slider(tune, "window", "fit window (voxels)", 3, 15, 2, (v) => store.ask("set_window", v));
    this.mode = this.select(tune, "mode", "search", { joint: "joint refit", paper: "paper's loop" }, (v) => store.ask("set_mode", v));
    this.overlay = this.select(tune, "overlay", "show", { heatmap: "heatmap", residual: "residual (signed)", label: "label of the truth", none: "image only" }, (v) => store.look({ overlay: v }));
    this.cover = this.slider(tune, "opacity", "opacity", 0, 1, 0.05, (v) => store.look({ opacity: v }));
    this.follow = this.check(tune, "follow", "follow the peak", (v) => store.ask("set_follow", v, { follow: v }));
    this.flip = this.check(tune, "radiological", "radiological", (v) => store.look({ radiological: v }));
    const view = make("span.lk-buttons", {}, tune);
    button(view, "−", "zoom out", "−", () => this.planes.zoomBy(1 / 1.5));
    button(view, "+", "zoom in at the crosshair", "+", () => this.planes.zoomBy(1.5));
    button(view, "whole", "whole image, plain greys", "0", () => this.planes.reset());
    this.helpButton = button(make("span.lk-buttons", {}, head), "?", "keys, mouse, and how to read this", "?", () => this.showHelp());

    this.help = make("div.lk-help", { hidden: true, tabIndex: -1, role: "dialog", "aria-label": "Keys, mouse, and how to read this" }, root);
    for (const [name, lines] of [["Keys", KEYS], ["Mouse, on a plane", MOUSE], ["How to read this", ABOUT]]) {
      const part = make("div", {}, this.help), list = (make("h4", { textContent: name }, part), make("dl", {}, part));
      for (const [term, text] of lines) { make("dt", { textContent: term }, list); make("dd", { textContent: text }, list); }
    }

    this.planes = new Planes(store, root);
    this.legend = make("div.lk-legend", {}, root);
    const charts = make("div.lk-charts", {}, root), panels = ["", ".lk-profile", ".lk-list"].map((name) => make(`div.lk-panel${name}`, {}, charts));
    this.bars = new Bars(store, panels[0]);
    this.profile = new Profile(store, this.planes, panels[1]);
    this.table = new LesionTable(store, panels[2]);
    this.error = make("div.lk-error", { role: "alert", hidden: true }, root);
  }
  slider(parent, name, label, min, max, step, act, wide, aria = label) {
    const box = make(wide ? "label.lk-wide" : "label", {}, parent);
    make("span", { textContent: label }, box);
    const input = make("input", { type: "range", min, max, step, "aria-label": aria }, box), output = make("output", {}, box);
    input.dataset.name = name;
    input.addEventListener("input", () => act(+input.value));
    return { box, input, output };
  }
  select(parent, name, label, options, act) {
    const box = make("label", {}, parent);
    make("span", { textContent: label }, box);
    const input = make("select", { "aria-label": label }, box);
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
  showHelp() {
    this.help.hidden = !this.help.hidden;
    this.helpButton.setAttribute("aria-pressed", !this.help.hidden);
    (this.help.hidden ? this.root : this.help).focus({ preventScroll: true });
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const { store, view = store.view } = this, inputs = ["INPUT", "SELECT"].includes(event.target.tagName);
    if (inputs && (event.target.tagName === "SELECT" || event.key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(event.key) || (event.key === " " && event.target.type === "checkbox"))) return;
    if (event.key === " " && event.target.tagName === "BUTTON") return;
    const { frame } = store, answer = () => { if (frame.truth) store.ask("show_answer", !frame.answer, { answer: !frame.answer }); };
    const acts = {
      ArrowRight: () => store.walk(1, event.shiftKey), ArrowLeft: () => store.walk(-1, event.shiftKey),
      Home: () => store.goTo(-1), End: () => store.goTo(1e9), " ": () => store.ask("toggle_playing"),
      n: () => store.jump("kept"), a: () => store.jump("fp"), m: () => store.jump("fn"), s: answer,
      "[": () => store.setThreshold(frame.threshold - 0.02), "]": () => store.setThreshold(frame.threshold + 0.02),
      f: () => store.ask("set_follow", !frame.follow), r: () => store.look({ overlay: view.overlay === "residual" ? "heatmap" : "residual" }),
      "+": () => this.planes.zoomBy(1.5), "=": () => this.planes.zoomBy(1.5), "-": () => this.planes.zoomBy(1 / 1.5), 0: () => this.planes.reset(),
      "?": () => this.showHelp(), Escape: () => { if (!this.help.hidden) this.showHelp(); },
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault(); event.stopPropagation();
    act();
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
    const { store, planes } = this, { frame } = store, { ready } = planes, full = !store.compact;
    if (ready) {
      planes.draw();
      this.bars.draw();
      if (full && this.store.stepped) this.profile.draw();
    }
    this.say();
    if (!ready) return;
    planes.say();
    if (full) this.table.draw();
    this.drawn += 1;
    Object.assign(this.root.dataset, { drawn: this.drawn, ack: this.model.get("frame").ack, cursor: frame.cursor, position: frame.position.map((x) => x.toFixed(2)).join(" "), zoom: planes.zoom.toFixed(2) });
  }

  say() {
    const put = (control, value, text, range = {}) => {
      Object.assign(control.input, range);
      if (document.activeElement !== control.input || +control.input.value !== value) control.input.value = value;
      control.output.textContent = text;
    };
    const { store } = this, { scene, frame, view, now, trajectory } = store, { steps } = trajectory, total = steps.length;
    this.title.textContent = scene.title;
    this.status.textContent = trajectory.status[frame.cursor + 1];
    this.status.classList.toggle("lk-busy", frame.busy);
    this.sayScore(frame, now);
    this.walkRow.hidden = this.status.hidden = !total;
    this.root.classList.toggle("lk-given", !total);
    this.playButton.textContent = frame.playing ? "❚❚" : "▶";
    this.playButton.setAttribute("aria-pressed", frame.playing);
    for (const name of ["fp", "fn"]) this.jumps[name].hidden = !frame.truth;
    this.answer.box.hidden = !frame.truth;
    this.answer.input.checked = frame.answer;
    put(this.cursor, frame.cursor, `${frame.cursor + 1}/${3 * total}`, { max: Math.max(3 * total - 1, -1) });
    put(this.speed, frame.speed, `${number(frame.speed, 0)}/s`);
    this.sigmas = scene.sigmas;
    const { sigma } = frame;
    if (this.sigmas) put(this.sigma, this.sigmas.indexOf(sigma), number(sigma, 2), { min: 0, max: this.sigmas.length - 1, step: 1 });
    else if (typeof sigma === "number") put(this.sigma, sigma, number(sigma, 2), { min: 0.5, max: Math.max(4, sigma), step: 0.05 });
    else this.sigma.output.textContent = (Array.isArray(sigma) ? sigma : trajectory.sigma).map((x) => number(x, 2)).join(" ");
    put(this.window, frame.window, `${frame.window}`);
    put(this.threshold, frame.threshold, number(frame.threshold, 3), { max: store.highest });
    this.mode.input.value = frame.mode;
    this.overlay.input.value = view.overlay;
    this.overlay.input.options[1].disabled = !total;
    this.overlay.input.options[2].disabled = !frame.truth;
    put(this.cover, view.opacity, "");
    this.follow.input.checked = frame.follow;
    this.flip.input.checked = view.radiological;
    for (const control of [this.window, this.cover, this.follow]) control.box.hidden = store.compact;
    for (const [control, name] of [[this.sigma, "set_sigma"], [this.window, "set_window"], [this.mode, "set_mode"]]) control.box.hidden ||= !store.can(name) || !total;
    this.sigma.box.hidden ||= this.sigmas?.length === 1;
    this.follow.box.hidden ||= !total;
    this.flip.box.hidden = !scene.anatomical;
    this.error.textContent = this.broken || frame.error;
    this.error.hidden = !this.error.textContent;
    this.sayLegend(frame, now, view, changesAt(trajectory, frame.cursor).length > 0);
  }

  sayScore(frame, now) {
    const chips = [], so = this.store.ended ? "" : " so far", many = (n, one, more = `${one}s`) => `${n} ${n === 1 ? one : more}`;
    if (frame.truth && frame.answer) {
      chips.push(["tp", many(now.tp, "hit")], ["fp", many(now.fp, "false alarm")], ["fn", `${now.fn} missed${so}`], ["", `precision ${number(now.precision, 2)}`], ["", `recall ${number(now.recall, 2)}`], ["", `F1 ${number(now.f1, 2)}`]);
    } else {
      const sum = [...now.lesions].reduce((total, [found, values]) => total + (now.marks.get(found).word === "below" ? 0 : clamp(values[3], 0, 1)), 0);
      chips.push(["kept", `${many(now.kept, "lesion")} kept${so}`]);
      if (this.store.stepped) chips.push(["", `sum of alpha ${number(sum, 1)}`]);
      if (frame.truth) chips.push(["", "answer hidden"]);
    }
    if (this.chips === `${chips}`) return;
    this.chips = `${chips}`;
    this.score.replaceChildren();
    for (const [verdict, text] of chips) { const e = make("b", { textContent: text }, this.score); if (verdict) e.style.setProperty("--mark", VERDICTS[verdict].colour); }
  }

  // Every mark that is on the planes now, drawn by what draws it there.
  sayLegend(frame, now, view, changed) {
    const names = [...(frame.truth && frame.answer ? ["tp", "truth", "fp", "fn"] : ["kept"]), "below"];
    if (frame.cursor >= 0 && !this.store.ended) names.push(frame.cursor % 3 ? "fit" : "maximum");
    if (changed) names.push("ghost");
    const radius = RING * this.store.trajectory.sigma[0] * this.store.spacing[0], key = [names, view.overlay, radius].join();
    if (this.legend.dataset.key === key) return;
    this.legend.dataset.key = key;
    this.legend.replaceChildren();
    for (const name of names) {
      const item = make("span", { title: VERDICTS[name].title ?? VERDICTS[name].word }, this.legend), canvas = make("canvas", { "aria-hidden": "true" }, item);
      make("span", { textContent: VERDICTS[name].word }, item);
      const c = prepare(canvas);
      if (c) drawMark(c, name, 13, 10, 6, 6); else this.legend.dataset.key = "";  // out of sight: later
    }
    make("span", { textContent: this.store.stepped ? `ring: 2 sigma, ${number(radius, 1)} mm` : `ring: ${number(radius, 1)} mm` }, this.legend);
    const ends = view.overlay === "residual" ? ["too much subtracted", "left over"] : ["low", "high"];
    if (view.overlay === "none") return;
    const scale = make("span.lk-scale", {}, this.legend);
    make("span", { textContent: ends[0] }, scale); if (view.overlay === "residual") make("i.lk-cold", {}, scale); make("i.lk-warm", {}, scale); make("span", { textContent: ends[1] }, scale);
  }
}

function renderExplorer({ model, el }) {
  const explorer = new Explorer(model, el);
  return () => explorer.destroy();
}
