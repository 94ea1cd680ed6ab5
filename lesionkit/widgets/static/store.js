// One state for all parts of the view: what the model says, what was asked for and is drawn already, and what follows.

class Store {
  constructor(model, changed) {
    this.model = model;
    this.changed = changed;  // draw: at once (true), or with the next frame
    this.pending = {};       // what was asked for and is drawn already: cursor, position, threshold
    this.queue = new Map();  // commands that wait: the newest of each kind wins
    this.asked = 0;
    this.flight = null;
    this.chosen = null;      // the row of the table that was clicked: "l3" a lesion, "t1" a true point
  }
  get scene() { return this.model.get("scene"); }
  get frame() { return { ...this.model.get("frame"), ...this.pending }; }
  get view() { return this.model.get("view"); }
  get trajectory() { return this.model.get("trajectory"); }
  get compact() { return this.model.get("compact"); }
  get spacing() { return this.scene.spacing.map((s) => s / this.scene.stride); }
  get last() { return lastOf(this.trajectory); }
  get step() { const { cursor } = this.frame; return cursor < 0 ? null : this.trajectory.steps[Math.floor(cursor / 3)]; }
  can(name) { return this.scene.can.includes(name); }

  // The lesions of this moment and what may be said of them; hits and misses only once the answer is shown.
  get now() {
    const frame = this.frame, { trajectory } = this, n = stepsDone(frame.cursor), truth = frame.answer ? frame.truth : null;
    const key = [trajectory, n, frame.threshold, truth && JSON.stringify(truth)];
    if (!this.judged || key.some((value, i) => value !== this.judged.key[i])) {
      const lesions = moment(trajectory, n);
      this.judged = { key, lesions, ...judge(lesions, { ...frame, truth }, this.spacing) };
    }
    return this.judged;
  }
  get stepped() { return this.scene.score === "alpha"; }  // else the lesions are connected components
  get ended() { return this.frame.cursor >= this.last; }
  // The end of the alpha axis: by lesions, not by fits that were thrown away.
  get highest() {
    const steps = this.trajectory;
    if (this.top?.of !== steps) {
      const alphas = [...steps.start.map((row) => row[4]), ...steps.changes.flatMap((change) => change.set.map((row) => row[4]))];
      this.top = { of: steps, value: Math.max(this.stepped ? 0.5 : 0, ...alphas, this.model.get("frame").threshold) };
      this.top.value = this.stepped ? Math.ceil(10 * this.top.value - 1e-9) / 10 : this.top.value * 1.02;
    }
    return this.top.value;
  }

  // One question is under way at a time; of those that wait, the newest of each kind is asked.
  ask(command, value = null, shown = {}) {
    Object.assign(this.pending, shown);
    this.queue.delete(command);
    this.queue.set(command, value);
    this.flush();
    this.changed(true);
  }
  flush() {
    if (this.flight !== null || !this.queue.size) return;
    const [command, value] = this.queue.entries().next().value, mine = ++this.asked;
    this.queue.delete(command);
    this.flight = mine;
    this.model.send({ command, value, ack: mine });
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
    this.changed();
  }

  inside(p) { return p.map((x, a) => clamp(x, 0, this.scene.shape[a] * this.scene.stride - 1)); }
  goTo(cursor) {
    cursor = clamp(cursor, -1, this.last);
    const look = this.frame.follow ? this.trajectory.look[cursor + 1] : null;
    this.chosen = null;
    this.ask("go_to", cursor, { cursor, ...(look && { position: this.inside(look) }), ...(cursor === this.last && cursor >= 0 && { answer: !!this.frame.truth }) });
  }
  walk(by, whole) {
    const c = this.frame.cursor;
    this.goTo(whole ? (by > 0 ? 3 * stepsDone(c) + 2 : 3 * Math.floor(c / 3) - 1) : c + by);
  }
  jump(kind) { this.chosen = null; this.ask("jump_to_next", kind); }
  moveTo(position) {
    const p = this.inside(position);
    this.ask("move_to", p.slice(0, this.scene.ndim), { position: p });
  }
  setThreshold(value) {
    const t = clamp(Math.round(value * 1e4) / 1e4, 0, this.highest);
    this.ask("set_threshold", t, { threshold: t });
  }
  look(change) {
    this.model.set("view", { ...this.view, ...change });
    this.model.save_changes();
    this.changed();
  }
  mm(p) { const a = this.scene.affine; return [0, 1, 2].map((r) => a[r][0] * p[0] + a[r][1] * p[1] + a[r][2] * p[2] + a[r][3]); }
  close() { clearTimeout(this.timer); }
}
